# make demo: set up and run the main job.  make test: set up and run the tests.  make evaluate: the 1,000-image figures.
PYTHON ?= python3
VENV ?= .venv
# Asked for by version so that a machine without a GPU is not given another build; override for your CUDA: make demo TORCH=torch
TORCH ?= torch==2.13.0
# GPU builds of torch bring their own; without one its interpreter runs the Triton kernels.
TRITON ?= triton==3.6.0
READY := $(VENV)/.ready
READY_TO_TEST := $(VENV)/.ready-to-test

export HF_HUB_OFFLINE := 1
export TRANSFORMERS_OFFLINE := 1

.PHONY: demo test evaluate clean

demo: $(READY)
	$(VENV)/bin/halfbyte demo

test: $(READY_TO_TEST)
	OMP_NUM_THREADS=1 $(VENV)/bin/pytest -q -n 2 --dist loadfile tests

evaluate: $(READY)
	$(VENV)/bin/python bench/evaluate.py --out out/evaluate

$(READY): pyproject.toml setup.py $(wildcard csrc/*/*)
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check "$(TORCH)"
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -e .
	touch $@

# The tests also run the CUDA kernels' own source, compiled for the CPU.
$(READY_TO_TEST): $(READY)
	HALFBYTE_SIMT=1 $(VENV)/bin/pip install --quiet --disable-pip-version-check -e ".[test]"
	test "$$(uname)" != Linux || $(VENV)/bin/python -P -c "import triton" 2> /dev/null || \
		$(VENV)/bin/pip install --quiet --disable-pip-version-check "$(TRITON)"
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info engine/*.so out
