# Sanbai: `make quickstart` makes, serves and improves an assistant; `make test` checks everything.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: evidence-alignment parity traps reference help quickstart setup test check fix check-long bench bench-alignment bench-generation browser clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

quickstart: $(VENV)/.core ## make an assistant from nothing on the tiny world, then chat with it (ARGS="--no-serve --json" ends after the report)
	@$(BIN)/sanbai quickstart $(ARGS)

setup: $(VENV)/.test ## make .venv and install the package, editable, with what its tests need

# Workers share the cores: with more threads than these, kernels wait for one another far longer than they compute.
test check-long: export OMP_NUM_THREADS := 1

test: setup browser check ## lint, types, import layers and tests
	$(BIN)/python -m pytest -m "not long and not browser" --numprocesses 2 --dist loadfile
	$(BIN)/python -m pytest -m "browser and not long"

check: setup ## lint, types and import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: setup ## mend what the linters can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

check-long: setup browser ## everything `make test` runs, and the long tests
	$(BIN)/python -m pytest -m "not browser" --numprocesses 2 --dist loadfile
	$(BIN)/python -m pytest -m browser

reference: setup ## write docs/reference from the recipe's section classes, and the lines of links to code
	$(BIN)/python docs/reference/generate.py
	$(BIN)/python docs/reference/lines.py

parity: setup ## compare every family with transformers and write docs/parity.md
	$(BIN)/python -m tests.model.parity_table docs/parity.md

traps: setup ## write the table of planted faults into docs/stages/ppo.md
	$(BIN)/python -m tests.training.planted docs/stages/ppo.md

bench: setup ## measure speed; results are printed, never asserted
	$(BIN)/python -m benchmarks

bench-alignment: setup ## measure PPO and DPO beside trl, in an environment of its own, and the reward model's step
	$(BIN)/python -m benchmarks.bench_alignment $(ARGS)
	$(BIN)/python -m benchmarks.bench_reward

bench-generation: setup ## measure generation beside transformers; some minutes on an idle machine
	$(BIN)/python -m benchmarks.bench_generation $(ARGS)

evidence-alignment: setup ## measure what each stage of alignment brings and costs, three seeds; hours, resumable (ARGS="--seeds 1")
	for table in alignment_tax preference_methods over_optimisation recollected_rankings supervise_epochs length_liking hostile_labelers named_faults stale_practice; do \
		$(BIN)/sanbai lab run $$table $(ARGS) || exit 1; done

browser: ## install Debian's Chromium for the browser tests where it is missing and can be had
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
		&& apt-get update -qq && apt-get install -y -qq chromium >/dev/null; } \
		|| echo "chromium is missing and cannot be installed here; the browser tests will be skipped"

clean: ## remove the virtual environment and caches; workspaces stay
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Sanbai needs Python 3.11 or newer; found $$($(PYTHON) --version). Say make PYTHON=/path/to/python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.core: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.test: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[test,harness]'
	@touch $@ $(VENV)/.core
