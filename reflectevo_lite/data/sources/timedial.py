"""TimeDial: which span of time fits the gap in a dialogue?

https://github.com/google-research-datasets/TimeDial (its hub copy is a script, which datasets ≥ 4 does not

Original file test.json, a list; hub rows are the same, but come from a script, which datasets ≥ 4 refuses.

    {"id": 1, "conversation": ["A: When does the film start?", "B: At eight. We still have <MASK>."],
     "correct1": "half an hour", "correct2": "30 minutes", "incorrect1": "eight years",
     "incorrect1_rule": "Rule 1", "incorrect2": "nine seconds", "incorrect2_rule": "Rule 3"}

The authors grade with two right and two wrong options; here the options are correct1 (what the dialogue really said)
and the wrong ones, in an order fixed by the dialogue's hash. correct2, if not "_none_", is `meta["also_correct"]`.
"""

from ..base import REAL, Row, Source, fields, hash_split, normalise, shuffled_choices

QUESTION = "Which option fills the gap <MASK> in this dialogue best?"


def to_problem(row: Row) -> Row | None:
    """Row → problem; None if a wrong option equals the right one."""
    right, *wrong = (row[name].strip() for name in ("correct1", "incorrect1", "incorrect2"))
    if len({normalise(option) for option in (right, *wrong)}) < 3:
        return None
    dialogue = "\n".join(turn.strip() for turn in row["conversation"])
    choices, answer = shuffled_choices(right, wrong, normalise(dialogue))
    second = (row.get("correct2") or "").strip().strip("_")
    meta = {"also_correct": second} if second not in ("", "none") else {}
    return fields(QUESTION, answer, "choice", native=row.get("id"), choices=choices, context=dialogue, meta=meta)


SOURCE = Source(
    name="timedial", url="https://github.com/google-research-datasets/TimeDial", licence="CC BY-NC-SA 4.0",
    grader="choice", published="1,446 test (342 of them with one right option)", to_problem=to_problem, tested=REAL,
    assign=hash_split(0.5, of=lambda problem: problem["context"]),
    rule="published as test only; dialogues are halved by their hash",
    raw="https://raw.githubusercontent.com/google-research-datasets/TimeDial/main",
    parts={"test": ["test.json"]})  # fmt: skip
