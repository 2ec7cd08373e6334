# Shortcuts. Everything here also works by hand: see README.md.
#
# PYTHON   the Python that makes the virtual environment (default: python3)
# EXTRAS   further extras to install, for example EXTRAS=compiler where no C++ compiler is installed
# ARGS     further arguments of `make run` (deepseek-host run ...) and `make test` (pytest ...)
# SEEDS    seeds of `make nightly`
# BOARD    board of `make board`

PYTHON ?= python3
EXTRAS ?=
ARGS ?=
SEEDS ?= 1 2 3 4 5 6 7 8
BOARD ?= ulx3s

.DEFAULT_GOAL := help
SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install -qq
comma := ,
empty :=
space := $(empty) $(empty)

# An environment holds absolute paths: one that this file made elsewhere is made anew. One that was
# made by hand is used as it is.
HOME_MARK := $(VENV)/checkout
ifneq ($(shell cat $(HOME_MARK) 2>/dev/null),$(CURDIR))
MOVED := moved
endif

# extras(names): "[a,b]" of the names and $(EXTRAS), or nothing.
extras = $(if $(strip $(1) $(EXTRAS)),[$(subst $(space),$(comma),$(strip $(1) $(EXTRAS)))])
# install(names): the package, editable, with these extras.
install = $(PIP) --editable '.$(call extras,$(1))'
stamp = $(VENV)/stamp-$(subst $(space),-,$(strip $(1) $(EXTRAS)))

RUN := $(call stamp,run)
TEST := $(call stamp,test)
LINT := $(call stamp,lint)

.PHONY: help
help:
	@echo 'make run      run a quantized network on the simulated card (preset ecp5)'
	@echo 'make test     all tests, on two cores'
	@echo 'make lint     ruff and mypy'
	@echo 'make board    a bitstream: make board BOARD=ulx3s (minutes; no board is needed)'
	@echo 'make nightly  every FP16 product, testbenches with many seeds, GEMMs on every preset, a netlist (hours)'
	@echo 'make performance  measure the published shapes and write docs/performance.md (an hour)'
	@echo 'make clean    remove the virtual environment and what tools left in the checkout'
	@echo 'make help     this text'

.PHONY: run
run: $(RUN)
	@$(BIN)/python -m deepseek.host run digits --preset ecp5 $(ARGS)

.PHONY: test
test: $(TEST)
	@$(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

.PHONY: lint
lint: $(LINT)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

.PHONY: board
board: $(TEST)
	@$(BIN)/python -m deepseek.host build --board $(BOARD) $(ARGS)

.PHONY: nightly
nightly: $(TEST)
	@$(BIN)/python tools/nightly.py --seeds $(SEEDS)

.PHONY: performance
performance: $(RUN)
	@set -e; for preset in ecp5 sim; do \
	  bench() { $(BIN)/python -m deepseek.host bench "$$@" --preset $$preset; }; \
	  to=docs/performance; \
	  bench sweep --csv $$to/$$preset.csv; \
	  bench latency --memory ideal --csv $$to/latency-$$preset.csv; \
	  bench attention --memory ideal --csv $$to/attention-$$preset.csv; \
	  bench attention --memory hbm --csv $$to/attention-hbm-$$preset.csv; \
	  for network in resnet50 mobilenetv2; do \
	    bench conv --network $$network --memory hbm --csv $$to/$$network-$$preset.csv; \
	  done; \
	done
	@$(BIN)/python -m deepseek.host.bench.page

.PHONY: clean
clean:
	rm -rf $(VENV) build dist *.egg-info src/*.egg-info .benchmarks .hypothesis
	rm -rf .pytest_cache .mypy_cache .ruff_cache src/.mypy_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	@echo 'The build cache is outside the checkout; deepseek-host doctor says where.'

.PHONY: moved
moved:

$(HOME_MARK): $(MOVED)
	@sh tools/check.sh '$(PYTHON)' '$(EXTRAS)'
	@echo 'making the virtual environment $(VENV)'
	@if [ -e $@ ]; then rm -rf $(VENV); fi
	@$(PYTHON) -m venv $(VENV) || { \
	  echo 'error: $(PYTHON) has no venv; Debian, Ubuntu: apt install python3-venv' >&2; exit 1; }
	@printf '%s' '$(CURDIR)' > $@

$(RUN): pyproject.toml $(HOME_MARK)
	@echo 'installing the package'
	@$(call install,)
	@touch $@

$(TEST): pyproject.toml $(RUN)
	@echo 'installing what the tests need'
	@$(call install,test boards)
	@$(BIN)/python -c 'import find_libpython as f, sys; f.find_libpython() or sys.exit( \
	  "error: cocotb needs the shared library of Python; Debian, Ubuntu: apt install libpython3-dev")'
	@touch $@

$(LINT): pyproject.toml $(RUN)
	@echo 'installing ruff and mypy'
	@$(call install,test boards lint)
	@touch $@
