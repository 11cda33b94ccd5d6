# Every target sets up .venv by itself, again only after pyproject.toml has changed.
#
#   make test PYTHON=python3.13               another interpreter (recreates .venv when its version differs)
#   make test PYTEST_ARGS="-k enqueue -n 0"   arguments for pytest, after the defaults
#   make demo DEMO_ARGS=...                   likewise BENCH_ARGS
#   make test UV=                             pip, even where uv is on PATH

PYTHON ?= python3
PYTEST_ARGS ?=
DEMO_ARGS ?=
BENCH_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
# Only a uv that knows dependency groups is of use; else pip does it.
UV := $(shell uv pip install --help 2>/dev/null | grep -q -e --group && command -v uv)
# Named after the interpreter that was asked for, so that another PYTHON is another set-up. It lies inside
# .venv: they go together.
READY := $(VENV)/.ready-$(subst /,_,$(PYTHON))

.DEFAULT_GOAL := help
.PHONY: help demo test lint types bench bench-peers wheel clean
# `make -j lint types test` would mix their output.
.NOTPARALLEL:

help: ## print this list
	@awk -F ': .*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(READY) ## show a queue that fills up, refuses work and drains (DEMO_ARGS)
	$(BIN)/boundq demo $(DEMO_ARGS)

test: $(READY) ## run the tests, three at a time (PYTEST_ARGS)
	$(BIN)/python -m pytest -n 3 $(PYTEST_ARGS)

lint: $(READY) ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY) ## mypy --strict
	$(BIN)/mypy --strict boundq

bench: $(READY) ## run the benches (BENCH_ARGS)
	$(BIN)/python -m bench $(BENCH_ARGS)

bench-peers: $(READY) ## run other Redis queues beside this one (BENCH_ARGS)
	$(BIN)/python -m bench peers $(BENCH_ARGS)

wheel: $(READY) ## build the sdist, and the wheel from it, into dist/
	rm -rf dist
	$(BIN)/python -m build --no-isolation

clean: ## remove .venv, dist and all caches
	rm -rf $(VENV) dist htmlcov .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An update in place starts from a finished set-up; anything else starts from nothing. The old mark goes first,
# the new one carries the time of the start: a set-up that fails, is cut short, or saw pyproject.toml change
# under it runs again.
$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo 'boundq needs Python 3.11 or newer; name one: make PYTHON=python3.11' >&2; exit 1; }
	@echo 'setting up $(VENV) with $(if $(UV),uv,pip) ...'
	@version='import sys; print(sys.version)'; \
	if [ ! -e $@ ] || [ "$$($(BIN)/python -c "$$version" 2>/dev/null)" != "$$($(PYTHON) -c "$$version")" ]; then \
	  rm -rf $(VENV) && \
	  $(if $(UV),'$(UV)' venv -q --seed --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" $(VENV),$(PYTHON) -m venv $(VENV)); \
	fi
	@rm -f $(VENV)/.ready-*
	@touch $(VENV)/.started
ifneq ($(UV),)
	@'$(UV)' pip install -q --python $(BIN)/python -e . --group dev
else
	@# pip >= 25.1 knows dependency groups.
	@$(BIN)/python -m pip install -q --disable-pip-version-check --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install -q --disable-pip-version-check -e . --group dev
endif
	@mv $(VENV)/.started $@
