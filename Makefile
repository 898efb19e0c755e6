# Two commands do everything on a machine that has Python 3.11 and make: `make demo`, `make test`.
# Another Python than the first that fits: make demo PYTHON=/path/to/python3
PYTHON ?=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test lint types check format clean

demo: $(STAMP)
	$(BIN)/readside demo

test: $(STAMP)
	$(BIN)/python -m pytest -n 3 --dist loadfile $(PYTEST)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(STAMP)
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

check: lint types test

$(STAMP): pyproject.toml .ci/install .ci/dev_requirements.py
	@.ci/install $(VENV) $(PYTHON)
	@touch $(STAMP)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .import_linter_cache dist build
