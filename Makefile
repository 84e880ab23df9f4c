# From nothing to the demo: make demo. From nothing to green tests: make test. Ten thousand runs in virtual time: make simulate.
# PYTHON names the interpreter the environment is made with (3.11 or newer); ARGS are passed to the demo and the simulator,
# TESTS to pytest. A longer search for input that breaks something: make fuzz SECONDS=3600.

PYTHON ?= python3
ARGS ?=
TESTS ?=
SECONDS ?= 60
EXAMPLES ?= 20000

# Debian keeps nft and ip out of an ordinary user's path.
export PATH := $(PATH):/usr/sbin:/sbin
BIN := .venv/bin
# The environment is laid anew when what it was made from has changed: content, not dates, and the place it stands in.
RECIPE := $(shell { cat pyproject.toml setup.py constraints.txt; echo $(CURDIR); } | sha256sum | cut -c1-16)
INSTALLED := .venv/installed-$(RECIPE)
FUZZER := .venv/fuzzer-$(RECIPE)

.PHONY: demo test simulate differential packetdrill fuzz coverage lint build clean system

demo: build
	$(BIN)/chimney demo $(ARGS)

test: lint
	$(BIN)/python -m pytest $(TESTS)
	CHIMNEY_PURE=1 $(BIN)/python -m pytest $(TESTS)

# Scripts in the packetdrill language (docs/packetdrill.md): our own, or those in the file or directory SUITE; LIST names
# a file that says which of them.
packetdrill: build
	$(BIN)/chimney packetdrill $(if $(LIST),--list $(LIST)) $(ARGS) $(or $(SUITE),tests/packetdrill/scripts)

simulate: build
	$(BIN)/chimney simulate --replay tests/sim/cases --no-coverage
	$(BIN)/chimney simulate --runs 10000 $(ARGS)

# The engine beside a kernel socket: EXAMPLES random scripts for each comparison; see docs/differences.md.
differential: build
	EXAMPLES=$(EXAMPLES) $(BIN)/python -m pytest --timeout=0 --hypothesis-show-statistics tests/differential $(ARGS)

# Inputs that nobody thought of, guided by what they reach; see docs/fuzzing.md.
fuzz: $(FUZZER)
	CHIMNEY_PURE=1 $(BIN)/python -m fuzz --seconds $(SECONDS) $(ARGS)

# Which branches of the engine its tests take: at least 95 of 100.
COVERED := tests/tcp tests/packetdrill tests/fuzz
coverage: $(INSTALLED)
	CHIMNEY_PURE=1 COVERAGE_FILE=build/coverage $(BIN)/python -m coverage run -m pytest -q $(COVERED) $(TESTS)
	$(BIN)/python tools/branches.py --data build/coverage --least 95

lint: build
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy
	MYPYPATH=examples $(BIN)/python -m mypy examples/http_file_server.py

# Live, beside the kernel, in namespaces of their own; the machine should be quiet. docs/benchmarks.md
.PHONY: bench-loss bench-fairness
bench-loss: build
	$(BIN)/python benchmarks/loss.py $(ARGS)

bench-fairness: build
	$(BIN)/python benchmarks/fairness.py $(ARGS)

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

$(FUZZER): $(INSTALLED)
	CHIMNEY_PURE=1 $(BIN)/python -m pip install -q -c constraints.txt --no-build-isolation -e '.[fuzz]'
	rm -f .venv/fuzzer-*
	touch $@

clean:
	rm -rf .venv build dist src/*.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find src -name '*.so' -delete
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
