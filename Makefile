# Two commands: `make demo` and `make test`. Both make .venv from the lock first.
PYTHON ?= python3
# Two processes; the tests of one file stay together, for the sake of their shared runs.
PYTEST_ARGS ?= -n 2 --dist loadfile
BIN := .venv/bin

.PHONY: install demo test lint lock clean

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

# After a change of pyproject.toml's dependencies. Needs uv, which resolves for all platforms at once.
lock:
	uv pip compile --quiet --universal --python-version 3.11 --all-extras --upgrade \
	  --no-emit-index-url --no-emit-find-links --no-header --no-annotate \
	  pyproject.toml --output-file requirements.lock

clean:
	rm -rf .venv build dist zonal-demo zonal-out
