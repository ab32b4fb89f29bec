# Two commands: `make demo` runs the whole chain, `make test` runs the tests. Both set everything up first.

PYTHON ?= $(shell command -v python3.11 || echo python3)
UV := 0.13.9
BIN := .venv/bin
REVISION = $(shell git rev-parse HEAD)$(shell git diff --quiet HEAD || echo -dirty)
EXTRAS := airflow,spark,ray,llm,test
export BENCHMARK

.DEFAULT_GOAL := help
.PHONY: help setup demo down status test affected simulate nightly cluster manifests images reproduce lint format constraints clean

help: ## Show this list
	@awk -F ":.*## " '/^[a-z]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/.ready ## Environment, pinned packages, compiled bytecode, Delta JARs, local language model

.venv/.ready: pyproject.toml constraints.txt infra/spark-jars.txt
	@$(PYTHON) -m infra.set_up --uv=$(UV) --extras=$(EXTRAS)
	@touch $@

demo: setup ## The whole chain on generated reviews (or REVIEWS=, META=; DATASET=); WAIT=0 returns at the end
	@$(BIN)/python -m infra.demo

down: ## Stop exactly the services that were started
	@$(BIN)/python -m infra.services down

status: ## Which services are running
	@$(BIN)/python -m infra.services status

# A file's tests share a process; the chain's, which come first, mostly wait for their services.
test: setup ## All tests in two processes; ARGS="-k trie" or ARGS=tests/schemas for some of them in one
	@$(BIN)/python -m pytest $(or $(ARGS),-n 2 --dist=loadfile --no-loadscope-reorder)

affected: setup ## The tests that a change can affect: what differs from the last commit, or SINCE=origin/main
	@tests=$$($(BIN)/python -m tests.affected --since=$(or $(SINCE),HEAD)) || exit 1; \
	if [ -n "$$tests" ]; then $(BIN)/python -m pytest $(ARGS) $$tests || [ $$? -eq 5 ]; else echo "No test depends on what changed."; fi

simulate: setup ## DAYS=14 days of a planted world through Airflow, with everything that a feed brings; a table at the end
	@$(BIN)/python -m tests.simulated

nightly: setup ## Slow checks: planted worlds under three seeds with their controls, streamed and split training, servers
	@$(BIN)/python -m pytest -m "" tests/nightly
	@$(BIN)/python -m pytest -m nightly tests

cluster: setup ## The chain on real engines (PostgreSQL, S3 store, Spark and Ray nodes) beside a laptop's; needs Go once
	@$(BIN)/python -m tests.cluster

manifests: setup ## Render the Helm chart in every size and check each object; builds helm once, which needs Go
	@$(BIN)/python -m tests.manifests

images: ## Build the images, tagged with the revision of the code; needs Docker. REGISTRY=registry.example.org/team/
	@for image in airflow spark ray mlflow; do \
		docker build -f infra/images/$$image.Dockerfile --build-arg REVISION=$(REVISION) -t $(REGISTRY)penchant-$$image:$(REVISION) . || exit 1; \
	done
	@docker build -f infra/images/ray.Dockerfile --build-arg REVISION=$(REVISION) --build-arg TORCH=default -t $(REGISTRY)penchant-ray-gpu:$(REVISION) .

reproduce: setup ## Published results measured again: BENCHMARK=<folder> [ARGS="--recipes sasrec --seeds 0,1,2 --minutes 10"]
	@$(BIN)/python -m ray_jobs.reproduction $(ARGS)

lint: setup ## ruff, mypy, import-linter
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: setup ## Format the code
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

constraints: setup ## Resolve every pin anew into constraints.txt (its comments are kept)
	@grep '^#' constraints.txt > constraints.new
	@$(BIN)/uv pip compile --quiet --all-extras --python $(BIN)/python --no-annotate --no-header --no-emit-index-url pyproject.toml >> constraints.new
	@mv constraints.new constraints.txt

clean: down ## Stop the services and remove what runs have made (tables, models, logs); keeps .venv
	@find .penchant -mindepth 1 -maxdepth 1 ! -name jars ! -name tools -exec rm -rf {} +
