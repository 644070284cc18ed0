# Every target does its own set-up: make demo and make test need Python (3.11 or later), make and git, nothing else.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= demo
# Test processes at a time, each with one thread.
JOBS ?= 2
# Files are handed out whole and in order, so that a long one can go first and no process waits for the other at the end.
SPREAD := -n $(JOBS) --dist loadfile --no-loadscope-reorder
# What does not depend on the TransformerLens at hand is tested once, with the locked one; so are the notebooks.
ONCE := tests/test_notebooks.py tests/test_display.py tests/plots tests/preferences tests/comparison tests/test_study.py \
	tests/attribution/test_causal.py tests/attribution/test_several.py \
	$(filter-out tests/benchmark/test_judges.py,$(wildcard tests/benchmark/test_*.py)) \
	tests/evaluation/test_coverage.py tests/evaluation/test_statistics.py tests/evaluation/test_tables.py \
	tests/evaluation/test_rewardbench.py tests/test_benchmark_report.py tests/test_report.py \
	$(wildcard tests/baselines/test_endpoint*.py)
# A TransformerLens beside the locked one, in a folder of its own.
OVERLAY := .overlay/transformer-lens-4

.PHONY: demo test test-4x lint lock clean

demo: $(VENV)/installed
	$(BIN)/arm-lens demo --out $(OUT)

test: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(SPREAD) tests/test_notebooks.py tests

test-4x: $(VENV)/installed $(OVERLAY)
	PYTHONPATH=$(OVERLAY) $(BIN)/python -c "from importlib.metadata import version; \
		assert version('transformer-lens').startswith('4.'), version('transformer-lens')"
	OMP_NUM_THREADS=1 PYTHONPATH=$(OVERLAY) $(BIN)/python -m pytest $(SPREAD) tests $(ONCE:%=--ignore=%)

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

$(OVERLAY):
	$(BIN)/python -m pip install --quiet --no-deps --target $@ 'transformer-lens>=4,<5'

# After changing dependencies: install what pyproject.toml asks for, then write down what that gave.
lock:
	$(BIN)/python -m pip install --quiet torch==2.13.0 'transformer-lens>=3.9,<4' --editable '.[datasets,endpoint,images]' \
		beartype hypothesis ipykernel ipywidgets nbclient nbformat pytest pytest-xdist mypy ruff pandas-stubs types-psutil types-pyyaml types-tqdm hatchling
	{ echo "# Exact versions, written by make lock."; \
	  $(BIN)/python -m pip freeze --exclude-editable | sed "s/+cpu//"; } > requirements.lock

clean:
	rm -rf $(VENV) .overlay demo
