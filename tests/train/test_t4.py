"""What the recipes for a T4 (no bfloat16, 15 GiB) ask of loading and of the trainer, told by stubbed facts of the card."""

import importlib.util
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT

from reflectevo_lite.generate import Loaded, models
from reflectevo_lite.run import params, pipeline
from reflectevo_lite.train import backend, trainer
from reflectevo_lite.train.params import GRPOParams, Job, TrainParams

COLAB, KAGGLE = "colab_t4", "kaggle_2xt4"
UNSLOTH, PLAIN = "Unsloth on cuda", "transformers on cuda"


@pytest.fixture(autouse=True)
def t4(monkeypatch):
    """The facts of a T4 as torch tells them: compute capability 7.5, bfloat16 only emulated."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: name == "bitsandbytes" or real(name, *rest))


def recipe(name):
    return SimpleNamespace(**params.defaults() | pipeline.load_params(ROOT / "params" / f"{name}.yaml"))


def arguments(name, kind, says, tmp_path):
    run = recipe(name)
    told = GRPOParams.of(run) if kind == "grpo" else TrainParams.of(kind, run)
    model = SimpleNamespace(device=torch.device("cuda"), num_parameters=lambda: 1_543_714_304)
    loaded = Loaded(model, None, run.model, says)
    return trainer.arguments(Job(kind, [], tmp_path / kind, run.model, told), loaded, 1000)


EVERY_T4 = {
    "fp16": True, "bf16": False, "use_cpu": False, "optim": "adamw_torch_fused", "gradient_checkpointing": True,
    "gradient_checkpointing_kwargs": {"use_reentrant": False}, "dataloader_pin_memory": True, "max_grad_norm": 1.0,
    "weight_decay": 0.0, "lr_scheduler_type": "cosine", "warmup_steps": 0.1, "seed": 0, "ddp_backend": None,
    "ddp_find_unused_parameters": False, "tf32": None, "report_to": "none", "save_total_limit": 1,
}  # fmt: skip
BY_KIND = {
    "sft": {"learning_rate": 2e-4, "num_train_epochs": 3, "max_length": 2048, "packing": False},
    "dpo": {"learning_rate": 5e-6, "num_train_epochs": 1, "max_length": 2048, "beta": 0.1, "loss_type": ["sigmoid"]},
}


@pytest.mark.parametrize(
    ("name", "says", "kind", "batch", "accumulated"),
    [
        (COLAB, UNSLOTH, "sft", 4, 8),
        (COLAB, UNSLOTH, "dpo", 1, 8),
        (KAGGLE, PLAIN, "sft", 4, 4),  # of 8, on each of two cards
        (KAGGLE, PLAIN, "dpo", 1, 4),
    ],
)
def test_a_recipe_builds_exactly_these_arguments(name, says, kind, batch, accumulated, tmp_path):
    found = arguments(name, kind, says, tmp_path)
    own = {"dataset_num_proc": 1 if says == UNSLOTH else None}
    own |= {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulated}
    own |= {"loss_type": "nll" if says == UNSLOTH else "chunked_nll"} if kind == "sft" else {}
    expected = EVERY_T4 | BY_KIND[kind] | own
    assert {key: found[key] for key in expected} == expected
    processes = 2 if name == KAGGLE else 1
    assert batch * accumulated * processes == (32 if kind == "sft" else 8)  # the same step on one card and on two


@pytest.mark.parametrize("name", [COLAB, KAGGLE])
def test_weights_are_loaded_in_four_bits_computing_in_float16(name, monkeypatch, tmp_path):
    import transformers

    asked = {}
    model = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=0), eval=lambda: None)

    def loads(path, *rest, **how):
        asked.update(how, rest=rest)
        return model

    words = SimpleNamespace(eos_token_id=0, chat_template=None)
    monkeypatch.setattr(models, "tokenizer", lambda path, how, name: words)
    monkeypatch.setattr(models, "_unsloth", lambda need_cuda: models.Choice(True, "Unsloth 2026.10.9"))
    monkeypatch.setattr(models, "_load_unsloth", loads)
    monkeypatch.setattr(transformers, "BitsAndBytesConfig", dict)
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", loads)
    monkeypatch.setenv("LOCAL_RANK", "1")
    run = recipe(name)
    loaded = trainer.load(Job("sft", [], tmp_path / "x", run.model, TrainParams.of("sft", run)))
    assert "NF4, computing in float16" in loaded.backend
    if name == COLAB:  # Unsloth: precision, 4 bits, length, no full fine-tuning
        assert loaded.backend.startswith("Unsloth") and asked["rest"] == (torch.float16, True, 2048, False)
    else:
        quantised = asked["quantization_config"]
        assert loaded.backend.startswith("transformers") and asked["device_map"] == {"": 1}  # a card of its own
        assert quantised["bnb_4bit_quant_type"] == "nf4" and quantised["bnb_4bit_compute_dtype"] == torch.float16


@pytest.mark.parametrize("made", [torch.float16, torch.bfloat16])
def test_a_gradient_scaler_steps_the_adapters_whatever_the_trainer_made_of_them(made):
    model = torch.nn.ModuleDict({"lora_A": torch.nn.Linear(2, 1, bias=False, dtype=made)})
    before = model["lora_A"].weight.detach().float().clone()
    backend.settle(SimpleNamespace(model=model))
    scaler = torch.amp.GradScaler("cpu")
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    loss = model["lora_A"](torch.ones(1, 2, dtype=model["lora_A"].weight.dtype)).sum()
    scaler.scale(loss).backward()
    scaler.unscale_(optimiser)  # raises for float16: "Attempting to unscale FP16 gradients"
    scaler.step(optimiser)
    assert model["lora_A"].weight.dtype == torch.float32 and not torch.equal(model["lora_A"].weight, before)
