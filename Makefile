# Lockstep. `make help` lists what there is; `make demo` and `make test` set up whatever they need.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON3 ?= python3
PYTHON := .venv/bin/python

# A suite that runs longer than this is stopped as by Ctrl-C, so that its tests still clean up; then killed.
BOUNDED = timeout --foreground --signal=INT --kill-after=60
UNIT_SECONDS_MAX := 2700
E2E_SECONDS_MAX := 2400
RESTORES_SECONDS_MAX := 3600
# A test that takes longer prints where every thread stands.
PYTEST := $(PYTHON) -m pytest -o faulthandler_timeout=180

UNIT_TESTS = $(wildcard contracts/tests libs/*/tests services/*/tests sandbox/tests sandbox/*/tests bench/tests tools/tests)
E2E_TESTS = $(sort $(dir $(wildcard tests/*/test_*.py)))

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## Set up the environment, node tools and schemas; skipped when up to date
	@$(PYTHON3) tools/setup.py

# -- Running -----------------------------------------------------------------------------------------------------------

.PHONY: demo
demo: setup ## Start everything, settle a plan live, show the evidence, abort two, take one back, stop
	@$(PYTHON) -m lockstep_sandbox.demo

.PHONY: up
up: setup ## Start everything and leave it running for the `lockstep` command
	@$(PYTHON) -m lockstep_sandbox.up

.PHONY: down
down: setup ## Stop what `make up` started
	@$(PYTHON) -m lockstep_sandbox.down

# Plans a second that `make bench` offers in open loops, as in RATES="2 5"; half of what the best closed loop does if none are named.
RATES ?=

.PHONY: bench
bench: setup ## Measure throughput, latency and costs at stated loads, RATES="2 5" a second too; writes bench/out/bench.json and .html
	@$(PYTHON) -m lockstep_bench --overload --out bench/out/bench.json $(if $(RATES),--rate $(RATES))

.PHONY: bench-profile
bench-profile: setup ## Draw a flame graph of each service under load, in bench/out; takes the right to trace processes
	@$(PYTHON) -m lockstep_bench.profile

.PHONY: bench-waves
bench-waves: setup ## Measure what plans that begin together cost, beyond idling: what a group costs, and what each plan in it does
	@$(PYTHON) -m lockstep_bench.waves

.PHONY: bench-growth
bench-growth: setup ## Measure what a settlement costs as legs, watching streams and settled plans grow in number
	@$(PYTHON) -m lockstep_bench.growth

.PHONY: bench-endurance
bench-endurance: setup ## Settle for 20 minutes without a pause, and hold throughput and memory of the last stretches against the first's
	@$(PYTHON) -m lockstep_bench.endurance

.PHONY: bench-dlt
bench-dlt: setup ## Measure the way onto the chain: queue, sign, send, confirm; and gas per leg
	@$(PYTHON) -m lockstep_bench.dlt

.PHONY: bench-bank
bench-bank: setup ## Measure the bank-gateway's ledger and messages: postings, singly and in batches; written, read
	@$(PYTHON) -m lockstep_bench.bank

.PHONY: bench-journal
bench-journal: setup ## Measure the journal: signed entries per second by batch, and what an append costs as the log grows
	@$(PYTHON) -m lockstep_bench.journal

.PHONY: bench-flood
bench-flood: setup ## Measure what others notice while one client floods the coordinator, and what the guard costs
	@$(PYTHON) -m lockstep_bench.flood

# -- Tests -------------------------------------------------------------------------------------------------------------

.PHONY: test
test: setup check ## All checks, then all tests; what fails in the packages does not hide what fails together
	@failed=0; $(MAKE) test-integration || failed=1; $(MAKE) test-e2e || failed=1; exit $$failed

.PHONY: test-unit
test-unit: setup ## The packages' tests that need no database, chain or process
	@$(BOUNDED) $(UNIT_SECONDS_MAX) $(PYTEST) -m "not integration" $(UNIT_TESTS)

.PHONY: test-integration
test-integration: setup ## All of the packages' own tests, with a real Postgres and a real chain; two packages at a time
	@$(BOUNDED) $(UNIT_SECONDS_MAX) $(PYTHON) tools/lanes.py $(UNIT_TESTS)

.PHONY: test-contracts
test-contracts: setup ## The contracts' tests against the real node
	@$(BOUNDED) $(UNIT_SECONDS_MAX) $(PYTEST) contracts/tests

.PHONY: test-e2e
test-e2e: setup ## Everything real and together: all services, databases, the chain, the bank; two folders at a time
	@$(BOUNDED) $(E2E_SECONDS_MAX) $(PYTHON) tools/lanes.py $(E2E_TESTS)

# How payments are made in `make test-crash` and `make soak`, as in BANKING="--profile reservation --files".
BANKING ?=

.PHONY: test-crash
test-crash: setup ## Kill every process at every failpoint, and Postgres, and judge what is left
	@PYTHONPATH=tests $(PYTHON) -m crash $(BANKING)

# How long `make soak` does harm.
MINUTES ?= 5

.PHONY: soak
soak: setup ## All faults mixed over many plans for MINUTES=5, then heal, read and judge
	@PYTHONPATH=tests $(PYTHON) -m soak --minutes $(MINUTES) $(BANKING)

# How many calls `make test-fuzz` makes, and from which seed; none draws one.
CALLS ?= 100000
FUZZ_SEED ?=

.PHONY: test-fuzz
test-fuzz: setup ## CALLS=100000 forged calls of every method as every caller, FUZZ_SEED=n; nothing may come of them
	@PYTHONPATH=tests $(PYTHON) -m fuzz --calls $(CALLS) $(if $(FUZZ_SEED),--seed $(FUZZ_SEED))

.PHONY: test-restores
test-restores: setup ## Each of the five databases set back at every phase of a plan, then healed
	@RESTORES=all $(BOUNDED) $(RESTORES_SECONDS_MAX) $(PYTEST) tests/restores

.PHONY: test-upgrades
test-upgrades: setup ## The release before, laid out from history, is upgraded to this tree's while plans settle
	@$(BOUNDED) $(UNIT_SECONDS_MAX) $(PYTEST) tests/upgrades

# How many legs `make test-dlt` settles.
LEGS ?= 1000

.PHONY: test-dlt
test-dlt: setup ## LEGS=1000 legs on the chain while one of the gateway's processes is killed every second
	@LEGS=$(LEGS) $(BOUNDED) $(UNIT_SECONDS_MAX) $(PYTEST) -s services/dlt-gateway/tests/test_thousand.py

SEEDS ?= 1000
FIRST_SEED ?= 1

.PHONY: test-sim
test-sim: setup ## Deterministic simulation of SEEDS seeds from FIRST_SEED on
	@$(PYTHON) -m lockstep_testkit.simulation --seeds $(SEEDS) --first-seed $(FIRST_SEED)

.PHONY: test-model
test-model: setup ## The exhaustive model check: every state, every seeded bug, the second model
	@PYTHONPATH=tests $(BOUNDED) $(UNIT_SECONDS_MAX) $(PYTHON) -m model

.PHONY: test-sim-mutations
test-sim-mutations: setup ## The simulation notices each bug that is put into the code on purpose
	@$(PYTHON) -m lockstep_testkit.simulation --mutations all

# -- Checks ------------------------------------------------------------------------------------------------------------

.PHONY: check
check: setup ## Every check below, two at a time
	@$(PYTHON) tools/check.py

.PHONY: lint types imports proto-lint proto-check contracts-check docs-check vectors-check tree-check licences manifests
lint: setup ## Rules and format of the Python code (ruff)
types: setup ## Types of all packages and their tests (mypy --strict)
imports: setup ## Who may import whom (import-linter)
proto-lint: setup ## Rules of the protocol's definitions, and their compatibility with the baseline (buf)
proto-check: setup ## The generated protocol code is what the definitions generate
contracts-check: setup ## The contract artifacts are what the sources compile to
docs-check: setup ## The generated pages are what would be generated
vectors-check: setup ## The verifiers' vectors are what would be generated
tree-check: setup ## Nothing in the tree that does not belong there
licences: setup ## Everything that is locked has a licence that is allowed
manifests: setup ## What deploy/k8s deploys: built, valid, restricted, and reached by the picture's arrows alone
lint types imports proto-lint proto-check contracts-check docs-check vectors-check tree-check licences manifests:
	@$(PYTHON) tools/check.py $@

# -- Generated files ---------------------------------------------------------------------------------------------------

.PHONY: fmt
fmt: setup ## Format the Python code, and mend what can be mended
	@.venv/bin/ruff check --quiet --fix-only . && .venv/bin/ruff format --quiet .

.PHONY: protos
protos: setup ## Generate the protocol's code
	@$(PYTHON) tools/protos.py

.PHONY: protos-baseline
protos-baseline: setup ## Take the protocol as it is for the baseline of compatibility
	@$(PYTHON) tools/protos.py --baseline

.PHONY: contracts
contracts: setup ## Compile the contracts
	@$(PYTHON) tools/node.py node contracts/compile.mjs

.PHONY: docs
docs: setup ## Write the generated pages
	@$(PYTHON) tools/docs.py

.PHONY: screenshots
screenshots: setup ## Take the pictures of the operators' console that docs/console.md shows
	@$(PYTHON) -m lockstep_testkit.pictures docs/screenshots

.PHONY: vectors
vectors: setup ## Write the verifiers' vectors
	@$(PYTHON) -m lockstep_testkit.bundles libs/verify/vectors

.PHONY: lock
lock: setup ## Resolve requirements.in, its runtime part by itself, and bootstrap.in anew, with hashes
	@for name in requirements bootstrap; do \
	  .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	    --no-emit-index-url --no-emit-find-links $$name.in -o $$name.lock; \
	done
	@sed '/^# Sandbox/,$$d' requirements.in | .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  --no-emit-index-url --no-emit-find-links --constraint requirements.lock - -o runtime.lock

# Where `make images` pushes to, as in REGISTRY=registry.example/settlement; nowhere if none is named.
REGISTRY ?=

.PHONY: images
images: setup ## Build the services' container images; with REGISTRY=host/path push them, and write their digests into deploy/k8s
	@$(PYTHON) tools/images.py $(if $(REGISTRY),--registry $(REGISTRY))

.PHONY: sbom
sbom: setup ## Write the bill of materials (CycloneDX 1.6) of everything that is locked: build/lockstep.cdx.json
	@$(PYTHON) tools/sbom.py build/lockstep.cdx.json

.PHONY: clean
clean: ## Remove everything that tools made; `make setup` makes it again
	@rm -rf .venv .schemas .softhsm .prometheus .chromium .sandbox bench/out tools/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
