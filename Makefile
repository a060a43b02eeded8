# Needs only make and a Python with venv; everything else goes into .venv on first use.
# A changed TORCH, JAX or TENSORFLOW takes effect after `make clean`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WHEEL_VENV := .venv-wheel
OLDEST_VENV := .venv-oldest
NEXT_VENV := .venv-next

# The CPU-only build of TensorFlow exists for Linux on x86-64 alone.
TENSORFLOW ?= $(if $(filter Linux/x86_64,$(shell uname -s)/$(shell uname -m)),tensorflow-cpu,tensorflow)
JAX ?= jax
TORCH ?= torch==2.13.0
BACKENDS ?= tensorflow jax torch
# The lower bounds of pyproject.toml; there are wheels of these for Python 3.10 to 3.12.
OLDEST ?= keras==3.12.0 $(TENSORFLOW)==2.18.0 tensorboard==2.18.0 numpy==1.26.4

PIP_FAILED = { echo "Installing failed. TensorFlow has wheels for Python 3.10 to 3.13; choose one with" \
	"'make clean' and 'make PYTHON=python3.12 ...'."; exit 1; }
export TF_CPP_MIN_LOG_LEVEL ?= 2
export PIP_DISABLE_PIP_VERSION_CHECK ?= 1
# A process for each core and one more, since TensorFlow's pipelines wait for a fifth of the time; threads
# of their own would wait for each other's. Tests of one file stay together as long as they can, for they
# look at the same runs.
WORKERS ?= $(shell $(PYTHON) -c 'import os; all = range(os.cpu_count()); \
	print(len(getattr(os, "sched_getaffinity", lambda pid: all)(0)) + 1)')
PYTEST = -m pytest -q -n $(WORKERS) --dist worksteal
test test-rest test-core test-all test-oldest test-next test-wheel: export OMP_NUM_THREADS ?= 1

.PHONY: help demo reference test test-rest test-core test-all test-oldest test-next test-wheel check docs clean
.DEFAULT_GOAL := help

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' Makefile

demo: $(VENV)/.demo  ## train on the digits and watch the rate
	@echo "demo: examples/digits.py, 1 to 2 minutes"
	@TF_CPP_MIN_LOG_LEVEL=3 KERAS_BACKEND=tensorflow $(BIN)/python examples/digits.py

reference: $(VENV)/.demo  ## train the runs in docs/data/reference again
	@echo "reference: examples/digits.py into docs/data/reference, 1 to 2 minutes"
	@rm -rf docs/data/reference
	@KERAS_BACKEND=tensorflow $(BIN)/python examples/digits.py --out docs/data/reference

test: $(VENV)/.dev  ## run the quick tests on TensorFlow
	@echo "test: each rule once on TensorFlow, 5 minutes on two cores"
	@KERAS_BACKEND=tensorflow $(BIN)/python $(PYTEST) --part quick

test-rest: $(VENV)/.dev  ## run what `make test` leaves out
	@echo "test-rest: slow tests and further cases of tests on TensorFlow, about 10 minutes"
	@KERAS_BACKEND=tensorflow $(BIN)/python $(PYTEST) --part rest

test-core: $(VENV)/.dev  ## run the tests that need no Keras
	@echo "test-core: what decides, without Keras, about half a minute"
	@$(BIN)/python $(PYTEST) tests/core

test-all: $(VENV)/.dev $(VENV)/.backends  ## run the tests on TensorFlow, JAX and PyTorch
	@echo "test-all: the tests of fits on $(BACKENDS), a process each, 5 to 15 minutes a backend"
	@set -e; for backend in $(BACKENDS); do \
		echo "test-all: $$backend"; KERAS_BACKEND=$$backend $(BIN)/python $(PYTEST) tests/fit; done
	@$(MAKE) --no-print-directory test-core

test-oldest:  ## run the quick tests with the oldest packages that are supported
	@if $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 13))'; then \
		echo "test-oldest: left out, the oldest packages have no wheels for this Python"; exit 0; fi; \
	$(MAKE) --no-print-directory $(OLDEST_VENV)/.oldest && \
	echo "test-oldest: the quick tests with $(OLDEST), about 6 minutes" && \
	KERAS_BACKEND=tensorflow $(OLDEST_VENV)/bin/python $(PYTEST) -m "not slow"

# Not from a stamp: the newest release is another one tomorrow. What is believed of Keras' insides comes
# first, so that a broken belief is read by its name.
test-next: $(NEXT_VENV)/.created  ## run the quick tests with the newest Keras, pre-releases too
	@echo "test-next: install the newest Keras, check what is believed of it, and the quick tests, about 10 minutes"
	@$(NEXT_VENV)/bin/pip install -q --upgrade -e ".[dev,examples]" $(TENSORFLOW) || $(PIP_FAILED)
	@$(NEXT_VENV)/bin/pip install -q --upgrade --pre keras || $(PIP_FAILED)
	@$(NEXT_VENV)/bin/pip list 2>/dev/null | grep -iE "^(keras|tensorflow)"
	@KERAS_BACKEND=tensorflow $(NEXT_VENV)/bin/python $(PYTEST) tests/fit/test_keras_contract.py
	@KERAS_BACKEND=tensorflow $(NEXT_VENV)/bin/python $(PYTEST) -m "not slow"

# The tests come from the sdist and lose its adaptlr/, so only the installed wheel can be imported. All of
# tests/core, and of the fits those that would miss a file: everything public, every writer, a whole run.
WHEEL_TESTS := tests/core tests/fit/test_public.py tests/fit/test_writers.py \
	tests/fit/test_auto.py::test_learns_from_any_start_rate
test-wheel: $(VENV)/.dev $(WHEEL_VENV)/.created  ## build sdist and wheel, run the tests against the wheel
	@echo "test-wheel: build, install and test the wheel, about 5 minutes"
	@rm -rf dist
	@$(BIN)/python -m build --outdir dist .
	@$(BIN)/twine check --strict dist/*
	@$(WHEEL_VENV)/bin/pip install -q "$$(ls dist/*.whl)[dev,examples]" $(TENSORFLOW) || $(PIP_FAILED)
	@$(WHEEL_VENV)/bin/pip install -q --force-reinstall --no-deps dist/*.whl
	@set -e; python=$(CURDIR)/$(WHEEL_VENV)/bin/python; outside=$$(mktemp -d); \
		trap 'rm -rf "$$outside"' EXIT; \
		tar -xzf dist/*.tar.gz -C "$$outside" --strip-components 1; rm -r "$$outside/adaptlr"; \
		cd "$$outside"; KERAS_BACKEND=tensorflow "$$python" $(PYTEST) -m "not slow" $(WHEEL_TESTS)

check: $(VENV)/.dev  ## check format, lint, types and docs
	@echo "check: ruff, mypy and the docs, about 1 minute"
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(MAKE) --no-print-directory docs

docs: $(VENV)/.dev  ## build the docs into docs/_build/html
	@echo "docs: Sphinx with warnings as errors, about 20 seconds"
	@$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html

clean:  ## remove all that make has made
	@echo "clean: environments, builds and caches, a few seconds"
	@rm -rf $(VENV) $(WHEEL_VENV) $(OLDEST_VENV) $(NEXT_VENV) build dist docs/_build .hypothesis .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp for each set of packages: a rerun is instant, a new pyproject.toml installs again.
%/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "adaptlr needs Python" \
		"3.10 or newer, $(PYTHON) is not: name one with 'make PYTHON=python3.12 ...'."; exit 1; }
	@$(PYTHON) -m venv $* || { rm -rf $*; echo "$(PYTHON) could not make an environment: install its" \
		"venv module (on Debian and Ubuntu: apt install python3-venv)."; exit 1; }
	@touch $@

$(VENV)/.demo: pyproject.toml $(VENV)/.created
	@echo "installing adaptlr, $(TENSORFLOW) and the examples' packages into $(VENV), about 2 minutes"
	@$(BIN)/pip install -q -e ".[examples]" $(TENSORFLOW) || $(PIP_FAILED)
	@touch $@

$(VENV)/.dev: pyproject.toml $(VENV)/.created
	@echo "installing adaptlr, $(TENSORFLOW), test tools and docs tools into $(VENV), about 2 minutes"
	@$(BIN)/pip install -q -e ".[dev,docs,examples]" $(TENSORFLOW) || $(PIP_FAILED)
	@touch $@

$(OLDEST_VENV)/.oldest: pyproject.toml $(OLDEST_VENV)/.created
	@echo "installing adaptlr, $(OLDEST) and test tools into $(OLDEST_VENV), about 2 minutes"
	@$(OLDEST_VENV)/bin/pip install -q -e ".[dev,examples]" $(OLDEST) || $(PIP_FAILED)
	@touch $@

$(VENV)/.backends: pyproject.toml $(VENV)/.created
	@echo "installing $(JAX) and $(TORCH) into $(VENV), about 2 minutes"
	@$(BIN)/pip install -q -e ".[peers]" $(JAX) $(TORCH) || $(PIP_FAILED)
	@touch $@
