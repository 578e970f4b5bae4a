# `make help` lists the targets. Each sets up .venv when it is missing or older than pyproject.toml.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
IMAGES ?= base train serve
# Processes of the default tests, some 1.5 GB each. Tests wait for processes and servers: two cores have time for five.
WORKERS ?= 5

# Where torch comes from, if not from pip's index: an index of CPU builds, say. .venv remembers it, and is made anew for another.
KEPT_INDEX := $(shell cat $(VENV)/.torch-index 2>/dev/null)
TORCH_INDEX ?= $(KEPT_INDEX)
export TORCH_INDEX

# Threads that wait give their core away: on a busy machine spinning ones took ten times the CPU seconds.
export OMP_WAIT_POLICY ?= PASSIVE

# What Python compiled is kept, whatever the machine says: each process of the tests compiled all of them, ten seconds of a core.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo serve check kernels test test-slow test-docker test-spark e2e wheelhouse base-image images image-spark publish kind audit compile golden bench bench-gpu bench-quality lock format clean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP)  ## Make .venv with every locked version (TORCH_INDEX=URL: torch from an index of CPU builds)

ifneq ($(TORCH_INDEX),$(KEPT_INDEX))
.PHONY: another-index
$(STAMP): another-index
another-index:
	rm -rf $(VENV)
endif

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed: install it or call make PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@umask 077 && printf %s "$$TORCH_INDEX" >$(VENV)/.torch-index
	@$(BIN)/python tools/announce.py
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt setuptools wheel
	@test -z "$$TORCH_INDEX" || PIP_INDEX_URL="$$TORCH_INDEX" $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

demo: $(STAMP)  ## From nothing to ranked jobs: generate a log, run the compiled pipeline, show the result
	$(BIN)/python -m pipelines demo

serve: $(STAMP)  ## After `make demo`: its last run as a page and an API on http://127.0.0.1:8080
	$(BIN)/python -m pipelines serve

check: $(STAMP)  ## Lint, types, import layers, lock, compiled pipelines
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=. $(BIN)/lint-imports
	$(BIN)/python tools/lock.py --check
	$(BIN)/python -m pipelines compile --check

kernels: $(STAMP)  ## Compile the kernels of all steps once; the first runs and tests find them
	$(BIN)/python tools/kernels.py

test: $(STAMP)  ## The default tests: offline, a few minutes on two cores
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --durations=40

test-slow: $(STAMP)  ## The tests that take longer than the default run allows
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder --durations=40 -m slow

compile: $(STAMP)  ## Write pipelines/compiled/
	$(BIN)/python -m pipelines compile

golden: $(STAMP)  ## Rewrite the golden files; review the diff before committing it
	$(BIN)/python -m pipelines compile
	UPDATE_GOLDEN=1 $(BIN)/python -m pytest tests -k golden

test-docker: $(STAMP)  ## The compiled pipeline in containers: no network, or an object store alone (after `make images`)
	$(BIN)/python -m pytest tests/docker -m docker -rs

test-spark: $(STAMP)  ## The Spark engine: equal rows, a killed worker (needs Java 17)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[spark]"
	$(BIN)/python -m pytest -n 2 --dist loadfile --durations=10 tests/distributed

e2e: $(STAMP)  ## A launched step on the cluster that KUBECONFIG and KF_PIPELINES_ENDPOINT name (tests/e2e/conftest.py has the rest)
	$(BIN)/python -m pytest tests/e2e -m e2e -rs -s

wheelhouse: $(STAMP)  ## Download every wheel that the images install (the only part that needs a network)
	$(BIN)/python images/build.py wheelhouse $(IMAGES)

base-image: $(STAMP)  ## A Debian base image by debootstrap, for machines that cannot pull python:3.11-slim (root)
	$(BIN)/python images/build.py base-image

images: wheelhouse  ## Build and check base, train and serve without a network (IMAGES="base serve", BASE_IMAGE=name for others)
	$(BIN)/python images/build.py build $(IMAGES)
	$(BIN)/python images/build.py check $(IMAGES)

publish: $(STAMP)  ## Push what was built to REGISTRY=host/path, compile for it by digest: build/published/
	$(BIN)/python images/publish.py "$(REGISTRY)" $(filter-out serve,$(IMAGES))

kind: $(STAMP)  ## A cluster on this machine with Kubeflow Pipelines and a run in it (needs kind, kubectl, docker, a network)
	PATH="$(CURDIR)/$(BIN):$$PATH" tools/kind.sh

image-spark: $(STAMP)  ## The image for the Spark engine, on a Debian base with Java 17 (root)
	$(BIN)/python images/build.py base-image spark
	$(BIN)/python images/build.py wheelhouse spark
	$(BIN)/python images/build.py build spark
	$(BIN)/python images/build.py check spark

audit: $(STAMP)  ## Known vulnerabilities of each image's packages, by pip-audit (needs its source of advisories)
	test -x build/pip-audit/bin/pip-audit || $(BIN)/python -m venv build/pip-audit
	build/pip-audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	PATH="$(CURDIR)/build/pip-audit/bin:$$PATH" $(BIN)/python images/build.py audit

bench: $(STAMP)  ## Time ours against the naive way and the peer: build/bench/bench.json (BENCH=name for one)
	$(BIN)/python tests/bench $(BENCH)

bench-gpu: $(STAMP)  ## What one GPU does, side by side, in eight minutes: build/bench/gpu.json
	$(BIN)/python tests/bench/gpu.py

bench-quality: $(STAMP)  ## Model quality at 1.2M impressions, three seeds: build/bench/quality.json (about an hour)
	$(BIN)/python tests/bench/quality.py

lock: $(STAMP)  ## Write constraints.txt from what is installed
	$(BIN)/python tools/lock.py

format: $(STAMP)  ## Format and mend what ruff can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## Remove what the other targets made, except .venv
	rm -rf build wheelhouse .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find components pipelines tests tools -name __pycache__ -type d -prune -exec rm -rf {} +
