"""The seam between Unsloth and plain transformers: which is chosen and why, and that training is the same on both."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT

from reflectevo_lite.generate import models
from reflectevo_lite.train import backend
from reflectevo_lite.train.params import TrainParams

STAND_IN = ROOT / "tests" / "stand_in"
# SFT's loss by TRL's chunks or Unsloth's kernel; no workers on either; AdamW in one call or in several
IMPLEMENTATION = {"loss_type", "dataset_num_proc", "optim"}

TRAIN = """
import json, sys
from pathlib import Path
from reflectevo_lite import curate
from reflectevo_lite.curate import sets
from reflectevo_lite.generate import engines
from reflectevo_lite.generate import models
from reflectevo_lite.generate import rollouts
from reflectevo_lite.embedded import tasks as synthetic
from reflectevo_lite.train import backend, training
sys.path.insert(0, "tests")
from conftest import ScriptedEngine

asked_for, out, processes = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
problems = synthetic.problems(80, "train", seed=21)
rows = rollouts.generate_rollouts(ScriptedEngine(problems), problems, out / "r.jsonl", k=4, temperature=1.0, progress=False)
params = training.TrainParams(
    learning_rate=1e-3, epochs=1, batch_size=8, lora_r=4, backend=asked_for, checkpoints=1, processes=processes
)
found, settle = {}, backend.settle

def keep(trainer, fresh=True):
    found["args"] = {k: str(v) for k, v in trainer.args.to_dict().items() if k not in ("output_dir", "logging_dir", "hub_model_id")}
    settle(trainer)

backend.settle = keep
trainings = (
    ("sft", training.train_sft, curate.examples("reflector", sets.unfiltered(rows, 24))),
    ("dpo", training.train_dpo, curate.examples("preference", sets.d_pm(rows))[:24]),
)
for kind, train, data in trainings[: 1 if processes > 1 else 2]:
    record = train(data, out / kind, model="tiny", params=params)
    config = json.loads((out / kind / "adapter_config.json").read_text())
    found[kind] = {"args": found.pop("args", None), "losses": [h["loss"] for h in record["history"]], "backend": record["backend"]}
    found[kind] |= {"lora": {k: sorted(v) if isinstance(v, list) else v for k, v in config.items()}}
    found[kind]["files"] = sorted(p.name for p in (out / kind).iterdir())
calls = getattr(sys.modules.get("unsloth"), "CALLS", {})
found["calls"] = dict(calls)
engine = engines.TransformersEngine(models.load("tiny", backend=asked_for))
asked = [row["reflections"][0]["prompt"] for row in rows if row["reflections"]][:8]
found["texts"] = [c[0].text for c in engine.generate(asked, max_new_tokens=24)]
print("FOUND", json.dumps(found))
"""


def train(tmp_path, backend, *path, processes=1):
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, (*path, ROOT))),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    command = [sys.executable, "-c", TRAIN, backend, str(tmp_path), str(processes)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env)
    assert "FOUND" in done.stdout, done.stdout[-2000:] + done.stderr[-2000:]
    *said, found = done.stdout.strip().splitlines()
    assert not [line for line in said if "Unsloth changed" in line]
    return json.loads(found.removeprefix("FOUND")), [line for line in said if line.startswith("tiny: ")]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return train(tmp_path_factory.mktemp("plain"), "transformers")


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory):
    return train(tmp_path_factory.mktemp("stand_in"), "unsloth", STAND_IN)


def differing(a, b):
    return {name for name in a.keys() | b.keys() if a.get(name) != b.get(name)}


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_both_backends_resolve_to_the_same_trainer_arguments(plain, stand_in, kind):
    ours, theirs = plain[0][kind]["args"], stand_in[0][kind]["args"]
    assert len(ours) > 100 and differing(ours, theirs) <= IMPLEMENTATION
    assert ours["learning_rate"] == "0.001" and theirs["seed"] == "0"


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_both_backends_train_the_same_adapter(plain, stand_in, kind):
    ours, theirs = plain[0][kind], stand_in[0][kind]
    assert differing(ours["lora"], theirs["lora"]) == set()
    assert ours["losses"] == pytest.approx(theirs["losses"], abs=1e-5) and len(ours["losses"]) >= 3
    assert "ref" not in theirs["files"] and ours["files"] == theirs["files"]  # no copy of the reference is left


def test_unsloth_is_asked_for_every_hyper_parameter(stand_in):
    calls = stand_in[0]["calls"]
    assert calls["get_peft_model"]["random_state"] == 0 and calls["get_peft_model"]["lora_alpha"] == 32
    assert calls["get_peft_model"]["target_modules"] == [
        "down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj",
    ]  # fmt: skip
    assert calls["from_pretrained"]["use_exact_model_name"] and not calls["from_pretrained"]["load_in_4bit"]
    assert calls["from_pretrained"]["max_seq_length"] == 1024


def test_plain_transformers_generate_whatever_trains(plain, stand_in):
    assert stand_in[0]["texts"] == plain[0]["texts"] and len(set(plain[0]["texts"])) > 1


def said_under(version):
    """Of training, then of generation."""
    unsloth = f"Unsloth {version}"
    return [f"tiny: Unsloth on cpu, float32 ({unsloth})", f"tiny: transformers on cpu, float32 ({unsloth} trains)"]


def test_one_line_says_which_backend_and_why(plain, stand_in):
    assert plain[1] == ["tiny: transformers on cpu, float32 (as asked for)"]
    assert stand_in[1] == said_under("0.stand-in")
    assert stand_in[0]["sft"]["backend"].startswith("Unsloth")


def test_unsloth_is_imported_before_what_it_patches(stand_in):
    assert stand_in[0]["calls"]["imported_after"] == []


def choose(code, *path):
    env = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (*path, ROOT)))}
    code = f"from reflectevo_lite.generate import models\n{code}\nprint(*models.choose_backend('auto'))"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env).stdout.strip()


def test_without_cuda_plain_transformers_are_used():
    assert choose("", STAND_IN) == "False no CUDA device"


def test_an_unsloth_that_cannot_be_imported_is_a_reason_not_an_error(tmp_path):
    (tmp_path / "unsloth.py").write_text("raise NotImplementedError('no accelerator\\nand more')")
    found = choose("import torch; torch.cuda.is_available = lambda: True", tmp_path)
    assert found == "False Unsloth cannot be imported here (NotImplementedError: no accelerator)"


def test_a_backend_that_is_not_there_is_refused_with_the_remedy(monkeypatch):
    monkeypatch.setattr(models, "_unsloth", lambda need_cuda: models.Choice(False, "Unsloth is not installed"))
    assert models.choose_backend("auto") == (False, "Unsloth is not installed")
    with pytest.raises(ValueError, match=r"not installed; set backend: auto, or pip install"):
        models.choose_backend("unsloth")
    with pytest.raises(ValueError, match="unknown backend 'unslot'; there are auto, unsloth, transformers"):
        models.choose_backend("unslot")


def test_the_real_unsloth_trains_as_plain_transformers_do(plain, unsloth, tmp_path):
    version, path = unsloth
    found, said = train(tmp_path, "unsloth", *path)
    assert said == said_under(version)
    for kind in ("sft", "dpo"):
        ours, theirs = plain[0][kind], found[kind]
        assert differing(ours["args"], theirs["args"]) <= IMPLEMENTATION
        assert ours["losses"] == pytest.approx(theirs["losses"], abs=2e-3)
        assert differing(ours["lora"], theirs["lora"]) == set() and ours["files"] == theirs["files"]
    assert found["texts"] == plain[0]["texts"]


def test_the_real_unsloth_trains_in_two_processes_as_in_one(plain, unsloth, tmp_path):
    """As on Kaggle's two cards, but on a CPU: each process takes half of every batch."""
    found, _ = train(tmp_path, "unsloth", *unsloth[1], processes=2)
    assert found["sft"]["backend"].startswith("Unsloth")
    assert found["sft"]["losses"] == pytest.approx(plain[0]["sft"]["losses"], abs=2e-3)


def test_adapters_are_trained_in_float32_whatever_the_trainer_made_of_them():
    import torch

    class Trainer:
        model = torch.nn.ModuleDict(
            {"lora_A": torch.nn.Linear(2, 2, dtype=torch.bfloat16), "base": torch.nn.Linear(2, 2, dtype=torch.bfloat16)}
        )

    backend.settle(Trainer)
    assert Trainer.model["lora_A"].weight.dtype == torch.float32
    assert Trainer.model["base"].weight.dtype == torch.bfloat16


def test_checkpointing_by_size():
    class Model:
        def num_parameters(self):
            return 8_000_000_000

    sized, never = TrainParams(1e-3, 1, gradient_checkpointing=None), TrainParams(1e-3, 1, gradient_checkpointing=False)
    assert backend.checkpointing(sized, Model()) and not backend.checkpointing(never, Model())


def test_full_fine_tuning_loads_float32_and_adds_no_adapter():
    with pytest.raises(ValueError, match="cannot hold its weights in 4 bits"):
        models.load("tiny", full_finetuning=True, load_in_4bit=True)
    loaded = models.load("tiny", for_training=True, full_finetuning=True)
    assert backend.trainable(loaded, TrainParams(1e-3, 1, full_finetuning=True)) == (loaded.model, None)
    assert {str(p.dtype) for p in loaded.model.parameters()} == {"torch.float32"}


def test_an_adapter_is_gone_on_from_with_its_own_copy_as_reference(tmp_path):
    """`start`: DPOTrainer keeps "ref", the adapter as it came; a fresh adapter's copy is the base and goes."""
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from trl import DPOConfig, DPOTrainer

    loaded = models.load("tiny", backend="transformers", for_training=True)
    adapter = get_peft_model(loaded.model, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    adapter.save_pretrained(tmp_path / "sft")
    loaded = models.load("tiny", backend="transformers", for_training=True)
    model, peft_config = backend.trainable(loaded, TrainParams(1e-3, 1, lora_r=2), tmp_path / "sft")
    args = DPOConfig(**backend.explicit("dpo"), output_dir=str(tmp_path), bf16=False, use_cpu=True)
    data = Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}])
    trainer = DPOTrainer(
        model, args=args, train_dataset=data, processing_class=loaded.tokenizer, peft_config=peft_config
    )
    backend.settle(trainer, fresh=False)
    assert set(trainer.model.peft_config) == {"default", "ref"}
    backend.settle(trainer)
    assert set(trainer.model.peft_config) == {"default"}
