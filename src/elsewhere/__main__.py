from elsewhere.cli import entry

if __name__ == "__main__":
    entry()
