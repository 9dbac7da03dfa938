"""What was understood of one's own sources, and what is wrong with them: said before anything is generated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .. import generate, grading, prompts
from ..rows import Problem
from . import own
from .files import hub_or_cache
from .loading import is_own

SHOWN, GRADED, RUN = 10, 2000, 50  # faults shown; gold answers graded; programs among them, run in the sandbox


def check(values: Mapping[str, Any]) -> tuple[str, bool]:
    """What there is to say on a run's own sources ("" if it has none), and whether the run may begin.

    `values`: sources and, if they are known, other parameters: test_sources, columns, seed, n_train, n_test, and model
    and max_new_tokens to measure prompts with its tokenizer. Raises what `own.read` raises.
    """
    sources = [own.source_name(one) for one in [*values["sources"], *(values.get("test_sources") or ())]]
    how = {"columns": values.get("columns"), "seed": values.get("seed", 0), "divide": not values.get("test_sources")}
    read = {name: own.read(name, **how) for name in dict.fromkeys(sources) if is_own(name)}
    said = ["(columns: {question: …, answer: …, choices: …, grader: …} says it otherwise)"] if read else []
    for name, found in reversed(read.items()):
        asked = [name in (values.get("test_sources") or values["sources"]), name in values["sources"]]
        wanted = {split: values.get(f"n_{split}", 0) * one for split, one in zip(("test", "train"), asked, strict=True)}
        lines = _understood(found, wanted) + _list("duplicates", "left out", found.twice) + _unread(found.rows)
        lines += _lengths(found.rows, values["model"], values["max_new_tokens"]) if values.get("model") else []
        said = [f"{name}: {len(found.rows):,} question{'s' * (len(found.rows) != 1)}", *lines, *said]
    return "\n".join(said), not any(found.refused for found in read.values())


def _understood(found: own.Own, wanted: Mapping[str, int]) -> list[str]:
    mapping = {f: ", ".join(c) if isinstance(c, list) else c for f, c in found.mapping.items()}
    if found.first is not None:
        mapping["answer"] += f" (options, the first is {found.first})"
    counts = {split: len(found.split(split)) for split in ("train", "validation", "test")}
    mapping["split"] = f"{mapping.get('split', 'by hash')}: " + ", ".join(f"{n:,} {s}" for s, n in counts.items() if n)
    mapping["grader"] = f"{mapping.get('grader', 'guessed')}: {', '.join(sorted({r['grader'] for r in found.rows}))}"
    lines = [f"  {field:12s}{column}" for field, column in mapping.items()]
    few = [(split, n, counts[split]) for split, n in wanted.items() if n > counts[split]]
    lines += [f"  too few     {n:,} {split} questions asked for, {there:,} there" for split, n, there in few]
    refused = "are too many: a run refuses them" if found.refused else "left out"
    lines += [f"  faults      {len(found.faults):,} {refused}"] if found.faults else []
    return lines + [f"    {place}: {what}" for place, what in found.faults[:SHOWN]]


def _list(head: str, what: str, places: Sequence[str]) -> list[str]:
    shown = ", ".join(place.split(", ")[-1] for place in places[:SHOWN]) + (" …" if len(places) > SHOWN else "")
    return [f"  {head:12s}{len(places):,} {what}: {shown}"] if places else []


def _unread(rows: Sequence[Problem]) -> list[str]:
    """Gold answers that their grader does not accept as an answer."""
    some = [row for row in rows if row["grader"] == "code" and row["answer"]][:RUN]
    some += [row for row in rows if row["grader"] not in ("code", "choice")][:GRADED]
    golds = [row["answer"] if isinstance(row["answer"], str) else row["answer"][0] for row in some]
    forms = {"code": "```python\n{}\n```", "math": "Answer: \\boxed{{{}}}"}
    replies = [forms.get(row["grader"], "Answer: {}").format(gold) for row, gold in zip(some, golds, strict=True)]
    grades = grading.grade_many(some, replies, progress=False)
    lost = [row["meta"]["place"] for row, grade in zip(some, grades, strict=True) if not grade.correct]
    return _list("unreadable", f"of {len(some):,} gold answers, by their own grader", lost)


def _lengths(rows: Sequence[Problem], model: str, new: int) -> list[str]:
    """The longest question, and those that leave no room for two answers and a reflection."""
    from transformers import AutoConfig, AutoTokenizer

    try:
        with hub_or_cache():
            path = generate.resolve(model)
            tokenizer, config = AutoTokenizer.from_pretrained(path), AutoConfig.from_pretrained(path)
    except (OSError, ValueError):
        return [f"  lengths     not measured: the tokenizer of {model} is not at hand"]
    sizes = [len(tokenizer(prompts.answer_prompt(row)[0]["content"])["input_ids"]) for row in rows]
    room = min(getattr(config, "max_position_embeddings", None) or 10**9, tokenizer.model_max_length)
    long = [row["meta"]["place"] for row, size in zip(rows, sizes, strict=True) if size + 3 * new > room]
    said = f"with two answers and a reflection of {new} tokens each, over the {room:,} tokens of {model}"
    return [f"  lengths     up to {max(sizes, default=0):,} tokens", *_list("too long", said, long)]
