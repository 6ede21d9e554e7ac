# The two commands of the README are `make demo` and `make test`; each target installs what it needs.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCE ?=
MODEL ?=
PORT ?= 8000
# The small CPU build of torch: make install TORCH=cpu
TORCH ?= pypi
TORCH_BACKEND := $(if $(filter-out pypi,$(TORCH)),--torch-backend=$(TORCH))

.PHONY: help install demo test lint check docs bench lock clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

install: $(VENV)/.installed ## Make .venv with everything in it (TORCH=cpu for the small build of torch)

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "imgsearch needs Python 3.11 or newer; name one with PYTHON=/path/to/python3.11" >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { echo "the venv module is missing; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 2; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt $(TORCH_BACKEND) \
	  --editable '.[embedder,searcher,demo]' --group dev
	@touch $@

demo: install ## Index the demo photos and serve the search page (SOURCE=~/Pictures MODEL=ViT-B-32/laion2b_s34b_b79k for your own)
	@$(BIN)/python -m demo --port $(PORT) $(if $(SOURCE),--source '$(SOURCE)') $(if $(MODEL),--model '$(MODEL)')

test: install ## Run every test that needs no cluster
	@$(BIN)/python -m pytest

lint: install ## Check formatting, style, types and import rules
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

check: lint test ## lint, then test

docs: install ## Write what the docs say about the code
	@$(BIN)/python -m docs.generate

bench: install ## Measure speed and memory into bench/results and docs/benchmarks.md
	@$(BIN)/python -m bench

lock: install ## Resolve constraints.txt anew
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate --no-emit-index-url \
	  --no-emit-find-links --all-extras --group dev pyproject.toml constraints.in --output-file constraints.txt

clean: ## Remove .venv and the demo's data
	rm -rf $(VENV) .demo
