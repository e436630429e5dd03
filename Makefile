# Everything runs from .venv; `make` alone lists the targets.
PYTHON ?= python3
UV_VERSION := 0.13.8
BIN := .venv/bin
RECIPE ?= configs/demo.toml
INPUT ?=
TORCH_BACKEND ?=
DATA_DIR ?= ../shared/data
export DATA_DIR
# With INPUT the demo reads those captures instead of crawling the embedded site.
OVERRIDES = $(if $(INPUT),'extract.input=["$(INPUT)"]') $(SET)

.DEFAULT_GOAL := help
.PHONY: help setup java lock demo test check bench classifiers minio k8s-tools clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/.ready java  ## install everything into .venv (TORCH_BACKEND=cpu for the small build of torch)

.venv/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "setup: Python 3.11 or newer is needed; name one with PYTHON=python3.12")'
	@command -v c++ >/dev/null || { echo "setup: no C++ compiler: fasttext builds from source; install g++ (Debian: apt-get install g++)"; exit 2; }
	@echo "setup: installing into .venv (about two minutes)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip >/dev/null
	@$(BIN)/python -m pip install -q --disable-pip-version-check uv==$(UV_VERSION)
ifeq ($(TORCH_BACKEND),)
	@$(BIN)/uv pip install -q --python $(BIN)/python --require-hashes -r requirements.lock
else
	@$(BIN)/uv pip install -q --python $(BIN)/python --torch-backend $(TORCH_BACKEND) --no-verify-hashes -c requirements.lock -r pyproject.toml --extra dev
endif
	@$(BIN)/uv pip install -q --python $(BIN)/python --no-deps -e .
	@touch $@

java:
	@$(BIN)/python -c 'from spark_jobs.session import check_java; check_java()' 2>/dev/null || { \
	  if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	    echo "setup: installing openjdk-17-jre-headless"; \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y openjdk-17-jre-headless >/dev/null; \
	  else echo "setup: Java 17 or newer is needed: install a JRE (Debian: apt-get install openjdk-17-jre-headless) or set JAVA_HOME"; exit 2; fi; }

lock:  ## resolve requirements.lock anew from pyproject.toml
	@$(BIN)/uv pip compile -q --universal --generate-hashes --no-emit-index-url --no-annotate --no-header --upgrade --extra dev pyproject.toml -o requirements.lock

demo: setup  ## the whole way: crawl, clean corpus, pretraining, fine-tuning, RLHF, report (INPUT=captures for your own)
	@$(if $(INPUT),,$(BIN)/python -m dataeng.acquire.crawl $(RECIPE) $(OVERRIDES))
	@$(BIN)/python -m dataeng.acquire.tasks $(RECIPE) $(OVERRIDES)
	@$(BIN)/python spark_jobs/pipeline.py $(RECIPE) $(OVERRIDES)
	@$(BIN)/python ray_jobs/pipeline.py $(RECIPE) $(OVERRIDES)
	@$(BIN)/python -m dataeng.report $(RECIPE) $(OVERRIDES)

test: setup  ## run the tests (T=path for some of them)
	@$(BIN)/python -m pytest $(T)

check: setup  ## lint, format, types, import rules, duplicates
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check -q .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache | tail -n 6
	@$(BIN)/pylint --disable=all --enable=duplicate-code --min-similarity-lines=10 --score=n dataeng training spark_jobs ray_jobs
	@$(BIN)/python -m pytest tests/test_house.py

BENCH := runs/bench
bench: setup  ## print every figure of the README, after `make demo` (hours; PEER=python of an environment with datatrove)
	@$(BIN)/python benchmarks/crawl_labels.py configs/labels.toml
	@$(BIN)/python benchmarks/crawl_hashes.py $(BENCH)/hashes
	@$(BIN)/python benchmarks/resume.py runs/demo $(BENCH)/resume pretrain.precision=fp32
	@$(BIN)/python benchmarks/alignment.py runs/demo $(BENCH)/alignment
	@for name in minhash_speed warc_speed extraction extract_memory toxicity spam personal_data; do \
	  echo "== $$name"; $(BIN)/python benchmarks/$$name.py || exit 1; done
	@$(BIN)/python benchmarks/language.py runs/labels
	@$(BIN)/python benchmarks/language_guess.py runs/labels
	@$(if $(PEER),$(BIN)/python benchmarks/heuristics_speed.py peer=$(PEER) && \
	  $(BIN)/python benchmarks/crawl_speed.py $(PEER) $(BENCH)/speed,echo "bench: no PEER given: datatrove is not measured")

classifiers: setup  ## train the toxicity and spam models that ship with the project, from DATA_DIR
	@$(BIN)/python spark_jobs/train_classifier.py configs/classifiers.toml train_classifier.data=$(DATA_DIR) \
	  train_spam.data=$(DATA_DIR) $(SET)

minio: setup  ## build a MinIO server for the S3 tests (needs Go)
	@$(BIN)/python tests/tools.py minio

k8s-tools: setup  ## build kustomize and kubeconform for the Kubernetes tests (needs Go)
	@$(BIN)/python tests/tools.py k8s

clean:  ## delete the environment and the demo's run
	rm -rf .venv runs
