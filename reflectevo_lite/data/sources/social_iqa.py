"""Social IQa: everyday situations and what people feel, want or do next. 3 options.

https://leaderboard.allenai.org/socialiqa · hub lighteval/siqa (allenai/social_i_qa is a script)

Original files {train,dev}.jsonl with {train,dev}-labels.lst beside them (a label 1–3 a line); hub rows hold the label.

    {"context": "Lou lent Kim an umbrella.", "question": "How would Kim feel?",
     "answerA": "grateful", "answerB": "hungry", "answerC": "lost"}                and in the labels file: 1
"""

from pathlib import Path

from ...prompts import LABELS
from ..base import Row, Source, fields
from ..files import read_rows


def read(path: Path) -> list[Row]:
    """Rows with their labels, which may lie in a file beside; ValueError if that is missing or of another length."""
    rows = read_rows(path)
    if all("label" in row for row in rows):
        return rows
    beside = path.with_name(f"{path.stem}-labels.lst")
    if not beside.exists():
        raise ValueError(f"{path}: its labels are missing; put {beside.name} beside it")
    labels = beside.read_text(encoding="utf-8").split()
    return [{**row, "label": label} for row, label in zip(rows, labels, strict=True)]


def to_problem(row: Row) -> Row | None:
    """Row → problem; None if its label is not 1 to 3."""
    choices, label = [row["answerA"], row["answerB"], row["answerC"]], int(str(row["label"]).strip())
    right = LABELS[label - 1] if label in (1, 2, 3) else None
    return right and fields(row["question"], right, "choice", choices=choices, context=row["context"])


SOURCE = Source(
    name="social_iqa", url="https://leaderboard.allenai.org/socialiqa", licence="none stated", grader="choice",
    published="33,410 train, 1,954 dev", to_problem=to_problem, read=read, hub="lighteval/siqa",
    get="https://storage.googleapis.com/ai2-mosaic/public/socialiqa/socialiqa-train-dev.zip",
    rule="train as published; test is the dev set, as the test labels are kept by its authors",
    parts={part: [f"{file}.jsonl", f"socialiqa-train-dev/{file}.jsonl"]
           for part, file in (("train", "train"), ("validation", "dev"))},
    splits={"train": "train", "test": "validation"})  # fmt: skip
