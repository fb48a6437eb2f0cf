# Rapid Analysis. `make demo` shows it, `make test` proves it; every target installs what it needs first.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
ARGS   ?=
export PYTHONDONTWRITEBYTECODE ?=

.DEFAULT_GOAL := help
.PHONY: image-check help install demo test lint bench bench-focal-plane chaos mutants lock clean

help: ## Show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

install: $(STAMP) ## Put everything into .venv from the lock file

$(STAMP): requirements-bootstrap.lock requirements-test.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-bootstrap.lock
	@$(BIN)/uv pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes requirements-test.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

demo: install ## Play a simulated night through the whole system (ARGS=--exit to end by itself)
	@$(BIN)/rapid demo $(ARGS)

test: install ## Everything: lint, types, architecture, unit, integration, browser
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tests/run_all.py $(ARGS)

lint: install ## Ruff, mypy strict and the import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: install ## Measure decoding, signature removal and the board beside their peers
	@for script in bench/bench_decode.py bench/bench_isr.py bench/bench_quicklook.py bench/bench_dispatch.py bench/bench_requests.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

chaos: install ## Kill and freeze processes at random through a night (ARGS="--seed 7 --kills 300")
	@$(BIN)/python -m tests.chaos $(ARGS)

mutants: install ## Break each main part on purpose; a night must notice (ARGS="--only fencing")
	@$(BIN)/python -m tests.mutants $(ARGS)

bench-focal-plane: install ## All 189 CCDs of LSSTCam through the whole system, the peers on a sample beside it
	@$(BIN)/python bench/bench_focal_plane.py $(ARGS)

image-check: install ## Run the Dockerfile's own steps in a bare Debian (debootstrap, as root), and the roles in what comes out
	@$(BIN)/python -m tests.cluster.image $(ARGS)

lock: ## Choose versions anew and write the lock files
	@$(BIN)/uv pip compile pyproject.toml --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --no-header -q -o requirements.lock
	@$(BIN)/uv pip compile pyproject.toml --group test --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --no-header -q -o requirements-test.lock

clean: ## Remove the environment and what tests and demo left
	@rm -rf $(VENV) build demo-night .pytest_cache .mypy_cache .ruff_cache .hypothesis htmlcov
