"""Which words of a reflection work? Texts are edited, the same Generator answers again (words.ipynb).

What a second answer owes to the place that is blamed, to the cause, to the plan, or to there being a text at all.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any, Literal

import pandas as pd

from reflectevo_lite import curate, embedded, store
from reflectevo_lite.evaluate import PAIRED, Asked, Evaluation, paired, share, shuffled
from reflectevo_lite.generate import Engine
from reflectevo_lite.rows import EvalRow, Problem

from .transfer import swap

Edit = Callable[[Problem, str, str, random.Random], str | None]  # (problem, attempt, reflection) → the edited text
Part = Literal["place", "cause", "plan", "elsewhere"]
FOLDER = "words"
_FINDING = re.compile(r"(?:[Ss]tep \d+|The answer) is (?:wrong|missing)")


def cut(problem: Problem, attempt: str, text: str, rng: random.Random) -> str | None:
    """Only what it calls wrong ("Step 3 is wrong."), or the first sentence of free text."""
    found = _FINDING.search(text)
    return f"{found[0]}." if found else re.split(r"(?<=[.!?])\s", text.strip(), maxsplit=1)[0] or None


def changed(problem: Problem, attempt: str, reflection: str, part: Part, rng: random.Random) -> str | None:
    """The reflection with one part replaced by an untrue one: the place it blames, the cause, the plan, or place and
    plan alike ("elsewhere"), always a step that is right. None if it has no such parts, or if every step is wrong."""
    task, said = embedded.to_task(problem), embedded.REFLECTION.fullmatch(reflection.strip())
    parsed, place = task.parse(attempt), embedded.blamed(reflection)
    if said is None or parsed is None or place is None:
        return None
    wrong = {p for p, _ in task.errors(parsed)}
    right = [i for i in range(1, min(len(task.ops), len(parsed.ops)) + 1) if i not in wrong | {place}]
    if not right:
        return None
    other = rng.choice(right)
    finding, cause, plan = f"{said['found']} is {said['how']}", said["cause"], said["plan"]
    if part in ("place", "elsewhere"):
        finding = f"Step {other} is wrong"
    if part == "cause":
        cause = rng.choice([c for c in embedded.CAUSES.values() if c != cause])
    if part in ("plan", "elsewhere"):
        plan = f"redo step {other}" + (f": {task.ops[other - 1]}" if said["op"] else " with care and go on from there")
    marks = said["marks"]
    if part == "elsewhere" and marks:
        marks = "".join(f"Step {i} is right. " for i in range(1, other))
    return f"{marks}{finding}: {cause} Plan: {plan}."


_part: Callable[[Part], Edit] = lambda part: lambda p, attempt, text, rng: changed(p, attempt, text, part, rng)
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
    """Second answers to the edited reflections of a setting, by the untouched Generator; kept in `evals/words/`. A text
    that an edit does not apply to (a malformed one has no parts) is left out of that edit's comparison."""
    rows = run.read("evals", Evaluation(name).file)
    for edit, (_, change) in EDITS.items():
        rng, told = random.Random(f"words/{edit}/{asked.seed}"), zip(rows, asked.problems, asked.first, strict=True)
        if change is None:
            edited = _within_tasks(rows, asked.seed)
        else:
            edited = [
                r | {"reflection": (t := r["reflection"]) and change(p, a["completion"], t, rng)} for r, p, a in told
            ]
        swap(engine, asked, edited, None, f"{FOLDER}/{Evaluation(name, control=edit).file}")


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
            then = [before[r["id"]] for r in now]
            rows.append((said, *share(now), share(then)[1], *paired(now, then, seed)))
    frame = pd.DataFrame(rows, columns=["edit", "n", "mended", "low", "high", "unedited", *PAIRED])
    return frame[frame["n"] > 0]
