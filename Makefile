# make demo, make test: a fresh machine needs only git, make and Python 3.11 or newer with venv. Everything goes into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test test-all arm zoo papers check train-demo wheel clean

demo: $(STAMP)  ## prune, recover, export, verify, bench and report the demo network
	$(BIN)/edgeprune compress --target rpi4 --overwrite

test: $(STAMP)  ## the fast tests
	$(BIN)/python -m pytest -m "not slow" -q

test-all: $(STAMP)  ## every test that can run here
	$(BIN)/python -m pytest -q

arm: $(STAMP)  ## as root on Debian: bundles on an emulated arm64 board, images by buildah, podman and docker; leaves nothing
	@tests/arm/run.sh $(abspath $(BIN))/python -q

zoo: $(STAMP)  ## prune every network of torchvision and many of timm (an hour); they stay in .venv afterwards
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps torchvision==0.28.0 timm==1.0.31
	$(BIN)/python -m pytest -m zoo -q

papers: $(STAMP)  ## the five papers' tables: runs what is missing (hours; wants EDGEPRUNE_DATA); QUICK=1: minutes, into runs/
	$(BIN)/python benchmarks/papers $(if $(QUICK),--quick)

check: $(STAMP)  ## format, lint, types, floors
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

train-demo: $(STAMP)  ## train the demo's checkpoint again
	$(BIN)/python models/train_digits.py

wheel: $(STAMP)  ## build the wheel into dist/
	$(BIN)/python -m build --wheel

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "edgeprune needs Python 3.11 or newer; name one with make PYTHON=python3.11"; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "Python's venv module is missing: apt-get install python3-venv"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[tflite,dev]'
	@touch $@

clean:  ## remove the environment and everything built
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
