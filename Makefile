# Needs Python 3.11 to 3.14, GNU make and pip. `make help` lists the commands.
# PY: the Python that makes .venv. TEST_WORKERS: processes that run tests. CHROMIUM: the browser of the tests.
# Of the demo, PORT, WORKERS: its processes, and LAYER: redis://… for a server of yours, memory for one process.
PY ?= python3
PORT ?= 8000
WORKERS ?= 2
TEST_WORKERS ?= 5
VENV := .venv
BIN := $(VENV)/bin
# Tests start hundreds of processes: each would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE
# Where Chromium goes by another name.
CHROMIUM ?= $(firstword $(shell command -v chromium chromium-browser google-chrome 2>/dev/null))
export CHROMIUM

.DEFAULT_GOAL := setup
.PHONY: help setup demo test check format matrix bench bench-full tables soak faults fuzz autobahn servers upstream stubtest lock clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/:[^#]*## */\t/' | expand -t 12

setup: $(VENV)/.ok  ## .venv with everything for development, from the lock

# pip cannot check hashes of an editable install, so that comes second; its build backend is in the lock.
$(VENV)/.ok: requirements/dev.lock pyproject.toml
	@$(PY) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' || \
	  { echo "Antiphon needs Python 3.11 to 3.14; $(PY) is $$($(PY) --version 2>&1). Say: make PY=python3.13 $(MAKECMDGOALS)"; exit 1; }
	$(PY) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/dev.lock
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# The browser tests' driver, apart because it is large.
$(VENV)/.e2e: $(VENV)/.ok requirements/e2e.lock
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/e2e.lock
	@touch $@

# The official clients that tests/clients drives, and the htmx of the browser tests. A Node that is missing, or too old
# for them, comes as a package.
$(VENV)/.clients: $(VENV)/.ok requirements/clients.lock requirements/node.lock tests/clients/package-lock.json \
  tests/browser/package-lock.json
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/clients.lock
	@{ command -v npm && node -e 'process.exit(+(parseInt(process.versions.node) < 20))'; } >/dev/null 2>&1 || \
	  $(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/node.lock
	cd tests/clients && PATH="$(CURDIR)/$(BIN):$$PATH" npm ci --silent
	cd tests/browser && PATH="$(CURDIR)/$(BIN):$$PATH" npm ci --silent
	@touch $@

demo: $(VENV)/.ok  ## the showcase at http://127.0.0.1:8000
	cd examples/showcase && ../../$(BIN)/python manage.py demo --port $(PORT) --workers $(WORKERS)

test: $(VENV)/.ok $(VENV)/.e2e $(VENV)/.clients  ## every test, those in a browser included
	$(BIN)/python -m pytest -q -n $(TEST_WORKERS) --dist worksteal $(ARGS)

check: $(VENV)/.ok $(VENV)/.e2e $(VENV)/.clients  ## ruff, mypy for three platforms (for Windows the package, without the tools that need POSIX), layering and house rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --platform win32 --cache-dir .mypy_cache/win32 --follow-imports silent --exclude '/testing/(faults|suite)/' src/antiphon
	$(BIN)/mypy --platform darwin --cache-dir .mypy_cache/darwin
	$(BIN)/python -m pytest -q tests/test_layering.py tests/test_house.py

format: $(VENV)/.ok  ## ruff's own fixes and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

matrix: $(VENV)/.ok  ## the tests on each Python and Django found here
	$(BIN)/python scripts/matrix.py $(ARGS)

bench: $(VENV)/.ok  ## each benchmark, in short
	$(BIN)/python benchmarks/every.py --quick

bench-full: $(VENV)/.ok  ## each benchmark at full length, then the tables of docs/performance.md
	@failed=0; $(BIN)/python benchmarks/every.py || failed=1; $(BIN)/python benchmarks/tables.py --keep && exit $$failed

tables: $(VENV)/.ok  ## the tables of docs/performance.md, from the newest full runs
	$(BIN)/python benchmarks/tables.py --keep

fuzz: $(VENV)/.ok  ## a minute of frames from clients that nobody has written (FUZZ_S: seconds)
	FUZZ_S=$${FUZZ_S:-60} $(BIN)/python -m pytest -q -s --timeout 0 tests/unit/test_centrifuge_fuzz.py $(ARGS)

soak: $(VENV)/.ok $(VENV)/.e2e $(VENV)/.clients  ## hours in minutes: leaks, losses (SOAK_S: seconds of each test)
	@failed=0; $(BIN)/python -m pytest -q -s -m soak --timeout 0 tests/soak $(ARGS) || failed=1; \
	$(BIN)/python -m pytest -q -m soak --timeout 0 tests --ignore tests/soak $(ARGS) && exit $$failed

faults: $(VENV)/.ok  ## the table of faults at full length: six minutes, real servers
	FAULTS=full $(BIN)/python -m pytest -q -n 6 --dist loadgroup tests/faults $(ARGS)

autobahn: $(VENV)/.ok  ## the Autobahn suite against our protocol class, where there is a Python 2.7: a minute or two
	$(BIN)/python scripts/autobahn.py $(ARGS)

servers: $(VENV)/.ok  ## the table of docs/servers.md: four minutes, real servers
	$(BIN)/python scripts/servers.py $(ARGS)

upstream: $(VENV)/.ok  ## Channels' own suite against us: make upstream CHANNELS=<checkout of 4.3.2>
	$(BIN)/python scripts/upstream.py $(CHANNELS)

stubtest: $(VENV)/.ok  ## Channels' types (types-channels) against us
	$(BIN)/python scripts/stubtest.py $(ARGS)

lock:  ## remake the locks: make lock ARGS=--upgrade
	scripts/lock $(ARGS)

clean:  ## remove what these commands made
	rm -rf $(VENV) tests/clients/node_modules .matrix .autobahn .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
