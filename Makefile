# `make` alone lists the targets.
SHELL := /bin/bash
PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.DEFAULT_GOAL := help
.PHONY: help demo test slow check ui bench lock format clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

# uv when it is there; otherwise a plain virtual environment that brings uv along. Both install uv.lock as it is.
.venv/ready: pyproject.toml uv.lock
	@if uv --version >/dev/null 2>&1; then uv sync --frozen --quiet; else \
		$(PYTHON) -m venv .venv && .venv/bin/python -m pip install --quiet uv && .venv/bin/uv sync --frozen --quiet; fi
	@touch .venv/ready

demo: .venv/ready  ## the whole main job on the built-in sample, in minutes
	python src/wastelens main --dataset sample --config conf/smoke.yaml

test: .venv/ready  ## the tests
	python -m pytest -n 2 --dist loadfile -m "not slow"

slow: .venv/ready  ## the tests that take long: a real browser, the notebooks, environments built anew
	python -m pytest -n 2 --dist loadfile -m slow

check: .venv/ready  ## format, lint, types, layers, generated files
	ruff format --check .
	ruff check .
	mypy
	lint-imports
	python tools/project_files.py --check

ui: .venv/ready  ## open the runs: http://127.0.0.1:5000
	mlflow ui --backend-store-uri sqlite:///mlflow.db

bench: .venv/ready  ## measure the budgets; writes bench/results.md
	python -m bench.run

lock: .venv/ready  ## renew uv.lock, conda.yaml and MLproject
	uv lock
	python tools/project_files.py

format: .venv/ready  ## format and sort imports
	ruff format .
	ruff check --fix .

clean:  ## remove what was generated, but no runs and no raw data
	rm -rf data/prepared .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis
