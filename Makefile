# `make run` and `make test` need Python 3.11 or newer with venv, and make; all else is installed.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: run test torture-index check format clean

run: .venv/.run
	$(BIN)/lookalike up

test: .venv/.dev
	$(BIN)/python -m pytest

torture-index: .venv/.dev
	LOOKALIKE_TORTURE=full $(BIN)/python -m pytest --timeout=3600 tests/torture/index

check: .venv/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: .venv/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv/pyvenv.cfg:
	$(PYTHON) -m venv .venv

.venv/.run: .venv/pyvenv.cfg pyproject.toml
	$(BIN)/python -m pip install --disable-pip-version-check -e .
	touch $@

.venv/.dev: .venv/.run
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[dev]'
	touch $@
