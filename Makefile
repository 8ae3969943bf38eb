# `make demo` and `make test` each work as the first command after `git clone`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BENCH_VENV := .venv-bench
BENCH_PIP := $(BENCH_VENV)/bin/pip --disable-pip-version-check
PIP := $(BIN)/pip --disable-pip-version-check
CONSTRAINTS := requirements/constraints.txt
DEMO_DATA := data/tiny_stamps

.PHONY: help setup setup-tests demo test test-faults test-slurm bench lint clean

help:
	@echo 'make demo   generate stamped documents, fine-tune a small SAM on them, show the gain'
	@echo 'make test   run the tests'
	@echo 'make lint   run ruff and mypy'
	@echo 'make bench  measure against segment_anything and Hugging Face, about 20 minutes'
	@echo 'make test-faults  inject faults into runs, many more times than the tests do'
	@echo 'make test-slurm   train through a Slurm cluster of several nodes on this machine (root)'
	@echo 'make clean  remove the environment, the generated data and the results'

# Torch comes first and from the constraints, so that nothing else ever picks a build of it.
$(VENV)/installed: requirements.txt requirements/runtime.txt requirements/mm.txt $(CONSTRAINTS) setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo 'mmsam needs Python 3.10 or newer: make PYTHON=python3.11 ...'; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
		|| { echo 'No venv module: apt-get install python3-venv'; exit 1; }
	$(PIP) install --quiet -c $(CONSTRAINTS) torch
	$(PIP) install --quiet -c $(CONSTRAINTS) -r requirements.txt
	$(PIP) install --quiet --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/installed-tests: $(VENV)/installed requirements/tests.txt
	$(PIP) install --quiet -c $(CONSTRAINTS) -r requirements/tests.txt
	$(PIP) install --quiet --no-deps segment-anything==1.0
	@touch $@

setup: $(VENV)/installed

setup-tests: $(VENV)/installed-tests

$(DEMO_DATA)/annotations_train.json: | setup
	$(BIN)/python tools/dataset_converters/make_stamps.py data/tiny_stamps_pages \
		--pages 800 --page-size 512 362 --uncompressed
	$(BIN)/python tools/dataset_converters/staver.py data/tiny_stamps_pages $(DEMO_DATA) \
		--object region --val-ratio 0.08 --test-ratio 0.08

# two processes of one thread use two cores better than one process of two threads
demo: setup $(DEMO_DATA)/annotations_train.json
	threads=$$((($$(nproc) + 1) / 2)); \
	PYTHON=$(BIN)/python OMP_NUM_THREADS=$$threads MKL_NUM_THREADS=$$threads \
		tools/dist_train.sh configs/sam_tiny_stamp.py 2 --work-dir work_dirs/demo \
		--options train_dataloader.batch_size=2 train_cfg.max_iters=1000 train_cfg.val_interval=1000

# the tests use one core each
test: setup-tests
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

# what the tests do a few times, many times: faults in runs of two ranks, kill -9 while saving
test-faults: setup-tests
	PYTHONPATH=tests:. $(BIN)/python -W ignore tests/faults/inject.py
	MMSAM_FAULTS=full $(BIN)/python -m pytest tests/test_training_checkpoint.py \
		tests/datasets/readers/test_coco_fuzz.py

# needs root and the packages slurm-wlm, munge and iproute2
test-slurm: setup-tests
	$(BIN)/python tests/slurm/slurm_lab.py sinfo
	MMSAM_FAULTS=full $(BIN)/python -m pytest -m slurm tests/slurm
	$(BIN)/python tests/slurm/slurm_lab.py $(BIN)/python -m pytest -m slurm tests/tools/test_launch.py

$(BENCH_VENV)/installed: requirements.txt requirements/runtime.txt requirements/mm.txt \
		requirements/benchmarks.txt $(CONSTRAINTS)
	@$(PYTHON) -m venv $(BENCH_VENV)
	$(BENCH_PIP) install --quiet -c $(CONSTRAINTS) torch
	$(BENCH_PIP) install --quiet -c $(CONSTRAINTS) -r requirements.txt -r requirements/benchmarks.txt
	$(BENCH_PIP) install --quiet --no-deps segment-anything==1.0
	@touch $@

# the peers stand in an environment of their own: transformers is no part of mmsam's
bench: $(BENCH_VENV)/installed
	$(BENCH_VENV)/bin/python -m benchmarks

lint: setup-tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) $(BENCH_VENV) $(DEMO_DATA) data/tiny_stamps_pages work_dirs/demo
