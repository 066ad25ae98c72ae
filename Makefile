.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help demo test prove sanitize bench clean

help:
	@echo "make demo    install into .venv, train LeNet-5 on the bundled pictures, show where the report is"
	@echo "make test    every check: style, types, tests, doctests, the code of the README and docs"
	@echo "make prove   the slow proofs: all laws of the GPU kernels in an interpreter, and make sanitize"
	@echo "make sanitize the laws over kernels built with address and undefined-behaviour sanitizers"
	@echo "make bench   measure layers and training speed against PyTorch, side by side"
	@echo "make clean   remove .venv, caches and runs/"

$(BIN)/python:
	$(PYTHON) -m venv .venv

.venv/.installed: pyproject.toml constraints.txt CMakeLists.txt $(wildcard native/*) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt -e .
	@touch $@

.venv/.installed-dev: pyproject.toml constraints.txt CMakeLists.txt $(wildcard native/*) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt -e ".[dev]"
	@touch .venv/.installed $@

demo: .venv/.installed
	$(BIN)/striate train lenet5 --data fashion-mnist-mini --seed 0

test: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 --dist worksteal

# What takes too long for every change: all laws of the Triton kernels in the interpreter, every operator through ONNX
# and the compiler (make test takes a part of them), laws over fresh random examples, and the sanitizers.
prove: sanitize
	STRIATE_PROVE=1 $(BIN)/python -m pytest -q -n 2 tests/test_triton.py tests/test_graphs.py tests/test_acceleration.py \
		tests/test_native_pools.py tests/test_engines.py tests/test_runs.py tests/test_sweeps.py
	STRIATE_PROVE=1 $(BIN)/python -m pytest -q -n 2 -m hypothesis

# The laws over kernels that stop at the first read or write out of bounds, overflow or misaligned access.
sanitize: .venv/.installed-dev
	cmake -S . -B build/sanitize -DSTRIATE_SANITIZE=ON -DPython_EXECUTABLE=$(CURDIR)/$(BIN)/python
	cmake --build build/sanitize --parallel
	rm -rf build/sanitized && mkdir -p build/sanitized && cp -r src/striate build/sanitized/
	cp build/sanitize/_native*.so build/sanitized/striate/
	LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libubsan.so)" ASAN_OPTIONS=detect_leaks=0 \
		PYTHONPATH=build/sanitized:tools $(BIN)/python -m pytest -p sanitized -q -n 2 -W ignore \
		tests/test_laws.py $(wildcard tests/test_native*.py)

bench: .venv/.installed-dev
	$(BIN)/striate bench
	$(BIN)/python benchmarks/training.py

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist runs
