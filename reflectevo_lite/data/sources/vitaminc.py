"""VitaminC: does a sentence of Wikipedia support a claim, refute it, or neither?

https://github.com/TalSchuster/VitaminC · hub tals/vitaminc

Original files train.jsonl, dev.jsonl, test.jsonl; hub rows are the same.

    {"unique_id": "v1_1", "page": "Kettle", "claim": "The kettle was sold over 100 times.",
     "label": "REFUTES", "evidence": "By 1990, 80 of the kettles were sold.", "revision_type": "real"}
"""

from __future__ import annotations

from .base import REAL, Part, Row, Source, fields

RAW = "https://huggingface.co/datasets/tals/vitaminc/resolve/main"
QUESTION = "Judged by the passage alone, is the claim true, false, or can neither be said?\nClaim: {claim}"
LABELS = {"SUPPORTS": "A", "REFUTES": "B", "NOT ENOUGH INFO": "C"}


def to_problem(row: Row) -> Row | None:
    """Row → problem; the three labels are the options True, False, Neither."""
    if row["label"] not in LABELS:
        return None
    page = f"{row['page']}: " if row.get("page") else ""
    return fields(
        QUESTION.format(claim=row["claim"].strip()),
        LABELS[row["label"]],
        "choice",
        native=row.get("unique_id"),
        choices=("True", "False", "Neither"),
        context=page + row["evidence"],
    )


SOURCE = Source(
    name="vitaminc",
    folder="vitaminc",
    url="https://github.com/TalSchuster/VitaminC",
    licence="CC BY-SA 3.0",
    grader="choice",
    published="370,653 train, 63,054 dev, 55,197 test",
    to_problem=to_problem,
    tested=REAL,
    rule="as published",
    hub="tals/vitaminc",
    parts={
        part: Part((f"{file}.jsonl",), f"{RAW}/{file}.jsonl")
        for part, file in {"train": "train", "validation": "dev", "test": "test"}.items()
    },
    splits={"train": "train", "validation": "validation", "test": "test"},
)
