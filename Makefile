# make run    sets itself up, then runs the whole pipeline on real CarRacing: collect, train, eval, encode, verify, view
# make test   sets itself up, then lint, types and tests

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
OUT ?= runs/quickstart
MINUTES ?= 1
JOBS ?= 2
LESSONS ?= 32
GENERATIONS ?= 200

export SDL_VIDEODRIVER ?= dummy
export OMP_WAIT_POLICY ?= passive
unexport PYTHONDONTWRITEBYTECODE  # else each process compiles the package anew

.DEFAULT_GOAL := help

help: ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-14s %s\n", $$1, $$2}'

run: $(INSTALLED) ## Real CarRacing to latents in a few minutes; again: continues, or says that all is done
	$(BIN)/wm-pipeline run pipelines/quickstart.yaml --out $(OUT)
	@test $(OUT)/view.html -nt $(OUT)/vae/vae.safetensors \
	  || $(BIN)/wm-view --vae $(OUT)/vae --data $(OUT)/rollouts --out $(OUT)/view.html

example: run ## Train an MDN-RNN on the latents of `make run`, and put its dream into the page
	$(BIN)/python examples/train_mdn_rnn.py --latents $(OUT)/latents --vae $(OUT)/vae --out $(OUT)/mdn_rnn
	$(BIN)/wm-view --vae $(OUT)/vae --data $(OUT)/rollouts --rnn $(OUT)/mdn_rnn --out $(OUT)/view.html

drive: $(OUT)/mdn_rnn/metrics.json ## From nothing to a driving car, in a quarter of an hour on two cores; again: continues
	$(BIN)/python examples/teach_controller.py --vae $(OUT)/vae --rnn $(OUT)/mdn_rnn --out $(OUT)/controller --lessons $(LESSONS)
	$(BIN)/python examples/watch_controller.py --vae $(OUT)/vae --rnn $(OUT)/mdn_rnn --controller $(OUT)/controller
	@echo "See $(OUT)/controller/drive.gif, and the score in scores.json beside it"

evolve: $(OUT)/mdn_rnn/metrics.json ## As drive, but no one teaches: CMA-ES searches, in some three hours; again: continues
	$(BIN)/python examples/train_controller.py --vae $(OUT)/vae --rnn $(OUT)/mdn_rnn --out $(OUT)/evolved --generations $(GENERATIONS)
	$(BIN)/python examples/watch_controller.py --vae $(OUT)/vae --rnn $(OUT)/mdn_rnn --controller $(OUT)/evolved

$(OUT)/mdn_rnn/metrics.json: | run
	$(BIN)/python examples/train_mdn_rnn.py --latents $(OUT)/latents --vae $(OUT)/vae --out $(OUT)/mdn_rnn

test: lint types ## Lint, types, and every test but the slow ones, in JOBS (2) processes
	$(BIN)/pytest -n $(JOBS) --dist worksteal

test-slow: $(INSTALLED) ## The slow tests alone; Procgen, which asks for an older NumPy and does not need it, is installed for them
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-deps \
	  procgen-mirror gym3 gym gym-notices || echo "There is no Procgen for this Python; its test is skipped"
	$(BIN)/pytest -m slow -n $(JOBS) --dist loadfile

test-all: test test-slow ## Everything, and ten minutes of fuzzing
	$(BIN)/python -m tests.hostile.fuzz --minutes 10

fuzz: $(INSTALLED) ## Fuzz every parser of strangers' files for MINUTES (1)
	$(BIN)/python -m tests.hostile.fuzz --minutes $(MINUTES)

lint: $(INSTALLED) ## ruff, hadolint, shellcheck, the schemas of compose files and CITATION.cff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/hadolint docker/Dockerfile docker/Dockerfile.cuda
	$(BIN)/shellcheck pipelines/slurm.sh docker/healthy.sh .ci/run
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker/compose.yaml
	$(BIN)/check-jsonschema --builtin-schema vendor.citation-file-format CITATION.cff

types: $(INSTALLED) ## mypy
	$(BIN)/mypy

docs: $(INSTALLED) ## Build the documentation into build/site; open build/site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict
	@echo "Open build/site/index.html"

install: $(INSTALLED) ## Set up .venv with the pinned versions

$(INSTALLED): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "worldmodel_v needs Python 3.11 or newer; try: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) \
	  || { echo "python3 -m venv failed; on Debian and Ubuntu: apt install python3-venv"; rm -rf $(VENV); exit 1; }
	@echo "Installing some 200 packages into $(VENV), which takes minutes. Downloads of 10 MB and more:"
	@{ $(BIN)/pip install --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'; echo $$? > $@; } \
	  | grep --line-buffered --only-matching --extended-regexp '^ *Downloading .*\(([0-9]{2,}\.[0-9] MB|[0-9.]+ GB)\)|^Installing collected packages|^    .*(depends on|requested) .*'; \
	  read -r status < $@; test "$$status" = 0 || { rm -f $@; exit 1; }

clean: ## Remove .venv and caches (not runs/)
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info

.PHONY: help run example drive evolve test test-slow test-all fuzz lint types docs install clean
