# make demo | test | slow | lint | format: each installs what it needs into $(VENV) first.

VENV := .venv
CANDIDATES := python3 python3.14 python3.13 python3.12 python3.11
USABLE := import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(firstword $(foreach p,$(CANDIDATES),$(shell $(p) -c '$(USABLE)' 2>/dev/null && echo $(p))))
BIN := $(VENV)/bin
INPUTS := pyproject.toml constraints.txt CMakeLists.txt $(wildcard csrc/*)
CXX_FILES := $(wildcard csrc/*.cpp csrc/*.hpp csrc/*.inl)

# The first name is for pip before 25.3, which constrains builds with it as well.
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_BUILD_CONSTRAINT := $(CURDIR)/constraints.txt
INSTALL := $(BIN)/python -m pip install --quiet --editable
PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

.PHONY: demo test slow lint format

demo: $(VENV)/.installed
	$(BIN)/python -m headgate.cli forecast examples/data/co2_weekly.csv --horizon 52 --unit ppm --out demo-output

test: $(VENV)/.installed-test
	$(PYTEST)

slow: $(VENV)/.installed-test
	$(PYTEST) -m slow

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright
	$(BIN)/clang-format --dry-run -Werror $(CXX_FILES)

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/clang-format -i $(CXX_FILES)

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11 or newer with venv found; set PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(INPUTS) | $(BIN)/python
	$(INSTALL) .
	touch $@

$(VENV)/.installed-%: $(INPUTS) | $(BIN)/python
	$(INSTALL) '.[$*]'
	touch $@ $(VENV)/.installed $(if $(filter dev,$*),$(VENV)/.installed-test)
