# The commands of this repository. `make run` and `make test` need Rust, Python 3.11 and a C compiler, nothing else.
#
# There is one environment, .venv, and one Rust profile, release, so that nothing is compiled twice. What was done is
# remembered in stamp files; a changed lock file or source makes the step run again.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
CARGO_FLAGS := --release --locked
TOOLS := .build/tools
PIP := $(BIN)/python -m pip --disable-pip-version-check
# Where the recipe of the embedded model keeps what it fetched, drew and learned.
EMBEDDED := .build/embedded
RECIPE := PYTHONPATH=tools:server:integration-tests:$(EMBEDDED)/packages $(BIN)/python -m embedded_model

RUST_SOURCES := Cargo.toml Cargo.lock $(shell find launcher proto router scheduler -type f)
TEST_FOLDERS := server/tests benchmarks integration-tests
PYTHON_SOURCES := server/text_generation_server tools $(TEST_FOLDERS)
# Lambdas count as untyped, and not every machine has every client with types.
MYPY_TESTS := --allow-untyped-calls --no-warn-unused-ignores

.PHONY: help run test check bench build goldens reference proto lock clean install embedded-model embedded-eval
.PHONY: test-rust test-python test-integration check-rust check-deny check-python check-rules

help: ## what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 24

run: ## build everything into .venv and serve the embedded model; flags go in ARGS="…"
	@$(MAKE) --no-print-directory -j2 $(VENV)/.installed
	$(BIN)/text-generation-launcher $(ARGS)

test: ## everything that runs without a GPU
	@$(MAKE) --no-print-directory -j2 $(VENV)/.installed $(VENV)/.test
	@$(MAKE) --no-print-directory test-rust test-python test-integration

check: check-rust check-python check-rules check-deny ## formatting, lints, types, licences, house rules

bench: $(VENV)/.installed $(VENV)/.test ## measure, and write a dated table into docs/performance.md
	$(BIN)/python benchmarks/run.py $(ARGS)

build: $(VENV)/.runtime ## the wheel, in dist/
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/maturin build $(CARGO_FLAGS) --out dist

goldens: $(VENV)/.test ## what transformers answers, written anew; read the difference before committing it
	$(BIN)/python tools/reference_environment.py
	$(BIN)/python tools/goldens_images.py
	$(BIN)/python tools/goldens_text.py
	$(BIN)/python integration-tests/goldens/make.py
	$(BIN)/python tools/goldens_families.py
	$(BIN)/python tools/goldens_hub.py

embedded-model: $(EMBEDDED)/packages ## train the model that ships, from public packages; hours on a CPU, goes on where it was
	$(RECIPE) train $(ARGS)
	$(RECIPE) export

embedded-eval: $(VENV)/.installed $(EMBEDDED)/packages ## score the shipped model, or ARGS="--model … --name …", over HTTP
	$(RECIPE) evaluate $(ARGS)

reference: $(BIN)/python ## what goldens are made with, and nothing else, in .venv
	$(PIP) install --quiet --require-hashes -r requirements/reference.lock
	$(BIN)/python tools/reference_environment.py

proto: $(VENV)/.test ## the Python types of proto/shard.proto; Rust makes its own while it builds
	$(BIN)/python tools/generate_pb.py

lock: ## the lock files from pyproject.toml; needs uv
	tools/lock.sh

clean: ## everything that make made, except .venv and the Rust target folder
	rm -rf dist .build

install: $(VENV)/.installed ## the three programs in .venv/bin, the Python sources live

# --- The environment -------------------------------------------------------------------------------------------------

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$(PYTHON) is too old: Python 3.11 or newer is needed (make PYTHON=python3.12 …)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# Only the recipe needs these, so they stay out of .venv.
$(EMBEDDED)/packages: requirements/embedded.lock | $(VENV)/.test
	$(PIP) install --quiet --require-hashes --upgrade --target $@ -r requirements/embedded.lock
	touch $@

$(VENV)/.runtime: requirements/runtime.lock | $(BIN)/python
	$(PIP) install --quiet --require-hashes -r requirements/runtime.lock
	touch $@

# text-generation is the old client of TGI. It asks for older versions of its dependencies and works with ours.
$(VENV)/.test: requirements/test.lock requirements/no-deps.lock $(VENV)/.runtime
	$(PIP) install --quiet --require-hashes -r requirements/test.lock
	$(PIP) install --quiet --require-hashes --no-deps -r requirements/no-deps.lock
	touch $@

# Client libraries do not agree on versions; each list is an environment of its own.
CLIENTS := $(patsubst requirements/clients/%.lock,.build/clients/%/.installed,$(wildcard requirements/clients/*.lock))

.build/clients/%/.installed: requirements/clients/%.lock | $(BIN)/python
	$(BIN)/python -m venv .build/clients/$*
	.build/clients/$*/bin/python -m pip --disable-pip-version-check install --quiet --require-hashes -r $<
	touch $@

# Node itself is one of the packages of .test.
JAVASCRIPT := integration-tests/clients/javascript

$(JAVASCRIPT)/node_modules/.package-lock.json: $(JAVASCRIPT)/package-lock.json $(VENV)/.test
	PYTHONPATH=integration-tests $(BIN)/python -m harness.javascript
	touch $@

.build/programs: $(RUST_SOURCES)
	cargo build $(CARGO_FLAGS) --workspace
	mkdir -p .build
	touch $@

# pip lets maturin call cargo, which finds everything built already.
$(VENV)/.installed: $(VENV)/.runtime .build/programs pyproject.toml server/wheel-data/scripts/text-generation-server
	PATH="$(CURDIR)/$(BIN):$$PATH" $(PIP) install --quiet --no-index --no-deps --no-build-isolation --editable .
	touch $@

# --- Tests -----------------------------------------------------------------------------------------------------------

test-rust:
	cargo test $(CARGO_FLAGS) --workspace

test-python: $(VENV)/.test
	$(BIN)/pytest server/tests tools/tests

test-integration: $(VENV)/.installed $(VENV)/.test $(CLIENTS) $(JAVASCRIPT)/node_modules/.package-lock.json
	$(BIN)/pytest integration-tests

# --- Checks ----------------------------------------------------------------------------------------------------------

check-rust:
	cargo fmt --all --check
	cargo clippy $(CARGO_FLAGS) --workspace --all-targets -- -D warnings

check-python: $(VENV)/.test
	$(BIN)/ruff format --check $(PYTHON_SOURCES)
	$(BIN)/ruff check $(PYTHON_SOURCES)
	$(BIN)/mypy server/text_generation_server
	for folder in tools $(TEST_FOLDERS); do $(BIN)/mypy $(MYPY_TESTS) "$$folder"; done
	$(BIN)/lint-imports

check-rules: $(VENV)/.test
	$(BIN)/python tools/tidy.py

# Advisories come from a database on the internet; where it cannot be reached the rest is still checked.
check-deny:
	tools/deny.sh $(TOOLS)
