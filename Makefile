.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help demo test bench clean

help:
	@echo "make demo    install into .venv, train LeNet-5 on the bundled pictures, show where the report is"
	@echo "make test    every check: style, types, tests, doctests, the code of the README and docs"
	@echo "make bench   measure training speed against a plain torch loop, side by side"
	@echo "make clean   remove .venv, caches and runs/"

$(BIN)/python:
	$(PYTHON) -m venv .venv

.venv/.installed: pyproject.toml constraints.txt CMakeLists.txt $(wildcard native/*) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

.venv/.installed-dev: .venv/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

demo: .venv/.installed
	$(BIN)/striate train lenet5 --data fashion-mnist-mini --seed 0

test: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2

bench: .venv/.installed-dev
	$(BIN)/python benchmarks/training.py

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist runs
