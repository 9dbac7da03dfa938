"""Worked examples: answered questions, and reflections, that stand before every question of a task as chat turns."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

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
    of task "any"; `meta.worked` is the reply, else the gold answer is). Reflections get up to three of this project's own.
    Raises ValueError if a task has fewer than `n` with a gold answer.
    """
    held, chosen = {question_key(problem) for problem in test}, {}
    for task in sorted({problem["task"] for problem in (*train, *test)}) if n else ():
        rows, turns, again = own.read(file).split("all") if file else train, Counter[str](), defaultdict(list)
        for row in rows:
            if row["task"] in (task, "any" if file else task) and row["answer"] and question_key(row) not in held:
                turns[str(row["answer"])] += 1  # of three examples not all should say A
                again[turns[str(row["answer"])]].append(row)
        chosen[task] = [row for turn in sorted(again) for row in again[turn]][:n]
        if len(chosen[task]) < n:
            few = f"{task} has {len(chosen[task])} questions to make {n} shots of"
            raise ValueError(f"{few}: lower shots, or name a file of examples with shots_from")
    used = {question_key(row) for rows in chosen.values() for row in rows}
    said = {task: [message for row in rows for message in prompts.worked(row)] for task, rows in chosen.items()}
    more = {"reflection_shots": yaml.safe_load(REFLECTIONS.read_text(encoding="utf-8"))[:n]}
    kept = [p for p in train if question_key(p) not in used], list(test)
    return tuple([{**p, "shots": said[p["task"]], **more} if n else p for p in split] for split in kept)  # type: ignore
