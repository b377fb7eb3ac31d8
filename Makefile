# Everything lands in .venv; each target installs what it needs first, and installs nothing when that is already there.
#
#   make serve                  the server, with the embedded engines        (SONOREEL_HOST, SONOREEL_PORT, SONOREEL_DATA_DIR);
#                               LIGHT=1 leaves images out, and torch with them
#   make install                what `LIGHT=1 make serve` needs; EXTRAS=whisper,kokoro adds extras of pyproject.toml
#   make test                   the whole test suite;                         ARGS="-k speech -x" goes to pytest
#   make check                  format, lint, types, import contracts, docs in step with the code
#   make bench                  latency and throughput, as a table and as JSON

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
STATE := $(shell cat pyproject.toml constraints.txt | cksum | cut -d' ' -f1)
CORE := .venv/.core-$(STATE)
SERVED := .venv/.served-$(STATE)
DEV := .venv/.dev-$(STATE)
# Extras of the embedded engines.
EMBEDDED := diffusion
# Tests wait for other processes more than they compute: more of them at once than a small machine has cores.
WORKERS := 3
# Extras whose engines are tested on their real classes, with small models built in code.
TESTED := whisper,nemotron,diarization,voxtral,diffusion,kokoro,orpheus,postgres,s3
# Two makes at once: the second waits, then finds the work done. Systems without flock go unguarded.
LOCKED := $(if $(shell command -v flock),flock .venv/.lock) sh -ec

.PHONY: install serve test check bench
.NOTPARALLEL:

install: $(CORE)
ifdef EXTRAS
	@$(LOCKED) '$(PIP) install -c constraints.txt -e ".[$(EXTRAS)]"'
endif

serve: $(if $(LIGHT),$(CORE),$(SERVED))
	@exec $(BIN)/sonoreel serve

# Threads of a BLAS spin while they wait, and take from each other what there is of two cores.
test: $(DEV)
	@OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

check: $(DEV)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m pytest -q tests/test_docs.py

bench: $(DEV)
	@$(BIN)/python -m tests.bench $(ARGS)

# The stamp is written last: an interrupted installation is taken up again.
$(CORE):
	@mkdir -p .venv
	@$(LOCKED) 'test -e $@ && exit; \
	  test -x $(BIN)/pip || $(PYTHON) -m venv .venv; \
	  $(PIP) install -q -c constraints.txt pip; \
	  $(PIP) install -q -c constraints.txt -e .; \
	  rm -f .venv/.core-*; touch $@'

$(SERVED): $(CORE)
	@$(LOCKED) 'test -e $@ && exit; \
	  $(PIP) install -q -c constraints.txt -e ".[$(EMBEDDED)]"; \
	  rm -f .venv/.served-*; touch $@'

$(DEV): $(CORE)
	@$(LOCKED) 'test -e $@ && exit; \
	  $(PIP) install -q -c constraints.txt -e ".[$(TESTED)]" --group dev; \
	  rm -f .venv/.dev-*; touch $@'
