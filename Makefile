# `make repro` installs everything and runs the pipeline, `make test` runs the tests.  Needs python3 (3.11-3.13), git and make.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/installed
# a line of .venv's site-packages: DVC's stages call `python`, and find that of .venv also where it is not on the PATH
ACTIVATE := import os, sys; here, path = os.path.dirname(sys.executable), os.environ.get("PATH", "").split(os.pathsep); os.environ["PATH"] = os.pathsep.join(path if here in path else [here, *path])
# two processes, a test module at a time: half of the time the tests wait for subprocesses
PYTEST_FLAGS ?= --numprocesses 2 --dist loadfile

# `make repro index=hnsw` would silently run the index of params.yaml: make ignores a variable of this name
GROUPS := $(patsubst conf/%/.,%,$(wildcard conf/*/.))
OVERRIDES := $(filter $(addsuffix =%,$(GROUPS)) $(addsuffix .%,$(GROUPS)),$(MAKEOVERRIDES))
ifneq ($(OVERRIDES),)
$(error make takes no parameters: add `$(OVERRIDES)` to your `cbir compose ...`, then `make repro`)
endif

.PHONY: help repro app test test-slow mutants lint docs setup lock audit demo bench clean
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
	@echo "make lock       pin requirements.txt from pyproject.toml, with hashes"
	@echo "make audit      list known vulnerabilities of the pinned packages"
	@echo "make TORCH=cpu  before the first of these: PyTorch without CUDA, a quarter of the disk"

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

# uv installs, in a sixth of pip's time; pip where uv cannot, as with a registry that only pip's settings name.
# TORCH=cpu: PyTorch without CUDA, from PyTorch's own server; its files have other hashes than the registry's.
TORCH ?=
export UV_HTTP_TIMEOUT ?= 180
INSTALL := $(BIN)/uv pip install --quiet --system-certs --python $(BIN)/python
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# repeated when the pins or these lines change, in seconds if nothing is new; an interrupted installation leaves no stamp
$(STAMP): requirements.txt pyproject.toml Makefile
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v < (3, 14) else "error: cbir needs Python 3.11, 3.12 or 3.13, found %d.%d; try: make PYTHON=python3.12 $(MAKECMDGOALS)" % v)'
	@test -z "$(filter-out cpu,$(TORCH))" || { echo "error: TORCH: expected cpu or nothing, found $(TORCH)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing the pinned packages into .venv (some GB, a minute or more; once)"
	@sed -n '/^uv==/,/[^\\]$$/p' requirements.txt > .venv/uv.txt
	@$(PIP) --require-hashes --requirement .venv/uv.txt || echo "note: uv could not be installed (see above)"
	@if [ -n "$(TORCH)" ]; then \
		$(INSTALL) --torch-backend $(TORCH) --no-verify-hashes --constraint requirements.txt --requirement pyproject.toml --extra dev \
			&& exit 0; \
		echo "note: PyTorch without CUDA could not be fetched (see above); the registry's PyTorch is installed instead"; \
	fi; \
	$(INSTALL) --require-hashes --requirement requirements.txt && exit 0; \
	echo "note: uv could not install the packages (see above); pip tries"; \
	$(PIP) --require-hashes --requirement requirements.txt
	@$(PIP) --no-deps --no-build-isolation --editable .  # the command cbir
	@echo '$(ACTIVATE)' > "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/activate.pth"
	@touch $@

lock: setup
	$(BIN)/uv pip compile --quiet --system-certs --universal --python-version 3.11 --extra dev --generate-hashes --no-emit-index-url \
		--no-emit-find-links --custom-compile-command "make lock" pyproject.toml --output-file requirements.txt

# asks the registry for known vulnerabilities of each pin, so it is no part of `make lint`, which needs no network
audit: setup
	$(BIN)/uv tool run --system-certs pip-audit@2.10.1 --requirement requirements.txt --disable-pip

clean:
	rm -rf data/embeddings data/images data/index data/local data/map data/queries data/raw data/timings data/weights .dvc/tmp
