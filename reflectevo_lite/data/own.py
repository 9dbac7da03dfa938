"""Your own questions: a file, a folder of files, or a hub set (docs/data.md has an example for each grader).

Columns are found by their names, or as `columns` says; the grader, and what a gold answer is (a letter, an option's text
or number), are judged over the whole set, and `data.check` shows it all. Rows that cannot be used are faults: up to a
twentieth are left out with a warning. Splits, the first that applies: a column; the name of a file, folder, hub part or
JSON key, validation serving as test where there is none; else a quarter is test, by the question's hash and the seed.
"""

import csv
import difflib
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import store
from ..prompts import LABELS
from ..sandbox import read_asserts
from .base import Row, hash_split, normalise, question_key
from .files import SourceMissing, from_hub
from .sources.hendrycks_math import boxed
from .tables import ENDINGS, SPLITS, Placed, Unread, is_table, read_table, split_said

# field of a row → names of columns that hold it, the likeliest first, without case, spaces and signs
FIELDS = dict(csv.reader((Path(__file__).parent / "columns.csv").read_text(encoding="utf-8").splitlines()[1:]))
GRADERS = ("choice", "math", "text", "code", "exact")
NUMBER = re.compile(r"[-+−$€£]*\d[\d,]*(\.\d+)?(\s*/\s*\d+)?\s*%?|.*(\\|####).*|\w\s*[-+*/^=].*", re.DOTALL)


@dataclass
class Own:
    """A source of one's own as it was understood."""

    mapping: dict[str, Any]  # field → column, or columns
    grader: str = ""  # of rows that name none
    first: int | None = None  # the number of the first option; None: gold answers are letters or texts of options
    rows: list[Row] = field(default_factory=list)  # problems; `meta` holds their place and split
    faults: list[Placed] = field(default_factory=list)  # place and what is wrong
    twice: list[str] = field(default_factory=list)  # places of questions that stand there before, and are left out

    def split(self, split: str) -> list[Row]:
        """The rows of a split, no question being in two; "all" gives every row."""
        test = {question_key(row) for row in self.rows if split == "train" and row["meta"].get("split") == "test"}
        fits = [row for row in self.rows if split in ("all", row["meta"].get("split", split))]
        return [row for row in fits if not test or question_key(row) not in test]

    @property
    def refused(self) -> str:
        """Why a run may not use this source, in one line; "" if it may."""
        more = f" (and {len(self.faults) - 1:,} more; `reflectevo check` lists them)" if len(self.faults) > 1 else ""
        return f"{': '.join(self.faults[0])}{more}" if 19 * len(self.faults) > len(self.rows) else ""


def source_name(source: Any) -> str:
    """The name of a source. A pandas DataFrame or a list of dicts is kept as a file in the cache, and named by it."""
    if isinstance(source, str | Path):
        return str(source)
    import pandas as pd

    text = pd.DataFrame(source).to_json(orient="records", lines=True, force_ascii=False, double_precision=15)
    path = store.cache_dir() / "own" / f"rows_{hashlib.sha256(text.encode()).hexdigest()[:8]}.jsonl"
    store.write_text(path, text)
    return str(path)


def read(name: str, columns: Mapping[str, Any] | None = None, seed: int = 0, divide: bool = True) -> Own:
    """A source as understood. `columns`: field → column (a list of them for choices; a grader for grader; null: none),
    and `first`, the number of the first option, 0 or 1; or such a mapping for each source. Without `divide`, a source
    that says no splits is whole in each. Raises FileNotFoundError; ValueError, in one line, for what cannot be read."""
    columns = dict(columns or {})
    columns = columns.get(name, {}) if any(isinstance(value, Mapping) for value in columns.values()) else columns
    placed = [(at, row if isinstance(row, dict | Unread) else Unread("not a JSON object")) for at, row in _rows(name)]
    if not (good := [row for _, row in placed if isinstance(row, dict)]):
        raise ValueError(": ".join(placed[0]) if placed else f"{name}: it holds no rows")
    found = Own(_mapping(name, good, columns))
    found.grader, found.first = _grader(good, found.mapping), columns.get("first", _first(name, good, found.mapping))
    stem = Path(re.sub(r"^(jsonl|hub):|\{split\}", "", name)).name.split(".")[0] or "own"
    seen: dict[Any, tuple[str, Any]] = {}
    for number, (place, row) in enumerate(placed):
        try:
            problem = {"id": f"{stem}-{number}", "task": stem} | _problem(row, found)
            right = problem["choices"][LABELS.index(problem["answer"])] if "choices" in problem else problem["answer"]
            before, other = seen.setdefault((question_key(problem), problem["meta"].get("split")), (place, right))
            if other != right:
                raise ValueError(f"the question of {before.split(', ')[-1]} again, with another answer")
            licence = "its page on the hub" if name.startswith("hub:") else "yours"
            problem["meta"] = {"licence": licence} | problem["meta"] | {"place": place}
            (found.rows if before == place else found.twice).append(problem if before == place else place)
        except (ValueError, RecursionError) as error:
            found.faults.append((place, str(error)))
    said = {row["meta"].get("split") for row in found.rows}
    by_hash = hash_split(0.25, lambda row: f"{seed}\n{question_key(row)}")
    for row in found.rows if divide and said == {None} else ():
        row["meta"]["split"] = by_hash(row)
    for row in found.rows if "validation" in said and "test" not in said else ():
        row["meta"]["split"] = row["meta"]["split"].replace("validation", "test")
    return found


def _rows(name: str) -> Iterator[Placed]:
    """Every row with its place; those of a file or a hub part whose name says a split are told it."""
    if not name.startswith("hub:"):
        place = store.resolve_dir(name.removeprefix("jsonl:"))
        for path, split in _files(name, place):
            label = path.relative_to(place) if os.path.isdir(place) else path.name
            for at, row in read_table(path):
                yield f"{label}, {at}", {"split": split} | row if isinstance(row, dict) and split else row
        return
    hub, config, part = re.fullmatch(r"hub:([^:@]*):?([^@]*)@?(.*)", name, re.DOTALL).groups()
    try:
        found = from_hub(hub, config, part or None)
    except Exception as error:  # datasets, its file systems and httpx raise dozens of kinds
        why = " ".join(f"{type(error).__name__}: {error}".split())[:240]
        raise SourceMissing(f"{name}: {why}; without a network, name a folder that holds its files") from error
    for one, rows in (found if isinstance(found, dict) else {part: found}).items():
        yield from ((f"{name}, {one} row {i}", {"split": split_said(one)} | row) for i, row in enumerate(rows, 1))


def _files(name: str, place: Path) -> list[tuple[Path, str]]:
    """The files of a place, each with the split that its name says, or ""."""
    if os.path.isdir(place):
        paths = sorted(Path(at, file) for at, _, files in os.walk(place) for file in files if is_table(file))
        paths = [path for path in paths if not path.name.startswith((".", "dataset_info"))]
        found = [(path, split_said(path.stem) or split_said(str(path.parent.relative_to(place)))) for path in paths]
    else:
        splits = ("train", "validation", "test") if "{split}" in str(place) else (split_said(place.name.split(".")[0]),)
        found = [(Path(str(place).replace("{split}", split)), split) for split in splits]
        if not (found := [one for one in found if os.path.isfile(one[0])]):
            raise FileNotFoundError(f"{name}: there is no such file (looked for {place})")
    if not found or not (is_table(found[0][0].name) or name.startswith("jsonl:")):
        raise ValueError(f"{name}: holds no data; what is read ends in {', '.join(ENDINGS)}, also with .gz")
    return [one for one in found if one[1]] or found


def _guess(there: Sequence[str]) -> dict[str, Any]:
    """Field → column, or columns, by their names."""
    near, found = {re.sub(r"[\W_]+", "", column).casefold(): column for column in reversed(there)}, dict[str, Any]()
    for one, words in FIELDS.items():
        if hits := [near[word] for word in words.split() if word in near and near[word] not in found.values()]:
            found[one] = hits[0]
    for head in ("", "option", "choice", "answer", "opt", "ending", "sol"):  # A, B, C …; option1, option2 …
        for marks in ("abcdefghij", "123456789", "0123456789"):
            known = [near.get(head + mark, "") for mark in marks] + [""]
            if known.index("") > 1:
                found.setdefault("choices", known[: known.index("")])
    return found


def _mapping(name: str, rows: Sequence[Row], columns: Mapping[str, Any]) -> dict[str, Any]:
    """Field → column: as `columns` says, else guessed."""
    there = list(dict.fromkeys(column for row in rows for column in row))
    shown = ", ".join(map(repr, there[:8])) + (f" and {len(there) - 8:,} more" if len(there) > 8 else "")
    found = _guess(there)
    if "split" in found and not any(str(row.get(found["split"])).lower() in SPLITS for row in rows):
        del found["split"]  # a column "fold" with numbers, say
    for one, column in columns.items():
        if one not in (*FIELDS, "first"):
            nearest = difflib.get_close_matches(str(one), FIELDS, 1, 0.0)[0]
            known = f"did you mean {nearest!r}? There are {', '.join(FIELDS)}, first"
            raise ValueError(f"columns: no field {one!r}; {known}")
        if one == "first" and column not in (None, 0, 1):
            raise ValueError(f"columns: first is {column!r}; it is the number of the first option, 0 or 1")
        free = column is None or one == "first" or (one == "grader" and column in GRADERS)
        several = isinstance(column, list) and one == "choices"
        if lost := [] if free else [c for c in (column if several else [column]) if c not in there]:
            raise ValueError(f"columns: {name} has no column {lost[0]!r} for {one}; it has {shown}")
        found = {f: c for f, c in found.items() if c != column} | {one: column}
    found = {one: column for one, column in found.items() if column is not None and one != "first"}
    for one in ("question",) if "tests" in found else ("question", "answer"):
        if one not in found:
            remedy = f"say which with columns: {{{one}: …}} (a CSV file names them in its first line)"
            raise ValueError(f"{name}: no column is known for the {one} among {shown}; {remedy}")
    return found


def _text(value: Any) -> str:
    """A cell as text, "" if it is missing."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # 3 beside a missing cell was read as 3.0
    said = json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else str(value).strip()
    return "" if value is None or said.casefold() == "nan" else said


def _texts(value: Any) -> list[str]:
    return [_text(one) for one in (value if isinstance(value, list) else [value])]


def _golds(row: Row, mapping: Mapping[str, Any]) -> list[str]:
    """A row's gold answers; a label of an option, as in ARC, becomes its letter."""
    gold, options = row.get(mapping.get("answer")), row.get(str(mapping.get("choices")))
    labels = _texts(options.get("label", sorted(options))) if isinstance(options, dict) else []
    golds = _texts(gold["text"] if isinstance(gold, dict) and "text" in gold else gold)  # SQuAD's form
    return [LABELS[labels.index(one)] if one in labels else one for one in golds]


def _options(row: Row, column: Any) -> list[str]:
    """The texts of a row's options."""
    value = [row.get(c) for c in column] if isinstance(column, list) else row.get(column) or []
    if isinstance(value, dict):  # {"text": [...], "label": [...]} as in ARC, or {"A": ..., "B": ...}
        value = value["text"] if "text" in value else [value[mark] for mark in sorted(value)]
    elif isinstance(value, str):
        value = value.split(next((sign for sign in "\n|" if sign in value), ";"))
    texts = _texts(value)
    while texts and not texts[-1]:  # questions with fewer options than there are columns
        texts.pop()
    bare = [re.sub(rf"^\(?{a}[).:]\s*(?=\S)", "", text) for a, text in zip(LABELS, texts, strict=False)]  # "A) five"
    return bare if len(bare) == len(texts) and all(map(str.__ne__, bare, texts)) else texts


def _grader(rows: Sequence[Row], mapping: Mapping[str, Any]) -> str:
    """The grader of rows that name none: by their fields, else by whether nine in ten answers look like mathematics."""
    golds = [row.get(mapping.get("answer")) for row in rows]
    golds = [gold if isinstance(gold, list | dict) else _text(gold) for gold in golds if _text(gold)]
    numbers = sum(isinstance(gold, str) and bool(NUMBER.fullmatch(gold)) for gold in golds) > 0.9 * len(golds)
    guess = "code" if "tests" in mapping else "choice" if "choices" in mapping else "math" if numbers else "text"
    return mapping["grader"] if mapping.get("grader") in GRADERS else guess


def _first(name: str, rows: Sequence[Row], mapping: Mapping[str, Any]) -> int | None:
    """The number of the first option if the answers are numbers of options; None if they are letters or texts."""
    asked = [(gold, _options(row, mapping.get("choices"))) for row in rows for gold in _golds(row, mapping)[:1]]
    numbers = [(int(gold), len(texts)) for gold, texts in asked if re.fullmatch(r"\d{1,3}", gold) and texts]
    if not numbers or len(numbers) < 0.9 * len(asked) or all(_letter(*one, None) for one in asked):
        return None
    fits = [first for first in (0, 1) if all(0 <= number - first < count for number, count in numbers)]
    if len(fits) == 2:
        remedy = "say columns: {first: 0} or {first: 1}"
        raise ValueError(f"{name}: the answers are numbers of options, counted from 0 or from 1? {remedy}")
    return fits[0] if fits else int(all(number for number, _ in numbers))


def _letter(gold: str, texts: Sequence[str], first: int | None) -> str:
    """The letter of the gold option; "" if none or several fit."""
    known = [*LABELS[: len(texts)], ""]
    if first is not None:
        return known[int(gold) - first] if gold.isdecimal() and 0 <= int(gold) - first < len(known) else ""
    mark = gold.strip("(). :").upper()
    same = [known[i] for i, text in enumerate(texts[: len(LABELS)]) if normalise(text) == normalise(gold)]
    return mark if mark in known else same[0] if len(same) == 1 else ""


def _problem(row: Row | Unread, found: Own) -> Row:
    """A row as a problem, its gold answer in the grader's form. Raises ValueError for one that cannot be used."""
    if isinstance(row, Unread):
        raise ValueError(row)
    raw = {f: row.get(c) for f, c in found.mapping.items() if isinstance(c, str)}
    if isinstance(raw["question"], list | dict):
        raise ValueError("the question is a list or an object, not a text")
    problem: Row = {f: _text(raw.get(f)) for f in ("id", "task", "question", "context", "setup")}
    golds, meta = _golds(row, found.mapping), raw["meta"] if isinstance(raw.get("meta"), dict) else {}
    for f in ("tests", "shown_tests"):
        tests = raw.get(f) or []
        problem[f] = _texts(re.split(r"\n(?=assert\b)", tests.strip()) if isinstance(tests, str) else tests)
    grader = problem["grader"] = _text(raw.get("grader")).lower() or found.grader
    problem["choices"] = _options(row, found.mapping.get("choices")) if grader == "choice" else []
    answer = golds[0] if len(golds) == 1 else golds
    if grader == "choice" and len(golds) == 1:
        answer = _letter(answer, problem["choices"], found.first) or answer
    if grader == "math" and len(golds) == 1:
        answer = boxed(answer) or answer.rpartition("####")[2].strip()  # MATH's and GSM8K's forms
    split = _text(raw.get("split") or meta.get("split")).lower()
    problem["meta"] = meta | ({"split": SPLITS.get(split, split)} if split or "split" in raw else {})
    problem = {f: value for f, value in problem.items() if value or f in ("question", "meta")} | {"answer": answer}
    if wrong := fault(problem):
        raise ValueError(wrong)
    return problem


def fault(row: Row) -> str:
    """What is wrong with a problem, in a few words; "" if nothing is."""
    answer, grader, choices = row["answer"], row["grader"], row.get("choices", [])
    letters, several = LABELS[: len(choices)], isinstance(answer, list)
    choice, code, split = grader == "choice", grader == "code", row["meta"].get("split", "train")
    checks = {
        "an empty question": not row["question"],
        f"unknown grader {grader!r}; there are {', '.join(GRADERS)}": grader not in GRADERS,
        f"the split is {split!r}; there are train, validation, test": split not in SPLITS.values(),
        "an empty answer": not answer and not code,
        "a choice question needs a list of two or more 'choices'": choice and len(choices) < 2,
        f"{len(choices)} choices, and only {len(LABELS)} labels (A to ZZ)": choice and len(choices) > len(LABELS),
        "an empty option": choice and not all(choices),
        "only text questions take a list of answers": several and grader != "text",
        f"the answer {str(answer)[:50]!r} is neither a letter from A to {''.join(letters[-1:])} nor one option's text":
            choice and answer not in letters,
        "a code question needs a list of 'tests'": code and not row.get("tests"),
        "an empty string among the answers": several and not all(answer),
    }  # fmt: skip
    if wrong := next((wrong for wrong, holds in checks.items() if holds), ""):
        return wrong
    try:
        asks = all(list(read_asserts(test)) for test in row.get("tests", ()) if code)
        return "" if asks else "a test that asks nothing"
    except (ValueError, RecursionError) as error:
        return f"'tests' are assert statements: {str(error).splitlines()[0][:160]}"
