# The front door: every target is a line or two over `python -m ROOM VERB`. `make help` lists them.

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

# Tensors on huge pages: a third off an epoch on Linux (glibc 2.35 and newer); elsewhere it says nothing.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1

PY := .venv/bin/python
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help baseline captioner data train predict submission score test fuzz bench hear-check format data-clotho

help: ## show this
	@echo "make TARGET [NAME=value …]"; echo
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 16
	@echo; echo "  DATA=$(DATA) RUN=$(RUN) SPLIT=$(SPLIT)"
	@echo "  TASK=$(TASK) RUNS=$(RUNS) TEAM=$(TEAM) REHEARSE=(none; SPLIT for baseline)"
	@echo "  SYSTEM=$(SYSTEM) CONFIG=$(CONFIG) EPOCHS=(the config's; 12 for baseline)"
	@echo "  CAPTIONER_EPOCHS=(the config's; 6 for baseline)"

baseline: train predict score submission ## data, training, prediction, score and package of the baseline

# The default data are made where they are asked for; any other folder must be there.
data/soundscapes: | .venv/.core
	$(PY) -m evaluation data make $@

data: .venv/.core $(if $(filter data/soundscapes,$(DATA)),data/soundscapes) ## check DATA; make the default data first
	$(PY) -m evaluation data check "$(DATA)"

train: data ## train SYSTEM on DATA into RUN, or go on where it was cut off
	$(PY) -m systems train $(SYSTEM) --config $(CONFIG) --data "$(DATA)" --run "$(RUN)" $(if $(EPOCHS),--set epochs=$(EPOCHS))

predict: .venv/.core ## answer the queries of DATA's SPLIT with RUN
	$(PY) -m systems predict "$(RUN)" --data "$(DATA)" --split $(SPLIT)

score: .venv/.core ## score RUN's prediction, with intervals
	$(PY) -m evaluation score retrieval --truth "$(DATA)" --split $(SPLIT) \
		--prediction "$(RUN)/predictions/$(SPLIT).npz" --json "$(RUN)/scores/$(SPLIT).json"

submission: .venv/.core ## make TASK's package from RUNS and TEAM; REHEARSE=split answers that in place of its sets
	$(PY) -m submission package $(RUNS) --task $(TASK) --team "$(TEAM)" --data "$(DATA)" $(if $(REHEARSE),--split $(REHEARSE))

# The other half of the baseline: `make baseline` goes on here.
baseline: captioner

captioner: .venv/.core ## train a captioner from RUN's encoder into RUN-captioner, predict, score, package
	$(PY) -m systems train baseline.captioner --config baseline/captioner.yaml --data "$(DATA)" --run "$(RUN)-captioner" \
		--set init_from="$(RUN)" $(if $(CAPTIONER_EPOCHS),--set epochs=$(CAPTIONER_EPOCHS))
	$(PY) -m systems predict "$(RUN)-captioner" --data "$(DATA)" --split $(SPLIT)
	$(PY) -m evaluation score captions --truth "$(DATA)" --split $(SPLIT) \
		--prediction "$(RUN)-captioner/predictions/$(SPLIT).csv" --json "$(RUN)-captioner/scores/$(SPLIT).json"
	$(PY) -m submission package "$(RUN)-captioner" --task $(CAPTIONER_TASK) --team "$(TEAM)" --data "$(DATA)" \
		$(if $(REHEARSE),--split $(REHEARSE))
	$(PY) -m baseline.floors "$(RUN)-captioner" --retriever "$(RUN)" --data "$(DATA)" --split $(SPLIT)

test: .venv/.test ## check style and run every test
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	$(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

fuzz: .venv/.test ## edit valid packages and predictions at random, FUZZ times (100000): nothing breaks or passes wrongly
	FUZZ=$(or $(FUZZ),100000) $(PY) -m pytest -q tests/submission/test_fuzz.py

bench: .venv/.bench ## measure speed side by side with what one would use instead
	$(PY) -m bench

hear-check: .venv/.hear ## run the public HEAR validator on every audio encoder (about 2 GB more, TensorFlow)
	$(PY) -m tests.systems.parts.encoders.hear_check

format: .venv/.test ## put the code in the one format
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

data-clotho: .venv/.core ## fetch Clotho v2.1 (7 GB to fetch, 12 GB in the end) into data/clotho and check it
	$(PY) -m evaluation data download clotho data/clotho

# The environment: the core, and one more extra for each stamp. It is set up again when what it depends on changes.
.venv/.test .venv/.bench .venv/.hear .venv/.cluster: .venv/.core
.venv/.%: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; give one: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	@test -x $(PY) || $(PYTHON) -m venv .venv
	@$(PY) -m pip install --quiet --disable-pip-version-check "$$(grep '^uv==' constraints.txt)"
	$(PY) -m uv pip install --quiet --compile-bytecode --python $(PY) --constraint constraints.txt --requirement pyproject.toml $(if $(filter core,$*),,--extra $*)
	@touch $@
