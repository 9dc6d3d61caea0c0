# Two commands: `make demo` and `make test`. Both make .venv from the lock first.
PYTHON ?= python3
# Two processes, which share what tests only read (tests/builds.py): who is done takes tests from the other.
PYTEST_ARGS ?= -n 2 --dist worksteal
# For bench and bench-scale: --small, --only NAME..., --json FILE; --help lists them.
BENCH_ARGS ?=
BIN := .venv/bin

.PHONY: install warm demo test test-slow test-lowest soak fuzz lint lock clean bench bench-scale

install: .venv/installed

# Old pips resolve slowly and know fewer tags: upgrade first. The lock holds every version, so nothing is resolved.
.venv/installed: requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --no-deps --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

demo: install
	$(BIN)/zonal demo

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell zonal tests benchmarks docs deploy workflows *.md *.yaml *.cff

# Compiled once for all processes of all tests. Numba keeps code beside these files, and goes by their contents and times.
warm: .venv/warm
.venv/warm: .venv/installed $(wildcard zonal/stats/*.py)
	$(BIN)/python -m zonal.stats.preload
	touch $@

# What is not slow: some ten minutes on two cores. The slow rest: pods as processes, the image, a browser, more faults.
test: lint warm
	$(BIN)/python -m pytest -m "not slow" --junitxml .junit/$@.xml $(PYTEST_ARGS)

test-slow: warm
	$(BIN)/python -m pytest -m slow --junitxml .junit/$@.xml $(PYTEST_ARGS)

# The unit tests on the lowest versions that pyproject.toml allows of what it names: whether each `>=` is true.
# What only tests need is as new as goes with these.
UV := $(BIN)/uv
test-lowest: install
	$(UV) venv --quiet --clear --python 3.11 .venv/lowest
	$(UV) pip compile --quiet --python .venv/lowest --resolution lowest-direct --extra kubernetes pyproject.toml \
	  --output-file .venv/lowest/lowest.txt
	$(UV) pip install --quiet --python .venv/lowest --constraint .venv/lowest/lowest.txt --editable '.[dev,kubernetes]'
	NUMBA_CACHE_DIR=$(CURDIR)/.venv/lowest/numba .venv/lowest/bin/python -m pytest -m "not slow" --ignore tests/integration $(PYTEST_ARGS)

# The tests of reliability on many more seeds, and a table of what was endured; about 20 minutes.
soak: warm
	$(BIN)/python -m pytest -n 2 --dist worksteal --soak tests/integration/test_faults_*.py \
	  tests/integration/test_workers_lost.py tests/integration/test_driver_lost.py tests/integration/test_links_cut.py

bench: install .venv/peers
	$(BIN)/python -m benchmarks.bench $(BENCH_ARGS)

bench-scale: install
	$(BIN)/python -m benchmarks.scale $(BENCH_ARGS)

# What zonal is measured beside; nothing else needs it.
.venv/peers: benchmarks/requirements.lock .venv/installed
	$(BIN)/python -m pip install --quiet --no-deps --requirement benchmarks/requirements.lock
	touch $@

# Coverage-guided, for as long as asked and for each of the two targets; CI's share of it is tests/test_fuzz.py.
FUZZ_SECONDS ?= 60
FUZZ_CORPUS := tests/fuzz/.corpus
fuzz: install .venv/fuzzer
	$(BIN)/python tests/fuzz/run.py tiff $(FUZZ_CORPUS) -max_total_time=$(FUZZ_SECONDS)
	$(BIN)/python tests/fuzz/run.py workflow $(FUZZ_CORPUS) -max_total_time=$(FUZZ_SECONDS)

.venv/fuzzer: tests/fuzz/requirements.lock .venv/installed
	$(BIN)/python -m pip install --quiet --no-deps --requirement tests/fuzz/requirements.lock
	touch $@

# After a change of pyproject.toml's dependencies. Uv resolves for all platforms at once.
# The second lock is what of the first one the image holds; the third what the peers need and the first has not.
COMPILE := $(UV) pip compile --quiet --universal --python-version 3.11 \
  --no-emit-index-url --no-emit-find-links --no-header --no-annotate
lock:
	$(COMPILE) --extra dev --extra kubernetes --upgrade pyproject.toml --output-file requirements.lock
	$(COMPILE) --extra kubernetes --constraint requirements.lock pyproject.toml --output-file deploy/requirements.lock
	$(COMPILE) --extra bench --constraint requirements.lock pyproject.toml \
	  | grep -vxFf requirements.lock > benchmarks/requirements.lock

clean:
	rm -rf .venv .junit .hypothesis build dist zonal-demo zonal-out benchmarks/.scene $(FUZZ_CORPUS)
