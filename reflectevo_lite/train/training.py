"""Reflection learning: SFT and DPO with TRL on LoRA adapters or on all weights (paper, section 3.4 and appendix).

Every hyper-parameter is passed explicitly (`config`), so the same parameters mean the same training whatever library
changed its defaults. Loss falls on completions only. An interrupted training goes on from its last checkpoint; a
finished one is a no-op. Beside the weights lies `training.json`: the parameters, the rows, the loss history.

`grpo` adds the third way of training, `launch` the training in several processes.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from .. import generate, store
from ..rows import PreferenceRow, SFTRow

if TYPE_CHECKING:
    from transformers import Trainer, TrainingArguments

Kind = Literal["sft", "dpo", "grpo"]
COLUMNS = {"sft": ("prompt", "completion"), "dpo": ("prompt", "chosen", "rejected"), "grpo": ("prompt",)}
REFERENCE = "ref"  # TRL's name for the frozen copy of an adapter that DPO goes on from


@dataclass(frozen=True)
class TrainParams:
    """Hyper-parameters of one training. Lengths in tokens; batch_size × grad_accum rows make one optimiser step.

    `batch_size` is that of all `processes` together, so their number does not change what is learned. Raises ValueError
    for values that contradict each other.
    """

    learning_rate: float
    epochs: float
    batch_size: int = 32
    grad_accum: int = 1
    max_length: int = 1024
    too_long: str = "error"  # rows over max_length: "error" refuses them, "skip" leaves them out and names them
    packing: bool = False  # SFT only: short rows share a sequence of max_length; batch_size then counts sequences
    lora_r: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0.0
    full_finetuning: bool = False  # train all weights; the result is a whole model instead of an adapter
    warmup: float = 0.1  # share of the steps
    schedule: str = "cosine"
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    beta: float = 0.1  # DPO only: strength of the pull towards the reference
    load_in_4bit: bool = False
    gradient_checkpointing: bool | None = False  # None: by the model's size
    backend: str = "auto"  # auto, unsloth, transformers
    validation_share: float = 0.0  # share of the training questions whose rows are only evaluated on
    patience: int = 0  # stop after so many evaluations without a lower validation loss, keep the best; 0 = never
    checkpoints: int = 4  # how many are written along the way (10 where there is a validation loss to watch)
    processes: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        wrong = {
            f"too_long {self.too_long!r} must be 'error' or 'skip'": self.too_long not in ("error", "skip"),
            "full_finetuning needs load_in_4bit: false": self.full_finetuning and self.load_in_4bit,
            "lora_r must be at least 1 (all weights are trained by full_finetuning: true)": self.lora_r < 1,
            f"validation_share {self.validation_share} must be in [0, 1)": not 0 <= self.validation_share < 1,
            "patience watches the validation loss: set validation_share above 0": self.patience > 0
            and not self.validation_share,
            f"batch_size {self.batch_size} cannot be shared by {self.processes} processes: choose a multiple": (
                self.processes < 1 or self.batch_size % self.processes != 0
            ),
        }
        if found := [message for message, is_so in wrong.items() if is_so]:
            raise ValueError("; ".join(found))


class Job(NamedTuple):
    """One training: what, on which rows, from which weights, to where."""

    kind: Kind
    rows: Sequence[Any]
    out: Path
    model: str
    params: TrainParams
    start: str | None = None  # the adapter (or whole model) to go on from; None: a fresh adapter of `model`

    @property
    def work(self) -> Path:
        """Where checkpoints lie until the training is finished."""
        return self.out.with_name(self.out.name + ".checkpoints")


def train_sft(
    rows: Sequence[SFTRow],
    out: str | Path,
    *,
    model: str,
    params: TrainParams,
    start: str | Path | None = None,
) -> dict[str, Any]:
    """Fine-tune on prompt/completion rows and save a LoRA adapter of `model` (or a whole model) to `out`.

    `start`: an adapter, or the result of a full fine-tuning, to go on from. Returns training.json's content: rows,
    steps, seconds, the loss history and the validation loss. Raises ValueError for no rows, for rows longer than
    `max_length`, and for an `out` that was trained otherwise.
    """
    return train(_job("sft", rows, out, model, params, start))


def train_dpo(
    rows: Sequence[PreferenceRow],
    out: str | Path,
    *,
    model: str,
    params: TrainParams,
    start: str | Path | None = None,
) -> dict[str, Any]:
    """DPO (arXiv 2305.18290) on preference rows; the reference is what training starts from.

    Without `start` that is `model` itself. With the adapter of an SFT as `start`, a copy of it goes on, and the
    reference is the SFT model (a frozen second copy of the adapter), not the bare base model. Returns and raises as
    `train_sft`; the history also holds reward margins and accuracies.
    """
    return train(_job("dpo", rows, out, model, params, start))


def _job(kind: Kind, rows: Sequence[Any], out: str | Path, model: str, params: TrainParams, start: Any) -> Job:
    return Job(kind, rows, Path(out).resolve(), model, params, str(Path(start).resolve()) if start else None)


# -- The course of a training -------------------------------------------------------------------------------------------
def train(job: Job) -> dict[str, Any]:
    """Do a job unless it is done already, in as many processes as its parameters say."""
    from . import launch

    if not job.rows:
        raise ValueError(f"nothing to train {job.out.name} on: no curated row; generate more rollouts or raise k")
    if job.start:
        _check_start(job)
    if (record := _finished(job)) is not None:
        return record
    if job.params.processes > 1 and not launch.is_worker():
        return launch.run(job)
    return run(job)


def run(job: Job) -> dict[str, Any]:
    """Train in this process, be it the only one or one of several workers; the main one writes and returns."""
    generate.choose_backend(job.params.backend)  # before trl and transformers are imported
    from datasets import disable_progress_bars
    from transformers import set_seed

    disable_progress_bars()  # of tokenising a few thousand rows
    _claim(job)
    set_seed(job.params.seed)  # before the trainer: LoRA's initialisation draws from the global seed
    loaded = _load(job)
    rows, skipped = fitting(loaded, job)
    trained, held = split(rows, job.params)
    trainer = build(job, loaded, trained, held)
    started = time.time()
    result = trainer.train(resume_from_checkpoint=_last_checkpoint(job.work))
    trainer.save_model(str(job.out))
    record = wanted(job) | {
        "trained_rows": len(trained),
        "validation_rows": len(held),
        "skipped": skipped,
        "steps": trainer.state.global_step,
        "planned_steps": trainer.state.max_steps,
        "best_step": trainer.state.best_global_step if job.params.patience else None,
        "seconds": round(time.time() - started, 1),
        "train_loss": result.training_loss,
        "history": [h for h in trainer.state.log_history if "loss" in h],
        "validation": [h for h in trainer.state.log_history if "eval_loss" in h],
        "backend": loaded.backend,
    }
    if trainer.is_world_process_zero():
        _finish(job, record)
    trainer.accelerator.wait_for_everyone()
    del trainer, loaded
    generate.free()
    return record


def build(job: Job, loaded: generate.Loaded, rows: Sequence[Any], held: Sequence[Any] = ()) -> Trainer:
    """The TRL trainer of a job, ready to train on `rows`, with its own evaluation on `held`.

    Raises RuntimeError where TRL's preprocessing lost a row.
    """
    from trl import DPOTrainer, SFTTrainer

    model, peft_config = _policy(job, loaded)
    args = config(
        job.kind,
        job.params,
        job.work,
        _examples(job, loaded, rows),
        loaded.model.device.type,
        unsloth=generate.is_unsloth(loaded),
        checkpointing=generate.wants_checkpointing(job.params.gradient_checkpointing, loaded.model),
    )
    if job.params.processes == 1 and args.n_gpu > 1:
        args._n_gpu = 1  # else each batch would be multiplied and spread over all GPUs by DataParallel
    common = {
        "args": args,
        "train_dataset": _dataset(job, rows),
        "eval_dataset": _dataset(job, held) if held else None,
        "processing_class": loaded.tokenizer,
        "peft_config": peft_config,
    }
    if job.kind == "grpo":
        from .grpo import trainer_of

        trainer = trainer_of(job, loaded, rows, model, common)
    elif job.kind == "dpo":
        reference = _load(job).model if job.params.full_finetuning else None
        trainer = DPOTrainer(model, ref_model=reference, **common)
    else:
        _check_packing(job.params, loaded)
        trainer = SFTTrainer(model, **common)
    generate.settle(trainer, fresh=job.start is None)
    _check_all_there(trainer, rows, job)
    _add_callbacks(trainer, job)
    return trainer


def _load(job: Job) -> generate.Loaded:
    """The base model; for full fine-tuning what is trained itself."""
    full = job.params.full_finetuning
    return generate.load(
        (job.start if full else None) or job.model,
        load_in_4bit=job.params.load_in_4bit,
        backend=job.params.backend,
        max_length=job.params.max_length,
        for_training=True,
        full_finetuning=full,
    )


def _policy(job: Job, loaded: generate.Loaded) -> tuple[Any, Any]:
    """What is trained, and the configuration of a fresh adapter where TRL is to add one."""
    params = job.params
    return generate.trainable(
        loaded,
        r=params.lora_r,
        alpha=params.lora_alpha,
        dropout=params.lora_dropout,
        gradient_checkpointing=generate.wants_checkpointing(params.gradient_checkpointing, loaded.model),
        max_length=params.max_length,
        seed=params.seed,
        full_finetuning=params.full_finetuning,
        start=job.start,
    )


def _dataset(job: Job, rows: Sequence[Any]) -> Any:
    from datasets import Dataset

    data = Dataset.from_list([{name: row[name] for name in COLUMNS[job.kind]} for row in rows])
    if job.kind == "grpo":
        return data.add_column("row", list(range(len(rows))))
    # TRL hands these to the chat template: the prompt is the one that was sent
    return data.add_column("chat_template_kwargs", [generate.TEMPLATE] * len(rows))


# -- Hyper-parameters ---------------------------------------------------------------------------------------------------
def config(
    kind: Kind,
    params: TrainParams,
    work: str | Path,
    examples: int,
    device: str,
    *,
    unsloth: bool = False,
    checkpointing: bool = False,
) -> TrainingArguments:
    """The complete arguments of a kind's trainer for `examples` rows: TRL's and Unsloth's own defaults differ, so none
    that matters is relied on (`generate.explicit` holds the rest)."""
    from trl import DPOConfig, SFTConfig

    steps = planned_steps(kind, params, examples)
    common = generate.explicit(kind, unsloth=unsloth) | _common(params, Path(work), steps, device, checkpointing)
    if kind == "grpo":
        from .grpo import config_of

        return config_of(params, common)
    if kind == "dpo":
        own = {"beta": params.beta, "label_smoothing": 0.0, "sync_ref_model": False}
        return DPOConfig(**common | own, max_length=params.max_length)
    own = {"packing": params.packing, "packing_strategy": "bfd", "eval_packing": False, "shuffle_dataset": False}
    own |= {"completion_only_loss": True, "assistant_only_loss": False}
    return SFTConfig(**common | own, max_length=params.max_length)


def resolved_args(
    kind: Kind, params: TrainParams, *, examples: int = 1000, device: str = "cpu", unsloth: bool = False
) -> dict[str, Any]:
    """Every argument that a trainer would get, as plain values and without paths: equal on every backend, but for SFT's
    `loss_type` (see `generate.explicit`)."""
    args = config(kind, params, "unused", examples, device, unsloth=unsloth).to_dict()
    return {name: value for name, value in args.items() if name not in ("output_dir", "logging_dir", "run_name")}


def planned_steps(kind: Kind, params: TrainParams, examples: int) -> int:
    """Optimiser steps of a whole training on `examples` rows (or packed sequences)."""
    if kind == "grpo":
        return params.steps
    per_epoch = -(-examples // (params.batch_size * params.grad_accum))
    return max(1, int(per_epoch * params.epochs))


def _common(params: TrainParams, work: Path, steps: int, device: str, checkpointing: bool) -> dict[str, Any]:
    """What the configurations of SFT, DPO and GRPO share."""
    dtype = generate.pick_dtype("auto", device)
    every = max(1, steps // (max(params.checkpoints, 10) if params.patience else params.checkpoints))
    return {
        "output_dir": str(work),
        "learning_rate": params.learning_rate,
        "num_train_epochs": params.epochs,
        "max_steps": -1,
        "per_device_train_batch_size": params.batch_size // params.processes,
        "per_device_eval_batch_size": params.batch_size // params.processes,
        "gradient_accumulation_steps": params.grad_accum,
        "lr_scheduler_type": params.schedule,
        "lr_scheduler_kwargs": None,
        "warmup_steps": params.warmup,
        "weight_decay": params.weight_decay,
        "max_grad_norm": params.max_grad_norm,
        "optim": "adamw_torch" if device == "cpu" else "adamw_torch_fused",
        "adam_beta1": 0.9,
        "adam_beta2": 0.999,
        "adam_epsilon": 1e-8,
        "neftune_noise_alpha": None,
        "label_smoothing_factor": 0.0,
        "average_tokens_across_devices": True,
        "gradient_checkpointing": checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False} if checkpointing else None,
        "bf16": dtype == "bfloat16",
        "fp16": dtype == "float16",
        "use_cpu": device == "cpu",
        "ddp_backend": "gloo" if device == "cpu" and params.processes > 1 else None,
        "ddp_find_unused_parameters": False,
        "dataloader_drop_last": False,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": device != "cpu",
        "logging_strategy": "steps",
        "logging_first_step": True,
        "logging_steps": max(1, steps // 40),
        "eval_strategy": "steps" if params.validation_share else "no",
        "eval_steps": every if params.patience else max(1, steps // 10),
        "save_strategy": "steps",
        "save_steps": every,
        "save_total_limit": 1,
        "load_best_model_at_end": params.patience > 0,
        "metric_for_best_model": "eval_loss" if params.patience else None,
        "greater_is_better": False if params.patience else None,
        "restore_callback_states_from_checkpoint": True,
        "report_to": "none",
        "seed": params.seed,
        "data_seed": params.seed,
        "disable_tqdm": True,  # _add_callbacks has a bar without the table of losses
    }


# -- Rows ---------------------------------------------------------------------------------------------------------------
def fitting(loaded: generate.Loaded, job: Job) -> tuple[list[Any], list[str]]:
    """Rows that fit `max_length`, and the ids of those that don't; prints the lengths first.

    TRL would cut or drop a longer row without a word. Raises ValueError for them unless `too_long` is "skip".
    """
    limit, lengths = job.params.max_length, row_lengths(loaded, job)
    long = [i for i, n in enumerate(lengths) if n > limit]
    _say(
        f"{job.out.name}: {len(lengths):,} rows, {sum(lengths):,} tokens ({min(lengths)} to {max(lengths)} a row, "
        f"median {median(lengths):.0f}), {len(long) or 'none'} over max_length {limit}"
    )
    if long and job.params.too_long == "error":
        raise ValueError(
            f"{len(long)} of {len(lengths)} {job.out.name} rows exceed max_length {limit} (longest {max(lengths)}): "
            "raise it, or set too_long: skip"
        )
    if len(long) == len(lengths):
        raise ValueError(f"every {job.out.name} row exceeds max_length {limit} (shortest {min(lengths)}): raise it")
    skipped = [str(job.rows[i]["id"]) for i in long]
    if skipped:
        _say(f"{job.out.name}: left out {', '.join(skipped)}")
    out = set(long)
    return [row for i, row in enumerate(job.rows) if i not in out], skipped


def row_lengths(loaded: generate.Loaded, job: Job) -> list[int]:
    """Tokens of each row as it will be trained on, by the model's chat template; the longer half of a pair counts."""
    prompt, *answers = COLUMNS[job.kind]
    extra = getattr(job.params, "max_new_tokens", 0) if job.kind == "grpo" else 0

    def measure(messages: list[Any], asks: bool) -> list[int]:
        texts = loaded.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=asks, **generate.TEMPLATE
        )
        return [len(ids) + extra for ids in loaded.tokenizer(texts, add_special_tokens=False)["input_ids"]]

    if not answers:
        return measure([row[prompt] for row in job.rows], True)
    return [
        max(found)
        for found in zip(*(measure([r[prompt] + r[a] for r in job.rows], False) for a in answers), strict=True)
    ]


def split(rows: Sequence[Any], params: TrainParams) -> tuple[list[Any], list[Any]]:
    """(rows to train on, rows to validate on): all rows of a question are on one side, drawn by seed.

    Raises ValueError where a side would be empty.
    """
    if not params.validation_share:
        return list(rows), []
    questions = sorted({row["id"] for row in rows})
    count = round(params.validation_share * len(questions))
    if not 0 < count < len(questions):
        raise ValueError(
            f"validation_share {params.validation_share} of {len(questions)} questions leaves one side empty"
        )
    held = set(random.Random(f"validation/{params.seed}").sample(questions, count))
    return [r for r in rows if r["id"] not in held], [r for r in rows if r["id"] in held]


def _examples(job: Job, loaded: generate.Loaded, rows: Sequence[Any]) -> int:
    """How many examples the trainer will see in an epoch: rows, or about as many packed sequences as they fill."""
    if not job.params.packing:
        return len(rows)
    return -(-sum(row_lengths(loaded, job._replace(rows=rows))) // job.params.max_length)


def _check_packing(params: TrainParams, loaded: generate.Loaded) -> None:
    attention = loaded.model.config._attn_implementation
    if params.packing and not (attention == "sdpa" or "flash" in attention):
        raise ValueError(
            f"packing would let rows see each other under {attention!r} attention: set packing: false, "
            "or load the model with sdpa or flash attention"
        )


def _check_all_there(trainer: Trainer, rows: Sequence[Any], job: Job) -> None:
    data = trainer.train_dataset
    found = sum(map(len, data["seq_lengths"])) if job.params.packing and job.kind == "sft" else len(data)
    if found != len(rows):
        raise RuntimeError(f"{len(rows) - found} of {len(rows)} training rows vanished in preprocessing")


# -- Resume and record --------------------------------------------------------------------------------------------------
def wanted(job: Job) -> dict[str, Any]:
    """What makes two trainings the same; stored in training.json and compared."""
    rows = json.dumps(list(job.rows), sort_keys=True, ensure_ascii=False).encode()
    return {
        "kind": job.kind,
        "model": job.model,
        "params": asdict(job.params),
        "rows": len(job.rows),
        "data": hashlib.sha256(rows).hexdigest()[:16],
        "start": generate.fingerprint(job.start) if job.start else None,
    }


def _finished(job: Job) -> dict[str, Any] | None:
    path = job.out / "training.json"
    if not path.exists():
        return None
    record = json.loads(path.read_text())
    _check_same(record, wanted(job), job.out)
    return record


def _check_same(record: dict[str, Any], now: dict[str, Any], where: Path) -> None:
    if changed := [name for name in now if record.get(name) != now[name]]:
        raise ValueError(f"{where} was trained with other {', '.join(changed)}: delete it, or choose another run_dir")


def _check_start(job: Job) -> None:
    whole = job.params.full_finetuning
    if not (Path(job.start) / ("config.json" if whole else "adapter_config.json")).exists():
        what = "whole model" if whole else "adapter"
        raise ValueError(f"no {what} at {job.start} to train {job.out.name} on top of: train that setting first")


def _claim(job: Job) -> None:
    """Note in the checkpoints' folder what is trained there. Raises ValueError where an interrupted training differs."""
    note, now = job.work / "job_is.json", wanted(job)
    if note.exists() and _last_checkpoint(job.work):
        _check_same(json.loads(note.read_text()), now, job.work)
    elif _is_main():
        store.write_json(note, now)


def _last_checkpoint(work: Path) -> str | None:
    """The newest whole checkpoint; one that a killed process left half-written is removed (its state comes last)."""
    found = sorted(work.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    while found:
        try:
            json.loads((found[-1] / "trainer_state.json").read_text())
            # where a second adapter lies beside it, Trainer loads that one alone, and the policy would start afresh; the
            # reference is made anew from `start`
            shutil.rmtree(found[-1] / REFERENCE, ignore_errors=True)
            return str(found[-1])
        except (OSError, ValueError):
            shutil.rmtree(found.pop(), ignore_errors=True)
    return None


def _finish(job: Job, record: dict[str, Any]) -> None:
    shutil.rmtree(job.out / REFERENCE, ignore_errors=True)  # DPO's frozen copy of `start`, saved beside the adapter
    store.write_json(job.out / "training.json", record)
    shutil.rmtree(job.work, ignore_errors=True)


def _is_main() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _say(line: str) -> None:
    if _is_main():
        print(line, flush=True)


def _add_callbacks(trainer: Trainer, job: Job) -> None:
    """One bar that says what is trained (the losses go to training.json and the figures); early stopping."""
    from tqdm.auto import tqdm
    from transformers import EarlyStoppingCallback, PrinterCallback, TrainerCallback

    class Bar(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            name, off = f"training {job.out.name}", not state.is_world_process_zero
            self.bar = tqdm(total=state.max_steps, initial=state.global_step, desc=name, unit="step", disable=off)

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.bar.update(state.global_step - self.bar.n)

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.bar.close()

    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Bar())
    if job.params.patience:
        trainer.add_callback(EarlyStoppingCallback(job.params.patience))
