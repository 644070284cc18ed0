# Every target does its own set-up: make demo and make test need Python (3.11 or later), make and git, nothing else.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= demo
# The folder with the public data of make real; docs/real_models.md says where each file comes from.
DATA ?= data
# Test processes at a time, each with one thread and 3 GiB: one for each core, at least two and at most four.
JOBS ?= $(shell cores=$$(getconf _NPROCESSORS_ONLN); echo $$((cores < 2 ? 2 : cores > 4 ? 4 : cores)))
# Files are handed out whole and in order; tests/conftest.py puts the long ones first.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder
# A TransformerLens beside the locked one, in a folder of its own.
OVERLAY := .overlay/transformer-lens-4
# What some families' processors of images need, in a folder of its own: a torchvision is made for one build of torch.
VISION := .overlay/vision
# An environment with the wheel and what that asks for.
WHEEL := .overlay/wheel
# What runs on the lowest versions, too: reading, judging, pages. The tests' stand-in for the hub speaks with the locked client.
LOWEST_TESTS := tests/preferences tests/judges tests/reports --ignore tests/judges/test_hub.py
# What writes the locks.
LOCK := .overlay/lock
COMPILE = UV_FIND_LINKS="$${PIP_FIND_LINKS:-https://download.pytorch.org/whl/cpu/torch/}" $(LOCK)/bin/uv pip compile --quiet \
	--python $(PYTHON) --constraint $(LOCK)/pins --custom-compile-command "make lock" --extra all --group test pyproject.toml
# What builds the documentation site, and what measures coverage, each in a folder of its own.
DOCS := .overlay/docs
COVERAGE := .overlay/coverage

.PHONY: demo real site coverage check fast test test-4x test-vision test-vision-3 test-vision-4 test-wheel lint lock clean

demo: $(VENV)/installed
	$(BIN)/arm-lens demo --out $(OUT)

# A real model on public data, in less than 40 minutes on two cores; called again, an interrupted run continues.
real: $(VENV)/installed
	$(BIN)/arm-lens benchmark real --data $(DATA) --out $(if $(filter file,$(origin OUT)),real,$(OUT))

# The loop while developing: style, types and the fast tests, in two minutes on two cores.
check: $(VENV)/installed
	@$(MAKE) --no-print-directory -j2 fast lint

fast: $(VENV)/installed
	$(PYTEST) -q -m "not slow and not browser and not notebook and not real" tests

test: $(VENV)/installed
	$(PYTEST) tests

test-4x: $(VENV)/installed $(OVERLAY)
	PYTHONPATH=$(OVERLAY) $(BIN)/python -c "from importlib.metadata import version; \
		assert version('transformer-lens').startswith('4.'), version('transformer-lens')"
	PYTHONPATH=$(OVERLAY) $(PYTEST) -m "tl4 and not any_tl" tests

# On the locked TransformerLens and on 4.x: make -j2 has one core for each.
test-vision: test-vision-3 test-vision-4

test-vision-3 test-vision-4: $(VENV)/installed $(OVERLAY) $(VISION)
	PYTHONPATH=$(if $(filter %-4,$@),$(OVERLAY):)$(VISION) OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/vision/test_vision_families.py

# The wheel, built from what is here, in an environment with nothing else but the lowest versions that it allows; then fast
# tests with all extras.
test-wheel: $(VENV)/installed
	rm -rf $(WHEEL)
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir $(WHEEL) .
	$(PYTHON) -m venv $(WHEEL)/venv
	$(WHEEL)/venv/bin/python -m pip install --quiet --no-compile --constraint requirements-lowest.lock "$$(ls $(WHEEL)/*.whl)[figures]"
	PYTHONPATH=tests OMP_NUM_THREADS=1 $(WHEEL)/venv/bin/python tests/stranger.py
	$(WHEEL)/venv/bin/python -m pip install --quiet --no-compile --requirement requirements-lowest.lock
	OMP_NUM_THREADS=1 $(WHEEL)/venv/bin/python -m pytest -q -m "not slow and not browser and not notebook and not real" $(LOWEST_TESTS)

# The whole suite, with the share of lines and branches of arm_lens that it runs; fails below the floor in pyproject.toml.
coverage: $(VENV)/installed $(COVERAGE)
	PYTHONPATH=$(COVERAGE) $(PYTEST) --cov --cov-report=term --cov-report=html:coverage tests

# The documentation site, in the folder site: fails on any warning, and on any broken link.
site: $(VENV)/installed $(DOCS)
	NO_MKDOCS_2_WARNING=1 PYTHONPATH=$(DOCS) JUPYTER_PATH=$(DOCS)/share/jupyter $(BIN)/python -m mkdocs --quiet build
	$(BIN)/python scripts/check_site.py site

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Modules are compiled when they are first imported: of 22,000, most never are. Groups of requirements need pip 25.1.
$(VENV)/installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile 'pip>=25.1' --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

$(OVERLAY): | $(VENV)/installed
	$(BIN)/python -m pip install --quiet --no-compile --no-deps --target $@ 'transformer-lens>=4,<5'

$(VISION): | $(VENV)/installed
	$(BIN)/python -m pip install --quiet --no-compile --no-deps --target $@ torchvision==0.28.0 num2words docopt

$(LOCK):
	$(PYTHON) -m pip install --quiet --target $@ uv
	printf 'torch==2.13.0+cpu\ntransformer-lens<4\n' >$@/pins

$(DOCS): pyproject.toml | $(VENV)/installed
	$(BIN)/python -m pip install --quiet --no-compile --upgrade --target $@ --constraint requirements.lock --group docs
	touch $@

$(COVERAGE): | $(VENV)/installed
	$(BIN)/python -m pip install --quiet --no-compile --no-deps --target $@ --group coverage

# After changing dependencies: exact versions, by uv. Those there are stay unless UPGRADE=--upgrade, or --upgrade-package=NAME. The
# second file has the lowest versions of all that arm_lens asks for itself. Resolved with torch's build for CPUs, whose mark is
# taken off: that of PyPI would bring CUDA to every machine.
lock: $(LOCK)
	for name in requirements requirements-lowest; do sed 's/^torch==[0-9.]*$$/&+cpu/' $$name.lock >$(LOCK)/$$name.txt; done
	$(COMPILE) --group lint --group build $(UPGRADE) --output-file $(LOCK)/requirements.txt
	$(COMPILE) --resolution lowest-direct $(UPGRADE) --output-file $(LOCK)/requirements-lowest.txt
	for name in requirements requirements-lowest; do sed 's/+cpu$$//' $(LOCK)/$$name.txt >$$name.lock; done

clean:
	rm -rf $(VENV) .overlay demo real site coverage
