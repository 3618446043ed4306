# Short names for what a user and CI run. Everything lives in .venv and .snakefold; `make clean` removes what a run made.
# `PYTHON=python3.12 make test` chooses the Python; by default the newest supported one on PATH.

SHELL := /bin/bash
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$python && break; done)
BIN := .venv/bin
CORES ?= all
# Test modules that run side by side; each of them may use two cores for a while.
WORKERS ?= 2
# In the order of the folders: modules of few tests are the long ones, and must not come last.
PYTEST = $(BIN)/pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder
# Snakemake looks for plugins among the installed packages; ours are found there as links into this folder.
LINK_PLUGINS = for plugin in snakemake_executor_plugin_aws_batch_fleet snakemake_storage_plugin_s3_inventory; do \
	ln -sfn "$(CURDIR)/$$plugin" "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/$$plugin"; done

.DEFAULT_GOAL := help
.PHONY: help run test test-fast test-podman test-engines test-images image images push-images aws-config lint format bench lock schema data system-deps clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: .venv/run  ## fold the shipped example: results/ and results/report/index.html
	@# Snakemake's remarks on its scheduling stay out of sight; its errors do not (`--quiet all` would hide them).
	@$(BIN)/snakemake --cores $(CORES) --rerun-incomplete --quiet rules host reason progress $(ARGS) \
		2> >(grep --line-buffered -vE '^(Select jobs to execute|Execute [0-9]+ jobs|Assuming unrestricted|Using shell|Conda env|$$)' >&2)

test: system-deps .venv/dev lint  ## all tests that need no account
	if bash tests/containers/available.sh; then $(PYTEST) $(ARGS); else $(PYTEST) -m "not podman" $(ARGS); fi

test-fast: .venv/dev  ## unit and DAG tests only
	$(PYTEST) tests/unit tests/dag $(ARGS)

test-podman: .venv/dev  ## the worker image and jobs in containers (podman, mmdebstrap)
	$(BIN)/pytest -m podman $(ARGS)

# One environment for each engine that has its packages pinned in envs/engines; `make test-engines ENGINES=esmfold` takes one.
# Engines of containers/sources.yaml take part where SNAKEFOLD_SOURCE_<ENGINE> names a folder or a tar archive with their source.
ENGINE_PYTHON ?= $(shell for python in python3.11 python3.12 python3; do command -v $$python && break; done)
upper = $(shell echo $(1) | tr a-z A-Z)
SOURCED := $(shell sed -n 's/^\([a-z0-9]*\):$$/\1/p' containers/sources.yaml)
WITHOUT_SOURCE := $(foreach engine,$(SOURCED),$(if $(SNAKEFOLD_SOURCE_$(call upper,$(engine))),,$(engine)))
ENGINES ?= $(filter-out $(WITHOUT_SOURCE),$(basename $(notdir $(wildcard envs/engines/*.txt))))
test-engines: .venv/dev $(ENGINES:%=.engines/%/ready)  ## engines with their real code and small random weights, on a CPU
	@$(foreach engine,$(if $(filter file,$(origin ENGINES)),$(WITHOUT_SOURCE)),echo "left out: $(engine), which is on no package index;" \
		"name its source in SNAKEFOLD_SOURCE_$(call upper,$(engine)) (docs/engines.md)";)
	env $(foreach engine,$(ENGINES),SNAKEFOLD_PYTHON_$(call upper,$(engine))=$(CURDIR)/.engines/$(engine)/bin/python) \
		$(BIN)/pytest tests/engines $(ARGS)

test-images: .venv/dev  ## images of engines that were built (ENGINES="esmfold boltz"; podman)
	env SNAKEFOLD_TEST_IMAGES="$(if $(filter file,$(origin ENGINES)),esmfold,$(ENGINES))" $(BIN)/pytest tests/containers/test_engine_image.py $(ARGS)

image: .venv/run  ## build the worker image (ARGS="--help" tells the options)
	$(BIN)/python -m containers.build worker $(ARGS)

images: .venv/run  ## build all images, or those named (ARGS="esmfold boltz")
	$(BIN)/python -m containers.build $(ARGS)

push-images: .venv/run  ## push all images, or those named, to the repositories that Terraform made; then: make aws-config
	$(BIN)/python -m containers.build --push $(ARGS)

aws-config: .venv/run  ## write profiles/aws-batch/fleet.yaml from Terraform's outputs (ARGS="--help" tells the options)
	@$(BIN)/python -m snakefold aws-config $(ARGS)

lint: .venv/dev  ## ruff, snakefmt, pyright, snakemake --lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/pyright
	$(BIN)/snakemake --lint

format: .venv/dev  ## rewrite the code in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile rules

bench: .venv/dev  ## measure: searches, dry runs, a second run, AWS calls (prints ratios)
	for script in dry_run rerun search relax storage executor; do echo "== $$script"; $(BIN)/python -m bench.$$script || exit 1; done

lock: .venv/dev  ## pin the dependencies of pyproject.toml anew, with hashes (needs uv)
	uv pip compile -q --universal --fork-strategy fewest --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-header pyproject.toml -o envs/requirements.lock
	uv pip compile -q --universal --fork-strategy fewest --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-header pyproject.toml --extra dev -c envs/requirements.lock -o envs/requirements-dev.lock
	@# The images' environments: CUDA's packages too, for the images' system and Python, which a lock of several systems could not name.
	cd envs/engines && for engine in $(basename $(notdir $(wildcard envs/engines/*.txt))); do \
		wanted=$$(ls $$engine.in 2>/dev/null || echo $$engine.txt); \
		uv pip compile -q --python-platform x86_64-manylinux_2_36 --python-version 3.11 --generate-hashes --no-emit-index-url \
			--no-header $$wanted -o $$engine.lock || exit 1; done

schema: .venv/run  ## write config/schema from the config models
	$(BIN)/python -m snakefold schema config/schema/config.schema.json

system-deps:  ## install what pip cannot (Debian, root); elsewhere say what is missing
	@bash tests/system-deps.sh

clean:  ## remove results, work, store and databases of runs in this folder (not .venv)
	rm -rf results .snakefold .snakemake

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "snakefold needs Python 3.11, 3.12 or 3.13 on PATH (or PYTHON=/path/to/python)"; exit 1; }
	$(PYTHON) -m venv .venv

# What its tests compare with.
.engines/rosettafold/ready: tests/engines/rosettafold.txt
.engines/%/ready: envs/engines/%.txt | .venv/run
	$(if $(filter $*,$(WITHOUT_SOURCE)),@echo "name the source of $* in SNAKEFOLD_SOURCE_$(call upper,$*) (docs/engines.md)"; exit 1)
	$(ENGINE_PYTHON) -m venv .engines/$*
	.engines/$*/bin/pip install --quiet --disable-pip-version-check $(patsubst %,-r %,$(filter %.txt,$^))
	$(if $(filter $*,$(SOURCED)),wheel=$$($(BIN)/python -m containers.source $* "$(SNAKEFOLD_SOURCE_$(call upper,$*))" --to .engines/$*) && \
		.engines/$*/bin/pip install --quiet --disable-pip-version-check --no-deps --force-reinstall "$$wheel")
	@touch $@

.venv/run: envs/requirements.lock | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r envs/requirements.lock
	@$(LINK_PLUGINS)
	@touch $@

.venv/dev: envs/requirements-dev.lock | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r envs/requirements-dev.lock
	@$(LINK_PLUGINS)
	@touch $@ .venv/run
