"""LogiQA: logic questions of the Chinese civil servants' examination, in English translation. 4 options.

https://github.com/lgw863/LogiQA-dataset (its hub copies are scripts, which datasets ≥ 4 does not run)

Original files Train.txt, Eval.txt, Test.txt: 8 lines a question — blank, letter, context, question, four options.

    ⏎
    b
    Every lamp in the hall is either red or dim. The lamp by the door is not red.
    Which of the following follows?
    A.The lamp by the door is broken.   (and so on, to D)

Hub rows, in exports: context, query, options, correct_option (0–3). Hub copies are scripts, which datasets ≥ 4 refuses.
"""

import re
from pathlib import Path

from ...prompts import LABELS
from ..base import REAL, Row, Source, fields


def read(path: Path) -> list[Row]:
    """The 8-line blocks as rows of the hub's form. Raises ValueError with the line where the form breaks."""
    lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").rstrip("\n").split("\n")]
    rows = []
    for start in range(0, len(lines), 8):
        blank, answer, context, query, *options = lines[start : start + 8] + [""] * 4
        if blank or answer.lower() not in ("a", "b", "c", "d"):
            raise ValueError(f"{path}, line {start + 1}: not a blank line and a letter a–d; 8 lines make a question")
        options = [re.sub(r"^[A-D]\s*[.．、:)]\s*", "", option) for option in options[:4]]
        right = "abcd".index(answer.lower())
        rows.append({"context": context, "query": query, "options": options, "correct_option": right})
    return rows


def to_problem(row: Row) -> Row | None:
    """Row → problem; None if an option is missing."""
    options, right = row["options"], LABELS[int(row["correct_option"])]
    whole = len(options) == 4 and all(options)
    return fields(row["query"], right, "choice", choices=options, context=row["context"]) if whole else None


SOURCE = Source(
    name="logiqa", url="https://github.com/lgw863/LogiQA-dataset", licence="none stated", grader="choice",
    published="7,376 train, 651 eval, 651 test", to_problem=to_problem, tested=REAL, read=read,
    rule="as published: Train.txt, Eval.txt (validation), Test.txt",
    raw="https://raw.githubusercontent.com/lgw863/LogiQA-dataset/master",
    parts={"train": ["Train.txt"], "validation": ["Eval.txt"], "test": ["Test.txt"]})  # fmt: skip
