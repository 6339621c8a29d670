# The commands of this project. Each does its own set-up first and says what that is; the work lies in setup/.

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup demo test chaos fuzz audit check bench clean lock base-image installer-image

PARTS := venv engine base-image

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s%s\n", $$1, $$2 }' Makefile

setup: ## prepare .venv with imagepool in it, a Docker Engine and the base image
	@setup/plan.sh $(PARTS)
	@setup/venv.sh
	@setup/engine.sh
	@setup/base-image.sh

demo: setup ## build a Debian live ISO on a pool of two nodes and watch it
	@setup/as-root.sh .venv/bin/python -m imagepool.demo

test: PARTS += installer-image test-parts
test: setup ## run all tests: engine, network namespaces, QEMU, browser
	@setup/installer-image.sh
	@setup/test-parts.sh
	@setup/as-root.sh .venv/bin/pytest -m "" tests

chaos: PARTS += test-parts
chaos: setup ## kill, stop, cut and fill on purpose; SEED=n N=200 repeats a random schedule of faults
	@setup/test-parts.sh
	@setup/as-root.sh env $(if $(SEED),SEED=$(SEED)) $(if $(N),N=$(N)) .venv/bin/pytest -m chaos tests/chaos

fuzz: ## look for inputs that break the parsers, for SECONDS=n in all (600); keeps what leads to new code
	@setup/venv.sh
	@.venv/bin/python -m tests.fuzz.fuzzing $(or $(SECONDS),600)

audit: ## look for known weaknesses of what requirements.lock names; ADVISORIES="folder ...": in copies of databases
	@setup/audit.sh $(if $(ADVISORIES),--advisories $(ADVISORIES))

check: ## format, lint, types, architecture; less than a minute
	@setup/venv.sh
	@.venv/bin/ruff format --check .
	@.venv/bin/ruff check .
	@.venv/bin/mypy
	@.venv/bin/pytest -q tests/architecture

bench: PARTS += bench-parts
bench: setup ## measure: the pool beside the raw engine, the relay beside nginx and haproxy, TLS beside none, logs beside the engine's
	@setup/bench-parts.sh
	@setup/as-root.sh .venv/bin/python -m bench

base-image: ## make the base image anew if its recipe has changed
	@setup/plan.sh engine base-image
	@setup/engine.sh
	@setup/base-image.sh

installer-image: ## make the image for installer ISOs anew if its recipe has changed
	@setup/plan.sh engine installer-image
	@setup/engine.sh
	@setup/installer-image.sh

lock: ## choose the newest versions for requirements.lock
	@setup/lock.sh

clean: ## stop and remove what was started and made here
	@setup/clean.sh
