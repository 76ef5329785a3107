# Everything a newcomer runs. Needs Python 3.11 or later and make; the rest is set up in .venv.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: help demo test check campaign bench format lock clean

help: ## what can be made
	@grep -hE '^[a-z]+: .*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+): .*## /  make \1	/' | expand -t 16

demo: $(READY) ## five guardians give a lost key back, though one is dead and one lies
	@$(BIN)/holdfast demo

test: $(READY) ## the tests a newcomer runs, under three minutes
	$(BIN)/python -m pytest -n auto --dist worksteal

check: $(READY) ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

campaign: $(READY) ## many seeds, both engines, planted bugs, kill -9 (ten minutes)
	$(BIN)/python -m pytest -m campaign
	$(BIN)/holdfast simulate campaign --seeds 500 --both 100 --mutants \
	    --junit runs/campaign.xml --corpus simulations/corpus

bench: $(READY) ## each figure against its floor
	$(BIN)/python -m benchmarks

format: $(READY) ## let ruff lay out the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(READY) ## choose the versions of the dependencies anew
	$(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-header \
	    --no-annotate --group dev --extra research pyproject.toml -o requirements.lock

clean: ## remove what was set up
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	    --require-hashes --only-binary :all: -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	    --no-deps --no-build-isolation -e .
	@touch $@
