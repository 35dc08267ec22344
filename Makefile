# deoldify_lite: `make` lists what there is. Everything installs itself into .venv on first use.
SHELL := /bin/bash
PYTHON ?= python3
RUN ?= mine
VENV := .venv
BIN := $(VENV)/bin
CLI := $(BIN)/deoldify-lite

MODEL = $(if $(filter command line environment,$(origin RUN)),--model 'models/$(RUN)/generator.safetensors')

# only what was given is passed on: a run remembers the rest
OPTIONS = --run '$(RUN)' $(if $(DATA),--data '$(DATA)') $(if $(RECIPE),--recipe '$(RECIPE)') \
          $(if $(SIZES),--sizes '$(SIZES)') $(if $(EPOCHS),--epochs $(EPOCHS)) $(if $(GPUS),--gpus $(GPUS))

.DEFAULT_GOAL := help
.PHONY: help setup demo pretrain-gen save-gen pretrain-critic train-gan export finetune colorize video app evaluate compare test check bench clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo; echo "  DATA= folder of photos or a fastai data set   RUN= run folder in models/   RECIPE= SIZES= EPOCHS= GPUS="

setup: $(VENV)/.installed ## Install into .venv

$(VENV)/.installed: setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=python3.12 setup")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check -e '.[dev]'
	@touch $@

demo: setup ## The whole recipe on eight photos; ends with models/demo/report.png
	$(CLI) export --data sample --recipe demo --run demo

pretrain-gen save-gen pretrain-critic train-gan export: setup
	$(CLI) $@ $(OPTIONS)
pretrain-gen: ## Stage 1: the generator alone
save-gen: ## Stage 2: its generations
pretrain-critic: ## Stage 3: the critic alone
train-gan: ## Stage 4: both together, and what they need first
export: ## Stage 5: generator.safetensors, generator.pkl, report.png

finetune: setup ## Go on training the released generator on the photos in DATA=
	$(CLI) finetune --run '$(RUN)' $(if $(DATA),--data '$(DATA)') $(if $(EPOCHS),--epochs $(EPOCHS)) $(if $(GPUS),--gpus $(GPUS))

# a target's own words where a name is missing
need = $(if $($(1)),,$(error $(1)= is missing: $(2)))

colorize: setup ## Colorize IN= (photos, folders) into OUT=, with RUN='s generator where RUN= is given
	$(call need,IN,name photos or folders)$(CLI) colorize $(IN) -o '$(or $(OUT),colorized)' $(MODEL)

video: setup ## Colorize the film IN= into OUT=, with RUN='s generator where RUN= is given
	$(call need,IN,name a film)$(CLI) video $(IN) -o '$(or $(OUT),colorized)' $(MODEL)

app: setup ## A page in the browser, with RUN='s generator where RUN= is given
	$(CLI) app $(MODEL)

evaluate: setup ## Measure RUN='s generator on the photos in DATA=, into OUT=
	$(call need,DATA,name a folder of photos)$(CLI) evaluate 'models/$(RUN)/generator.safetensors' --data '$(DATA)' -o '$(or $(OUT),models/$(RUN)/table.md)'

compare: setup ## Train all recipes on the photos in DATA= and measure them on those in TEST=
	$(call need,DATA,name a folder of photos)$(call need,TEST,name a folder of other photos)$(CLI) compare --data '$(DATA)' $(foreach t,$(TEST),--test '$(t)') $(foreach r,$(RECIPE),--recipe '$(r)') $(if $(OUT),-o '$(OUT)')

test: setup ## Run the tests
	$(BIN)/pytest -q -n 2 --dist worksteal tests

check: setup ## What CI checks beside the tests: ruff, notebooks equal to modules, clean and running
	$(BIN)/ruff check --select E,F,W --ignore E401,E701,E702,E731,E741 --line-length 165 deoldify_lite tests
	$(BIN)/python tests/check_notebooks.py

bench: setup ## Photos a second and memory: of stage 1 beside fastai's defaults, and of colorizing
	TQDM_DISABLE=1 $(BIN)/python tests/bench.py
	TQDM_DISABLE=1 $(BIN)/python tests/bench_use.py

clean: ## Delete decoded photos and half-written files of all runs, nothing else
	find models -type d -name cache -prune -exec rm -rf {} +; find models -name '.*.part*' -delete
