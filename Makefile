# Two commands for people: `make demo`, `make test`. Each sets everything up by itself in .venv. `make help` lists all.
#
# PYTHON=/path/to/python   the interpreter to use (3.10 to 3.13), instead of the first that fits
# TORCH_INDEX=URL          where torch is taken from, instead of PyTorch's own index of CPU builds
# ARGS="..."               passed on: make demo ARGS="--rounds 5", make test ARGS="-k codec"

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help demo test lint format skeletons clean install FORCE
.DELETE_ON_ERROR:

PYTHON ?=
TORCH := torch==2.13.0
TORCH_RANGE := torch>=2.2
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
# the demo's data come in this package; what it wants itself (scikit-learn, scipy) we never import
DATA := seglearn==1.2.5
ARGS ?=

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check
# a worker per core, at most 4; ARGS="-n 0" runs everything in one process, as a debugger wants it
WORKERS := -n auto --maxprocesses 4 --dist worksteal
NOT_FAST := not slow and not chaos and not browser and not hardware and not gpu and not soak

# settings of the caller that would send packages or imports somewhere else
unexport PYTHONHOME PYTHONPATH PIP_TARGET PIP_PREFIX PIP_ROOT
export PIP_USER := 0
# pip itself refuses to write anywhere but into a virtual environment
export PIP_REQUIRE_VIRTUALENV := 1

# .venv is good when it was completed here and no install was cut; otherwise it is checked, and made anew if need be
STATE := $(shell [ -x $(PY) ] && [ -f $(VENV)/pyvenv.cfg ] && [ ! -e $(VENV)/.cut ] && cat $(VENV)/.made 2>/dev/null)
ifneq ($(STATE),$(CURDIR))
$(VENV)/.made: FORCE
endif

VERSION_FITS := import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))
VENV_FITS := import sys, venv, ensurepip, ssl; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))
IS_VENV := import sys; sys.exit(sys.prefix == sys.base_prefix or not (3, 10) <= sys.version_info[:2] <= (3, 13))
VENV_NAME := import sys; print("python%d.%d-venv" % sys.version_info[:2])
TORCH_FITS := import sys, torch; sys.exit(tuple(map(int, torch.__version__.split(".")[:2])) < (2, 2))

help: ## list the targets
	@grep -E '^[a-z]+:.*## ' Makefile | sed -e 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/.demo ## run a whole federation on this machine
	@$(VENV)/bin/blossom-edge demo $(ARGS)

test: $(VENV)/.dev ## run the fast tests
	@$(PY) -m pytest -q -m "$(NOT_FAST)" $(WORKERS) $(ARGS)

lint: $(VENV)/.dev ## check format, style, types and import contracts
	@$(PY) -m ruff format --check .
	@$(PY) -m ruff check .
	@$(PY) -m mypy
	@$(VENV)/bin/lint-imports

format: $(VENV)/.dev ## format all files and apply the safe fixes
	@$(PY) -m ruff format .
	@$(PY) -m ruff check --fix .

skeletons: $(VENV)/.dev ## export the ONNX graphs of the presets' blocks again
	@$(PY) -m blossom_edge.export.presets

install: $(VENV)/.dev ## set everything up, run nothing

clean: ## remove .venv and all that was made
	rm -rf $(VENV) .venv-no-torch build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find blossom_edge aggregator firmware_profiles tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.made:
	@if [ ! -e $(VENV)/.cut ] && [ ! -e $@ ] && $(PY) -c '$(IS_VENV)' 2>/dev/null && $(PIP) --version >/dev/null 2>&1; then \
	  echo "using the $(VENV) that is here"; \
	else \
	  if [ -n "$(PYTHON)" ]; then set -- "$(PYTHON)"; else set -- python3 python3.13 python3.12 python3.11 python3.10; fi; \
	  found=; missing=; \
	  for python in "$$@"; do \
	    if "$$python" -c '$(VENV_FITS)' 2>/dev/null; then found=$$python; break; fi; \
	    if [ -z "$$missing" ] && "$$python" -c '$(VERSION_FITS)' 2>/dev/null; then missing=$$("$$python" -c '$(VENV_NAME)'); fi; \
	  done; \
	  if [ -z "$$found" ]; then \
	    echo "error: no Python 3.10 to 3.13 with venv here (tried: $$*); on Debian or Ubuntu: sudo apt install $${missing:-python3 python3-venv}" >&2; exit 1; \
	  fi; \
	  echo "making $(VENV) with $$("$$found" --version)"; \
	  rm -rf $(VENV) && "$$found" -m venv $(VENV) || exit 1; \
	fi
	@pwd -P > $@

# .cut stands while packages are being written; a run that finds it starts over, since half a package looks whole to pip
$(VENV)/.torch: $(VENV)/.made
	@touch $(VENV)/.cut
	@$(PY) -c '$(TORCH_FITS)' 2>/dev/null || { \
	  echo "installing $(TORCH) from $(TORCH_INDEX) (CPU build, about 200 MB)"; \
	  $(PIP) install --no-deps --timeout 10 --retries 0 --index-url "$(TORCH_INDEX)" "$(TORCH)" 2>$(VENV)/torch-index.log; \
	} || { \
	  echo "nothing usable at $(TORCH_INDEX) (see $(VENV)/torch-index.log): taking $(TORCH) from pip's own index; on Linux this may be a CUDA build of 3 GB or more"; \
	  $(PIP) install "$(TORCH)"; \
	}
	@$(PIP) install -qq "$(TORCH_RANGE)"
	@rm $(VENV)/.cut
	@touch $@

$(VENV)/.demo: $(VENV)/.torch pyproject.toml
	@echo "installing blossom-edge and what the demo needs (about 60 MB)"
	@touch $(VENV)/.cut
	@$(PIP) install -qq -e ".[torch,gateway]" "rich>=13"
	@$(PIP) install -qq --no-deps "$(DATA)"
	@rm $(VENV)/.cut
	@touch $@

$(VENV)/.dev: $(VENV)/.demo pyproject.toml
	@echo "installing the tools of the tests (about 60 MB), onnxruntime and the ONNX exporter (125 MB on disk) and the drivers' packages (170 MB on disk, most of it OpenCV)"
	@touch $(VENV)/.cut
	@$(PIP) install -qq -e ".[torch,gateway,onnx,export,dev]"
	@$(PIP) install -qq -e ".[hil]" 2>$(VENV)/hil.log || \
	  echo "not all of the drivers' packages can be installed here (see $(VENV)/hil.log): their tests are skipped"
	@rm $(VENV)/.cut
	@touch $@
