# Every target sets up what it needs: a fresh clone with Python 3.11+ and make is enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# The benchmarks run in what users install: some libraries import what the tests' tools bring along.
BENCH_VENV := .venv-bench
BENCH_STAMP := $(BENCH_VENV)/.installed
# The tests run side by side, in as many processes; 0 is one after the other in one.
TEST_PROCESSES ?= 2

.PHONY: run test check format lint types docs bench clean

run: $(STAMP) ## serve the quickstart on port 8080: offline, or through openai when OPENAI_API_KEY is set
	$(BIN)/agentscope run examples/quickstart

test: $(STAMP) ## run the tests; says which Postgres they use
	$(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist worksteal --cov --cov-report=
	$(BIN)/python -m coverage report --fail-under=95

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

types: $(STAMP)
	$(BIN)/mypy
	$(BIN)/basedpyright

check: lint types test ## everything that CI runs

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(STAMP) ## make docs/http.md from its template and the OpenAPI document
	$(BIN)/python docs/generate.py

bench: $(BENCH_STAMP) ## print the ratios against bare aiohttp
	$(BENCH_VENV)/bin/python -m benchmarks $(ROWS)

clean: ## remove what the other targets made
	rm -rf $(VENV) $(BENCH_VENV) build dist .coverage .coverage.* .hypothesis .mypy_cache .ruff_cache .import_linter_cache .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

INSTALL = $(@D)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

SUPPORTED = @$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit( \
	"Python 3.11 or newer is needed, and $(PYTHON) is %d.%d: make PYTHON=python3.11 ..." % sys.version_info[:2])'

$(STAMP): pyproject.toml constraints.txt
	$(SUPPORTED)
	$(PYTHON) -m venv $(@D)
	$(INSTALL) "pip>=25.1"
	$(INSTALL) --editable . --group dev
	touch $@

$(BENCH_STAMP): pyproject.toml constraints.txt
	$(SUPPORTED)
	$(PYTHON) -m venv $(@D)
	$(INSTALL) "pip>=25.1"
	$(INSTALL) --editable . --group bench
	touch $@
