# The two commands of the README are `make demo` and `make test`; each target installs what it needs.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
SKY_VENV := .venv-sky
CLIENTS_VENV := .venv-clients
BIN := $(VENV)/bin
NODE_MODULES := node_modules
SOURCE ?=
MODEL ?=
PORT ?= 8000
# How many processes run the tests. With more than two on a small machine, tests that wait for a program run out of time.
PROCESSES ?= 2
# The small CPU build of torch: make install TORCH=cpu
TORCH ?= pypi
TORCH_BACKEND := $(if $(filter-out pypi,$(TORCH)),--torch-backend=$(TORCH))
IMAGES := controller embedder searcher
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
REVISION = $(shell git describe --always --dirty --abbrev=40 --exclude='*' 2>/dev/null)
TAG ?= $(VERSION)
REGISTRY ?=
BASE ?=
BUILDER ?= $(notdir $(firstword $(foreach each,docker podman buildah,$(shell command -v $(each)))))
BUILD_FLAGS ?=
BUILD_ARGS = $(BASE:%=BASE=%)
# Where this is set, each program that a test starts compiles torch again: 10 s instead of 5.
unexport PYTHONDONTWRITEBYTECODE
# Without it buildah makes one layer of an image, and nothing is shared.
export BUILDAH_LAYERS := true
# Two builds at a time would both install torch.
.NOTPARALLEL:

.PHONY: help install install-sky install-clients demo test test-cluster test-sky lint check docs docs-site bench bench-cluster dist lock clean images $(IMAGES:%=image-%) image-chroma image-sky

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

install: $(VENV)/.installed ## Make .venv with everything in it (TORCH=cpu for the small build of torch)

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "imgsearch needs Python 3.11 or newer; name one with PYTHON=/path/to/python3.11" >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { echo "the venv module is missing; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 2; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt $(TORCH_BACKEND) \
	  --editable '.[all]' --group demo --group dev
	@touch $@

install-sky: $(SKY_VENV)/.installed ## Make .venv-sky: the controller with SkyPilot, for GPU pools (docs/gpu-pools.md)

$(SKY_VENV)/.installed: pyproject.toml constraints-sky.txt | install
	@$(PYTHON) -m venv $(SKY_VENV)
	$(BIN)/uv pip install --quiet --python $(SKY_VENV)/bin/python --constraint constraints-sky.txt --editable '.[sky]' --group sky
	@touch $@

install-clients: $(CLIENTS_VENV)/.installed ## Make .venv-clients: the clients of other servers, which tests drive (docs/clients.md)

$(CLIENTS_VENV)/.installed: pyproject.toml constraints-clients.txt | install
	@$(PYTHON) -m venv $(CLIENTS_VENV)
	$(BIN)/uv pip install --quiet --python $(CLIENTS_VENV)/bin/python --constraint constraints-clients.txt --group clients
	@touch $@

demo: install ## Index the demo photos and serve the search page (SOURCE=~/Pictures MODEL=ViT-B-32/laion2b_s34b_b79k for your own)
	@$(BIN)/python -m demo --port $(PORT) $(if $(SOURCE),--source '$(SOURCE)') $(if $(MODEL),--model '$(MODEL)')

test: install install-clients ## Run every test that needs no cluster
	@$(BIN)/python -m pytest --numprocesses $(PROCESSES) --dist loadfile --no-loadscope-reorder

test-cluster: install install-sky ## Run the tests that need a Kubernetes (tests/cluster/README.md says what they need)
	@status=0; \
	$(BIN)/python -m pytest --no-skips -m alone tests/cluster || status=$$?; \
	$(BIN)/python -m pytest --no-skips -m 'not alone' --numprocesses 2 --durations 30 tests/cluster || status=$$?; \
	exit $$status

test-sky: install-sky ## Run the tests that need SkyPilot
	@$(SKY_VENV)/bin/python -m pytest tests/skypilot

# Node.js comes as a Python package: the system needs none.
$(BIN)/node: constraints.txt | install
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --group web
	@touch $@

$(NODE_MODULES)/.installed: package.json package-lock.json | $(BIN)/node
	@$(BIN)/npm ci --silent
	@touch $@

lint: install $(NODE_MODULES)/.installed ## Check formatting, style, types and import rules, of Python and JavaScript
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/node $(NODE_MODULES)/eslint/bin/eslint.js --max-warnings 0 images/searcher/web
	@$(BIN)/node $(NODE_MODULES)/typescript/bin/tsc

check: lint test ## lint, then test

docs: install ## Generate docs/settings.md and docs/cli.md from the code
	@$(BIN)/python -m docs.generate

docs-site: install ## Build the documentation site into .site; a broken link fails
	@$(BIN)/python -m docs.site

bench: install ## Measure speed and memory into bench/results and docs/benchmarks.md
	@$(BIN)/python -m bench

bench-cluster: install install-sky ## Run the cluster tests, and keep the times that they see for docs/benchmarks.md
	@$(BIN)/python -m pytest --no-skips --save-times tests/cluster

images: $(IMAGES:%=image-%) ## Build the container images with docker, podman or buildah (docs/images.md)

$(IMAGES:%=image-%): BUILD_ARGS += VERSION=$(VERSION) REVISION=$(REVISION)
image-embedder image-searcher: BUILD_ARGS += TORCH=$(TORCH)
image-sky: BUILD_ARGS += EMBEDDER=$(REGISTRY:%=%/)imgsearch-embedder:$(TAG)
$(IMAGES:%=image-%) image-chroma image-sky: image-%:
	@test -n '$(BUILDER)' || { echo "no docker, podman or buildah is there; install one, or name one with BUILDER=" >&2; exit 2; }
	$(BUILDER) build $(BUILD_FLAGS) $(addprefix --build-arg ,$(BUILD_ARGS)) \
	  --tag $(REGISTRY:%=%/)imgsearch-$*:$(TAG) --file $(wildcard images/$*/Dockerfile tests/cluster/$*/Dockerfile) .

dist: install ## Build the wheel and the source archive into dist/
	@rm -rf dist
	@$(BIN)/uv build --quiet --build-constraint constraints.txt --out-dir dist

lock: install ## Resolve constraints.txt anew
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate --no-emit-index-url \
	  --no-emit-find-links --extra all --group demo --group dev --group web pyproject.toml constraints.in \
	  --output-file constraints.txt
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate --no-emit-index-url \
	  --no-emit-find-links --extra sky --group sky pyproject.toml --output-file constraints-sky.txt
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate --no-emit-index-url \
	  --no-emit-find-links --group clients --output-file constraints-clients.txt

clean: ## Remove what the other targets install and build, and the demo's data
	rm -rf $(VENV) $(SKY_VENV) $(CLIENTS_VENV) $(NODE_MODULES) dist .demo .site
