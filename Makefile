# Everything runs in .venv, made here: only Python 3.10 to 3.13, pip and make are needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed

.PHONY: demo test lint package clean

demo: $(STAMP)
	$(BIN)/sslengine demo --out demo

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# make package VERSION=5.10 [REVISION=34045] [SYSTEM=linux|macosx|win]
VERSION ?= 5.10
SYSTEM ?= linux
package:
	$(PYTHON) Resources/package.py --version $(VERSION) --revision "$(REVISION)" --os $(SYSTEM) --out build

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt torch torchvision
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) demo build
