# Two commands: `make quickstart` trains a detector and shows what it finds; `make test` runs the tests.
# Both create .venv first; later runs skip what is done.

# the first Python that is new enough; PYTHON=/path/to/python overrides it
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
WORKERS ?= 2
PYTEST_ARGS ?=

DATA := data/synth
RUN := runs/quickstart
MODEL := $(RUN)/quickstart.onnx

.PHONY: help install quickstart test lint types sanitize clean

help:
	@echo "make quickstart   train, evaluate, draw and export a detector (a few minutes)"
	@echo "make test         run the tests"
	@echo "make lint types   ruff and mypy"
	@echo "make sanitize     the native ops' CPU tests under AddressSanitizer and UBSan"
	@echo "make clean        remove .venv, runs/ and the sample data"

install: $(READY)

$(READY): pyproject.toml
	@test -n "$(PYTHON)" || { echo "detc needs Python 3.11 or newer; found: $$(python3 -V 2>&1)" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { echo "cannot create $(VENV): on Debian and Ubuntu, install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[test]'
	-$(BIN)/python -c 'from detc.nativeops.loader import ensure_loaded; ensure_loaded()'  # for this machine, ahead of first use
	@touch $@

# each step leaves a file, so that what is done is not done again
$(DATA)/annotations/train.json: | $(READY)
	$(BIN)/detc data synth $(DATA) --images 1600

$(RUN)/report.html: specs/quickstart.det $(DATA)/annotations/train.json
	rm -rf $(RUN)
	$(BIN)/detc run train $< -o $(RUN)

$(RUN)/predictions/.done: $(RUN)/report.html
	$(BIN)/detc run predict $(RUN) $(DATA)/val --limit 24 --score 0.45 --zoom 3 -o $(@D)
	@touch $@

$(MODEL): $(RUN)/report.html
	$(BIN)/detc compile $(RUN) -o $@

quickstart: $(RUN)/report.html $(RUN)/predictions/.done $(MODEL)
	$(BIN)/detc run val $(RUN)
	@echo
	@echo "  checkpoint   $(RUN)/best.pt"
	@echo "  ONNX file    $(MODEL)"
	@echo "  pictures     $(RUN)/predictions/"
	@echo "  report       $(RUN)/report.html"

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(PYTEST_ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy reads the package through a link of its own name: the checkout may be called anything
types: $(READY)
	@mkdir -p build/types && ln -sfn ../.. build/types/detc
	cd build/types && ../../$(BIN)/mypy --config-file ../../pyproject.toml \
	  -m detc -p detc.cli -p detc.compiler -p detc.dsl -p detc.nativeops -p detc.runtime

sanitize: $(READY)
	$(BIN)/python -m detc.nativeops.tools.sanitize $(PYTEST_ARGS)

clean:
	rm -rf $(VENV) runs data/synth build *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
