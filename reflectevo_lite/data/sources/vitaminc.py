"""VitaminC: does a sentence of Wikipedia support a claim, refute it, or neither?

https://github.com/TalSchuster/VitaminC · hub tals/vitaminc

Original files train.jsonl, dev.jsonl, test.jsonl; hub rows are the same.

    {"unique_id": "v1_1", "page": "Kettle", "claim": "The kettle was sold over 100 times.",
     "label": "REFUTES", "evidence": "By 1990, 80 of the kettles were sold.", "revision_type": "real"}
"""

from ..base import REAL, Row, Source, fields

QUESTION = "Judged by the passage alone, is the claim true, false, or can neither be said?\nClaim: {claim}"
LABELS = {"SUPPORTS": "A", "REFUTES": "B", "NOT ENOUGH INFO": "C"}  # letters of the choices
CHOICES = ("True", "False", "Neither")


def to_problem(row: Row) -> Row | None:
    """Row → problem."""
    right, claim = LABELS.get(row["label"]), QUESTION.format(claim=row["claim"].strip())
    passage = (f"{row['page']}: " if row.get("page") else "") + row["evidence"]
    return right and fields(claim, right, "choice", native=row.get("unique_id"), choices=CHOICES, context=passage)


SOURCE = Source(
    name="vitaminc", url="https://github.com/TalSchuster/VitaminC", licence="CC BY-SA 3.0", grader="choice",
    published="370,653 train, 63,054 dev, 55,197 test", to_problem=to_problem, tested=REAL,
    hub="tals/vitaminc", raw="https://huggingface.co/datasets/tals/vitaminc/resolve/main",
    parts={"train": ["train.jsonl"], "validation": ["dev.jsonl"], "test": ["test.jsonl"]})  # fmt: skip
