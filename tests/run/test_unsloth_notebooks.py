"""The default path, notebooks 01 to 04 through papermill, with a real Unsloth that trains on this machine's CPU."""

import json
import math
import os
import subprocess
import sys

import pytest
from conftest import ROOT

SMALL = {"n_train": 60, "n_test": 40, "n_rollout": 40, "k": 2, "turns": 2, "sft_epochs": 1, "backend": "unsloth"}


def test_notebooks_train_through_unsloth_and_generate_through_transformers(unsloth, tmp_path):
    version, path = unsloth
    run = tmp_path / "run"
    values = [str(x) for pair in (SMALL | {"run_dir": run}).items() for x in ("-p", *pair)]
    command = [sys.executable, "-m", "reflectevo_lite.run.cli", "run", "params/tiny_cpu.yaml", "--only", "01,02,03,04"]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *path]), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run([*command, *values], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    records = {p.parent.name: json.loads(p.read_text()) for p in run.glob("adapters/*/training.json")}
    assert {"reflector", "one_stage", "corrector", "dpo_pm", "dpo_pref", "sft_dpo"} <= records.keys()
    assert {r["backend"] for r in records.values()} == {f"Unsloth on cpu, float32 (Unsloth {version})"}
    for name in ("dpo_pm", "dpo_pref", "sft_dpo"):  # the policy starts as its reference
        assert records[name]["history"][0]["loss"] == pytest.approx(math.log(2), abs=1e-3)
    for stage in ("02_reflection_generation", "03_sft", "04_dpo"):
        said = next(run.glob(f"notebooks/{stage}*.ipynb")).read_text()
        assert f"transformers on cpu, float32 (Unsloth {version} trains)" in said
