# Two commands do everything: `make demo` and `make test`. Each keeps a virtual environment of its own.
PYTHON ?= python3
DEMO_ENV := .venv/demo
TEST_ENV := .venv/test
PIP_INSTALL = -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
SOURCES := model indexer service tests

.DEFAULT_GOAL := help
.PHONY: help setup demo test check bench lock browser clean

help:  ## Show the commands.
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "make %-7s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(TEST_ENV)/.installed  ## Make the development environment in .venv/test.

demo: $(DEMO_ENV)/.installed  ## Index real clips, serve them, print three queries (ONCE=1: answer them and exit).
	$(DEMO_ENV)/bin/reelfind demo $(if $(ONCE),--once) $(DEMO_ARGS)

test: $(TEST_ENV)/.installed browser  ## Run all tests on all cores (ARGS="-k name" to choose).
	$(TEST_ENV)/bin/python -m pytest -n auto --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(TEST_ENV)/.installed  ## Format, lint, type-check, check the import contracts (CI=1: change nothing).
	$(TEST_ENV)/bin/ruff format $(if $(CI),--check) $(SOURCES)
	$(TEST_ENV)/bin/ruff check $(if $(CI),,--fix) $(SOURCES)
	$(TEST_ENV)/bin/mypy
	$(TEST_ENV)/bin/lint-imports

bench: $(TEST_ENV)/.installed  ## Print the benchmark's ratios (ARGS=--quick for a short run).
	$(TEST_ENV)/bin/reelfind bench $(ARGS)

lock:  ## Write constraints.txt anew from the newest releases (PyTorch stays at its pin).
	rm -rf .venv/lock && $(PYTHON) -m venv .venv/lock
	grep '^torch==' constraints.txt > .venv/lock/pin.txt
	.venv/lock/bin/python -m pip install --quiet --constraint .venv/lock/pin.txt '.[dev]'
	{ head -n 1 constraints.txt; .venv/lock/bin/python -m pip freeze --exclude reelfind | sed 's/+cpu//'; } > .venv/lock/constraints.txt
	mv .venv/lock/constraints.txt constraints.txt

browser:
	@if command -v chromium >/dev/null && command -v chromedriver >/dev/null; then :; \
	elif command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
		apt-get update -qq && apt-get install -qq -y chromium chromium-driver >/dev/null; \
	else echo "chromium and chromedriver are not installed: the page's tests will skip"; fi

clean:  ## Remove the environments and caches.
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache *.egg-info

$(DEMO_ENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Reelfind needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(DEMO_ENV)
	$(DEMO_ENV)/bin/python $(PIP_INSTALL) --editable '.[demo]'
	@touch $@

$(TEST_ENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Reelfind needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(TEST_ENV)
	$(TEST_ENV)/bin/python $(PIP_INSTALL) --editable '.[dev]'
	@touch $@
