"""Rows become examples: which fit, which are held out for validation, and the columns that TRL takes."""

import random
from collections.abc import Sequence
from statistics import median
from typing import Any

from .. import generate
from .params import Job, Kind, TrainParams

COLUMNS = {"sft": ("prompt", "completion"), "dpo": ("prompt", "chosen", "rejected"), "grpo": ("prompt",)}


def fitting(job: Job, tokenizer: Any) -> tuple[list[Any], list[str]]:
    """Rows that fit `max_length`, and the ids of those that don't (TRL would cut or drop them without a word). Prints
    the lengths. Raises ValueError for longer rows unless `too_long` is "skip", and if no row fits."""
    limit, name, lengths = job.params.max_length, job.out.name, row_lengths(job, job.rows, tokenizer)
    count, least, most = len(lengths), min(lengths), max(lengths)
    long = {i for i, n in enumerate(lengths) if n > limit}
    spread = f"{sum(lengths):,} tokens ({least} to {most} a row, median {median(lengths):.0f})"
    print(f"{name}: {count:,} rows, {spread}, {len(long) or 'none'} over max_length {limit}", flush=True)
    if long and job.params.too_long == "error":
        over = f"{len(long)} of {count} {name} rows exceed max_length {limit} (longest {most})"
        raise ValueError(f"{over}: raise it, or set too_long: skip")
    if len(long) == count:
        raise ValueError(f"every {name} row exceeds max_length {limit} (shortest {least}): raise it")
    skipped = [str(job.rows[i]["id"]) for i in sorted(long)]
    if skipped:
        print(f"{name}: left out {', '.join(skipped)}", flush=True)
    return [row for i, row in enumerate(job.rows) if i not in long], skipped


def row_lengths(job: Job, rows: Sequence[Any], tokenizer: Any) -> list[int]:
    """Tokens of each row by the chat template: of a pair the longer half, for GRPO the prompt and `max_new_tokens`."""

    def measure(conversations: list[Any], asks: bool) -> list[int]:
        form = {"tokenize": False, "add_generation_prompt": asks, **generate.TEMPLATE}
        texts = tokenizer.apply_chat_template(conversations, **form)
        return [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]

    if job.kind == "grpo":
        return [n + job.params.max_new_tokens for n in measure([row["prompt"] for row in rows], True)]
    _, *answers = COLUMNS[job.kind]
    lengths = (measure([row["prompt"] + row[answer] for row in rows], False) for answer in answers)
    return [max(row) for row in zip(*lengths, strict=True)]


def split(rows: Sequence[Any], params: TrainParams) -> tuple[list[Any], list[Any]]:
    """(rows to train on, rows to validate on), split by question and seed; ValueError if a side would be empty."""
    if not (share := params.validation_share):
        return list(rows), []
    questions = sorted({row["id"] for row in rows})
    count = round(share * len(questions))
    if not 0 < count < len(questions):
        raise ValueError(f"validation_share {share} of {len(questions)} questions leaves one side empty")
    held = set(random.Random(f"validation/{params.seed}").sample(questions, count))
    return [r for r in rows if r["id"] not in held], [r for r in rows if r["id"] in held]


def dataset(kind: Kind, rows: Sequence[Any]) -> Any:
    """Rows as TRL takes them, for GRPO with their number, by which the reward finds them again."""
    from datasets import Dataset

    data = Dataset.from_list([{name: row[name] for name in COLUMNS[kind]} for row in rows])
    if kind == "grpo":
        return data.add_column("row", list(range(len(rows))))
    # TRL hands these to the chat template: the prompt is the one that was sent
    return data.add_column("chat_template_kwargs", [generate.TEMPLATE] * len(rows))
