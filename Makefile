# make demo    a fresh machine: venv, install, train on a synthetic cohort, a table and a report
# make test    a fresh machine: venv, install, the tests
# make lint    formatting, lint, types
#
# Needed: Python 3.11 or newer. The first that is found is used, or PYTHON=/path/to/python3.
# TESTS= are arguments for pytest: make test TESTS="tests/models -k window". WORKERS= processes.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV ?= .venv
WORKDIR ?= runs/demo
TESTS ?=
WORKERS ?= 2
bin := $(VENV)/bin

.PHONY: help demo test lint format clean

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

demo: $(VENV)/report
	$(bin)/jaxcoder train --config configs/demo.py --workdir $(WORKDIR)
	$(bin)/jaxcoder evaluate --workdir $(WORKDIR) --split test
	$(bin)/jaxcoder report --workdir $(WORKDIR)

test: $(VENV)/test
	$(bin)/python -m pytest -n $(WORKERS) $(TESTS)

lint: $(VENV)/dev
	$(bin)/ruff format --check
	$(bin)/ruff check
	$(bin)/mypy

format: $(VENV)/dev
	$(bin)/ruff format
	$(bin)/ruff check --fix

clean:
	rm -rf $(VENV) .cache .mypy_cache .pytest_cache .ruff_cache

# Tested versions first; a pyenv shim may be there and yet not run, hence the trial.
$(VENV)/pyvenv.cfg:
	@for python in $(PYTHON) $(if $(PYTHON),,python3.11 python3.12 python3.13 python3.14 python3 python); do \
	  if "$$python" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "$(VENV) with $$("$$python" --version)"; \
	    exec "$$python" -m venv $(VENV); \
	  fi; \
	done; \
	echo "$(or $(PYTHON),python3): not found, or older than 3.11; try make PYTHON=/path/to/python3.11" >&2; \
	exit 2

# PyTorch, which the tests compare with, comes for the CPU alone: from PyPI it would bring gigabytes of
# CUDA. uv knows nothing of pip's PIP_FIND_LINKS, a folder with such a wheel; where there is none, it
# knows PyTorch's own index.
cpu_torch := $(or $(addprefix --find-links ,$(PIP_FIND_LINKS)),--torch-backend cpu)

# uv installs in 14 s where pip takes 40 s to 60 s (2 cores, empty caches; uv itself: 4 s). pip does
# the work where uv cannot be had, and where pip has an index of its own, of which uv knows nothing.
define install
	@if ! $(bin)/pip config list | grep -E '\.(index-url|no-index)=' >/dev/null \
	  && $(bin)/pip install --quiet 'uv>=0.9' 2>/dev/null \
	  && $(bin)/uv pip install --quiet --python $(bin)/python $(cpu_torch) -c constraints.txt -e '$(1)'; \
	then echo 'installed $(1) with uv'; \
	else $(bin)/pip install --quiet --no-compile -c constraints.txt -e '$(1)' && echo 'installed $(1) with pip'; \
	fi
	@touch $@
endef

$(VENV)/report: pyproject.toml constraints.txt | $(VENV)/pyvenv.cfg
	$(call install,.[report])
# The compiler for TPUs stands beside the other packages: among them, jax would look for a TPU with
# it, 15 s at each start. Where there is none, its test says so.
$(VENV)/test: pyproject.toml constraints.txt | $(VENV)/pyvenv.cfg
	@$(bin)/pip install --quiet --no-compile --no-deps --upgrade --target $(VENV)/libtpu \
	  -c constraints.txt libtpu || echo 'no libtpu for this machine'
	$(call install,.[test])
$(VENV)/dev: pyproject.toml constraints.txt | $(VENV)/pyvenv.cfg
	$(call install,.[dev])
