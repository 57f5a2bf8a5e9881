# One-word commands. `make` alone lists them.

PYTHON ?= python3
VENV ?= .venv
# Another wheel index for torch, such as the one with builds for the CPU only (see README.md).
TORCH_INDEX ?=

PIP := $(VENV)/bin/python -m pip --disable-pip-version-check install --quiet -c constraints.txt
RUNTIME := $(VENV)/.runtime
DEV := $(VENV)/.dev
PEERS_VENV := .venv-peers
PEERS := $(PEERS_VENV)/.installed
CHECKS := check-format check-lint check-types check-imports check-doctests

.PHONY: help install runtime forecast test test-slow drills check $(CHECKS) check-slow audit format bench bench-panel bench-neural bench-peers alarms size docs messages deploy clean
.DEFAULT_GOAL := help

help:  ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

$(RUNTIME): pyproject.toml constraints.txt
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing torch, then the rest, into $(VENV) (about two minutes)"
	@$(PIP) $(if $(TORCH_INDEX),--no-deps --index-url $(TORCH_INDEX)) torch
	@$(PIP) setuptools
	@$(PIP) --no-build-isolation -e .
	@touch $@

$(DEV): $(RUNTIME)
	@echo "Installing what tests and checks need"
	@$(PIP) --no-build-isolation -e ".[dev]"
	@touch $@

install: $(DEV)  ## make .venv with everything for use and development

runtime: $(RUNTIME)  ## make .venv with what a deployment runs on, and compile the code
	@$(VENV)/bin/python -m compileall -q src flows  # whoever runs it may not be allowed to write here

forecast: $(RUNTIME)  ## a 7-day forecast of USD/MXN from embedded data
	@$(VENV)/bin/forex forecast 7d

test: $(DEV)  ## the test suite
	$(VENV)/bin/pytest -n 3  # much of it waits for others

test-slow: $(DEV)  ## the tests that take longer
	$(VENV)/bin/pytest -n 3 -m slow

drills: $(DEV)  ## every kill at a random moment, ten minutes of forecasts at once; test-slow has a tenth
	FOREX_DRILLS=1 $(VENV)/bin/pytest -s -m slow tests/drills

check: $(CHECKS)  ## format, lint, types, import contracts, doctests; at once with -j

$(CHECKS): $(DEV)
check-format:
	$(VENV)/bin/ruff format --check .
check-lint:
	$(VENV)/bin/ruff check .
check-types:
	$(VENV)/bin/mypy
check-imports:
	$(VENV)/bin/lint-imports
check-doctests:
	$(VENV)/bin/pytest -q src

check-slow: check audit  ## the same, known vulnerabilities and licences

audit: $(DEV)  ## known vulnerabilities and licences of what is installed; asks the package index
	$(VENV)/bin/python .ci/audit.py

format: $(DEV)  ## format the code and mend what the linter can
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

bench: $(DEV)  ## seconds and memory of engine, command, tracking, store, backup and dashboard, fails past a bound (ARGS="--quick")
	$(VENV)/bin/python tests/bench/engine_speed.py $(ARGS)
	$(VENV)/bin/python tests/bench/command_speed.py $(ARGS)
	$(VENV)/bin/python tests/bench/tracking_speed.py $(ARGS)
	$(VENV)/bin/python tests/bench/data_speed.py $(ARGS)
	$(VENV)/bin/python tests/bench/backup_speed.py $(ARGS)
	$(VENV)/bin/python tests/bench/dashboard_speed.py $(ARGS)

bench-panel: $(DEV)  ## the ensemble on the 26 pairs of the ECB panel, fails past its bounds
	$(VENV)/bin/python tests/bench/panel.py $(ARGS)

bench-neural: $(DEV)  ## the embedded weights: their cost, and scores on the ECB panel (ARGS="--data FILE" for USD/CLP too)
	$(VENV)/bin/python tests/bench/neural_speed.py
	$(VENV)/bin/python tests/bench/neural_quality.py $(ARGS)

$(PEERS): tests/bench/peers-requirements.txt
	@test -x $(PEERS_VENV)/bin/python || $(PYTHON) -m venv $(PEERS_VENV)
	@echo "Installing the models to compare with into $(PEERS_VENV)"
	@$(PEERS_VENV)/bin/python -m pip --disable-pip-version-check install --quiet -r $<
	@touch $@

bench-peers: $(DEV) $(PEERS)  ## our scores beside statsforecast's models (ARGS="--help")
	$(VENV)/bin/python tests/bench/peers.py $(ARGS)

alarms: $(DEV)  ## how often the monitor's alarms err and how soon they come, simulated (two minutes; ARGS="--help")
	$(VENV)/bin/python tests/bench/alarms.py $(ARGS)

size: $(DEV)  ## how often the test of skill errs, simulated (two minutes)
	$(VENV)/bin/python tests/bench/test_size.py

docs: $(DEV)  ## write docs/cli.md from the commands' own help
	$(VENV)/bin/typer forex_core.cli utils docs --name forex --title "Command line" --output docs/cli.md

messages: $(DEV)  ## bring the catalogues of the report's languages in line with the code
	$(VENV)/bin/python .ci/messages.py

deploy:  ## pool, deployments and automations on the Prefect server of PREFECT_API_URL
	@$(VENV)/bin/python -m flows.deploy

clean:  ## remove caches and the virtual environments
	rm -rf $(VENV) $(PEERS_VENV) build src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
