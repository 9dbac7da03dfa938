"""LogiQA: logic questions of the Chinese civil servants' examination, in English translation. 4 options.

https://github.com/lgw863/LogiQA-dataset (its hub copies are scripts, which datasets ≥ 4 does not run)

Original files Train.txt, Eval.txt, Test.txt: 8 lines a question — blank, letter, context, question, four
options.

    ⏎
    b
    Every lamp in the hall is either red or dim. The lamp by the door is not red.
    Which of the following follows?
    A.The lamp by the door is broken.
    B.The lamp by the door is dim.
    C.All dim lamps are by the door.
    D.No lamp is red.

Hub rows, in exports: context, query, options, correct_option (0–3).
"""

from __future__ import annotations

import re
from pathlib import Path

from .base import REAL, Part, Row, Source, fields, letter

RAW = "https://raw.githubusercontent.com/lgw863/LogiQA-dataset/master"


def read(path: Path) -> list[Row]:
    """The 8-line blocks as rows of the hub's form. Raises ValueError with the line where the form breaks."""
    lines = path.read_text(encoding="utf-8-sig").replace("\r\n", "\n").rstrip("\n").split("\n")
    rows = []
    for start in range(0, len(lines), 8):
        blank, answer, context, query, *options = [line.strip() for line in lines[start : start + 8]] + [""] * 4
        if blank or answer.lower() not in ("a", "b", "c", "d"):
            raise ValueError(f"{path}, line {start + 1}: not a blank line and a letter a–d; 8 lines make a question")
        options = [re.sub(r"^[A-D]\s*[.．、:)]\s*", "", option) for option in options[:4]]
        rows.append(
            {
                "context": context,
                "query": query,
                "options": options,
                "correct_option": "abcd".index(answer.lower()),
            }
        )
    return rows


def to_problem(row: Row) -> Row | None:
    """Hub row or `read` row → problem."""
    if len(row["options"]) != 4 or not all(row["options"]):
        return None
    return fields(
        row["query"],
        letter(int(row["correct_option"])),
        "choice",
        choices=row["options"],
        context=row["context"],
    )


SOURCE = Source(
    name="logiqa",
    folder="logiqa",
    url="https://github.com/lgw863/LogiQA-dataset",
    licence="none stated",
    grader="choice",
    published="7,376 train, 651 eval, 651 test",
    to_problem=to_problem,
    tested=REAL,
    read=read,
    rule="as published: Train.txt, Eval.txt (validation), Test.txt",
    parts={
        "train": Part(("Train.txt",), f"{RAW}/Train.txt"),
        "validation": Part(("Eval.txt",), f"{RAW}/Eval.txt"),
        "test": Part(("Test.txt",), f"{RAW}/Test.txt"),
    },
    splits={"train": "train", "validation": "validation", "test": "test"},
)
