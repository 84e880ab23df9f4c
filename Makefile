# From nothing to the demo: make demo. From nothing to green tests: make test. Ten thousand runs in virtual time: make simulate.
# PYTHON names the interpreter the environment is made with (3.11 or newer); ARGS are passed to the demo and the simulator,
# TESTS to pytest.

PYTHON ?= python3
ARGS ?=
TESTS ?=

# Debian keeps nft and ip out of an ordinary user's path.
export PATH := $(PATH):/usr/sbin:/sbin
BIN := .venv/bin
# The environment is laid anew when what it was made from has changed: content, not dates, and the place it stands in.
RECIPE := $(shell { cat pyproject.toml setup.py constraints.txt; echo $(CURDIR); } | sha256sum | cut -c1-16)
INSTALLED := .venv/installed-$(RECIPE)

.PHONY: demo test simulate lint build clean system

demo: build
	$(BIN)/chimney demo $(ARGS)

test: lint
	$(BIN)/python -m pytest $(TESTS)
	CHIMNEY_PURE=1 $(BIN)/python -m pytest $(TESTS)

simulate: build
	$(BIN)/chimney simulate --replay tests/sim/cases --no-coverage
	$(BIN)/chimney simulate --runs 10000 $(ARGS)

lint: build
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy
	MYPYPATH=examples $(BIN)/python -m mypy examples/http_file_server.py

# setup.py compiles those modules whose sources changed, and nothing when none did.
build: $(INSTALLED)
	@if $(BIN)/python tools/can_compile.py; then $(BIN)/python setup.py -q build_ext --inplace; fi
	@echo "Chimney's build here: $$($(BIN)/python -c 'from chimney import _build; print(_build.describe())')"

system:
	@tools/system.sh $(PYTHON)

$(INSTALLED): | system
	$(BIN)/python -c "" 2>/dev/null || { rm -rf .venv && $(PYTHON) -m venv .venv; }
	$(BIN)/python -m pip install -q -c constraints.txt setuptools Cython
	CHIMNEY_PURE=1 $(BIN)/python -m pip install -q -c constraints.txt --no-build-isolation -e '.[test]'
	find src -name '*.so' -delete
	rm -f .venv/installed-*
	touch $@

clean:
	rm -rf .venv build dist src/*.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find src -name '*.so' -delete
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
