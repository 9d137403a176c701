SEVERITIES=(1,3,5)
def checked(*a): return (),SEVERITIES
def corrupt(*a): raise NotImplementedError
