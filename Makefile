# Start with `make demo` and `make test`. Each target installs the packages that it needs.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
SKY_VENV := .venv-sky
CLIENTS_VENV := .venv-clients
TRANSFORMERS := .transformers
BIN := $(VENV)/bin
NODE_MODULES := node_modules
SOURCE ?=
MODEL ?=
PORT ?= 8000
# Processes that run the tests. With more than 2 on a small machine, tests with a time limit may fail.
PROCESSES ?= 2
# `make install TORCH=cpu` installs the small CPU build of torch.
TORCH ?= pypi
TORCH_BACKEND := $(if $(filter-out pypi,$(TORCH)),--torch-backend=$(TORCH))
# `make images EXTRA=transformers` adds an extra of pyproject.toml to the images of the embedder and the searcher.
EXTRA ?=
IMAGES := controller embedder searcher
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
REVISION = $(shell git describe --always --dirty --abbrev=40 --exclude='*' 2>/dev/null)
TAG ?= $(VERSION)
REGISTRY ?=
BASE ?=
BUILDER ?= $(notdir $(firstword $(foreach each,docker podman buildah,$(shell command -v $(each)))))
BUILD_FLAGS ?=
BUILD_ARGS = $(BASE:%=BASE=%)
# With this variable, each program that a test starts compiles torch again, which takes 10 s instead of 5 s.
unexport PYTHONDONTWRITEBYTECODE
# Otherwise buildah makes one layer for each image, and images share no layers.
export BUILDAH_LAYERS := true
# Two parallel builds would both install torch.
.NOTPARALLEL:

.PHONY: help install install-sky install-clients install-transformers demo test test-cluster test-sky lint check docs docs-site bench bench-million bench-cluster dist lock clean images $(IMAGES:%=image-%) image-chroma image-sky

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-20s %s\n", $$1, $$2}'

install: $(VENV)/.installed ## Install all packages into .venv (TORCH=cpu: the small CPU build of torch)

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "imgsearch needs Python 3.11 or newer; name one with PYTHON=/path/to/python3.11" >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { echo "the venv module is missing; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 2; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt $(TORCH_BACKEND) \
	  --editable '.[all]' --group demo --group dev
	@touch $@

install-sky: $(SKY_VENV)/.installed ## Install the controller with SkyPilot into .venv-sky (docs/gpu-pools.md)

$(SKY_VENV)/.installed: pyproject.toml constraints-sky.txt | install
	@$(PYTHON) -m venv $(SKY_VENV)
	$(BIN)/uv pip install --quiet --python $(SKY_VENV)/bin/python --constraint constraints-sky.txt --editable '.[sky]' --group sky
	@touch $@

install-clients: $(CLIENTS_VENV)/.installed ## Install clients of other servers into .venv-clients, for tests (docs/clients.md)

$(CLIENTS_VENV)/.installed: pyproject.toml constraints-clients.txt | install
	@$(PYTHON) -m venv $(CLIENTS_VENV)
	$(BIN)/uv pip install --quiet --python $(CLIENTS_VENV)/bin/python --constraint constraints-clients.txt --group clients
	@touch $@

install-transformers: $(TRANSFORMERS)/.installed ## Install transformers into .transformers, for tests (docs/models.md)

# Not into .venv, where each process that imports open_clip would start 2.6 s later. The rest of the extra is in .venv.
$(TRANSFORMERS)/.installed: pyproject.toml constraints.txt | install
	$(BIN)/uv pip install --quiet --python $(BIN)/python --target $(TRANSFORMERS) --constraint constraints.txt --no-deps \
	  transformers sentencepiece
	@touch $@

demo: install ## Index the demo photos and serve the page (own photos: SOURCE=~/Pictures MODEL=ViT-B-32/laion2b_s34b_b79k)
	@$(BIN)/python -m demo --port $(PORT) $(if $(SOURCE),--source '$(SOURCE)') $(if $(MODEL),--model '$(MODEL)')

test: install install-clients install-transformers ## Run all tests that need no cluster
	@status=0; \
	$(BIN)/python -m pytest --numprocesses $(PROCESSES) --dist loadfile --no-loadscope-reorder || status=$$?; \
	$(BIN)/python -m pytest tests/transformers || status=$$?; \
	exit $$status

test-cluster: install install-sky ## Run the tests that need a Kubernetes cluster (requirements: tests/cluster/README.md)
	@status=0; \
	$(BIN)/python -m pytest --no-skips -m alone tests/cluster || status=$$?; \
	$(BIN)/python -m pytest --no-skips -m 'not alone' --numprocesses 2 --durations 30 tests/cluster || status=$$?; \
	exit $$status

test-sky: install-sky ## Run the tests that need SkyPilot
	@$(SKY_VENV)/bin/python -m pytest tests/skypilot

# Node.js is installed as a Python package, so that you need no Node.js of the system.
$(BIN)/node: constraints.txt | install
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --group web
	@touch $@

$(NODE_MODULES)/.installed: package.json package-lock.json | $(BIN)/node
	@$(BIN)/npm ci --silent
	@touch $@

lint: install $(NODE_MODULES)/.installed ## Check format, style, types and import rules of Python and JavaScript
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/node $(NODE_MODULES)/eslint/bin/eslint.js --max-warnings 0 images/searcher/web
	@$(BIN)/node $(NODE_MODULES)/typescript/bin/tsc

check: lint test ## Run lint, then test

docs: install ## Generate docs/settings.md and docs/cli.md from the code
	@$(BIN)/python -m docs.generate

docs-site: install ## Build the documentation site into .site. A broken link is an error
	@$(BIN)/python -m docs.site

bench: install ## Measure speed and memory, and write bench/results and docs/benchmarks.md
	@$(BIN)/python -m bench

bench-million: install ## Measure a million images (an hour, 12 GB of memory, 15 GB of disk). Run it again to continue
	@$(BIN)/python -m bench million

bench-cluster: install install-sky ## Run the cluster tests, and save the measured times for docs/benchmarks.md
	@$(BIN)/python -m pytest --no-skips --save-times tests/cluster

images: $(IMAGES:%=image-%) ## Build the container images with docker, podman or buildah (docs/images.md)

$(IMAGES:%=image-%): BUILD_ARGS += VERSION=$(VERSION) REVISION=$(REVISION)
image-embedder image-searcher image-sky: BUILD_ARGS += TORCH=$(TORCH) $(EXTRA:%=EXTRA=%)
$(IMAGES:%=image-%) image-chroma image-sky: image-%:
	@test -n '$(BUILDER)' || { echo "docker, podman and buildah are not installed: install one of them, or name one with BUILDER=" >&2; exit 2; }
	$(BUILDER) build $(BUILD_FLAGS) $(addprefix --build-arg ,$(BUILD_ARGS)) \
	  --tag $(REGISTRY:%=%/)imgsearch-$*:$(TAG) --file $(wildcard images/$*/Dockerfile tests/cluster/$*/Dockerfile) .

dist: install ## Build the wheel and the source archive into dist/
	@rm -rf dist
	@$(BIN)/uv build --quiet --build-constraint constraints.txt --out-dir dist

lock: install ## Resolve the versions in constraints*.txt again
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate --no-emit-index-url \
	  --no-emit-find-links --extra all --extra transformers --group demo --group dev --group web pyproject.toml constraints.in \
	  --output-file constraints.txt
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate --no-emit-index-url \
	  --no-emit-find-links --extra sky --group sky pyproject.toml --output-file constraints-sky.txt
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate --no-emit-index-url \
	  --no-emit-find-links --group clients --output-file constraints-clients.txt

clean: ## Delete everything that the other targets install and build, and the demo's data
	rm -rf $(VENV) $(SKY_VENV) $(CLIENTS_VENV) $(TRANSFORMERS) $(NODE_MODULES) dist .demo .site
