# The two commands of the README, and what they are made of. PYTHON must be 3.11 or later.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RESULTS ?= results

.PHONY: help setup demo test test-all lint unit tools dashboards states bench bench-accuracy bench-cost bench-rollup clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(VENV)/.installed ## make .venv and install everything, pinned

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed; name one: make PYTHON=python3.11 ...") if sys.version_info < (3, 11) else None'
	@echo 'installing into $(VENV), pinned by constraints.txt; the first time this downloads up to some GB'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
	@touch $@

demo: setup ## run the quickstart on a local cluster; needs no GPU
	@# The trap makes this shell wait for the run to stop what it started, when Ctrl-C reaches both.
	@trap : INT TERM; \
	$(BIN)/wattledger run manifests/quickstart.yaml --local --home $(RESULTS)/ledger --out $(RESULTS); code=$$?; echo; \
	if [ $$code = 0 ]; then \
	  echo "Open $(RESULTS)/report.html, or go on with:"; \
	  echo "  $(BIN)/wattledger compare --home $(RESULTS)/ledger"; \
	  echo "  $(BIN)/wattledger report --why --home $(RESULTS)/ledger"; \
	else \
	  echo "the demo did not finish (exit code $$code); what each job said is in $(RESULTS)/ledger/artifacts/*/attempt-*/log.txt"; \
	fi; exit $$code

test: setup tools lint unit ## everything CI runs

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

unit: setup tools
	$(BIN)/pytest -n 2

test-all: setup tools lint ## the same, and the tests that train for minutes
	$(BIN)/pytest -n 2 -m ''

tools: ## install what the tests need from Debian: Prometheus and Chromium
	@missing=; command -v prometheus >/dev/null && command -v promtool >/dev/null || missing="prometheus"; \
	command -v chromium >/dev/null || missing="$$missing chromium"; \
	if [ -n "$$missing" ]; then \
	  if [ "$$(id -u)" = 0 ]; then apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	  else echo "the tests need $$missing: sudo apt-get install --no-install-recommends $$missing"; exit 1; fi; fi

dashboards: setup ## write deploy/grafana/ anew from the code
	$(BIN)/python -m orchestrator.monitoring.dashboard

states: setup ## write the README's state picture and table anew from the code
	$(BIN)/python -m orchestrator.queue_view.states README.md

bench: bench-accuracy bench-cost ## how exact, how cheap: against the peers, on the simulated driver (10 minutes)

bench-accuracy: setup
	$(BIN)/python -m tests.bench.accuracy

bench-cost: setup
	$(BIN)/python -m tests.bench.cost

bench-rollup: setup tools ## what a roll-up of 1,000 GPUs over 30 days costs, against Prometheus and pandas (15 minutes)
	$(BIN)/python -m tests.bench.rollup --save

clean: ## remove what the other targets made
	rm -rf $(VENV) .bench-venv $(RESULTS) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
