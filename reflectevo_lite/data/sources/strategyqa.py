"""StrategyQA: yes/no questions whose steps of reasoning are left unsaid.
Original file strategyqa_train.json of https://allenai.org/data/strategyqa (its test file has no answers), or train.json
with dev.json (the repository's split) or test.json (the hub's): lists of rows.

    {"qid": "q1", "term": "Kettle", "question": "Could a kettle hold a swimming pool?", "answer": false,
     "facts": ["A kettle holds two litres."], "decomposition": ["What does a kettle hold?"]}
"""

from ..base import REAL, Row, Source, fields, hash_split


def to_problem(row: Row) -> Row | None:
    """Row → problem."""
    right = {"true": "A", "false": "B"}.get(str(row.get("answer", "")).lower())  # a CSV has "True", JSON has true
    return right and fields(row["question"], right, "choice", native=row.get("qid"), choices=("Yes", "No"))


SOURCE = Source(
    name="strategyqa", url="https://github.com/eladsegal/strategyqa", licence="MIT", grader="choice",
    published="2,290 with answers", to_problem=to_problem, tested=REAL, assign=hash_split(0.25),
    # the copies divide the same questions differently
    rule="all copies pooled; a quarter is test by the question's hash",
    hub="ChilleD/StrategyQA", hub_parts=["train", "test"],
    get="https://storage.googleapis.com/ai2i/strategyqa/data/strategyqa_dataset.zip",
    parts={"all": ["strategyqa_train.json"], "train": ["train.json"], "dev": ["dev.json"],
           "test": ["test.json"]})  # fmt: skip
