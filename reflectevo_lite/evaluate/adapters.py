"""The registry's trainings carried out: rows from the run's files, hyper-parameters from its parameters `p`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import curate, store
from ..train import GRPOParams, TrainParams, train_dpo, train_grpo, train_sft
from .settings import TRAININGS, trainings


def training_sets(run: store.Run, notebook: str) -> dict[str, Sequence[Any]]:
    """Examples by the name of each training of a notebook; a printed line names each set that is empty and left out."""
    found = {t.name: curate.examples(t.form, run.rows(*t.rows.split("/"))) for t in trainings(notebook)}
    return curate.with_rows(found)


def train_adapter(run: store.Run, name: str, rows: Sequence[Any], p: Any) -> dict[str, Any]:
    """Train a registered adapter into `adapters/<name>` and return its training record. Resumable."""
    t, out = TRAININGS[name], run.path("adapters", name)
    start = run.path("adapters", t.start) if t.start else None
    if t.kind == "grpo":
        return train_grpo(rows, out, model=p.model, params=GRPOParams.of(p), start=start)
    train = train_sft if t.kind == "sft" else train_dpo
    return train(rows, out, model=p.model, params=TrainParams.of(t.rates, p), start=start)
