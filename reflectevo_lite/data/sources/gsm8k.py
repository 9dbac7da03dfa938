"""GSM8K: grade-school word problems, solved in 2 to 8 steps.

https://github.com/openai/grade-school-math · hub openai/gsm8k (main)

Original files train.jsonl, test.jsonl; hub rows are the same. The answer is the number after ####.

    {"question": "A pen costs 3 coins. What do 4 pens cost?",
     "answer": "4 pens cost 4*3=<<4*3=12>>12 coins.\\n#### 12"}
"""

from ..base import REAL, Row, Source, fields


def to_problem(row: Row) -> Row | None:
    """Row → problem; None if there is no ####."""
    _, mark, number = row["answer"].rpartition("####")
    return fields(row["question"], number.strip().replace(",", ""), "math") if mark and number.strip() else None


SOURCE = Source(
    name="gsm8k", url="https://github.com/openai/grade-school-math", licence="MIT", grader="math",
    published="7,473 train, 1,319 test", to_problem=to_problem, tested=REAL, hub="openai/gsm8k", configs=["main"],
    raw="https://raw.githubusercontent.com/openai/grade-school-math/master/grade_school_math/data",
    parts={"train": ["train.jsonl"], "test": ["test.jsonl"]})  # fmt: skip
