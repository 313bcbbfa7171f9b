# These commands do everything on a fresh machine:
#   make quickstart   install, then train and evaluate a zero-shot model on the mini data set (about 7 minutes, no GPU needed)
#   make test         install, then run the tests
#   make docs         install, then build the documentation: docs/_build/html/index.html
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
STAMP_DEV := $(VENV)/.installed-dev
STAMP_DOCS := $(VENV)/.installed-docs
# Python 3.10 if there is one: the oldest versions have no wheels for Python 3.13 and newer.
OLDEST_PYTHON ?= $(shell python3.10 -c '' 2>/dev/null && echo python3.10 || echo $(PYTHON))
OLDEST_VENV ?= $(VENV)-oldest
STAMP_OLDEST := $(OLDEST_VENV)/.installed
# A choice in which every package of requirements-oldest.txt is used.
OLDEST_TESTS := tests/test_installation.py tests/test_config.py tests/test_files.py tests/test_checkpoint_files.py \
  tests/test_safetensors_files.py tests/engine/test_trainer.py tests/engine/test_checkpointer.py \
  tests/engine/test_accumulation.py tests/engine/test_weight_average.py tests/modeling tests/golden/test_criterion.py \
  tests/golden/test_lr_schedules.py tests/golden/test_matcher.py tests/golden/test_mask2former.py \
  tests/golden/test_optimizers.py tests/ops/test_function.py tests/evaluation/test_coco_metrics.py \
  tests/evaluation/test_mini.py tests/data/test_mappers.py tests/visualization/test_curves.py tests/d2lite/test_transforms.py
SPHINX := $(BIN)/python -m sphinx -E -W --keep-going -q

.PHONY: help setup quickstart test test-slow test-mutation test-oldest test-faults lint docs linkcheck clean

help:
	@sed -n 's/^#   make/make/p' Makefile
	@echo "make setup        install only; make lint: ruff and mypy; make test-slow: the long tests; make test-mutation: mistakes in the code that the tests must notice; make test-oldest: tests with the oldest packages that pyproject.toml allows; make test-faults: kills, full disks, spoiled files and long runs; make linkcheck: try the documentation's links to other sites"

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not installed. Install Python 3.10 - 3.13, or name one: make PYTHON=/path/to/python ..."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' || { echo "$(PYTHON) is `$(PYTHON) --version 2>&1 | head -n 1`, but the pinned packages need Python 3.10 - 3.13. Name one: make PYTHON=python3.11 ..."; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "Could not make a virtual environment. On Debian: apt-get install python3-venv python3-dev"; exit 1; }

$(STAMP): requirements.txt pyproject.toml setup.py | $(BIN)/python
	$(BIN)/python -m pip install -q -r requirements.txt
	@$(BIN)/python -m PADing.installation --build || echo "Continuing; what is not ready is named above."
	@touch $@

$(STAMP_DEV): requirements-dev.txt $(STAMP)
	$(BIN)/python -m pip install -q -r requirements-dev.txt
	@touch $@

$(STAMP_DOCS): requirements-docs.txt $(STAMP)
	$(BIN)/python -m pip install -q -r requirements-docs.txt
	@touch $@

setup: $(STAMP)

quickstart: $(STAMP)
	$(BIN)/python -m minibench quickstart $(ARGS)

test: $(STAMP_DEV)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist loadfile $(ARGS)

test-slow: $(STAMP_DEV)
	$(BIN)/python -m pytest -q -m slow $(ARGS)

test-mutation: $(STAMP_DEV)
	$(BIN)/python -m tests.mutation $(ARGS)

$(STAMP_OLDEST): requirements-oldest.txt pyproject.toml setup.py
	$(OLDEST_PYTHON) -m venv $(OLDEST_VENV)
	$(OLDEST_VENV)/bin/python -m pip install -q -c requirements-oldest.txt -e . `sed -n 's/^\(pytest[-a-z]*==[^ ]*\).*/\1/p' requirements-dev.txt`
	@touch $@

test-oldest: $(STAMP_OLDEST)
	OMP_NUM_THREADS=1 $(OLDEST_VENV)/bin/python -m pytest -q -n auto --dist loadfile $(OLDEST_TESTS)

# An hour on one core. ARGS="--only kills/data --seed 2" selects; docs/reliability.md has what it tries.
test-faults: $(STAMP_DEV)
	$(BIN)/python -m tests.faults $(ARGS)

lint: $(STAMP_DEV)
	$(BIN)/ruff check .
	$(BIN)/mypy

# Warnings are errors: broken links between pages, missing anchors, pages in no table of contents, bad docstrings. -E reads
# every page again, since warnings of pages that have not changed would be lost.
docs: $(STAMP_DOCS)
	$(SPHINX) -b html docs docs/_build/html
	@echo "Open docs/_build/html/index.html"

linkcheck: $(STAMP_DOCS)
	$(SPHINX) -b linkcheck docs docs/_build/linkcheck

clean:
	rm -rf $(VENV) $(OLDEST_VENV) build dist docs/_build .pytest_cache .ruff_cache
