"""What differs between training through Unsloth and through plain TRL and PEFT: this is the one module that knows.

Unsloth (https://github.com/unslothai/unsloth) replaces kernels and also the defaults of TRL's configurations. The same
parameters still make the same training on both: no default is relied on, and none may be overridden unseen."""

import csv
import enum
import json
from pathlib import Path
from typing import Any

from .. import generate
from .params import Kind, TrainParams

LARGE = 1_000_000_000  # parameters from which on activations, not weights, decide whether a training step fits
COMPUTED = ("gradient_checkpointing_kwargs", "eval_accumulation_steps")  # None leaves them to the library
LEARNED = {  # what decides what is learned
    "learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "max_grad_norm", "num_train_epochs",
    "max_steps", "seed", "data_seed", "per_device_train_batch_size", "gradient_accumulation_steps", "max_length",
    "packing", "beta", "loss_type", "epsilon_high", "optim", "num_generations", "completion_only_loss",
}  # fmt: skip
# Unsloth's own: the precision of a model that overflows in 16 bits or is trained whole; its DPO writes 1 as None
FREE = ("bf16", "fp16", "dataset_num_proc")


def explicit(kind: Kind, *, unsloth: bool = False) -> dict[str, Any]:
    """The trainer arguments that hang on no parameter (`arguments.csv`): no default of TRL's or Unsloth's is relied on."""
    # rows are tokenised in this process: Unsloth starts workers for None, datasets for 1
    own: dict[str, Any] = {} if kind == "grpo" else {"dataset_num_proc": 1 if unsloth else None}
    if kind == "sft":  # the same loss, but TRL's chunks would bypass Unsloth's kernel
        own["loss_type"] = "nll" if unsloth else "chunked_nll"
    with Path(__file__).with_name("arguments.csv").open(encoding="utf-8") as lines:
        rows = [row for row in csv.DictReader(lines) if row["trainer"] in ("all", kind)]
    return {row["argument"]: json.loads(row["value"]) for row in rows} | own


def compare(args: Any, given: dict[str, Any], *, unsloth: bool = False) -> None:
    """Raise RuntimeError if a trainer's `args` are not as `given`; Unsloth's harmless changes are only printed."""
    free, changed = FREE if unsloth else (), {}
    for name, value in given.items():
        held = _plain(getattr(args, name))
        if held != _plain(value) and name not in free and not (value is None and name in COMPUTED):
            changed[name] = f"{name} {value!r} became {held!r}"
    if changed and (not unsloth or LEARNED & changed.keys()):
        raise RuntimeError(f"the trainer does not train as it was told: {', '.join(changed.values())}")
    if changed:
        print(f"Unsloth changed {', '.join(changed.values())}", flush=True)


def _plain(value: Any) -> Any:
    """A value as it was given to transformers, which makes enumerations, and an empty list of no reporter."""
    return "none" if value == [] else value.value if isinstance(value, enum.Enum) else value


def checkpointing(params: TrainParams, model: Any) -> bool:
    """Gradient checkpointing as asked for; for None, by size: on for a billion parameters and more."""
    return model.num_parameters() >= LARGE if params.gradient_checkpointing is None else params.gradient_checkpointing


def trainable(loaded: generate.Loaded, params: TrainParams, start: str | Path | None = None) -> tuple[Any, Any]:
    """(model, peft_config) as any TRL trainer takes them; call `settle` on the trainer built with them.
    Plain: the base model and a LoRA configuration for every linear layer but the head. Else the configuration is None,
    and the model carries the adapter already (Unsloth, or `start`, which goes on) or needs none (full fine-tuning)."""
    if params.full_finetuning:
        return loaded.model, None
    if start is not None:
        from peft import PeftModel

        return PeftModel.from_pretrained(loaded.model, str(start), is_trainable=True), None
    lora: dict[str, Any] = {"r": params.lora_r, "lora_alpha": params.lora_alpha, "lora_dropout": params.lora_dropout}
    lora |= {"target_modules": linear_layers(loaded.model), "modules_to_save": None}
    lora |= {"bias": "none", "use_rslora": False, "init_lora_weights": True}
    if generate.is_unsloth(loaded):
        from unsloth import FastLanguageModel

        saving = "unsloth" if checkpointing(params, loaded.model) else False
        own: dict[str, Any] = {"use_gradient_checkpointing": saving}
        own |= {"random_state": params.seed, "max_seq_length": params.max_length}
        return FastLanguageModel.get_peft_model(loaded.model, **lora, **own), None
    from peft import LoraConfig

    return loaded.model, LoraConfig(**lora, task_type="CAUSAL_LM")


def linear_layers(model: Any) -> list[str]:
    """The names of a model's linear layers, the output head left out: what LoRA adapts."""
    import torch

    head, layers = model.get_output_embeddings(), model.named_modules()
    names = [name for name, layer in layers if isinstance(layer, torch.nn.Linear) and layer is not head]
    return sorted({name.rpartition(".")[2] for name in names})


def settle(trainer: Any, *, fresh: bool = True) -> None:
    """Undo, right after a TRL trainer is built, what its constructor did to the adapters (`fresh`: no `start`)."""
    import torch

    # TRL turns those of a 4-bit model to bf16, which fp16's gradient scaler refuses and small steps vanish in
    for name, weight in trainer.model.named_parameters():
        if "lora_" in name and weight.dtype in (torch.float16, torch.bfloat16):
            weight.data = weight.data.float()
    # DPOTrainer copies an adapter that was on the model before, though the base is that same reference
    if fresh and "ref" in getattr(trainer.model, "peft_config", {}):
        trainer.model.delete_adapter("ref")
