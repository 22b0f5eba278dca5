# Every target works on a fresh checkout: it makes .venv itself and does nothing twice.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

VENV := .venv/bin
INPUTS := pyproject.toml scripts/setup
STATE := $(shell cat $(INPUTS) | sha256sum | cut -c1-16)
READY := .venv/ready-$(STATE)
READY_DOCS := .venv/ready-docs-$(STATE)
NAME ?=
ARGS ?=

.PHONY: help setup demo up test coverage lint test-long bench docs clean debian-packages real-clients

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(READY):
	@scripts/setup test lint
	@rm -f .venv/ready-*
	@touch $@

$(READY_DOCS): $(READY)
	@scripts/setup test lint docs
	@touch $@

setup: $(READY) ## make .venv with everything that tests and checks need
	@echo "ready: .venv/bin/pilothouse"

demo: $(READY) ## show the best that the project can do
	@$(VENV)/pilothouse demo shop $(ARGS)

up: $(READY) ## start the platform on this machine
	@$(VENV)/pilothouse up $(ARGS)

debian-packages:
	@scripts/debian-packages

real-clients: $(READY)
	@scripts/real-clients

test: $(READY) debian-packages real-clients ## run the tests (ARGS='-k name' for some of them)
	@scripts/tests $(ARGS)

coverage: $(READY) debian-packages real-clients ## run the tests and show what they reach
	@COVERAGE=1 scripts/tests $(ARGS)

test-long: $(READY) debian-packages real-clients ## run the long harnesses: hundreds of crashes, thousands of random operations
	@$(VENV)/python -m pytest -m long --timeout=3600 $(ARGS)

lint: $(READY) ## check style, types, floors and generated files
	@$(VENV)/ruff check
	@$(VENV)/ruff format --check
	@$(VENV)/mypy
	@$(VENV)/lint-imports
	@if [ -e scripts/generate-protobuf ]; then $(VENV)/python scripts/generate-protobuf --check; fi
	@if [ -e scripts/generate-kinds ]; then $(VENV)/python scripts/generate-kinds --check; fi
	@if [ -e scripts/generate-structs ]; then $(VENV)/python scripts/generate-structs --check; fi
	@if [ -e scripts/generate-bundled-objects ]; then $(VENV)/python scripts/generate-bundled-objects --check; fi

bench: $(READY) debian-packages ## run all benchmarks, or one (NAME=x); one JSON line each
	@scripts/bench $(NAME)

docs: $(READY_DOCS) ## build the documentation into site/; any warning fails
	@$(VENV)/python -m sphinx -W --keep-going -q -b html -d build/doctrees docs site
	@echo "site/index.html"

clean: ## remove all that was made, .venv included
	@rm -rf .venv build dist site htmlcov .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	@find src tests bench examples docs -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
