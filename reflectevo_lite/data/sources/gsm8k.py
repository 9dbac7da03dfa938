"""GSM8K: grade-school word problems, solved in 2 to 8 steps.

https://github.com/openai/grade-school-math · hub openai/gsm8k (main)

Original files train.jsonl, test.jsonl; hub rows are the same. The answer is the number after ####.

    {"question": "A pen costs 3 coins. What do 4 pens cost?",
     "answer": "4 pens cost 4*3=<<4*3=12>>12 coins.\\n#### 12"}
"""

from __future__ import annotations

from .base import REAL, Part, Row, Source, fields

RAW = "https://raw.githubusercontent.com/openai/grade-school-math/master/grade_school_math/data"


def to_problem(row: Row) -> Row | None:
    """Row → problem; None where no #### stands."""
    _, mark, number = row["answer"].rpartition("####")
    return fields(row["question"], number.strip().replace(",", ""), "math") if mark and number.strip() else None


SOURCE = Source(
    name="gsm8k",
    folder="gsm8k",
    url="https://github.com/openai/grade-school-math",
    licence="MIT",
    grader="math",
    published="7,473 train, 1,319 test",
    to_problem=to_problem,
    tested=REAL,
    rule="as published",
    hub="openai/gsm8k",
    configs=("main",),
    parts={part: Part((f"{part}.jsonl",), f"{RAW}/{part}.jsonl") for part in ("train", "test")},
    splits={"train": "train", "test": "test"},
)
