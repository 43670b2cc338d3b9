# `make run` and `make test` need Python 3.11 or newer with venv, and make; all else is installed.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: run test test-milvus torture torture-index check format openapi clean

run: .venv/.run
	$(BIN)/lookalike up

test: .venv/.dev
	$(BIN)/python -m pytest

# The attacks of tests/torture with their full counts: about an hour, on this machine only.
torture: .venv/.dev
	LOOKALIKE_TORTURE=full $(BIN)/python -m pytest tests/torture -m torture --timeout 3600

# Those of the store alone: some 4 minutes.
torture-index: .venv/.dev
	LOOKALIKE_TORTURE=full $(BIN)/python -m pytest tests/torture/index -m torture --timeout 3600

# The store in Milvus alone: milvus-lite, and the real server, which is installed for it.
test-milvus: .venv/.dev
	$(BIN)/python -m pytest tests/index/milvus tests/search_api/test_milvus.py tests/torture/index/test_milvus_kill.py

check: .venv/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: .venv/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# After a change of a route or a schema.
openapi: .venv/.dev
	$(BIN)/python -m search_api.openapi > docs/openapi.json

clean:
	rm -rf .venv .milvus-server build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv/pyvenv.cfg:
	$(PYTHON) -m venv .venv

.venv/.run: .venv/pyvenv.cfg pyproject.toml
	$(BIN)/python -m pip install --disable-pip-version-check -e .
	touch $@

.venv/.dev: .venv/.run
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[dev]'
	touch $@
