# `make audit` and `make test` are all that a person types on a fresh machine with Python 3.11 or newer.
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ARGS ?=

.PHONY: help audit test test-fast check bench zoo report clean
.DEFAULT_GOAL := help

help: ## list the verbs
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*##/\t/'

# The stamp is written last, so that an installation that was interrupted is done again.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Expected Python 3.11 or newer, found $$($(PYTHON) --version). Use make PYTHON=/path/to/python3.11"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(STAMP)

audit: $(STAMP) ## run the default audit and say where its report is
	@$(BIN)/dpaudit run $(ARGS)

test: $(STAMP) ## run every test
	@$(BIN)/python -m pytest -n auto $(ARGS)

test-fast: $(STAMP) ## run the tests that take seconds
	@$(BIN)/python -m pytest -n auto -m "not slow" $(ARGS)

check: $(STAMP) ## ruff, mypy --strict, import-linter
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

bench: $(STAMP) ## measure what bench/ measures
	@for file in bench/*.py; do echo "== $$file"; $(BIN)/python "$$file" $(ARGS) || exit 1; done

zoo: $(STAMP) ## audit every planted fault and every correct use
	@$(BIN)/python bench/zoo.py $(ARGS)

report: $(STAMP) ## write the page of the last default audit again
	@$(BIN)/dpaudit report audits/default $(ARGS)

clean: ## remove the environment and caches, not the audits
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
