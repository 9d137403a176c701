# Everything runs in .venv, which the first command builds with pip from constraints.txt.
PY := .venv/bin/python
PYTHON ?= python3
export ELSEWHERE_DATA ?= $(if $(wildcard ../shared/data),$(abspath ../shared/data),)
ROOM ?=

.PHONY: demo test test-long check evidence bench docs clean

demo: .venv/ready
	$(PY) examples/demo.py

test: .venv/ready
	$(PY) -m pytest -m "not long" -n 2 --dist loadfile

test-long: .venv/ready
	$(PY) -m pytest -m long -n 2 --dist loadfile

check: .venv/ready
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	.venv/bin/lint-imports
	$(PY) -m pytest -m "not slow and not browser and not long" -n 2 --dist loadfile

evidence: .venv/ready
	$(PY) benchmarks/evidence.py

bench: .venv/ready
	$(PY) benchmarks/run.py $(ROOM)

docs: .venv/docs
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet

.venv/ready: pyproject.toml constraints.txt
	test -x $(PY) || $(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --disable-pip-version-check --no-warn-script-location -c constraints.txt -e ".[dev]" -e tests/toy_rooms
	touch $@

.venv/docs: .venv/ready
	$(PY) -m pip install --quiet --disable-pip-version-check --no-warn-script-location -c constraints.txt -e ".[docs]"
	touch $@

clean:
	rm -rf .venv results site
