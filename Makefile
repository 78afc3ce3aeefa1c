# Everything a newcomer needs: `make demo` and `make test` build what they use.
# `make help` lists the targets.

PYTHON ?= python3
VENV ?= .venv
PY := $(VENV)/bin/python
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# Two workers on two cores; override with PYTEST_WORKERS=0 to run in one process.
PYTEST_WORKERS ?= 2
PYTEST := $(PY) -m pytest -q -n $(PYTEST_WORKERS)

SOURCES := setup.py pyproject.toml constraints.txt $(wildcard fastpath/*.pyx fastpath/*.pxd)

.DEFAULT_GOAL := help
.PHONY: help build demo test test-python-build test-slow check sim bench coverage clean

help: ## show this list
	@echo "Arremate: make TARGET"
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|'

$(VENV)/.built: $(SOURCES)
	@./.ci/require $(PYTHON)
	@test -x $(PY) || { echo "creating the environment in $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "installing pinned dependencies (about a minute the first time)"
	@$(PY) -m pip install -q -U -c constraints.txt pip setuptools wheel cython
	@echo "compiling the fast path and installing"
	@$(PY) -m pip install -q -c constraints.txt --no-build-isolation -e ".[test,check,bench]"
	@$(PY) -c "import fastpath; print('fast path:', fastpath.BUILD)"
	@touch $@

build: $(VENV)/.built ## create the environment and compile the extensions

demo: build ## run four nodes with a sample auction on this machine; Ctrl-C removes them
	@$(VENV)/bin/arremate demo --endpoints-file endpoints.json $(ARGS)

test: build ## run the tests, on both builds of the fast path and every database found
	$(PYTEST) -m "not slow" --cov --cov-report= tests
	@$(PY) -m coverage report --include='nodes/core/*,nodes/wire*,nodes/receipt.py,auction/rules.py,auction/operations.py' --skip-covered --fail-under=95
	@$(MAKE) --no-print-directory test-python-build

test-python-build: build ## unit tests and simulations on the pure-Python fast path (fastpath itself is always run on both)
	ARREMATE_FASTPATH=python $(PYTEST) --ignore tests/unit/fastpath tests/unit tests/simulation

test-slow: build ## run the further tests of whole demos: every command, signals, crashes
	$(PYTEST) -m slow tests/system

coverage: build ## statement coverage of every module
	$(PYTEST) --cov --cov-report=term tests

check: build ## style, types and import ranks
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/cython-lint --no-pycodestyle --max-line-length 120 fastpath

SEEDS ?= 1000
FROM ?= 0
sim: build ## simulate SEEDS schedules from seed FROM (SEEDS=1000 FROM=0)
	$(PY) tests/simulation/run.py --seeds $(SEEDS) --from $(FROM)

bench: build ## microbenchmarks of the fast path, then an open-loop load on four nodes
	$(PY) -m bench.micro
	$(VENV)/bin/arremate bench

clean: ## remove the environment and everything built
	rm -rf $(VENV) .build build dist *.egg-info .hypothesis .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .coverage .coverage.* reports
	find . -name '__pycache__' -type d -prune -exec rm -rf {} +
	find fastpath -name '*.so' -delete
