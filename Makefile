# The one door for developers and for continuous integration. Every target describes itself: `make help`.

PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
JOBS ?= 2
SEED ?= 1
SEEDS ?= 1
MINUTES ?= 30
ARGS ?=

BIN := .venv/bin
READY := .venv/ready

.DEFAULT_GOAL := help
.PHONY: help setup programs demo test check format bench sim soak lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## create .venv with exactly the packages of requirements-dev.lock

programs: ## install the programs the tests drive (PostgreSQL, fio, nbdkit, libnbd, QEMU tools, mkfs), or name what is missing
	@tools/test-programs

demo: $(READY) ## three controllers, a workload, the primary site killed, the second site recovered and proved (1 minute)
	@$(BIN)/isochrone demo $(ARGS)

test: $(READY) programs ## run every test; ARGS="tests/logic -k name" selects
	$(BIN)/pytest -n $(JOBS) --dist loadgroup $(ARGS)

check: $(READY) ## lint, format, strict types, arrows between rooms
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY) ## rewrite the sources in the one format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(READY) ## measure beside nbdkit, qemu-nbd, rsync and others (15 minutes); ARGS="--help" for parts of it
	@tools/test-programs bench
	$(BIN)/python -m bench.run $(ARGS)

sim: $(READY) ## run the simulator from SEED=n, over SEEDS=m seeds, in JOBS processes
	$(BIN)/python -m isochrone.testing.simulate --seed $(SEED) --count $(SEEDS) --jobs $(JOBS) $(ARGS)

soak: $(READY) programs ## real controllers under load and real faults for MINUTES=30, from SEED=n; ARGS="--help" for more
	PYTHONPATH=tests $(BIN)/python -m soak.run --minutes $(MINUTES) --seed $(SEED) $(ARGS)

lock: $(READY) ## resolve the dependencies of pyproject.toml anew into requirements-dev.lock
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url \
		--no-annotate --upgrade --group dev --output-file requirements-dev.lock pyproject.toml

clean: ## remove .venv and every cache
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(READY): requirements-dev.lock pyproject.toml tools/make-venv
	@tools/make-venv $(PYTHON)
	@touch $@
