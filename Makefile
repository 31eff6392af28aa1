# make demo: the whole loop on this machine.  make test: the suite.  make check: ruff and mypy.
PYTHON ?= python3
EXTRAS ?= exec,dev
WORKERS ?= 3
BIN := .venv/bin

.PHONY: setup demo test test-slow test-parity test-gpu check format bench goldens calibrations validation planning lab scaling clean
.DEFAULT_GOAL := help

help:
	@echo "make setup      create .venv with the console script .venv/bin/meshwright"
	@echo "make demo       profile this machine, plan, run, compare, report (runs/demo/)"
	@echo "make test       the default suite      make test-slow   the slow and timed tests"
	@echo "                (FRESH_DRAWS=1: its laws on cases never drawn before)"
	@echo "make test-parity  hundreds of drawn plans equal one process, in fp64"
	@echo "make test-gpu   tests on a CUDA device make check       ruff and mypy (strict)"
	@echo "make bench      benchmarks             make goldens     rewrite kept answers (review the diff)"

	@echo "make calibrations  fit the catalog's constants   make validation  docs/validation.md (ONLY=\"elsewhere NeMo\": some rows)"
	@echo "make planning   docs/planning.md             make scaling      planning time, docs/search.md"
	@echo "make lab        plans on shaped networks, predicted and measured (root)"

setup: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

demo: setup
	$(BIN)/meshwright demo -o runs/demo

test: setup
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m "not slow and not timing and not gpu"

test-slow: setup
	$(BIN)/python -m pytest -m "(slow or timing) and not gpu"

test-parity: setup
	PARITY_DRAWS=$(or $(PARITY_DRAWS),300) $(BIN)/python -m pytest tests/executor/test_parity.py

test-gpu:
	python3 -m pytest -m gpu -p no:cacheprovider

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup
	$(BIN)/python -m tests.bench

goldens: setup
	$(BIN)/python -m tests.golden
	$(BIN)/python -m tests.profiler.imports

calibrations: setup
	$(BIN)/python -m planner.calibration.recipes

validation: setup
	$(BIN)/python -m reports.validation.study docs $(ONLY)

lab: setup
	$(BIN)/python -m laboratory

scaling: setup
	$(BIN)/python -m reports.planning.scaling

planning: setup
	$(BIN)/python -m reports.planning.study

clean:
	rm -rf .venv runs .mypy_cache .ruff_cache .pytest_cache .hypothesis
