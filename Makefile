# One verb per chore. Everything installs what it needs into .venv first.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
TEST_WORKERS ?= 2
SEEDS  ?= 20

# make run: CANDLES=<folder> CYCLES=10 INTERVAL=5m SPEED=60 SEED=7 START=<ISO 8601> KEEP=1 PORT=8000
#           DATA=<folder> MARKET=spot MODE=volatility_targeting VOLATILITY=0.2
RUN_OPTIONS := $(if $(CANDLES),--candles "$(CANDLES)") $(if $(CYCLES),--cycles $(CYCLES)) \
	$(if $(INTERVAL),--interval $(INTERVAL)) $(if $(SPEED),--speed $(SPEED)) \
	$(if $(SEED),--seed $(SEED)) $(if $(START),--start $(START)) $(if $(KEEP),--keep) $(if $(PORT),--port $(PORT)) \
	$(if $(DATA),--data "$(DATA)") $(if $(MARKET),--market $(MARKET)) \
	$(if $(MODE),--trade-mode $(MODE)) $(if $(VOLATILITY),--target-volatility $(VOLATILITY))

.PHONY: run up test check contract panels prometheus bench simulate self-check minutes mutation clean install lock
.DEFAULT_GOAL := run

run: $(STAMP)
	@$(BIN)/aifap run $(RUN_OPTIONS)

up: $(STAMP)
	@$(BIN)/aifap up $(if $(PORT),--port $(PORT)) $(if $(DATA),--data "$(DATA)")

# Bytecode is written even where the environment says not to: every process that a test starts would
# compile the whole project again. The longest files come first (tests/conftest.py).
test: $(STAMP)
	PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder -q

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Whole sessions through simulated days in which everything goes wrong (docs/simulation.md); with
# SEED=7 one day again, with SWEEP=1 kills at every point of a cycle (SWEEP=2/6: a part of them), with
# AMBIGUOUS=100000 so many submits that are not answered truly. KILLS=20: real processes, killed at
# random moments; FAULTS=1 (or FAULTS=A1,B6/moved): real processes whose exchange misbehaves.
simulate: $(STAMP)
	$(BIN)/python -m tests.simulation$(if $(FAULTS)$(KILLS),.processes) \
		$(if $(FAULTS),--faults $(if $(filter 1,$(FAULTS)),all --fault-seeds 10,$(FAULTS)), \
		$(if $(KILLS),--kills $(KILLS), \
		$(if $(SWEEP),--sweep $(if $(filter 1,$(SWEEP)),,--part $(SWEEP)), \
		$(if $(AMBIGUOUS),--ambiguous $(AMBIGUOUS),$(if $(SEED),--seed $(SEED),--seeds $(SEEDS)))) --workers $(TEST_WORKERS)))

# Plants known bugs into the running code, one at a time: each must be caught by the simulation.
self-check: $(STAMP)
	$(BIN)/python -m tests.simulation.self_check --workers $(TEST_WORKERS)

# A finwatcher's minutes with outages, kills, fail-overs, full disks: none may be lost without a gap
# row (docs/finwatcher.md). SEED=7: other troubles; SELF_CHECK=1: plants known bugs instead.
MINUTES ?= 10000
minutes: $(STAMP)
	$(BIN)/python -m tests.simulation.minutes --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) \
		$(if $(SELF_CHECK),--self-check)

# Every endpoint of the paper exchange and its tested cases; fails where one has none.
contract: $(STAMP)
	@$(BIN)/python -m tests.contract.report

# Every query of every Grafana board, run on what lived sessions wrote: board, panel, rows, ms, ok.
# PAGES=<folder>: the boards as plain pages, too.
panels: $(STAMP)
	@$(BIN)/python -m tests.integration.dashboards.report $(if $(PAGES),--pages "$(PAGES)")

# A whole installation read by a real Prometheus for some minutes: every panel's query there, every
# series, every alert rule. Skips, saying so, where no Prometheus is installed. MINUTES_READ=4
MINUTES_READ ?= 4
prometheus: $(STAMP)
	@$(BIN)/python -m tests.integration.telemetry.report --minutes $(MINUTES_READ)

bench: $(STAMP)
	$(BIN)/python -m benchmarks

# Small changes of the planning and trading code, one at a time: each must be noticed by a test
# (docs/mutation.md). ROOM=rebalance or execution; MODULE=plan: only that one; SAMPLE=300 SEED=1: so many
# of each; REPORT=1: what is known already. The tool has an environment of its own.
MUTATION := .venv-mutation
mutation: $(MUTATION)/.installed
	@$(MUTATION)/bin/python -m tests.mutation $(if $(ROOM),--room $(ROOM)) $(if $(MODULE),--module $(MODULE)) \
		$(if $(SAMPLE),--sample $(SAMPLE)) $(if $(SEED),--seed $(SEED)) $(if $(REPORT),--report)

$(MUTATION)/.installed: tests/mutation/requirements.txt $(STAMP)
	$(BIN)/python -m venv $(MUTATION)
	@$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
		> $$($(MUTATION)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/project.pth
	$(MUTATION)/bin/python -m pip install --disable-pip-version-check -q -r tests/mutation/requirements.txt
	@touch $@

clean:
	rm -rf .aifap .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache build *.egg-info
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

install: $(STAMP)

$(STAMP): requirements.txt requirements-dev.txt pyproject.toml
	@sh .ci/install "$(PYTHON)" "$(VENV)"
	@touch $@

# After a change of pyproject.toml: the exact lock again, for every Python that is supported.
lock: $(STAMP)
	$(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-annotate --no-header -q -o requirements.txt
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-annotate --no-header -q \
		-c requirements.txt -o requirements-dev.txt
