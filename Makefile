# `make demo` and `make test` set up all they need from nothing but Python 3.11 and make; a second call is quick.
# `make test-all` adds the command line, and the engines that only some features need (extras export, hf, track).

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
ENGINES := $(VENV)/.engines
CLUSTER := $(VENV)/.cluster
SITE := $(VENV)/.site
BUILDER := $(VENV)/.builder
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal
export OMP_WAIT_POLICY ?= PASSIVE

define tested
	@$(BIN)/mypy >$(VENV)/types.log 2>&1 & types=$$!; \
	$(PYTEST) $(1); tests=$$?; \
	wait $$types; types=$$?; cat $(VENV)/types.log; exit $$((tests + types))
endef

.PHONY: demo test test-all test-machines test-ray fuzz fuzz-guided chaos style lint docs dist check-gpu compare-before clean

demo: $(INSTALLED)  ## made-up data, pretraining, an honest report: about four minutes
	@rm -rf demo
	@$(BIN)/keystep demo --out demo

test: $(INSTALLED) style  ## style, types, layers, and the tests of the library
	$(call tested, tests/unit tests/contract tests/fuzz tests/chaos)

test-all: $(INSTALLED) $(ENGINES) style  ## the same with all engines, and the command line from end to end
	$(call tested)

fuzz: $(INSTALLED)  ## 100,000 damaged files (or N=...), 2,000 of each kind that keystep reads; about an hour; RECORD=FILE: can go on
	@OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz/run.py $(if $(N),--total $(N) --least 1) $(if $(RECORD),--record $(RECORD))

fuzz-guided: $(INSTALLED)  ## the same led by coverage, 30 s a kind (or SECONDS=...); needs atheris; never in CI
	@OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz/guided.py --seconds $(or $(SECONDS),30)

chaos: $(INSTALLED)  ## 100 kill -9 of commands (or N=...), full disks, two at once; about half an hour; RECORD=FILE: can go on
	@OMP_NUM_THREADS=1 $(BIN)/python tests/chaos/run.py --kills $(or $(N),100) $(if $(RECORD),--record $(RECORD))

test-machines: $(INSTALLED) $(ENGINES)  ## the tests (or TESTS=tests/unit/evals) with the kernels of other processors; long, never in CI
	@$(BIN)/python benchmarks/machines.py $(TESTS)

test-ray: $(CLUSTER)  ## the engine on a local cluster of two machines, one of which is killed; never in CI
	@OMP_NUM_THREADS=1 $(BIN)/pytest tests/ray

style: $(INSTALLED)
	@$(BIN)/ruff format --check -q .
	@$(BIN)/ruff check -q .
	@$(BIN)/lint-imports >/dev/null || $(BIN)/lint-imports

lint: style  ## style, types and layers alone
	@$(BIN)/mypy

docs: $(INSTALLED) $(SITE)  ## the documentation site in build/site/, without network once installed; ends at a broken link
	@$(BIN)/python docs/build.py

dist: $(INSTALLED) $(BUILDER)  ## wheel and sdist in dist/, checked, installed in an empty environment and used there
	@$(BIN)/python benchmarks/dist.py

check-gpu: $(INSTALLED)  ## checks and timings on a GPU, at most 8 minutes; writes benchmarks/results/gpu-<card>.md
	@$(BIN)/python benchmarks/gpu.py

compare-before: $(INSTALLED)  ## does the tree still say what BEFORE (a commit) said? QUICK=1: without times
	@$(BIN)/python benchmarks/before --before '$(BEFORE)' $(if $(QUICK),--quick)

$(INSTALLED): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing keystep into $(VENV) (a minute or two the first time)"
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

$(ENGINES): $(INSTALLED)
	@echo "installing the engines of export, hf and track, and what drives a browser"
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev,export,hf,track,browser]'
	@touch $@

$(CLUSTER): $(INSTALLED)
	@echo "installing Ray"
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev,ray]'
	@touch $@

$(SITE): $(INSTALLED)
	@echo "installing what builds the documentation"
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev,docs]'
	@touch $@

$(BUILDER): $(INSTALLED)
	@echo "installing what builds wheels"
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev,dist]'
	@touch $@

clean:  ## remove what make made
	rm -rf $(VENV) demo build dist
