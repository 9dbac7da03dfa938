"""The truth meter: do reflections say what is so? Accuracy can rise while they rot, and only this shows it.

Where mistakes are known (the embedded tasks) every part of a reflection is checked; elsewhere nothing is claimed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pandas as pd

from .. import embedded, store
from ..rows import Problem
from .evaluation import read_rows
from .settings import Evaluation, label, reflecting

COLUMNS = ("setting", "n", *embedded.Truth._fields, "whole", "mended")


def checked(problems: Sequence[Problem], rows: Sequence[Any]) -> Iterator[tuple[Any, embedded.Truth]]:
    """(row, what holds of its reflection) of each reflection on a wrong, readable answer to an embedded question. `rows`:
    eval rows with the text of their first answers (`read_rows`)."""
    by_id = {p["id"]: p for p in problems}
    for r in (r for r in rows if r["id"] in by_id and r["reflection"] is not None and not r["turn1_correct"]):
        if found := embedded.truth(by_id[r["id"]], r["turn1"], r["reflection"]):
            yield r, found


def truth_table(run: store.Run) -> pd.DataFrame:
    """Of each setting whose Reflector writes its own texts: shares of reflections on wrong answers that are true in
    each part and as a whole (`embedded.Truth`), and that led to a right answer (`mended`); fractions. Perhaps empty."""
    problems, rows = run.read("data", "test.jsonl"), []
    for name in reflecting(run):
        found = list(checked(problems, read_rows(run, Evaluation(name))))
        parts = pd.DataFrame([(*t, t.whole, r["turn2_correct"]) for r, t in found], columns=COLUMNS[2:])
        rows += [(label(name), len(found), *parts.astype(float).mean())] if found else []
    return pd.DataFrame(rows, columns=COLUMNS)


def first_true(rows: Iterable[Any], column: str) -> list[Any]:
    """What to show of a curated set, from its first 200 rows: one whose reflection (in `column`) is true in every part
    and not merely lucky; the first where nobody knows, or if none is true. Empty for an empty set."""
    holds = lambda r: all(embedded.truth(r["problem"], r["turn1"]["completion"], r[column]["text"]) or [True])
    return sorted(itertools.islice(rows, 200), key=holds, reverse=True)[:1]


def whole(problems: Sequence[Problem], rows: Sequence[Any]) -> float | None:
    """Share of reflections that are true in every part; None if none could be checked."""
    found = [t.whole for _, t in checked(problems, rows)]
    return sum(found) / len(found) if found else None
