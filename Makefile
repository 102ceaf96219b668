# Everything happens in .venv, with the versions of constraints.txt. `make` alone lists the targets.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
PINS := --constraint constraints.txt
NO_DEPS := tests/no-deps-requirements.txt
WORKERS ?= 2
ARGS ?=
TOO_OLD := "BlockForge needs Python 3.11 or newer; $(PYTHON) is %d.%d. Name another: make PYTHON=python3.12 ..."

# A stamp holds the folder it was made in and is written last: an install that was cut short, a virtual
# environment whose Python is gone and a copied folder are all made anew.
BASE := $(VENV)/installed
DEV := $(VENV)/installed-dev
HEALTHY := $(shell test "$$(cat $(BASE) 2>/dev/null)" = "$$(pwd -P)" && $(BIN)/python -c "" 2>/dev/null && echo yes)
ifneq ($(HEALTHY),yes)
.PHONY: $(BASE)
endif

.DEFAULT_GOAL := help
.PHONY: help demo test lint types docs bench clean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(BASE)  ## Build SMT-B, then search for a network under 5 GFLOPs (into runs/demo)
	@echo "== blockforge build specs/smt_b.yaml"
	@$(BIN)/blockforge build specs/smt_b.yaml
	@echo "== blockforge search --budget 5GFLOPs --trials 8 --seed 0 --out runs/demo"
	@$(BIN)/blockforge search --budget 5GFLOPs --trials 8 --seed 0 --out runs/demo

test: $(DEV)  ## Run the test suite; make test ARGS="-k sam" runs a part of it
	@OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

lint: $(DEV)  ## Check style and formatting
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m ruff format --check .

types: $(DEV)  ## Check types
	@$(BIN)/python -m mypy -p blockforge

docs: $(DEV)  ## Write docs/blocks.md, docs/zoo.md, specs/schema.json and the outputs in the docs anew from the code
	@$(BIN)/python docs/generate.py

bench: $(BASE)  ## Measure the compiler on this machine
	@$(BIN)/blockforge bench compile

clean:  ## Remove the environment, caches and the demo's results
	rm -rf $(VENV) build dist *.egg-info runs/demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BASE): pyproject.toml setup.py constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit($(TOO_OLD) % v if v < (3, 11) else 0)'
	@echo "== installing into $(VENV) (once; a few minutes at most)"
	@if [ "$(HEALTHY)" != yes ]; then $(PYTHON) -m venv --clear $(VENV); fi
	@rm -f $(DEV)
	@$(PIP) install $(PINS) setuptools torch
	@$(PIP) install $(PINS) --no-build-isolation --editable .
	@pwd -P > $@

$(DEV): $(BASE) $(NO_DEPS)
	@echo "== installing the test tools into $(VENV)"
	@$(PIP) install $(PINS) --no-build-isolation --editable ".[dev]"
	@$(PIP) install $(PINS) --no-deps --requirement $(NO_DEPS)
	@pwd -P > $@
