# `make run` and `make test` need Python 3.11 or newer with venv, and make; the rest is installed.
PYTHON ?= python3
BIN := .venv/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check

.PHONY: run test quick test-milvus torture torture-index bench bench-check bench-large check format openapi client constraints audit clean

run: .venv/.run
	$(BIN)/lookalike up

test: .venv/.dev
	$(BIN)/python -m pytest

# What needs no server, browser or training: for running often.
quick: .venv/.dev
	$(BIN)/python -m pytest -q -n 2 --dist loadfile \
		-m "not slow and not torture and not milvus_server"

# The attacks of tests/torture with their full counts, on this machine only: about two hours, in parts
# of ten minutes at most (index-milvus installs the real Milvus first). What has passed at this
# commit is not run again, so that `make torture` continues where it was interrupted;
# `make torture-requests` runs one part. Each part leaves its lines of the table in .torture/.
TORTURE := requests pictures clients ends steady-1 steady-2
STATEFUL := $(foreach seed,1 2 3 4 5 6,index-stateful-$(seed))
TORTURE_INDEX := index-answers index-damage index-disk index-kill index-exhausted index-storm index-switches \
	index-snapshots index-bytes index-milvus $(STATEFUL)
PASSED := .torture/$(shell git rev-parse --short HEAD 2>/dev/null || echo unknown)
run-requests = tests/torture/test_requests.py
run-pictures = tests/torture/test_pictures.py tests/torture/test_fuzz.py
run-clients = tests/torture/test_load.py -k "not sigterm"
run-ends = tests/torture/test_load.py -k sigterm
run-steady-1 = tests/torture/test_steady.py
run-steady-2 = tests/torture/test_steady.py
run-index-answers = tests/torture/index/test_answers.py
run-index-damage = tests/torture/index/test_damage.py tests/torture/index/test_hostile_files.py
run-index-disk = tests/torture/index/test_disk.py
run-index-kill = tests/torture/index/test_kill.py
run-index-exhausted = tests/torture/index/test_exhausted.py
run-index-storm = tests/torture/index/test_storm.py
run-index-switches = tests/torture/index/test_switches.py
run-index-snapshots = tests/torture/index/test_snapshots.py
run-index-bytes = tests/torture/index/test_bytes_protocol.py
$(foreach part,$(STATEFUL),$(eval run-$(part) = tests/torture/index/stateful))
run-index-milvus = tests/torture/index/test_milvus_kill.py

.PHONY: $(TORTURE:%=torture-%) $(TORTURE_INDEX:%=torture-%)

torture: $(TORTURE:%=$(PASSED)/%) $(TORTURE_INDEX:%=$(PASSED)/%)
	@cat $^

torture-index: $(TORTURE_INDEX:%=$(PASSED)/%)
	@cat $^

$(TORTURE:%=torture-%) $(TORTURE_INDEX:%=torture-%): torture-%: $(PASSED)/%
	@cat $<

$(PASSED)/steady-2: $(PASSED)/steady-1
$(PASSED)/steady-1 $(PASSED)/steady-2: export LOOKALIKE_TORTURE_STEADY = .torture/steady

$(STATEFUL:%=$(PASSED)/%): export LOOKALIKE_TORTURE_SEED = $(@F:index-stateful-%=%)

$(TORTURE:%=$(PASSED)/%) $(TORTURE_INDEX:%=$(PASSED)/%): $(PASSED)/%: | .venv/.dev
	@mkdir -p $(@D)
	@rm -f $@.new
	LOOKALIKE_TORTURE=full LOOKALIKE_TORTURE_TABLE=$@.new \
		$(BIN)/python -m pytest $(run-$*) -m torture --timeout 3600
	@touch $@.new
	@mv $@.new $@

# Only the store in Milvus: milvus-lite, and the real server, which is installed for it.
test-milvus: .venv/.dev
	$(BIN)/python -m pytest tests/index/milvus tests/search_api/test_milvus.py tests/torture/index/test_milvus_kill.py

# The benchmarks of what ships, in parts that resume: 40 minutes on two quiet cores. They write the
# tables between markers in docs/benchmarks.md and the README, and the ratios that bench-check compares.
# `make bench PARTS='index serving'` runs these; AGAIN=--again also what has passed at this revision.
# Larger ones, and those that train, are run by hand: docs/benchmarks.md has their commands.
bench: .venv/.dev
	$(BIN)/python -m benchmarks $(AGAIN) $(PARTS)

# Before a model, FAISS or torch changes, and after: which ratios against peers fell by a quarter.
bench-check: .venv/.dev
	$(BIN)/python -m benchmarks --check

# A million vectors against other libraries, and up to ten million: some hours, 25 GB, and the vectors
# of `python -m benchmarks.vectors`. FOLDER is where the folder million with them is.
bench-large: .venv/.dev
	$(BIN)/python -m benchmarks --large $(if $(FOLDER),--folder $(FOLDER)) $(AGAIN) $(PARTS)

check: .venv/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python requirements/audit.py

# Known vulnerabilities of what is installed, where their data can be reached.
audit: .venv/.dev
	$(BIN)/python requirements/audit.py

format: .venv/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# After a change of a route or a schema.
openapi: .venv/.dev
	$(BIN)/python -m search_api.api > docs/openapi.json

# After a change to search_api/client/asynchronous.py.
client: .venv/.dev
	$(BIN)/python search_api/client/generate.py

clean:
	rm -rf .venv .milvus-server build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

.venv/pyvenv.cfg:
	$(PYTHON) -m venv .venv

# What is installed has the hashes in requirements/, on every platform; a package of our own has none.
.venv/.run: .venv/pyvenv.cfg pyproject.toml requirements/run.txt
	$(PIP) install --require-hashes -r requirements/run.txt
	$(PIP) install --no-deps --no-build-isolation -e .
	touch $@

.venv/.dev: .venv/.run requirements/dev.txt
	$(PIP) install --require-hashes -r requirements/dev.txt
	touch $@

# After a change to the dependencies in pyproject.toml: every package with its version and the hashes
# of all its files, for Python 3.11 to 3.13 and every platform. It keeps versions that still fit;
# `make constraints UPGRADE=--upgrade` takes the newest, UPGRADE='-P pillow' one package's.
LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	--no-config --custom-compile-command 'make constraints' pyproject.toml
UPGRADE :=

constraints: .venv/pyvenv.cfg
	$(PIP) install 'uv==0.13.9'
	$(LOCK) $(UPGRADE) --extra dev -o requirements/dev.txt
	$(LOCK) -c requirements/dev.txt --extra milvus -o requirements/milvus.txt
	$(LOCK) -c requirements/dev.txt -o requirements/run.txt
