"""BIG-Bench Hard: the 27 BIG-bench tasks that language models found hardest.

https://github.com/suzgunmirac/BIG-Bench-Hard · hub SaylorTwift/bbh

Original file <task>.json of the repository's bbh/, {"canary": …, "examples": [row, …]}; hub rows are the same.

    {"input": "Ann is taller than Bo. Who is shorter?\\nOptions:\\n(A) Ann\\n(B) Bo", "target": "(B)"}
    {"input": "Do you return to the start? Take 2 steps left.\\nOptions:\\n- Yes\\n- No", "target": "No"}
    {"input": "not ( True ) is", "target": "False"}

Listed options make a choice question; so do targets of a fixed pair (Yes/No, True/False). Numbers are graded as math,
other targets as exact. The files carry a canary: keep their rows out of published training data.
"""

import re

from ...prompts import LABELS
from ..base import REAL, Row, Source, fields, hash_split, normalise

TASKS = (
    "boolean_expressions", "causal_judgement", "date_understanding", "disambiguation_qa", "dyck_languages",
    "formal_fallacies", "geometric_shapes", "hyperbaton", "logical_deduction_five_objects",
    "logical_deduction_seven_objects", "logical_deduction_three_objects", "movie_recommendation",
    "multistep_arithmetic_two", "navigate", "object_counting", "penguins_in_a_table",
    "reasoning_about_colored_objects", "ruin_names", "salient_translation_error_detection", "snarks",
    "sports_understanding", "temporal_sequences", "tracking_shuffled_objects_five_objects",
    "tracking_shuffled_objects_seven_objects", "tracking_shuffled_objects_three_objects", "web_of_lies", "word_sorting",
)  # fmt: skip
PAIRS = (["Yes", "No"], ["yes", "no"], ["True", "False"], ["valid", "invalid"])


def to_problem(row: Row) -> Row | None:
    """Row → problem; None if the target is no option (a few rows of movie_recommendation, ruin_names)."""
    target = row["target"].strip()
    question, _, listed = row["input"].partition("\nOptions:")
    options = re.findall(r"^[ \t]*(?:\([A-Z]\)|-)[ \t]*(\S.*?)[ \t]*$", listed, re.M)
    if not (options := options or next((pair for pair in PAIRS if target in pair), [])):
        return fields(question, target, "math" if re.fullmatch(r"-?\d+(\.\d+)?", target) else "exact")
    answer = right_option(target, options)
    return answer and fields(question, answer, "choice", choices=options)


def right_option(target: str, options: list[str]) -> str | None:
    """The letter of "(B)", "B" or an option's own text; None if it is none of them."""
    texts = [normalise(option) for option in options]
    if normalise(target) in texts:
        return LABELS[texts.index(normalise(target))]
    named = re.fullmatch(r"\(?([A-Z])\)?", target)
    return named[1] if named and named[1] in LABELS[: len(options)] else None


SOURCES = [
    Source(
        name=f"bbh:{task}", pattern="bbh:<task>", url="https://github.com/suzgunmirac/BIG-Bench-Hard", licence="MIT",
        grader="choice, exact, math", published="6,511 in 27 tasks", to_problem=to_problem, tested=REAL,
        assign=hash_split(0.5), rule="published whole; questions are halved by their hash",
        hub="SaylorTwift/bbh", configs=[task], hub_parts=["test"],
        raw="https://raw.githubusercontent.com/suzgunmirac/BIG-Bench-Hard/main/bbh", parts={"test": [f"{task}.json"]},
    )
    for task in TASKS
]  # fmt: skip
