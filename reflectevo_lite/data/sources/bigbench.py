"""BIG-bench: any JSON task by name; analytic_entailment, physical_intuition, causal_judgment are preset.

https://github.com/google/BIG-bench · hub hails/bigbench (<task>_zero_shot)

Original file <task>/task.json (the repository's bigbench/benchmark_tasks/<task>/task.json):

    {"task_prefix": "Does the second sentence follow from the first?", "canary": "…", "examples": [
        {"input": "Ada owns two cats. So Ada owns a pet.",
         "target_scores": {"entailment": 1, "no-entailment": 0}}]}

Hub rows: idx, inputs (prefix, options and cue written in), targets, multiple_choice_targets,
multiple_choice_scores. Both become a bare question with options in an order fixed by its hash, since many
tasks list the right one first. Tasks without options are graded as text. The files carry a canary: keep
their rows out of training data that is published.
"""

from __future__ import annotations

import difflib
import json
import re
from pathlib import Path

from .base import Part, Row, Source, fields, hash_split, normalise, shuffled_choices
from .files import read_rows

RAW = "https://raw.githubusercontent.com/google/BIG-bench/main/bigbench/benchmark_tasks"
PRESETS = {"analytic_entailment": "70", "physical_intuition": "81", "causal_judgment": "190"}


def read(path: Path) -> list[Row]:
    """The examples of a task.json as rows of the hub's form."""
    task = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(task, list) or "examples" not in task:
        return read_rows(path)
    rows = []
    for example in task["examples"]:
        scores, target = example.get("target_scores") or {}, example.get("target", [])
        rows.append(
            {
                "inputs": f"{task.get('task_prefix', '').strip()}\n{example['input']}",
                "targets": [target] if isinstance(target, str) else list(target),
                "multiple_choice_targets": list(scores),
                "multiple_choice_scores": list(scores.values()),
            }
        )
    return rows


def question(inputs: str, options: list[str]) -> str:
    """The hub's `inputs` without what a harness wrote in: option lines, "Q:", the cue "A:"."""
    kept = [
        line
        for line in inputs.split("\n")
        if line.strip().removeprefix("choice:").strip() not in options or "choice:" not in line
    ]
    text, cued = re.subn(r"\n[A-Z]\w{0,15}:\s*$", "", "\n".join(kept).rstrip())
    text = re.sub(r"^\s*Q:\s*", "", text, count=1, flags=re.M) if cued else text
    return re.sub(r"\n\s*\n", "\n", text).strip()


def to_problem(row: Row) -> Row | None:
    """Row → problem; None where several options are equally right."""
    options, scores = list(row["multiple_choice_targets"]), list(row["multiple_choice_scores"])
    asked = question(row["inputs"], options)
    if not options:
        return fields(asked, list(row["targets"]), "text") if row["targets"] else None
    if scores.count(max(scores)) != 1 or len({normalise(option) for option in options}) < len(options):
        return None
    right = options[scores.index(max(scores))]
    choices, answer = shuffled_choices(right, [option for option in options if option != right], normalise(asked))
    return fields(asked, answer, "choice", choices=choices)


def source(task: str) -> Source:
    """A task by its name in the repository. Raises ValueError for a near miss of a preset."""
    near = difflib.get_close_matches(task, PRESETS, 1, cutoff=0.85)
    if near and task not in PRESETS:
        raise ValueError(f"unknown source 'bigbench:{task}'; did you mean 'bigbench:{near[0]}'?")
    return Source(
        name=f"bigbench:{task}",
        pattern="bigbench:<task>",
        folder="bigbench",
        variant=task,
        url=f"https://github.com/google/BIG-bench/tree/main/bigbench/benchmark_tasks/{task}",
        licence="Apache-2.0",
        grader="choice",
        family_rows="; ".join(f"{t} {n}" for t, n in PRESETS.items()),
        published=PRESETS.get(task, "by task"),
        to_problem=to_problem,
        read=read,
        assign=hash_split(0.5),
        rule="published whole; questions are halved by their hash",
        hub="hails/bigbench",
        configs=(f"{task}_zero_shot",),
        hub_parts=("default",),
        parts={"default": Part((f"{task}/task.json", f"{task}.json"), f"{RAW}/{task}/task.json")},
    )


FAMILY = {f"bigbench:{task}": source(task) for task in PRESETS}
