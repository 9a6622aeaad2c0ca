# `make demo` and `make test` set up everything they need first; see docs/installation.md.

PYTHON ?= python3
SETUP = $(PYTHON) scripts/setup_workspace.py $(if $(filter file,$(origin PYTHON)),,--this-python)
MODEL ?=
BAG ?=

# Where .venv is laid over a ROS 2 installation, that has to be sourced (see scripts/setup_workspace.py).
WORKSPACE = if [ -f .venv/workspace.sh ] && [ -z "$$ROS_DISTRO" ]; then . .venv/workspace.sh; fi

RUN = .venv/bin/diffusion-perception
SCENES = out/experiments
RUNS ?= $(SCENES)/runs
SET ?=

.PHONY: help setup setup-test demo test test-distros lint bench faults fuzz soak experiments clean

help:
	@echo "make demo [BAG=path] [MODEL=name]  publisher, perception node and recorder over DDS, then a report"
	@echo "make test                          linters and the whole test suite"
	@echo "make test-distros                  docs/on_your_robot.md word by word on stand-ins for Humble, Jazzy and Kilted"
	@echo "make bench                         benchmarks, to out/bench and docs/performance.md"
	@echo "make faults [ROWS=words]           the fault campaign, to out/faults and docs/reliability.md"
	@echo "make fuzz [MINUTES=10 TARGETS=words]  random input for every reader of foreign bytes, to out/fuzz"
	@echo "make soak [MINUTES=60]             one node watched for an hour, to out/soak"
	@echo "make experiments [RUNS=dir SET=key=value]  the papers' experiments: hours; goes on where it was cut"
	@echo "make setup                         .venv and the built workspace, which all of these make first"
	@echo "make setup-test                    the same with PyTorch and the test tools"
	@echo "make lint                          ruff and mypy only"
	@echo "make clean                         remove all that the commands above made"

setup:
	@$(WORKSPACE); $(SETUP)

setup-test:
	@$(WORKSPACE); $(SETUP) --test

demo: setup
	@.venv/bin/diffusion-perception demo $(if $(BAG),--bag "$(BAG)") $(if $(MODEL),--model "$(MODEL)")

test: lint
	@if [ -f .venv/workspace.sh ]; then . .venv/workspace.sh; fi; .venv/bin/python -m pytest --numprocesses 2 --dist loadfile

# Minutes, 1 GB; DISTRO=jazzy for one of them. LAUNCH_SOURCES=folder with checkouts of launch and launch_ros.
test-distros:
	@env -u PYTHONPATH $(PYTHON) scripts/distributions.py $(DISTRO)

lint: setup-test
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

bench: setup
	@.venv/bin/diffusion-perception bench --docs docs/performance.md

# These three run the checkout's code and leave their results in out/.
IN_TESTS = $(WORKSPACE); PYTHONPATH=test:$$PYTHONPATH .venv/bin/python -m
faults: setup-test
	@$(IN_TESTS) faults $(if $(ROWS),--rows '$(ROWS)') --table docs/reliability.md

fuzz: setup-test
	@$(IN_TESTS) fuzz --minutes $(or $(MINUTES),10) $(if $(TARGETS),--targets '$(TARGETS)')

soak: setup
	@$(IN_TESTS) faults.soak --minutes $(or $(MINUTES),60)

# Renders the scenes, then trains what is missing. Figures and charts are part of the repository. With more time:
#   make experiments RUNS=runs/long SET=run.max_steps=2500
experiments: setup-test
	$(RUN) world -o $(SCENES)/rooms/train --config config/world/experiments.yaml --size 64x64 --count 1600 --shard 200
	$(RUN) world -o $(SCENES)/rooms/val --config config/world/experiments.yaml --size 64x64 --count 200 --shard 100 --seed 1000000
	$(RUN) world -o $(SCENES)/few_shot/val --config config/world/few_shot.yaml --size 128x96 --count 40 --seed 1000000
	for seed in 0 1 2; do \
	    $(RUN) world -o $(SCENES)/few_shot/train-$$seed --config config/world/few_shot.yaml --size 128x96 --count 50 \
	        --seed $${seed}000 || exit; \
	done
	$(RUN) research ablate config/ablation/*.yaml -o $(RUNS) --figures experiments --charts docs/images $(addprefix --set ,$(SET))
	$(RUN) train config/train/experiment.yaml -o $(RUNS)/sampler --set 'objective={kind: multi_step}' --set run.max_steps=1000
	test -d $(RUNS)/sampler/model || $(RUN) export native --checkpoint $(RUNS)/sampler/best -o $(RUNS)/sampler/model
	$(RUN) research scale $(RUNS)/sampler/model --data $(SCENES)/rooms/val --images 40 --steps 1,2,5,10 --ensemble 1,2,5,10 -o $(RUNS)/test_time
	cp $(RUNS)/test_time/scale.json experiments/test_time.json
	cp $(RUNS)/test_time/scale.png docs/images/test_time.png
	$(RUN) research create $(RUNS)/diff2in1/first_stage-0/run --data $(SCENES)/rooms/train --count 12 --steps 20 --sheet docs/images/diff2in1_created.png
	$(RUN) research create $(RUNS)/diff2in1/first_stage-0/run --noise-level 1 --count 12 --steps 20 --sheet docs/images/diff2in1_from_noise.png

clean:
	rm -rf .venv build install log out .pytest_cache .mypy_cache .ruff_cache
