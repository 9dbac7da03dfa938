"""Worked examples: answered questions, and second turns, that stand before every question of a task as chat turns."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from .. import prompts
from ..rows import Problem
from . import own
from .base import question_key

REFLECTIONS = Path(__file__).with_name("reflections.yaml")  # written by this project


def with_shots(
    train: Sequence[Problem], test: Sequence[Problem], n: int, file: str | None = None
) -> tuple[list[Problem], list[Problem]]:
    """Both splits with `n` worked examples on each question, the same for a task, and never a test question.

    They are training questions, which then leave `train`, or rows of `file` (see `own.read`, of the question's task or
    of task "any"; `meta.worked` is the reply, else the gold answer is). Up to three of them, other than programs, are
    also shown with a wrong attempt, a reflection and a second answer (`_second_turns`). Raises ValueError if a task has
    fewer than `n` with a gold answer.
    """
    held, shown = {question_key(problem) for problem in test}, dict[str, dict[str, Any]]()
    used = set[Any]()
    for task in sorted({problem["task"] for problem in (*train, *test)}) if n else ():
        rows, turns, again = own.read(file).split("all") if file else train, Counter[str](), defaultdict(list)
        for row in rows:
            if row["task"] in (task, "any" if file else task) and row["answer"] and question_key(row) not in held:
                turns[str(row["answer"])] += 1  # of three examples not all should say A
                again[turns[str(row["answer"])]].append(row)
        chosen = [row for turn in sorted(again) for row in again[turn]]
        if len(chosen) < n:
            few = f"{task} has {len(chosen)} questions to make {n} shots of"
            raise ValueError(f"{few}: lower shots, or name a file of examples with shots_from")
        used |= {question_key(row) for row in chosen[:n]}
        said = [message for row in chosen[:n] for message in prompts.worked(row)]
        shown[task] = {"shots": said, "reflection_shots": _second_turns(chosen, n)}
    kept = [p for p in train if question_key(p) not in used], list(test)
    return tuple([{**p, **shown.get(p["task"], {})} for p in split] for split in kept)  # type: ignore


def _second_turns(rows: Sequence[Problem], n: int) -> list[dict[str, str]]:
    """Worked second turns on the first `n` rows: `meta.attempt` and `meta.reflection` if a row has them, else the answer
    of another row (of a choice, another letter) and a reflection of this project's, which cannot know the mistake."""
    texts, made = yaml.safe_load(REFLECTIONS.read_text(encoding="utf-8")), list[dict[str, str]]()
    for row, text in zip(rows[:n], texts, strict=False):
        others = [{**row, "answer": "AB"[row["answer"] == "A"]}] if row["grader"] == "choice" else rows
        other = next((r for r in others if r["answer"] != row["answer"]), None)
        if row["grader"] != "code" and (other or "attempt" in row["meta"]):
            tried = {
                "attempt": other and prompts.gold_completion({**row, "answer": other["answer"]}),
                "reflection": text,
            }
            tried |= {key: row["meta"][key] for key in ("attempt", "reflection") if key in row["meta"]}
            made.append({"question": prompts.question_text(row), **tried, "second": prompts.worked(row)[1]["content"]})
    return made
