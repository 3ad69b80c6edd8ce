# make demo      events to three receivers, one of them broken
# make test      both backends, four minutes: run it after a change; ARGS="-k queue -x"
# make test-all  every test, in its full length
# make coverage  which lines `make test` runs; fails below its floors
# make lint      ruff, mypy, stubtest
# make exits     programs that end, 300 times each way; ARGS="--exits 50 --seed 42"
# make soak      two minutes of chaos, then an audit; ARGS="--seconds 600 --seed 42"
# make build     sdist and wheel in dist/
# make clean     removes everything that make made
#
# make sanitize           the core under ASan and UBSan, Python's debug hooks, valgrind
# make test-freethreaded  its tests on a CPython without a GIL, which it builds the first time
# make tsan               the same under ThreadSanitizer; slow
#
# make bench          every benchmark and the bar; docs/benchmarks.md says how to read it
# make bench-check    compares with the recorded figures; fails if anything became slower
# make bench-record   records the figures of the last `make bench`
#
# Most of them set up .venv first. That needs only Python 3.11 or newer with its headers,
# a C compiler and make. PYTHON=python3.13 chooses the interpreter of a new .venv;
# ARGS="-k queue -x" is passed on to pytest, to the demo or to the build.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=

bin := $(VENV)/bin
sources := setup.py $(wildcard src_c/fastsinks/_core/*.pyx src_c/fastsinks/_core/*.pxd src_c/fastsinks/_core/*.h)

.PHONY: demo test test-all coverage exits sanitize test-freethreaded tsan soak lint build clean bench bench-check bench-record
.DELETE_ON_ERROR:

demo: $(VENV)/.built
	$(bin)/fastsinks demo $(ARGS)

# With each backend; a test that does not depend on the backend runs once.
test: $(VENV)/.built
	tools/suite $(bin)/python -m "not long" $(ARGS)

test-all: $(VENV)/.built
	tools/suite $(bin)/python --full $(ARGS)

coverage: $(VENV)/.built
	$(bin)/python -P tools/coverage/measure.py $(ARGS)

exits: $(VENV)/.built
	tools/suite $(bin)/python tests/process/test_exit_runs.py --exits 300 $(ARGS)

soak: $(VENV)/.built
	PYTHONPATH=tests $(bin)/python -m soak $(ARGS)

lint: $(VENV)/.built
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy
	$(bin)/python -m mypy.stubtest fastsinks --allowlist tests/stubtest-allowlist.txt

sanitize: $(VENV)/.built
	tools/sanitize $(bin)/python

test-freethreaded:
	tools/freethreaded/run $(ARGS)

tsan:
	tools/freethreaded/run thread $(ARGS)

build: $(VENV)/.built
	rm -rf dist
	$(bin)/python -m build $(ARGS)

bench: $(VENV)/.built
	@mkdir -p build/bench
	$(bin)/python -m pytest bench --benchmark-json=build/bench/results.json \
	    --plot=build/bench/scaling.svg $(ARGS)

bench-check: $(VENV)/.built
	$(bin)/python -m bench.check $(ARGS)

bench-record: $(VENV)/.built
	$(bin)/python -m bench.record $(ARGS)

clean:
	rm -rf $(VENV) .venvs build dist fastsinks.egg-info fastsinks/_core/*.so
	rm -rf .pytest_cache .mypy_cache tests/.mypy_cache .ruff_cache .hypothesis .benchmarks
	find fastsinks tests -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/.tools: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "fastsinks needs Python 3.11 or newer: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' || \
	    { echo "Python's venv module is missing (Debian, Ubuntu: python3-venv)" >&2; exit 1; }
	@$(PYTHON) -c 'import os.path, sys, sysconfig as s; \
	    sys.exit(not os.path.exists(s.get_path("include") + "/Python.h"))' || \
	    { echo "Python's C headers are missing (Debian, Ubuntu: python3-dev)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(bin)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(bin)/python -m pip install --quiet --group dev
	$(bin)/python -m pip install --quiet --no-build-isolation --editable .
	@touch $@

$(VENV)/.built: $(VENV)/.tools $(sources)
	$(bin)/python setup.py --quiet build_ext --inplace
	@touch $@
