# `make` alone lists the targets.
SHELL := /bin/bash
PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.DEFAULT_GOAL := help
.PHONY: help demo test coverage slow check docs pictures ui bench lock format clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

# With uv if it is installed, otherwise from a plain virtual environment into which uv is installed; always from uv.lock.
.venv/ready: pyproject.toml uv.lock
	@if uv --version >/dev/null 2>&1; then uv sync --frozen --quiet; else \
		$(PYTHON) -m venv .venv && .venv/bin/python -m pip install --quiet uv && .venv/bin/uv sync --frozen --quiet; fi
	@touch .venv/ready

demo: .venv/ready  ## run every step on the built-in sample, in minutes
	python src/wastelens main --dataset sample --config conf/smoke.yaml

test: .venv/ready  ## run the tests
	python -m pytest -n 2 --dist loadfile -m "not slow" $(PYTEST_ARGS)

# Before Python 3.12 tracing costs two thirds of the time, so that only rooms with fast tests are measured here;
# continuous integration measures everything on 3.12 and 3.13.
FAST_ROOMS = config system web
coverage: .venv/ready  ## measure the tests' line coverage of the rooms with fast tests
	python -m pytest -q -n 2 --dist loadfile -m "not slow" $(FAST_ROOMS:%=tests/%) $(FAST_ROOMS:%=--cov=wastelens.%) --cov-report=
	@echo "Line coverage of $(FAST_ROOMS): $$(coverage report --format=total) %"

slow: .venv/ready  ## run the slow tests: a real browser, the notebooks, the guides, fresh environments
	python -m pytest -n 2 --dist loadfile -m slow

check: .venv/ready  ## check format, lint, types, layers, prose and generated files
	ruff format --check .
	ruff check .
	mypy
	lint-imports
	python tools/project_files.py --check
	python tools/prose.py

docs: .venv/ready  ## build the documentation into site/, with warnings as errors
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet

pictures: .venv/ready  ## take README's pictures and table from the newest run of `make demo`; needs Chromium
	python -m tools.pictures

ui: .venv/ready  ## serve the runs at http://127.0.0.1:5000, and open their table in the browser
	@python -m tools.ui

bench: .venv/ready  ## measure the budgets and write bench/results.md
	python -m bench.run

lock: .venv/ready  ## update uv.lock, conda.yaml and MLproject
	uv lock
	python tools/project_files.py

format: .venv/ready  ## format the code and sort imports
	ruff format .
	ruff check --fix .

clean:  ## remove generated files, except runs and raw data
	rm -rf data/prepared site .coverage .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis
