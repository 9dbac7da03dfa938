"""SFT and DPO (paper, section 3.4 and appendix) and GRPO; an interrupted training goes on, a finished one is kept."""

import hashlib
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any

from .. import generate, store
from ..rows import PreferenceRow, RewardRow, SFTRow
from . import launch
from .examples import fitting, split
from .params import GRPOParams, Job, Kind, TrainParams, planned_steps
from .trainer import build, load

AnyPath = str | Path
LEAST = 128  # how many times smaller a step's parts become before a GPU is too small for one row
REFERENCE = "ref"  # TRL's name for the frozen copy of an adapter that DPO goes on from


def train_sft(rows: Sequence[SFTRow], out: AnyPath, **how: Any) -> dict[str, Any]:
    """Fine-tune on prompt/completion rows; `how`: see `train`."""
    return train("sft", rows, out, **how)


def train_dpo(rows: Sequence[PreferenceRow], out: AnyPath, **how: Any) -> dict[str, Any]:
    """DPO (arXiv 2305.18290) on preference rows; the reference is the model, with `start`'s adapter frozen if given.
    The history also holds reward margins and accuracies. `how`: see `train`."""
    return train("dpo", rows, out, **how)


def train_grpo(rows: Sequence[RewardRow], out: AnyPath, *, params: GRPOParams, **how: Any) -> dict[str, Any]:
    """Train a Reflector by its reward (see `reward`), which the history also holds; `how`: see `train`."""
    return train("grpo", rows, out, params=params, **how)


def train(
    kind: Kind, rows: Sequence[Any], out: AnyPath, *, model: str, params: TrainParams, start: AnyPath | None = None
) -> dict[str, Any]:
    """Train on `rows` and save a LoRA adapter of `model` (or, by full fine-tuning, a whole model) to `out`.
    `start`: an adapter, or a fully fine-tuned model, to go on from. Returns training.json's content (also rows, steps,
    losses). Raises ValueError for no rows, no steps, too long rows, a missing `start`, an `out` trained otherwise."""
    job = Job(kind, rows, Path(out).resolve(), model, params, str(Path(start).resolve()) if start else None)
    if not rows:
        raise ValueError(f"nothing to train {job.out.name} on: no curated row; generate more rollouts or raise k")
    if planned_steps(kind, params, len(rows)) < 1:
        raise ValueError(f"training {job.out.name} would take no step: set its epochs (GRPO: its steps) above 0")
    what, file = ("whole model", "config.json") if params.full_finetuning else ("adapter", "adapter_config.json")
    if job.start and not (Path(job.start) / file).exists():
        raise ValueError(f"no {what} at {job.start} to train {job.out.name} on top of: train that setting first")
    if (record := _recorded(job.out / "training.json", job)) is not None:
        return record
    return launch.start(job) if params.processes > 1 and launch.workers() == 1 else run(job)


def run(job: Job) -> dict[str, Any]:
    """Train in this process, the only one or one of several, of which the main one writes; returns the record."""
    generate.choose_backend(job.params.backend)  # before trl and transformers are imported
    import torch
    from datasets import disable_progress_bars

    disable_progress_bars()  # of tokenising a few thousand rows
    claim(job)
    halved = 1
    while True:
        try:
            return _attempt(job, halved)
        except torch.OutOfMemoryError:  # a GPU's: on a CPU nothing is raised
            if job.kind == "grpo" or job.params.processes > 1 or halved >= LEAST:
                raise
        halved *= 2
        print(f"{job.out.name}: out of memory; again from the last checkpoint, in parts half as large", flush=True)
        generate.free()


def _attempt(job: Job, halved: int) -> dict[str, Any]:
    from transformers import set_seed

    set_seed(job.params.seed)  # before the trainer: LoRA's initialisation draws from the global seed
    loaded = load(job)
    rows, skipped = fitting(job, loaded.tokenizer)
    trained, held = split(rows, job.params)
    trainer = build(job, loaded, trained, held, halved)
    started = time.time()
    result = trainer.train(resume_from_checkpoint=last_checkpoint(job.work))
    trainer.save_model(str(job.out))
    state = trainer.state
    record = identity(job) | {
        "trained_rows": len(trained), "validation_rows": len(held), "skipped": skipped,
        "steps": state.global_step, "planned_steps": state.max_steps,
        "best_step": state.best_global_step if job.params.patience else None,
        "seconds": round(time.time() - started, 1), "train_loss": result.training_loss,
        "history": [h for h in state.log_history if "loss" in h],
        "validation": [h for h in state.log_history if "eval_loss" in h],
        "backend": loaded.backend, "bf16": trainer.args.bf16, "parts": getattr(trainer, "most", 1),
    }  # fmt: skip
    if trainer.is_world_process_zero():
        shutil.rmtree(job.out / REFERENCE, ignore_errors=True)  # DPO's frozen copy of `start`, saved beside the adapter
        store.write_json(job.out / "training.json", record)
        shutil.rmtree(job.work, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    del trainer, loaded
    generate.free()
    return record


def identity(job: Job) -> dict[str, Any]:
    """What makes two trainings the same; stored in training.json and compared."""
    rows = json.dumps(list(job.rows), sort_keys=True, ensure_ascii=False).encode()
    start = generate.fingerprint(job.start) if job.start else None
    said = {"kind": job.kind, "model": job.model, "params": asdict(job.params), "rows": len(job.rows)}
    return said | {"data": hashlib.sha256(rows).hexdigest()[:16], "start": start}


def _recorded(path: Path, job: Job) -> dict[str, Any] | None:
    """The record in a file, None without one. Raises ValueError if it is of another training than `job`."""
    if not path.exists():
        return None
    record, now = json.loads(path.read_text(encoding="utf-8")), identity(job)
    added = {f.name: f.default for f in fields(job.params) if f.default is not MISSING}  # since it was written
    record["params"] = added | record["params"]
    if changed := ", ".join(name for name in now if record.get(name) != now[name]):
        raise ValueError(f"{path.parent} was trained with other {changed}: delete it, or choose another run_dir")
    return record


def claim(job: Job) -> None:
    """Note beside the checkpoints what is trained. Raises ValueError if another training was interrupted there."""
    note = job.work / "job_is.json"
    if not (last_checkpoint(job.work) and _recorded(note, job)) and launch.rank() == 0:
        store.write_json(note, identity(job))


def last_checkpoint(work: Path) -> str | None:
    """The newest whole checkpoint; one that a killed process left half-written is removed (its state comes last)."""
    for folder in sorted(work.glob("checkpoint-*"), key=lambda path: -int(path.name.rpartition("-")[2])):
        try:
            json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            shutil.rmtree(folder, ignore_errors=True)
            continue
        # Trainer would load this second adapter alone, and the policy start afresh
        shutil.rmtree(folder / REFERENCE, ignore_errors=True)
        return str(folder)
    return None
