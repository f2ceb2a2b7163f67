# SPDX-License-Identifier: MIT
# `make demo` and `make test` set up all they need, once; `make help` lists the rest.

PYTHON ?= python3
PIP_FLAGS ?=
DEMO_FLAGS ?=
PYTEST_FLAGS ?=
TEST_JOBS ?= $(shell n=$$(nproc 2>/dev/null || echo 1); echo $$((n < 4 ? n : 4)))
BENCH_FLAGS ?=

VENV := .venv
BIN := $(VENV)/bin
RUN := $(BIN)/python
PIP := $(RUN) -m pip --disable-pip-version-check install -q $(PIP_FLAGS)
LIBRARY := seq2seq_ext/_C.abi3.so
# A file's tests stay in one process: some share what they build. The order of files is that of tests/conftest.py.
IN_PARALLEL = -n $(TEST_JOBS) --dist loadfile --no-loadscope-reorder
# The CPU kernels' objects of the library: tests without torch link the very code that users run.
ARCHIVE := build/kernels.a
KERNELS := build/kernels
HOST := build/host
CPP := $(shell find csrc/kernels csrc/bindings csrc/sources.txt -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh' -o -name '*.txt')
FORMATTED := find csrc benchmarks -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh'
HAS_PYTHON_H = $(RUN) -c 'import os, sysconfig as s; raise SystemExit(not os.path.exists(s.get_path("include") + "/Python.h"))'
CONFIGURE = cmake --log-level=WARNING -S . -G Ninja -DPython_EXECUTABLE=$(CURDIR)/$(RUN) -DSEQ2SEQ_EXT_ARCHIVE=$(ARCHIVE)
PACKAGE := $(shell find seq2seq_ext -name '*.py')
# ninja and cmake of the virtual environment go first.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast kernels host sanitize lint format wheel bench bench-ops clean distclean
.DELETE_ON_ERROR:

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|'
	@echo
	@echo "Variables: PYTHON=python3 (>= 3.10), CXX (compiler), MAX_JOBS (parallel compilers), PIP_FLAGS,"
	@echo "           DEMO_FLAGS, PYTEST_FLAGS, BENCH_FLAGS (passed on),"
	@echo "           TEST_JOBS (processes that test, default: one a core, four at most)"

demo: $(VENV)/train.stamp $(VENV)/package.stamp $(LIBRARY) ## train a translator on this library, translate, draw, time
	$(RUN) -m seq2seq_ext demo $(DEMO_FLAGS)

test: $(VENV)/test.stamp $(VENV)/package.stamp $(LIBRARY) kernels host ## every test that this machine can run
	$(RUN) -m pytest $(IN_PARALLEL) $(PYTEST_FLAGS)

test-fast: $(VENV)/test.stamp $(VENV)/package.stamp $(LIBRARY) kernels host ## the tests without the slow ones
	$(RUN) -m pytest -m "not slow" $(IN_PARALLEL) $(PYTEST_FLAGS)

kernels: $(VENV)/test.stamp $(ARCHIVE) ## the kernels' NumPy module, without torch (build/kernels)
	@if $(HAS_PYTHON_H); then \
		$(CONFIGURE) -B $(KERNELS) >/dev/null && cmake --build $(KERNELS); \
	else \
		echo "seq2seq_ext: the tests of the kernels alone are skipped, they need Python's C headers (Debian/Ubuntu: apt install python3-dev)." >&2; \
	fi

# Switching fibers is tested on this one processor.
host: $(VENV)/test.stamp $(ARCHIVE) ## the CUDA kernels, to be run on the CPU by the tests (build/host; needs neither GPU nor nvcc)
ifeq ($(shell uname -sm),Linux x86_64)
	@if $(HAS_PYTHON_H); then python=ON; module=_kernels_cuda_host; else python=OFF; fi; \
	$(CONFIGURE) -B $(HOST) -DSEQ2SEQ_EXT_HOST_EXECUTION=ON -DSEQ2SEQ_EXT_TORCH=ON -DSEQ2SEQ_EXT_PYTHON=$$python >/dev/null && \
	cmake --build $(HOST) --target cuda_host_ops kernel_bench-host $$module
else
	@echo "seq2seq_ext: the tests that run CUDA kernels on the CPU are skipped, they need Linux on x86-64." >&2
endif

sanitize: kernels ## the kernel tests again, on a build with AddressSanitizer and UBSan
	$(RUN) -m pytest $(PYTEST_FLAGS) tests/kernels/test_sanitizers.py

lint: $(VENV)/dev.stamp ## ruff, clang-format, mypy: the checks of .ci/run
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(FORMATTED) | xargs $(BIN)/clang-format --dry-run -Werror
	$(BIN)/mypy

format: $(VENV)/dev.stamp ## rewrite the sources as the linters want them
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .
	$(FORMATTED) | xargs $(BIN)/clang-format -i

wheel: dist/wheel.stamp ## dist/: the source distribution, and the wheel built from it

bench: $(VENV)/bench.stamp $(VENV)/package.stamp $(LIBRARY) ## every benchmark, its rows, pictures and tables (about half an hour)
	$(RUN) -m benchmarks $(BENCH_FLAGS)

bench-ops: $(VENV)/test.stamp $(VENV)/package.stamp $(LIBRARY) ## single ops beside torch's, for the work on a kernel
	$(RUN) -m pytest benchmarks/test_ops.py $(BENCH_FLAGS)

clean: ## remove what was built
	rm -rf build dist *.egg-info seq2seq_ext/_C*.abi3.so $(VENV)/package.stamp

distclean: clean ## remove the virtual environments, too
	rm -rf $(VENV) .venv-*

# ---- Set-up: one stamp for each thing that is installed. ---------------------------------------------------------------

$(VENV)/bin/python:
	@command -v $(PYTHON) >/dev/null || { echo "seq2seq_ext: no $(PYTHON) found; install Python >= 3.10 or say where it is: make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "seq2seq_ext: Python >= 3.10 is needed, $(PYTHON) is $$($(PYTHON) -V 2>&1); say where a newer one is: make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "seq2seq_ext: $(PYTHON) cannot make virtual environments; install its venv module (Debian/Ubuntu: apt install python3-venv)." >&2; exit 1; }
	@set -- $${CXX:-c++}; command -v "$$1" >/dev/null || { echo "seq2seq_ext: no C++ compiler found ($$1); install one (Debian/Ubuntu: apt install g++) or name one in CXX." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/base.stamp: requirements.txt constraints.txt | $(VENV)/bin/python
	$(PIP) -r requirements.txt
	@touch $@

$(VENV)/train.stamp $(VENV)/test.stamp $(VENV)/dev.stamp $(VENV)/bench.stamp: $(VENV)/%.stamp: requirements-%.txt $(VENV)/base.stamp
	$(PIP) -r $<
	@touch $@

$(VENV)/test.stamp: requirements-train.txt
$(VENV)/dev.stamp $(VENV)/bench.stamp: requirements-train.txt requirements-test.txt

# With FROM_WHEEL=1 (.ci/run) the kernels that `make wheel` has compiled are linked, otherwise they are compiled, too.
KERNELS_OR_NOT = $(if $(FROM_WHEEL),SEQ2SEQ_EXT_KERNELS,SEQ2SEQ_EXT_ARCHIVE)=$(CURDIR)/$(ARCHIVE)
BUILD_LIBRARY = $(KERNELS_OR_NOT) $(RUN) setup.py -q build_ext --inplace >build/library.log 2>&1 || { cat build/library.log >&2; exit 1; }

# The library is built in the tree; ninja recompiles what changed.
$(LIBRARY): $(CPP) setup.py $(VENV)/base.stamp
	@echo "Building $@ (about two minutes from scratch; log: build/library.log)"
	@mkdir -p build
	@$(BUILD_LIBRARY)
	@touch $@ $(ARCHIVE)

# Older than the library where that was built without make.
$(ARCHIVE): $(LIBRARY)
	@{ test -f $@ && ! test $< -nt $@; } || { $(BUILD_LIBRARY); }
	@touch $@

# Editable: the package and its command `seq2seq-ext` run from the tree.
$(VENV)/package.stamp: pyproject.toml setup.py $(VENV)/base.stamp
	SEQ2SEQ_EXT_BUILD=0 $(PIP) --no-build-isolation --no-deps -e .
	@touch $@

dist/wheel.stamp: $(CPP) $(PACKAGE) pyproject.toml setup.py MANIFEST.in $(VENV)/test.stamp
	@rm -rf dist && mkdir -p build
	@echo "Building the source distribution and, from it, the wheel (log: build/wheel.log)"
	@SEQ2SEQ_EXT_ARCHIVE=$(CURDIR)/$(ARCHIVE) $(RUN) -m build --no-isolation -o dist . >build/wheel.log 2>&1 || { cat build/wheel.log >&2; exit 1; }
	@ls dist/*.whl dist/*.tar.gz
	@touch $@
