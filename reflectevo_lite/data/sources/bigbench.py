"""BIG-bench: any JSON task by name; analytic_entailment, physical_intuition, causal_judgment are preset.

https://github.com/google/BIG-bench · hub hails/bigbench (<task>_zero_shot)

Original file <task>/task.json (the repository's bigbench/benchmark_tasks/<task>/task.json), or <task>/<subtask>/task.json
for tasks that are kept in subfolders: `bigbench:<task>` is all of them, `bigbench:<task>/<subtask>` one.

    {"task_prefix": "Does the second sentence follow from the first?", "canary": "…", "examples": [
        {"input": "Ada owns two cats. So Ada owns a pet.",
         "target_scores": {"entailment": 1, "no-entailment": 0}}]}

Hub rows: idx, inputs (prefix, options and cue written in), targets, multiple_choice_targets, multiple_choice_scores.
Both become a bare question; what the task writes around it stays ("German equivalent:"), cues such as "A:" go. Options
stand in an order fixed by the question's hash, since many tasks list the right one first; those that are marks (a and b,
1 to 5, Passage A and Passage B) or say Yes and No stay in theirs. Tasks without options are graded as text. The files
carry a canary: keep their rows out of published training data.
"""

import difflib
import json
import re
from pathlib import Path

from ...prompts import LABELS
from ..base import Row, Source, fields, hash_split, normalise, shuffled_choices
from ..files import read_rows

HOME = "https://github.com/google/BIG-bench/tree/main/bigbench/benchmark_tasks/"
PRESETS = {"analytic_entailment": 70, "physical_intuition": 81, "causal_judgment": 190}
SPLIT = {  # kept in subfolders
    "abstract_narrative_understanding", "arithmetic", "authorship_verification", "bbq_lite_json", "cause_and_effect",
    "chess_state_tracking", "cifar10_classification", "color", "conceptual_combinations", "conlang_translation",
    "cs_algorithms", "elementary_math_qa", "fact_checker", "gem", "goal_step_wikihow", "hhh_alignment",
    "intersect_geometry", "kanji_ascii", "key_value_maps", "language_games", "linguistic_mappings", "list_functions",
    "logical_deduction", "metaphor_understanding", "minute_mysteries_qa", "modified_arithmetic",
    "mult_data_wrangling", "multiemo", "natural_instructions", "periodic_elements", "real_or_fake_text",
    "simp_turing_concept", "simple_arithmetic_json_subtasks", "strange_stories", "symbol_interpretation",
    "tracking_shuffled_objects", "undo_permutation", "unit_conversion", "unit_interpretation",
    "unnatural_in_context_learning",
}  # fmt: skip
_CUE = re.compile(r"(?i)(?:^|\s)(?:a|(?:the )?answer(?: is)?|output|best choice):\s*$")
_POLES = {"yes": 0, "true": 0, "t": 0, "no": 1, "false": 1, "f": 1}
_MARK = re.compile(r"(?:[a-z]+ )?[(\[]?([a-z]|\d{1,3})[)\].]?", re.I)  # a · (b) · 3 · Passage A


def read(path: Path) -> list[Row]:
    """The examples of a task.json as rows of the hub's form. Raises ValueError for a file without questions."""
    task = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(task, list):
        return read_rows(path)
    if "examples" not in task:
        raise ValueError(f"{path} holds no questions: they lie in subfolders, which belong beside it")
    rows, whole = [], {"subtask": path.parent.name} if path.parents[2].name == "bigbench" else {}
    for example in task["examples"]:
        scores, target = example.get("target_scores") or {}, example.get("target", [])
        said = [task.get("task_prefix", ""), task.get("example_input_prefix", "\nQ: "), example["input"]]
        said = said if example["input"].strip() else [said[0].strip() or task.get("description", "")]
        said.append(task.get("example_output_prefix", "\nA: "))
        choices = {"multiple_choice_targets": list(scores), "multiple_choice_scores": list(scores.values())}
        targets = [target] if isinstance(target, str) else target
        rows.append({"inputs": "".join(said), "targets": targets, **choices, **whole})
    return rows


def question(inputs: str, options: list[str]) -> str:
    """The hub's `inputs` without what a harness wrote in: options after "choice:", "Q:", a last "A:" or the like."""
    listed = "".join(rf"\s+(?:\w+:\s*)?{re.escape(option)}" for option in options)
    text = re.sub(rf"{listed}\s*(?=\n|$)", "", inputs) if options else inputs
    text = _CUE.sub("", text.rstrip()).rstrip()
    asked = re.search(r"(?m)^\s*Q:[ \t]*", text)
    if asked and not re.search(r"(?m)^A:", text[asked.end() :]):  # else it begins an example in the prefix
        text = f"{text[: asked.start()].rstrip()}\n{text[asked.end() :]}"
    return text.strip("\n").rstrip()


def to_problem(row: Row) -> Row | str:
    """Row → problem, or in words why there is none."""
    options, scores = [o.strip() for o in row["multiple_choice_targets"]], list(row["multiple_choice_scores"])
    asked, meta = question(row["inputs"], options), {"subtask": row["subtask"]} if row.get("subtask") else {}
    if not options:
        return fields(asked, list(row["targets"]), "text", meta=meta) if row["targets"] else "no target"
    if len(options) == 1:
        return "only one option"
    if max(scores) <= 0 or scores.count(max(scores)) > 1:
        return "several options score highest" if max(scores) > 0 else "no option scores above 0"
    right = options[scores.index(max(scores))]
    if options.count(right) > 1:
        return "the right option is listed twice"
    if (choices := in_order(options)) is None:
        options.remove(right)
        choices, _ = shuffled_choices(right, options, normalise(asked))
    return fields(asked, LABELS[choices.index(right)], "choice", choices=choices, meta=meta)


def in_order(options: list[str]) -> list[str] | None:
    """Options that have an order of their own, in it: consecutive marks, Yes before No and the like. None for others."""
    words = [re.sub(r"\W", "", option).casefold() for option in options]
    if any(pair <= set(words) for pair in ({"yes", "no"}, {"true", "false"}, {"t", "f"})):
        return [o for _, o in sorted(zip(words, options, strict=True), key=lambda pair: _POLES.get(pair[0], 2))]
    found = [_MARK.fullmatch(option) for option in options]
    codes = [int(m[1]) if m[1].isdigit() else ord(m[1].casefold()) for m in found if m]
    consecutive = len(codes) == len(options) and sorted(codes) == list(range(min(codes), min(codes) + len(codes)))
    return [o for _, o in sorted(zip(codes, options, strict=True))] if consecutive else None


def source(task: str) -> Source:
    """A task by its name in the repository. Raises ValueError for a near miss of a preset."""
    near = difflib.get_close_matches(task, PRESETS, 1, cutoff=0.85)
    if near and task not in PRESETS:
        raise ValueError(f"unknown source 'bigbench:{task}'; did you mean 'bigbench:{near[0]}'?")
    return Source(
        name=f"bigbench:{task}", pattern="bigbench:<task>[/<subtask>]", licence="Apache-2.0", grader="choice",
        url=HOME + task,
        published="167 tasks with a task.json, 121 of them multiple choice", to_problem=to_problem, read=read,
        assign=hash_split(0.5), rule="published whole; questions are halved by their hash",
        hub="" if "/" in task else "hails/bigbench", configs=[f"{task}_zero_shot"], hub_parts=["default"],
        raw="" if task in SPLIT else "https://raw.githubusercontent.com/google/BIG-bench/main/bigbench/benchmark_tasks",
        get=HOME + task, parts={"default": [f"{task}/*/task.json"] if task in SPLIT else [f"{task}/task.json", f"{task}.json"]},
    )  # fmt: skip


SOURCES = [source(task) for task in PRESETS]
