# Two commands: `make demo` and `make test`. Both make .venv from the lock first.
PYTHON ?= python3
# Two processes; the tests of one file stay together, for the sake of their shared runs.
PYTEST_ARGS ?= -n 2 --dist loadfile
# For bench and bench-scale: --small, --only NAME..., --json FILE; --help lists them.
BENCH_ARGS ?=
BIN := .venv/bin

.PHONY: install demo test soak fuzz lint lock clean bench bench-scale

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

test: lint
	$(BIN)/python -m pytest $(PYTEST_ARGS)

# The tests of reliability on many more seeds, and a table of what was endured; about 20 minutes.
soak: install
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

# After a change of pyproject.toml's dependencies. Needs uv, which resolves for all platforms at once.
# The second lock is what of the first one the image holds; the third what the peers need and the first has not.
COMPILE := uv pip compile --quiet --universal --python-version 3.11 \
  --no-emit-index-url --no-emit-find-links --no-header --no-annotate
lock:
	$(COMPILE) --extra dev --extra kubernetes --upgrade pyproject.toml --output-file requirements.lock
	$(COMPILE) --extra kubernetes --constraint requirements.lock pyproject.toml --output-file deploy/requirements.lock
	$(COMPILE) --extra bench --constraint requirements.lock pyproject.toml \
	  | grep -vxFf requirements.lock > benchmarks/requirements.lock

clean:
	rm -rf .venv build dist zonal-demo zonal-out benchmarks/.scene $(FUZZ_CORPUS)
