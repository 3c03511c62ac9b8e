# `make help` lists the targets. Everything is made in this folder; nothing outside it is changed.

PYTHON ?= python3
UV     ?= uv
VENV   := .venv
BIN    := $(VENV)/bin

# A space in the warehouse's path would end its name here: it is escaped.
WAREHOUSE := $(subst $() ,\ ,$(or $(ONTIME_DUCKDB_PATH),warehouse/ontime.duckdb))
DBT_FILES := $(shell find dbt_project.yml profiles.yml models seeds macros tests ! -path 'tests/python*' ! -path 'tests/fixtures*')

.DEFAULT_GOAL := build
.PHONY: build load test test-spark lint docs lock clean help FORCE

build: $(WAREHOUSE).built ## Set up, load what is new, build what changed, show first answers (the default)
	@$(BIN)/dbt --quiet run-operation first_answers

load: $(WAREHOUSE) ## Set up and load what is new in the landing zone

# The loader finds out what is new. Where nothing is, it leaves the warehouse's file untouched.
# Precious: on Ctrl-C, make would delete the file that the loader was changing.
.PRECIOUS: $(WAREHOUSE)
$(WAREHOUSE): FORCE | $(VENV)/.runtime
	$(BIN)/python ingest/load.py

# Built after any change to the warehouse, a dbt file (folders: one came or went) or the libraries.
# dbt itself builds only the months that changed: where more than the warehouse did, all are built.
# A build that fails leaves no stamp: the next `make` builds again.
$(WAREHOUSE).built: $(WAREHOUSE) $(DBT_FILES) $(VENV)/.runtime
	$(BIN)/dbt build $(if $(filter $(DBT_FILES) $(VENV)/.runtime,$?),--full-refresh)
	@touch "$@"

# A file's tests share what its fixtures made: they stay together, and the files keep their order.
SIDE_BY_SIDE = -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test: $(VENV)/.test ## Set up with the test tools, run all tests (some of them: make test ARGS="-k name")
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) $(ARGS)

test-spark: $(VENV)/.spark ## Set up with Spark as well, run the tests that need it (and Java 17)
	$(BIN)/python -m pytest -m spark $(ARGS)

# The linter compiles the models and needs no data: a database in memory spares the real one.
lint: $(VENV)/.test $(VENV)/.checkov ## Check the style of Python and SQL, and the template for AWS
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/cfn-lint deploy/aws/template.yaml
	$(VENV)/checkov/bin/checkov --file deploy/aws/template.yaml --framework cloudformation \
		--skip-download --quiet --compact
	ONTIME_DUCKDB_PATH=:memory: $(BIN)/sqlfluff lint

docs: $(WAREHOUSE).built ## Make the documentation site and serve it on this machine
	$(BIN)/dbt docs generate
	$(BIN)/dbt docs serve

# The stamps go first and are written last, and a set-up starts from an empty folder: one that was
# interrupted is done again, and what a changed lock no longer names is gone. Compiling saves a
# second at each start, also where PYTHONDONTWRITEBYTECODE is set.
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --compile \
	--no-deps --require-hashes --use-pep517

$(VENV)/.runtime: requirements.lock requirements-test.lock
	@$(check_python)
	@rm -f $@
	@echo "Setting up $(VENV) from requirements.lock: about a minute"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(PIP_INSTALL) -r requirements.lock
	@echo "$(PYTHON)" > $(VENV)/.python
	@touch $@

# While more is added, the first stamp is away: an interrupted set-up is done from the start.
define add_packages
@mv $(VENV)/.runtime $(VENV)/.adding
@$(PIP_INSTALL) -r $(1)
@mv $(VENV)/.adding $(VENV)/.runtime
@touch $@
endef

$(VENV)/.test: $(VENV)/.runtime
	@echo "Adding the test tools from requirements-test.lock"
	$(call add_packages,requirements-test.lock)

$(VENV)/.spark: $(VENV)/.test requirements-spark.lock
	@echo "Adding Spark from requirements-spark.lock: 0.7 GB, some minutes"
	$(call add_packages,requirements-spark.lock)

# It pins what it needs to versions of its own, which fit no others.
$(VENV)/.checkov: $(VENV)/.runtime requirements-checkov.lock
	@echo "Adding checkov from requirements-checkov.lock: 0.3 GB"
	@$(PYTHON) -m venv --clear $(VENV)/checkov
	@$(subst $(BIN),$(VENV)/checkov/bin,$(PIP_INSTALL)) -r requirements-checkov.lock
	@touch $@

# A PYTHON that the caller names, other than the one that .venv was made with, makes it anew.
ifneq ($(origin PYTHON),file)
ifneq ($(PYTHON),$(file <$(VENV)/.python))
.PHONY: $(VENV)/.runtime
endif
endif

define check_python
command -v "$(PYTHON)" > /dev/null || { \
    echo "There is no $(PYTHON): install Python 3.11, 3.12 or 3.13, or name it: make PYTHON=/path/to/python" >&2; exit 1; }; \
"$(PYTHON)" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
    echo "ontime needs Python 3.11, 3.12 or 3.13 and $(PYTHON) is $$("$(PYTHON)" --version 2>&1): name another, such as make PYTHON=python3.12" >&2; exit 1; }; \
"$(PYTHON)" -c 'import ensurepip, venv' 2> /dev/null || { \
    echo "$(PYTHON) cannot make virtual environments: on Debian and Ubuntu, apt install python3-venv" >&2; exit 1; }
endef

# The test lock comes first and bounds the others, so that all hold the same versions. The client of
# Spark Connect needs pandas, which the configuration leaves out.
UV_COMPILE = $(UV) pip compile --quiet --upgrade --universal --python-version 3.11 \
	--generate-hashes --no-annotate --custom-compile-command "make lock"

lock: ## Write the lock files anew from pyproject.toml, with the newest versions it allows (needs uv)
	$(UV_COMPILE) pyproject.toml --extra aws --extra ducklake --extra test --extra lint --output-file requirements-test.lock
	$(UV_COMPILE) pyproject.toml --constraint requirements-test.lock --output-file requirements.lock
	$(UV_COMPILE) pyproject.toml --no-config --extra spark --constraint requirements-test.lock \
		--output-file requirements-spark.lock
	$(UV_COMPILE) --group checkov --output-file requirements-checkov.lock

clean: ## Remove what can be made again; landing/ and warehouse/ stay
	rm -rf $(VENV) target logs *.egg-info .hypothesis .pytest_cache .ruff_cache
	find ingest tests benchmarks -name __pycache__ -prune -exec rm -rf {} +

help: ## Show this list
	@sed -nE 's/^([a-z-]+):.*## /\1\t/p' Makefile | awk -F '\t' '{ printf "  make %-10s %s\n", $$1, $$2 }'
