# `make repro` installs everything and runs the pipeline, `make test` runs the tests.  Needs python3 (3.11-3.13), git and make.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/installed
# two processes, a test module at a time: half of the time the tests wait for subprocesses
PYTEST_FLAGS ?= --numprocesses 2 --dist loadfile

# `make repro index=hnsw` would silently run the index of params.yaml: make ignores a variable of this name
GROUPS := $(patsubst conf/%/.,%,$(wildcard conf/*/.))
OVERRIDES := $(filter $(addsuffix =%,$(GROUPS)) $(addsuffix .%,$(GROUPS)),$(MAKEOVERRIDES))
ifneq ($(OVERRIDES),)
$(error make takes no parameters: add `$(OVERRIDES)` to your `cbir compose ...`, then `make repro`)
endif

.PHONY: help repro app test test-slow mutants lint docs setup lock demo bench clean
help:
	@echo "make repro      install the packages, run the pipeline, print the results"
	@echo "make app        install the packages, search the gallery in the browser"
	@echo "make test       install the packages, run the tests (minutes)"
	@echo "make test-slow  run the slow tests as well"
	@echo "make mutants    put small faults into metrics and index, and list those that no test notices (an hour)"
	@echo "make lint       format, lint, types and the borders between packages"
	@echo "make docs       build the manual into site/index.html"
	@echo "make demo       train the demo encoders (half an hour), run the default pipeline, write their card"
	@echo "make bench      measure embedding beside a plain loop and the forward pass alone (half an hour)"
	@echo "make lock       pin requirements.txt from pyproject.toml"

# USER: DVC does not start for a user id without a name, as in containers
repro: export USER ?= $(shell id -u)
repro: setup
	@PATH="$(CURDIR)/$(BIN):$$PATH" cbir doctor --brief
	@PATH="$(CURDIR)/$(BIN):$$PATH" dvc repro
	@$(BIN)/python -m cbir.report.summary

app: setup
	@$(BIN)/cbir app

test: setup
	$(BIN)/python -m pytest $(PYTEST_FLAGS) -m "not slow"

test-slow: setup
	$(BIN)/python -m pytest $(PYTEST_FLAGS)

# OMP_NUM_THREADS: one process, one thread
mutants: setup
	OMP_NUM_THREADS=1 $(BIN)/mutmut run --max-children 1
	$(BIN)/mutmut results

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy cbir stages benchmarks
	$(BIN)/lint-imports

docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "the manual: site/index.html"

demo: setup
	$(BIN)/python -m cbir.demo.train
	$(BIN)/python -m cbir.compose
	@PATH="$(CURDIR)/$(BIN):$$PATH" dvc repro
	$(BIN)/python -m cbir.demo.card

bench: setup
	$(BIN)/python -m benchmarks.embedding --out benchmarks/RESULTS.md

setup: $(STAMP)

# repeated when the pins change; an interrupted installation leaves no stamp
$(STAMP): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v < (3, 14) else "error: cbir needs Python 3.11, 3.12 or 3.13, found %d.%d; try: make PYTHON=python3.12 $(MAKECMDGOALS)" % v)'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing the pinned packages into .venv (some GB, some minutes; once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .  # the command cbir
	@touch $@

lock: setup
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra dev --no-emit-index-url --no-emit-find-links \
		--custom-compile-command "make lock" pyproject.toml --output-file requirements.txt

clean:
	rm -rf data/embeddings data/images data/index data/local data/map data/queries data/raw data/timings data/weights .dvc/tmp
