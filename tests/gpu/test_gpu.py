"""On a card: precision by device, 4 bits, both backends training alike, memory given back, the plan's peak."""

import importlib.util
import json
import math
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch
from bench import child, gpu
from conftest import ScriptedEngine

from reflectevo_lite import generate
from reflectevo_lite.curate import examples, sets
from reflectevo_lite.embedded import tasks as synthetic
from reflectevo_lite.generate import engines, models, rollouts, sizes
from reflectevo_lite.run import memory
from reflectevo_lite.train import backend, training

if not torch.cuda.is_available():
    pytest.skip("needs a CUDA device", allow_module_level=True)

pytestmark = pytest.mark.gpu
QUANTISES = pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="needs bitsandbytes")


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    problems = synthetic.problems(80, "train", seed=21)
    out = tmp_path_factory.mktemp("rollouts") / "r.jsonl"
    return rollouts.generate_rollouts(ScriptedEngine(problems), problems, out, k=4, temperature=1.0, progress=False)


def test_auto_is_the_cards_own_precision():
    loaded = models.load("tiny", backend="transformers")
    native = torch.cuda.get_device_capability() >= (8, 0)
    assert loaded.model.dtype == (torch.bfloat16 if native else torch.float16) and loaded.model.device.type == "cuda"


def learned(kind, data, out):
    """Train by the backend that is chosen here; the record, and how many tokens the trained adapter says."""
    params = training.TrainParams(learning_rate=1e-3, epochs=3, batch_size=8)
    record = training.train(kind, data, out, model="tiny", params=params)
    said = engines.TransformersEngine(models.load("tiny")).generate([data[0]["prompt"]], max_new_tokens=16, adapter=out)
    return record, said[0][0].tokens


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_training_learns_and_a_trained_adapter_generates(rows, tmp_path, kind):
    data = (
        examples("reflector", sets.unfiltered(rows, 64)) if kind == "sft" else examples("preference", sets.d_pm(rows))
    )
    # in a process of its own: Unsloth, where it is installed, changes trl for the whole process
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        record, tokens = pool.submit(learned, kind, data, tmp_path / kind).result()
    if kind == "dpo":
        assert record["history"][0]["loss"] == pytest.approx(math.log(2), abs=5e-3)
    assert record["history"][-1]["loss"] < record["history"][0]["loss"] and tokens > 0


@QUANTISES
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_adapters_over_four_bits_stay_in_float32_and_step(rows, tmp_path, dtype, monkeypatch):
    """float16 is a T4's way: a gradient scaler refuses the bf16 adapters that TRL makes."""
    if dtype == "bfloat16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        pytest.skip("this card has no bfloat16")
    for module in (models, generate):  # what is loaded, and what the trainer is told
        monkeypatch.setattr(module, "pick_dtype", lambda *args: dtype)
    settle, seen = backend.settle, []
    monkeypatch.setattr(backend, "settle", lambda trainer, **kw: (settle(trainer, **kw), seen.append(trainer.model)))
    params = training.TrainParams(
        learning_rate=1e-3,
        epochs=2,
        batch_size=8,
        load_in_4bit=True,
        gradient_checkpointing=True,
        backend="transformers",
    )
    data = examples("reflector", sets.unfiltered(rows, 64))
    record = training.train_sft(data, tmp_path / "q", model="tiny", params=params)
    trained = [p for p in seen[0].parameters() if p.requires_grad]
    assert trained and {p.dtype for p in trained} == {torch.float32}
    assert record["history"][-1]["loss"] < record["history"][0]["loss"]


def test_memory_is_given_back():
    models.free()
    before = torch.cuda.memory_reserved()
    loaded = models.load("tiny", backend="transformers")
    weights = torch.zeros(1 << 26, device="cuda")
    assert torch.cuda.memory_reserved() > before
    del loaded, weights
    models.free()
    assert torch.cuda.memory_reserved() <= before


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_the_plan_is_an_upper_bound_and_not_twice_too_high(tmp_path, monkeypatch, kind):
    """A step at a 0.5-billion-parameter shape, rows of full length, against the plan's peak without its overhead."""
    shape = sizes.KNOWN["Qwen/Qwen2.5-0.5B-Instruct"]
    monkeypatch.setitem(child.SHAPES, "half", ("qwen2", shape, 4))
    half = child.MAX_LENGTH // 2 - 8
    monkeypatch.setattr(child, "LENGTHS", dict.fromkeys(child.LENGTHS, (half, half)))
    child.make_model("half", str(tmp_path / "half"))
    models.free()
    torch.cuda.reset_peak_memory_stats()
    peak = child.train_steps(str(tmp_path / "half"), "half", kind, "plain", 2)["peak_gib"] * memory.GIB
    setup = memory.Setup(shape, lora_r=child.RANK, gradient_checkpointing=True, max_length=child.MAX_LENGTH)
    planned = memory.train_memory(setup, kind, 4) - memory.OVERHEAD
    assert 0.5 * planned < peak < 1.1 * planned + memory.OVERHEAD


@pytest.mark.skipif(importlib.util.find_spec("unsloth") is None, reason="needs unsloth")
def test_unsloth_is_chosen_and_trains_as_plain_transformers_do(tmp_path):
    gpu.training(tmp_path, seconds=100, shapes=["smoke"], arms=["plain", "ours"], repeats=1)
    rows = {(row["kind"], row["arm"]): row for row in json.loads((tmp_path / "gpu_training.json").read_bytes())["rows"]}
    for kind in ("sft", "dpo"):
        plain, ours = rows[kind, "plain"], rows[kind, "ours"]
        assert "error" not in plain and "error" not in ours, (plain, ours)
        assert ours["backend"].startswith("Unsloth") and not plain["backend"].startswith("Unsloth")
        assert ours["loss"] == pytest.approx(plain["loss"], rel=0.02)
