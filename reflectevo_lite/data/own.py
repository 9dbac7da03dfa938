"""jsonl:PATH — your own questions, as Problem rows (`rows.Problem`), one JSON object a line; `meta` may be left out.

    {"id": "q1", "task": "capitals", "question": "Capital of Wales?", "grader": "choice",
     "choices": ["Cardiff", "Swansea"], "answer": "A"}

Splits, the first that applies: a path with {split} in it (jsonl:data/{split}.jsonl); rows that say `meta["split"]`; a
quarter of the rows is test by the question's hash. The split "all" gives every row.
"""

from pathlib import Path

from ..prompts import LABELS
from .base import Row, check_split, hash_split
from .files import json_lines

REQUIRED = {"id": str, "task": str, "question": str, "answer": (str, list), "grader": str}
OPTIONAL = {"choices": list, "tests": list, "shown_tests": list, "setup": str, "context": str, "meta": dict}
GRADERS = ("choice", "math", "text", "code", "exact")
NAMES = ("train", "validation", "test", "all")
BY_HASH = hash_split(0.25)


def pool(path: str, split: str) -> list[Row]:
    """The rows of a split. Raises FileNotFoundError; ValueError in one line: file, line and what is wrong."""
    if "{split}" in path:
        return read(Path(path.replace("{split}", split)))
    check_split(f"jsonl:{path}", split, NAMES)
    return [row for row in read(Path(path)) if split in ("all", row["meta"].get("split") or BY_HASH(row))]


def read(path: Path) -> list[Row]:
    """Every row of a file, checked; raises as `pool` does."""
    if not path.is_file():
        raise FileNotFoundError(f"jsonl:{path}: {'a folder, not a file' if path.is_dir() else 'there is no such file'}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    rows: dict[str, Row] = {}
    for number, row in json_lines(path, text):
        if wrong := fault(row) or (f"the id {row['id']!r} occurs twice" if row["id"] in rows else ""):
            raise ValueError(f"{path}, line {number}: {wrong}")
        rows[row["id"]] = row | {"meta": row.get("meta", {})}
    return list(rows.values())


def fault(row: object) -> str:
    """What is wrong with a row, in a few words; "" if nothing is."""
    if not isinstance(row, dict):
        return "not a JSON object"
    if missing := [name for name in REQUIRED if name not in row]:
        return f"the field {missing[0]!r} is missing"
    kinds = REQUIRED | OPTIONAL
    for name, value in row.items():
        if name not in kinds:
            return f"unknown field {name!r}; put what is your own into 'meta'"
        if not isinstance(value, kinds[name]) or not (name == "meta" or all(isinstance(item, str) for item in value)):
            return f"the field {name!r} is of the wrong type"
    if not (row["id"].strip() and row["question"].strip()):
        return "an empty id or question"
    if row["grader"] not in GRADERS:
        return f"unknown grader {row['grader']!r}; there are {', '.join(GRADERS)}"
    split = row.get("meta", {}).get("split")
    if split not in (None, *NAMES[:3]):
        return f"meta.split is {split!r}; there are {', '.join(NAMES[:3])}"
    answer, grader, choices = row["answer"], row["grader"], row.get("choices", [])
    letters, several = LABELS[: len(choices)], isinstance(answer, list)
    choice, code = grader == "choice", grader == "code"
    checks = {
        "a choice question needs a list of two or more 'choices'": choice and len(choices) < 2,
        f"{len(choices)} choices, and only {len(LABELS)} labels (A to ZZ)": len(choices) > len(LABELS),
        f"the answer {answer!r} is not a letter from A to {''.join(letters[-1:])}": choice and answer not in letters,
        "a code question needs a list of 'tests'": code and not row.get("tests"),
        "only text questions take a list of answers": several and grader != "text",
        "an empty string among the answers": several and not all(gold.strip() for gold in answer),
        "an empty answer": not answer and not code,
    }
    return next((fault for fault, found in checks.items() if found), "")
