"""BIG-bench: any JSON task by name; analytic_entailment, physical_intuition, causal_judgment are preset.

https://github.com/google/BIG-bench · hub hails/bigbench (<task>_zero_shot)

Original file <task>/task.json (the repository's bigbench/benchmark_tasks/<task>/task.json):

    {"task_prefix": "Does the second sentence follow from the first?", "canary": "…", "examples": [
        {"input": "Ada owns two cats. So Ada owns a pet.",
         "target_scores": {"entailment": 1, "no-entailment": 0}}]}

Hub rows: idx, inputs (prefix, options and cue written in), targets, multiple_choice_targets, multiple_choice_scores.
Both become a bare question with options in an order fixed by its hash, since many tasks list the right one first. Tasks
without options are graded as text. The files carry a canary: keep their rows out of published training data.
"""

import difflib
import json
import re
from pathlib import Path

from ..base import Row, Source, fields, hash_split, normalise, shuffled_choices
from ..files import read_rows

PRESETS = {"analytic_entailment": 70, "physical_intuition": 81, "causal_judgment": 190}


def read(path: Path) -> list[Row]:
    """The examples of a task.json as rows of the hub's form."""
    task = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(task, list) or "examples" not in task:
        return read_rows(path)
    rows, prefix = [], task.get("task_prefix", "").strip()
    for example in task["examples"]:
        scores, target = example.get("target_scores") or {}, example.get("target", [])
        inputs, golds = f"{prefix}\n{example['input']}", [target] if isinstance(target, str) else list(target)
        choices = {"multiple_choice_targets": list(scores), "multiple_choice_scores": list(scores.values())}
        rows.append({"inputs": inputs, "targets": golds, **choices})
    return rows


def question(inputs: str, options: list[str]) -> str:
    """The hub's `inputs` without what a harness wrote in: option lines, "Q:", the cue "A:"."""
    listed = [line for line in inputs.split("\n") if "choice:" in line]
    harness = [line for line in listed if line.strip().removeprefix("choice:").strip() in options]
    kept = "\n".join(line for line in inputs.split("\n") if line not in harness)
    text, cued = re.subn(r"\n[A-Z]\w{0,15}:\s*$", "", kept.rstrip())
    text = re.sub(r"^\s*Q:\s*", "", text, count=1, flags=re.M) if cued else text
    return re.sub(r"\n\s*\n", "\n", text).strip()


def to_problem(row: Row) -> Row | None:
    """Row → problem; None if several options are equally right."""
    options, scores = list(row["multiple_choice_targets"]), list(row["multiple_choice_scores"])
    asked = question(row["inputs"], options)
    if not options:
        return fields(asked, list(row["targets"]), "text") if row["targets"] else None
    if scores.count(max(scores)) != 1 or len({normalise(option) for option in options}) < len(options):
        return None
    right = options.pop(scores.index(max(scores)))
    choices, answer = shuffled_choices(right, options, normalise(asked))
    return fields(asked, answer, "choice", choices=choices)


def source(task: str) -> Source:
    """A task by its name in the repository. Raises ValueError for a near miss of a preset."""
    near = difflib.get_close_matches(task, PRESETS, 1, cutoff=0.85)
    if near and task not in PRESETS:
        raise ValueError(f"unknown source 'bigbench:{task}'; did you mean 'bigbench:{near[0]}'?")
    return Source(
        name=f"bigbench:{task}", pattern="bigbench:<task>", licence="Apache-2.0", grader="choice",
        url=f"https://github.com/google/BIG-bench/tree/main/bigbench/benchmark_tasks/{task}",
        published="; ".join(f"{name} {rows}" for name, rows in PRESETS.items()), to_problem=to_problem, read=read,
        assign=hash_split(0.5), rule="published whole; questions are halved by their hash",
        hub="hails/bigbench", configs=[f"{task}_zero_shot"], hub_parts=["default"],
        raw="https://raw.githubusercontent.com/google/BIG-bench/main/bigbench/benchmark_tasks",
        parts={"default": [f"{task}/task.json", f"{task}.json"]},
    )  # fmt: skip


SOURCES = [source(task) for task in PRESETS]
