# factrecall: two commands do everything on a fresh machine, `make run` and `make test`.

PYTHON ?= python3
CORES  ?= all
STUDY  ?= config.yaml
BIN    := .venv/bin
DONE   := .venv/.installed

export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup run test check format bench clean

help: ## say what each target does
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  variables: STUDY=file.yaml (default config.yaml), CORES=n (default all), PYTHON=python3.x"

setup: $(DONE) ## install everything, in the exact versions of envs/, into .venv

$(DONE): envs/requirements-cpu.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r envs/requirements-cpu.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

run: setup ## run the study (laptop: about 22 minutes on 2 cores) and write its report
	@snakemake --cores $(CORES) --configfile $(STUDY) --rerun-incomplete --quiet rules
	@echo "the report is in results/, one folder a study: report.html"

test: setup check ## check the code, then run all tests
	pytest --numprocesses logical --maxprocesses 8 --dist loadfile tests/unit
	pytest --ignore tests/unit

check: setup ## ruff, mypy, snakefmt and snakemake's own lint
	ruff check .
	ruff format --check .
	mypy
	snakefmt --check --compact-diff Snakefile workflow
	snakemake --lint

format: setup ## put code and workflow into shape
	ruff check --fix .
	ruff format .
	snakefmt Snakefile workflow

bench: setup ## measure speed against naive ways and peers (see docs/benchmarks.md)
	python -m tests.benchmarks

clean: ## delete the environment (results stay)
	rm -rf .venv
