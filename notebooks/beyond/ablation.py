"""What in the training data teaches? (ablation.ipynb)

True reflections against lucky ones, reflections against none, and what training does to *first* answers: a gain there
is none of reflection (arXiv 2510.08308, 2409.12917).
"""

from __future__ import annotations

import random
from typing import Any

import pandas as pd

from reflectevo_lite import embedded, store
from reflectevo_lite.evaluate import PAIRED, TRAININGS, Asked, Evaluation, Setting, evaluate, paired, share
from reflectevo_lite.generate import Engine

FOLDER = "first"


def true_and_lucky(run: store.Run, seed: int = 0) -> dict[str, int]:
    """Divide D+ into reflections that are true in every part and those that only worked, as many of each (drawn by the
    seed): `curated/plus_true.jsonl` and `plus_lucky.jsonl`. Returns how many there were; where truth is unknown, none."""
    kinds: dict[str, list[Any]] = {"plus_true": [], "plus_lucky": []}
    for row in run.rows("curated", "d_plus.jsonl"):
        if found := embedded.truth(row["problem"], row["turn1"]["completion"], row["reflection"]["text"]):
            kinds["plus_true" if found.whole else "plus_lucky"].append(row)
    n, rng = min(map(len, kinds.values())), random.Random(f"true_and_lucky/{seed}")
    for name, rows in kinds.items():
        kept = sorted(rng.sample(range(len(rows)), n))
        store.write_jsonl(run.path("curated", f"{name}.jsonl"), [rows[i] for i in kept])
    return {name: len(rows) for name, rows in kinds.items()}


def first_answers(engine: Engine, run: store.Run, asked: Asked) -> None:
    """First answers by every trained adapter of the registry; kept in `evals/first/`."""
    own = asked._replace(directory=asked.directory / FOLDER)
    for name in TRAININGS:
        if (run.path("adapters", name) / "training.json").exists():
            evaluate(engine, own, Setting(name, answers=run.path("adapters", name)))


def first_table(run: store.Run, *, seed: int = 0) -> pd.DataFrame:
    """Of each adapter: its Acc@t1 with Wilson's interval, the base model's, and the paired difference with its interval
    and McNemar's p; fractions."""
    rows = []
    for name, training in TRAININGS.items():
        if (path := run.path("evals", FOLDER, Evaluation(name).file)).exists():
            found = store.read_jsonl(path)
            base = [r | {"turn2_correct": r["turn1_correct"]} for r in found]
            rows.append((training.label, *share(found), share(base)[1], *paired(found, base, seed)))
    return pd.DataFrame(rows, columns=["adapter", "n", "acc_t1", "low", "high", "base", *PAIRED])
