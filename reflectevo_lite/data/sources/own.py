"""jsonl:PATH — anyone's own questions, as Problem rows (`reflectevo_lite.rows`), one JSON object a line.

    {"id": "q1", "task": "capitals", "question": "Capital of Wales?", "grader": "choice",
     "choices": ["Cardiff", "Swansea"], "answer": "A"}

`meta` may be left out. Splits, the first that applies: a path with {split} in it
(jsonl:data/{split}.jsonl); rows that say `meta["split"]`; else a quarter of the rows is test by the
question's hash. The split "all" gives every row.
"""

from __future__ import annotations

import json
from pathlib import Path

from .base import Row, hash_split, letter

REQUIRED = {"id": str, "task": str, "question": str, "answer": (str, list), "grader": str}
OPTIONAL = {"choices": list, "tests": list, "shown_tests": list, "setup": str, "context": str, "meta": dict}
GRADERS = ("choice", "math", "text", "code", "exact")
NAMES = ("train", "validation", "test", "all")


def pool(path: str, split: str) -> list[Row]:
    """The rows of a split. Raises FileNotFoundError; ValueError in one line: file, line and what is wrong."""
    if "{split}" in path:
        return read(Path(path.replace("{split}", split)))
    rows, by_hash = read(Path(path)), hash_split(0.25)
    return [row for row in rows if split in ("all", row["meta"].get("split") or by_hash(row))]


def read(path: Path) -> list[Row]:
    """Every row of a file, checked."""
    if not path.is_file():
        kind = "that is a folder, not a file" if path.is_dir() else "there is no such file"
        raise FileNotFoundError(f"jsonl:{path}: {kind}")
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    rows: dict[str, Row] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            wrong = fault(row) or (f"the id {row['id']!r} occurs twice" if row["id"] in rows else "")
        except json.JSONDecodeError as error:
            wrong = f"not a JSON row ({error.msg})"
        if wrong:
            raise ValueError(f"{path}, line {number}: {wrong}")
        rows[row["id"]] = row | {"meta": row.get("meta", {})}
    return list(rows.values())


def fault(row: object) -> str:
    """What is wrong with a row, in a few words; "" where nothing is."""
    if not isinstance(row, dict):
        return "not a JSON object"
    if missing := [name for name in REQUIRED if name not in row]:
        return f"the field {missing[0]!r} is missing"
    kinds = REQUIRED | OPTIONAL
    if unknown := [name for name in row if name not in kinds]:
        return f"unknown field {unknown[0]!r}; put what is your own into 'meta'"
    if wrong := [
        name
        for name, value in row.items()
        if not isinstance(value, kinds[name]) or (name != "meta" and not _strings(value))
    ]:
        return f"the field {wrong[0]!r} is of the wrong type"
    if not (row["id"].strip() and row["question"].strip()):
        return "an empty id or question"
    if row["grader"] not in GRADERS:
        return f"unknown grader {row['grader']!r}; there are {', '.join(GRADERS)}"
    split = row.get("meta", {}).get("split")
    if split not in (None, *NAMES[:3]):
        return f"meta.split is {split!r}; there are {', '.join(NAMES[:3])}"
    return _answer_fault(row)


def _answer_fault(row: Row) -> str:
    answer, grader, choices = row["answer"], row["grader"], row.get("choices", [])
    letters = [letter(i) for i in range(len(choices))]
    if grader == "choice" and len(choices) < 2:
        return "a choice question needs a list of two or more 'choices'"
    if len(choices) > 26:
        return f"{len(choices)} choices, and only 26 letters to name them by"
    if grader == "choice" and answer not in letters:
        return f"the answer {answer!r} is not a letter from A to {letters[-1]}"
    if grader == "code" and not row.get("tests"):
        return "a code question needs a list of 'tests'"
    if isinstance(answer, list) and (grader != "text" or not answer):
        return "only text questions take a list of answers, and it cannot be empty"
    if isinstance(answer, list) and not all(gold.strip() for gold in answer):
        return "an empty string among the answers"
    return "" if answer or grader == "code" else "an empty answer"


def _strings(value: object) -> bool:
    return isinstance(value, str) or all(isinstance(item, str) for item in value)
