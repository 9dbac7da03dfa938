"""Reflection learning: SFT and DPO with TRL on LoRA adapters (paper, section 3.4 and appendix).

Every hyper-parameter is passed explicitly, so the same parameters mean the same training whatever library changed its
defaults. Loss falls on completions only. An interrupted training goes on from its last checkpoint; a finished one is a
no-op. Beside the adapter lies `training.json`: the parameters, the rows, the loss history.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import models, store
from .rows import PreferenceRow, SFTRow

if TYPE_CHECKING:
    from datasets import Dataset
    from trl import DPOTrainer, SFTTrainer


@dataclass(frozen=True)
class TrainParams:
    """Hyper-parameters of one training. Lengths in tokens; batch_size × grad_accum rows make one optimiser step."""

    learning_rate: float
    epochs: float
    batch_size: int = 32
    grad_accum: int = 1
    max_length: int = 1024
    lora_r: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0.0
    warmup: float = 0.1  # share of the steps
    schedule: str = "cosine"
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    beta: float = 0.1  # DPO only: strength of the pull towards the reference
    load_in_4bit: bool = False
    gradient_checkpointing: bool | None = False  # None: by the model's size
    backend: str = "auto"  # auto, unsloth, transformers
    full_finetuning: bool = False  # all weights instead of a LoRA adapter
    checkpoints: int = 4  # how many are written along the way
    seed: int = 0


def train_sft(rows: Sequence[SFTRow], out: str | Path, *, model: str, params: TrainParams) -> dict[str, Any]:
    """Fine-tune a fresh LoRA adapter of `model` on prompt/completion rows and save it to `out`.

    Returns training.json's content: rows, steps, tokens, seconds, and the loss history. Raises ValueError for no rows,
    for rows longer than `max_length`, and for an `out` that was trained otherwise.
    """
    models.choose_backend(params.backend)  # before trl is imported
    from trl import SFTConfig, SFTTrainer

    def build(loaded: models.Loaded, peft_config: Any, data: Dataset, common: dict[str, Any]) -> SFTTrainer:
        args = SFTConfig(
            **models.explicit("sft", unsloth=models.is_unsloth(loaded)) | common,
            max_length=params.max_length,
            completion_only_loss=True,
            dataset_num_proc=None,
        )
        return SFTTrainer(
            loaded.model,
            args=args,
            train_dataset=data,
            processing_class=loaded.tokenizer,
            peft_config=peft_config,
        )

    return _train("sft", rows, ("prompt", "completion"), Path(out), model, params, build)


def train_dpo(rows: Sequence[PreferenceRow], out: str | Path, *, model: str, params: TrainParams) -> dict[str, Any]:
    """DPO (arXiv 2305.18290) of a fresh LoRA adapter of `model` on preference rows; the reference is `model` itself.

    Returns and raises as `train_sft`; the history also holds reward margins and accuracies.
    """
    models.choose_backend(params.backend)  # before trl is imported
    from trl import DPOConfig, DPOTrainer

    def build(loaded: models.Loaded, peft_config: Any, data: Dataset, common: dict[str, Any]) -> DPOTrainer:
        args = DPOConfig(
            **models.explicit("dpo", unsloth=models.is_unsloth(loaded)) | common,
            max_length=params.max_length,
            beta=params.beta,
            dataset_num_proc=None,
        )
        return DPOTrainer(
            loaded.model,
            args=args,
            train_dataset=data,
            processing_class=loaded.tokenizer,
            peft_config=peft_config,
        )

    return _train("dpo", rows, ("prompt", "chosen", "rejected"), Path(out), model, params, build)


def _train(
    kind: str,
    rows: Sequence[Any],
    columns: tuple[str, ...],
    out: Path,
    model: str,
    params: TrainParams,
    build: Any,
) -> dict[str, Any]:
    from datasets import Dataset, disable_progress_bars
    from transformers import set_seed
    from transformers.trainer_utils import get_last_checkpoint

    if not rows:
        raise ValueError(f"nothing to train {out.name} on: no curated row; generate more rollouts or raise k")
    wanted = {"kind": kind, "model": model, "params": asdict(params), "rows": len(rows)}
    if (record := _finished(out, wanted)) is not None:
        return record
    disable_progress_bars()  # of tokenising a few thousand rows
    set_seed(params.seed)  # before the trainer: LoRA's initialisation draws from the global seed
    loaded, peft_config = _load(model, params)
    _check_lengths(loaded, rows, columns, params.max_length, out.name)
    data = Dataset.from_list([{name: row[name] for name in columns} for row in rows])
    work = out.with_name(out.name + ".checkpoints")
    steps = _steps(len(rows), params)
    checkpointing = models.wants_checkpointing(params.gradient_checkpointing, loaded.model)
    common = _common(params, work, steps, str(loaded.model.device.type), checkpointing)
    trainer = build(loaded, peft_config, data, common)
    models.settle(trainer)
    _show_progress(trainer, out.name)
    if len(trainer.train_dataset) != len(rows):
        raise RuntimeError(
            f"{len(rows) - len(trainer.train_dataset)} of {len(rows)} training rows vanished in preprocessing"
        )
    started = time.time()
    result = trainer.train(resume_from_checkpoint=get_last_checkpoint(str(work)) if work.exists() else None)
    trainer.save_model(str(out))
    record = wanted | {
        "steps": trainer.state.global_step,
        "seconds": round(time.time() - started, 1),
        "train_loss": result.training_loss,
        "history": [h for h in trainer.state.log_history if "loss" in h],
        "backend": loaded.backend,
    }
    store.write_json(out / "training.json", record)
    _clean_up(work)
    del trainer, loaded
    models.free()
    return record


def _finished(out: Path, wanted: dict[str, Any]) -> dict[str, Any] | None:
    if not (out / "training.json").exists():
        return None
    record = json.loads((out / "training.json").read_text())
    if changed := [k for k in wanted if record.get(k) != wanted[k]]:
        raise ValueError(f"{out} was trained with other {', '.join(changed)}: delete it, or choose another run_dir")
    return record


def _check_lengths(
    loaded: models.Loaded, rows: Sequence[Any], columns: tuple[str, ...], max_length: int, name: str
) -> None:
    """Refuse rows that the trainer would cut or drop without a word."""
    tokenizer = loaded.tokenizer
    texts = [
        tokenizer.apply_chat_template([*row["prompt"], *row[column]], tokenize=False)
        for row in rows
        for column in columns[1:]
    ]
    lengths = [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    if long := [n for n in lengths if n > max_length]:
        raise ValueError(
            f"{len(long)} of {len(texts)} {name} examples exceed max_length {max_length} (longest {max(long)}): raise it"
        )


def _steps(rows: int, params: TrainParams) -> int:
    per_epoch = -(-rows // (params.batch_size * params.grad_accum))
    return max(1, int(per_epoch * params.epochs))


def _common(params: TrainParams, work: Path, steps: int, device: str, checkpointing: bool = False) -> dict[str, Any]:
    """What SFTConfig and DPOConfig share, complete: TRL's and Unsloth's own defaults differ, so none is relied on."""
    dtype = models.pick_dtype("auto", device)
    return {
        "output_dir": str(work),
        "learning_rate": params.learning_rate,
        "num_train_epochs": params.epochs,
        "max_steps": -1,
        "per_device_train_batch_size": params.batch_size,
        "gradient_accumulation_steps": params.grad_accum,
        "lr_scheduler_type": params.schedule,
        "warmup_steps": params.warmup,
        "weight_decay": params.weight_decay,
        "max_grad_norm": params.max_grad_norm,
        "optim": "adamw_torch" if device == "cpu" else "adamw_torch_fused",
        "adam_beta1": 0.9,
        "adam_beta2": 0.999,
        "gradient_checkpointing": checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False} if checkpointing else None,
        "bf16": dtype == "bfloat16",
        "fp16": dtype == "float16",
        "use_cpu": device == "cpu",
        "logging_steps": max(1, steps // 40),
        "save_strategy": "steps",
        "save_steps": max(1, steps // params.checkpoints),
        "save_total_limit": 1,
        "report_to": "none",
        "seed": params.seed,
        "data_seed": params.seed,
        "disable_tqdm": True,  # _show_progress has a bar without the table of losses
        "dataloader_pin_memory": device != "cpu",
    }


def _show_progress(trainer: Any, name: str) -> None:
    """One bar that says what is trained; the losses go to training.json and the figures."""
    from tqdm.auto import tqdm
    from transformers import PrinterCallback, TrainerCallback

    class Bar(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.bar = tqdm(total=state.max_steps, initial=state.global_step, desc=f"training {name}", unit="step")

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.bar.update(state.global_step - self.bar.n)

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.bar.close()

    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Bar())


def _load(model: str, params: TrainParams) -> tuple[models.Loaded, Any]:
    """The model as the trainers take it, and the LoRA configuration they apply to it (or None)."""
    loaded = models.load(
        model,
        load_in_4bit=params.load_in_4bit,
        backend=params.backend,
        max_length=params.max_length,
        for_training=True,
        full_finetuning=params.full_finetuning,
    )
    trainable, peft_config = models.trainable(
        loaded,
        r=params.lora_r,
        alpha=params.lora_alpha,
        dropout=params.lora_dropout,
        gradient_checkpointing=models.wants_checkpointing(params.gradient_checkpointing, loaded.model),
        max_length=params.max_length,
        seed=params.seed,
        full_finetuning=params.full_finetuning,
    )
    return loaded._replace(model=trainable), peft_config


def _clean_up(work: Path) -> None:
    import shutil

    shutil.rmtree(work, ignore_errors=True)
