"""What "your answer is not correct" is worth by itself: guessing among the options that it leaves, without any model.

In oracle mode a wrong choice is told to be wrong, and that removes an option: of two options the other one is right.
A gain on multiple choice says something of a reflection only as far as it exceeds this one.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

import pandas as pd

from reflectevo_lite import store
from reflectevo_lite.evaluate import files, label, mean_ci, setting
from reflectevo_lite.rows import Attempt, Problem

COLUMNS = ("setting", "task", "n", "acc_t1", "acc_t2", "blind", "fitted", "excess", "low", "high")


def chance_after(problem: Problem, attempt: Attempt) -> float:
    """Expected Acc@t2 of a blind guess among the options that a first answer leaves; 1 for a right one. An answer that
    named no option (nothing was read) removes none."""
    options = len(problem["choices"])
    return 1.0 if attempt["correct"] else 1 / max(1, options - (attempt["answer"] is not None))


def likeliest(rollouts: Iterable[Any]) -> dict[tuple[str, str | None], Any]:
    """(task, wrong answer) → the gold that went with it most often in training rollouts: a guess that looks at no
    question. Ties go to the one met first."""
    seen: dict[tuple[str, str | None], Counter[Any]] = defaultdict(Counter)
    for problem, first in ((r["problem"], r["turn1"]) for r in rollouts):
        if problem["grader"] == "choice" and not first["correct"]:
            seen[problem["task"], first["answer"]][problem["answer"]] += 1
    return {key: counts.most_common(1)[0][0] for key, counts in seen.items()}


def elimination(run: store.Run, *, seed: int = 0) -> pd.DataFrame:
    """Every oracle-mode evaluation on multiple choice beside guessing, one row for each task; fractions. Perhaps empty.
    `blind`: expected Acc@t2 of a guess among the options left (`chance_after`); `fitted`: Acc@t2 of the likeliest gold
    given the wrong letter, learned from the run's training rollouts; `excess`: Acc@t2 − blind, with the 95 % bootstrap
    interval over questions."""
    known, rows = likeliest(run.rows("rollouts", "train.jsonl")), list[Any]()
    asked = zip(run.read("data", "test.jsonl"), run.read("evals", "turn1.jsonl"), strict=True)
    told = []
    for p, a in (pair for pair in asked if pair[0]["grader"] == "choice"):
        fitted = a["correct"] or known.get((p["task"], a["answer"])) == p["answer"]
        told.append((p["id"], p["task"], a["correct"], chance_after(p, a), fitted))
    guessed = pd.DataFrame(told, columns=["id", "task", "acc_t1", "blind", "fitted"]).set_index("id")
    for one in sorted((e for e in files(run) if e.mode == "oracle"), key=lambda e: e.order):
        second = {r["id"]: r["turn2_correct"] for r in run.rows("evals", one.file)}
        found = guessed.assign(acc_t2=[second[i] for i in guessed.index])
        for task, some in found.groupby("task") if not setting(one.setting).answers else ():
            means = some[["acc_t1", "acc_t2", "blind", "fitted"]].mean()
            more = (some["acc_t2"] - some["blind"]).to_numpy(float)
            rows.append((label(one.setting, one.control), task, len(some), *means, more.mean(), *mean_ci(more, seed)))
    return pd.DataFrame(rows, columns=COLUMNS)


def eliminated(acc_t1: float, options: int) -> float:
    """Acc@t2 of a blind guess among the other options, from Acc@t1 alone (any scale from 0 to 1)."""
    return acc_t1 + (1 - acc_t1) / (options - 1)


def floor(run: store.Run) -> float | None:
    """Acc@t2 over all questions of a run if choices are guessed blind and all else stays as it is; None without choices."""
    pairs = list(zip(run.read("data", "test.jsonl"), run.read("evals", "turn1.jsonl"), strict=True))
    chances = [chance_after(p, a) if p["grader"] == "choice" else float(a["correct"]) for p, a in pairs]
    return sum(chances) / len(chances) if any(p["grader"] == "choice" for p, _ in pairs) else None
