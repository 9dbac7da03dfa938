"""Which words of a reflection work? Texts are edited, and the same Generator answers again
(notebooks/beyond/words.ipynb).

What a second answer owes to the place that is blamed, to the cause, to the plan, or to there being a text at all.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any

import pandas as pd

from .. import curate, embedded, store
from ..generate import Engine
from ..rows import EvalRow, Problem
from .carryover import swap
from .evaluation import Asked, shuffled
from .metrics import compare
from .settings import Evaluation
from .stats import wilson

Edit = Callable[[Problem, str, str, random.Random], str | None]  # (problem, attempt, reflection) → the edited text
FOLDER = "words"
_FINDING = re.compile(r"(?:[Ss]tep \d+|The answer) is (?:wrong|missing)")


def cut(problem: Problem, attempt: str, text: str, rng: random.Random) -> str | None:
    """Only what it calls wrong ("Step 3 is wrong."), or the first sentence of free text."""
    found = _FINDING.search(text)
    return f"{found[0]}." if found else re.split(r"(?<=[.!?])\s", text.strip(), maxsplit=1)[0] or None


def _part(part: Any) -> Edit:
    return lambda problem, attempt, text, rng: embedded.edit(problem, attempt, text, part, rng)


EDITS: dict[str, tuple[str, Edit | None]] = {
    "cut": ("cut to the place it blames", cut),
    "cause": ("another cause", _part("cause")),
    "plan": ("a plan for another step", _part("plan")),
    "place": ("another place, the plan kept", _part("place")),
    "elsewhere": ("another place, planned for", _part("elsewhere")),
    "masked": ("answer and options masked", lambda p, attempt, text, rng: curate.masked(p, text)),
    "same_task": ("another question's, of the same task", None),
}


def edit_words(engine: Engine, run: store.Run, asked: Asked, name: str) -> None:
    """Second answers to the edited reflections of a setting, by the untouched Generator; kept in `evals/words/`.

    A text that an edit does not apply to (a malformed one has no parts) is left out of that edit's comparison.
    """
    rows = run.read("evals", Evaluation(name).file)
    for edit, (_, change) in EDITS.items():
        if change is None:
            changed = _within_tasks(rows, asked.seed)
        else:
            rng = random.Random(f"words/{edit}/{asked.seed}")
            triples = zip(asked.problems, asked.first, rows, strict=True)
            changed = [
                r | {"reflection": r["reflection"] and change(p, a["completion"], r["reflection"], rng)}
                for p, a, r in triples
            ]
        swap(engine, asked, changed, None, f"{FOLDER}/{Evaluation(name, control=edit).file}")


def _within_tasks(rows: list[EvalRow], seed: int) -> list[Any]:
    """Every reflection moved to another question of its task; left out if there is no other."""
    moved: list[Any] = [r | {"reflection": None} for r in rows]
    for task in sorted({r["task"] for r in rows}):
        places = [i for i, r in enumerate(rows) if r["task"] == task and r["reflection"]]
        texts = shuffled([rows[i]["reflection"] for i in places], seed) if len(places) > 1 else []
        for i, text in zip(places, texts, strict=False):
            moved[i]["reflection"] = text
    return moved


def words_table(run: store.Run, *, seed: int = 0) -> pd.DataFrame:
    """Each edit: on n wrong answers whose reflections it changed, the share mended after it with its Wilson interval,
    `unedited` (the share mended on the same answers), and the paired difference with its interval and McNemar's p."""
    rows = []
    for edit, (said, _) in EDITS.items():
        for path in sorted(run.path("evals", FOLDER).glob(Evaluation("*", control=edit).file)):
            name = Evaluation.parse(path.name).setting
            before = {r["id"]: r for r in run.read("evals", Evaluation(name).file)}
            now = [r for r in store.iter_jsonl(path) if r["reflection"] not in (None, before[r["id"]]["reflection"])]
            then, right = [before[r["id"]] for r in now], sum(r["turn2_correct"] for r in now)
            c = compare(edit, now, name, then, seed)
            share = (right / max(1, len(now)), *wilson(right, len(now)))
            unedited = sum(r["turn2_correct"] for r in then) / max(1, len(then))
            rows.append((said, len(now), *share, unedited, c["diff"], *c["ci"], c["p_mcnemar"]))
    columns = ["edit", "n", "mended", "low", "high", "unedited", "difference", "diff low", "diff high", "p"]
    frame = pd.DataFrame(rows, columns=columns)
    return frame[frame["n"] > 0]
