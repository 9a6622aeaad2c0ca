# `make demo` and `make test` set up everything they need first; see docs/installation.md.

PYTHON ?= python3
SETUP = $(PYTHON) scripts/setup_workspace.py $(if $(filter file,$(origin PYTHON)),,--this-python)
MODEL ?=
BAG ?=

# Where .venv is laid over a ROS 2 installation, that has to be sourced (see scripts/setup_workspace.py).
WORKSPACE = if [ -f .venv/workspace.sh ] && [ -z "$$ROS_DISTRO" ]; then . .venv/workspace.sh; fi

.PHONY: help setup setup-test demo test lint bench clean

help:
	@echo "make demo [BAG=path] [MODEL=name]  publisher, perception node and recorder over DDS, then a report"
	@echo "make test                          linters and the whole test suite"
	@echo "make bench                         benchmarks, to out/bench"
	@echo "make setup                         .venv and the built workspace, which all of these make first"
	@echo "make lint                          ruff and mypy only"
	@echo "make clean                         remove all that the commands above made"

setup:
	@$(WORKSPACE); $(SETUP)

setup-test:
	@$(WORKSPACE); $(SETUP) --test

demo: setup
	@.venv/bin/diffusion-perception demo $(if $(BAG),--bag "$(BAG)") $(if $(MODEL),--model "$(MODEL)")

test: lint
	@if [ -f .venv/workspace.sh ]; then . .venv/workspace.sh; fi; .venv/bin/python -m pytest --numprocesses 2 --dist loadfile

lint: setup-test
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

bench: setup
	@.venv/bin/diffusion-perception bench

clean:
	rm -rf .venv build install log out .pytest_cache .mypy_cache .ruff_cache
