"""Data sets of one's own, made up: five shapes that work, and files that are broken in thirty ways."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

LANDS = {"France": "Paris", "Wales": "Cardiff", "Spain": "Madrid", "Italy": "Rome", "Peru": "Lima", "Egypt": "Cairo"}


def _asked(i: int) -> tuple[str, str, list[str]]:
    """A question, the right option, and four options."""
    lands, capitals = list(LANDS), list(LANDS.values())
    options = [capitals[(i + j) % len(LANDS)] for j in range(4)]
    right = options[0]
    return f"No. {i}: capital of {lands[i % len(LANDS)]}?", right, options[i % 4 :] + options[: i % 4]


def lettered_csv(root: Path, n: int = 80) -> str:
    """CSV as a German spreadsheet saves it: semicolons, a byte order mark, CRLF, columns A to D."""
    rows = [(question, *options, "ABCD"[options.index(right)]) for question, right, options in map(_asked, range(n))]
    text = "\r\n".join(
        ";".join(row) for row in [("Question", "A", "B", "C", "D", "Answer", "Note"), *((*r, "") for r in rows)]
    )
    return _put(root / "capitals.csv", "\ufeff" + text)


def nested_json(root: Path, n: int = 80) -> str:
    """A JSON array below two keys; options as a dict, the gold answer an option's text."""
    rows = [
        {"prompt": q, "options": dict(zip("ABCD", o, strict=True)), "target": r} for q, r, o in map(_asked, range(n))
    ]
    return _put(root / "quiz.json", json.dumps({"version": 2, "data": {"items": rows}}))


def parquet(root: Path, n: int = 80) -> str:
    """Parquet with numbers as floats, some of them missing, and a split column."""
    import pandas as pd

    gold = [float(i + i % 7) if i != 5 else None for i in range(n)]
    asked = [f"What is {i} + {i % 7}?" for i in range(n)]
    split = ["test" if i % 3 == 0 else "train" for i in range(n)]
    root.mkdir(parents=True, exist_ok=True)
    pd.DataFrame({"problem": asked, "gold": gold, "split": split}).to_parquet(root / "sums.parquet")
    return str(root / "sums.parquet")


def code_gz(root: Path, n: int = 80) -> str:
    """Gzipped JSON Lines of programs with tests."""
    rows = [
        {
            "text": f"Write a function add_{i} that adds {i} to its argument.",
            "code": f"def add_{i}(x):\n    return x + {i}",
            "test_list": [f"assert add_{i}({x}) == {x + i}" for x in (0, 3)],
        }
        for i in range(n)
    ]
    root.mkdir(parents=True, exist_ok=True)
    (root / "programs.jsonl.gz").write_bytes(gzip.compress("".join(json.dumps(r) + "\n" for r in rows).encode()))
    return str(root / "programs.jsonl.gz")


def hub_folder(root: Path, n: int = 80) -> str:
    """A folder as the hub keeps it: parquet parts in data/, a card, SQuAD's form of answers."""
    import pandas as pd

    (root / "reading" / "data").mkdir(parents=True)
    _put(root / "reading" / "README.md", "# A card")
    for part, begin, end in (("train", 0, n * 3 // 4), ("validation", n * 3 // 4, n)):
        asked = [(land, i) for i, land in enumerate(list(LANDS) * n)][begin:end]
        rows = {
            "id": [str(i) for _, i in asked],
            "context": [f"Note {i}. The capital of {land} is {LANDS[land]}." for land, i in asked],
            "question": [f"What is the capital of {land}?" for land, _ in asked],
            "answers": [{"text": [LANDS[land], f"{LANDS[land]} city"], "answer_start": [0, 0]} for land, _ in asked],
        }
        pd.DataFrame(rows).to_parquet(root / "reading" / "data" / f"{part}-00000-of-00001.parquet")
    return str(root / "reading")


FIVE = (lettered_csv, nested_json, parquet, code_gz, hub_folder)


def _put(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return str(path)


def _rows(*rows: object) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


HEAD = b"question,answer\n"
GOOD = {"question": "Which?", "choices": ["x", "y"], "answer": "B"}
# file name, its bytes, and what is said of it (a pattern)
BROKEN: dict[str, tuple[str, bytes, str]] = {
    "empty file": ("a.csv", b"", "it holds no rows"),
    "only a header": ("a.csv", HEAD, "it holds no rows"),
    "only blank lines": ("a.jsonl", b"\n\n \n", "it holds no rows"),
    "empty list": ("a.json", b"[]", "it holds no rows"),
    "a number": ("a.json", b"42", "row 1: not a JSON object"),
    "no header": ("a.csv", b"2+2?,4\n3+3?,6\n", r"no column is known for the question among '2\+2\?', '4'; say which"),
    "other names": ("a.csv", b"Frage,Antwort\nWer?,Ich\n", "for the question among 'Frage', 'Antwort'"),
    "no answer": ("a.csv", b"question,hint\nWho?,me\n", "for the answer among 'question', 'hint'"),
    "a column twice": ("a.csv", b"question,answer,answer\na,b,c\n", "line 1: the column 'answer' occurs twice"),
    "a comma unquoted": ("a.csv", HEAD + b"a,b,1\n", "line 2: 3 cells under 2 columns; quote a cell"),
    "a quote left open": ("a.csv", HEAD + b'"a,1\nb,2\n', "line 2: unexpected end of data; .* written twice"),
    "a quote inside": ("a.csv", HEAD + b'"say "a" to me",1\n', "line 2: .* written twice"),
    "empty answers": ("a.csv", HEAD + b"a,\nb,2\nc,NaN\n", r"line 2: an empty answer \(and 1 more"),
    "empty question": ("a.csv", HEAD + b" ,1\n", "line 2: an empty question"),
    "latin-1": ("a.csv", HEAD + "Käse?,1".encode("latin-1"), r"line 2: not UTF-8 text \(byte 17\); save it as UTF-8"),
    "UTF-16": ("a.csv", "question,answer\na,1".encode("utf-16"), "UTF-16 text: save it as UTF-8"),
    "UTF-16 unmarked": ("a.csv", "question,answer\na,1".encode("utf-16-le"), "null bytes"),
    "a PDF": ("a.csv", b"%PDF-1.7 \xff", "a PDF, not a table"),
    "a zip": ("a.csv", b"PK\x03\x04\x14", "a zip archive or a spreadsheet: unpack it, or save the sheet as CSV"),
    "a spreadsheet": ("a.xlsx", b"PK\x03\x04\x14", "what is read ends in .csv, .tsv"),
    "half a gzip": ("a.csv.gz", gzip.compress(HEAD * 99)[:30], "ended before the end-of-stream marker"),
    "half a parquet": ("a.parquet", b"PAR1\x15", "Parquet"),
    "half a JSON": ("a.json", b'[{"question": "a",\n "answer": 1},', "line 2: not JSON"),
    "a torn line": ("a.jsonl", _rows(GOOD)[:-9] + b"\n", "line 1: not a JSON row"),
    "a list a line": ("a.jsonl", b'["a", "b"]\n', "not a JSON object"),
    "two lists": ("a.json", json.dumps({"a": [GOOD], "b": [GOOD]}).encode(), r"several lists of rows \(a, b\)"),
    "nested without end": ("a.json", b"[" * 100_000, "nested too deeply"),
    "a chat for a question": (
        "a.jsonl",
        _rows({"prompt": [{"role": "user"}], "answer": "1"}),
        "a list or an object, not a",
    ),
    "a wrong letter": (
        "a.jsonl",
        _rows(GOOD | {"answer": "C"}),
        "'C' is neither a letter from A to B nor one option's text",
    ),
    "one option": ("a.jsonl", _rows(GOOD | {"choices": ["x"]}), "two or more 'choices'"),
    "an option empty": ("a.jsonl", _rows(GOOD | {"choices": ["", "y"]}), "an empty option"),
    "703 options": ("a.jsonl", _rows(GOOD | {"choices": [*map(str, range(703))]}), "only 702 labels"),
    "two texts alike": ("a.jsonl", _rows(GOOD | {"choices": ["x", "X"], "answer": "x"}), "'x' is neither"),
    "0- or 1-based": (
        "a.jsonl",
        _rows(GOOD | {"choices": [*"xyz"], "answer": 1}),
        r"from 0 or from 1\? say columns: {first: 0}",
    ),
    "too high a number": (
        "a.jsonl",
        _rows(GOOD | {"answer": 0}, GOOD | {"question": "?", "answer": 5}),
        "line 2: the answer '5'",
    ),
    "another grader": ("a.jsonl", _rows(GOOD | {"grader": "llm"}), "unknown grader 'llm'; there are choice"),
    "code untested": ("a.jsonl", _rows(GOOD | {"grader": "code"}), "needs a list of 'tests'"),
    "a test that is none": (
        "a.jsonl",
        _rows({"question": "f", "test": "def check(f): pass"}),
        "'tests' are assert statements",
    ),
    "many golds": ("a.jsonl", _rows({"question": "q", "answer": ["1", "2"], "grader": "math"}), "only text questions"),
    "two answers": ("a.csv", HEAD + b"a,1\na,2\n", "line 3: the question of line 2 again, with another answer"),
    "another split": ("a.csv", b"question,answer,split\na,1,train\nb,2,holdout\n", "line 3: the split is 'holdout'"),
    "huge cells": ("a.csv", HEAD + b'"' + b"a" * 300_000 + b",1\nb,2\n", "line 2: unexpected end of data"),
}


def strange_places(root: Path) -> dict[str, str]:
    """Places that hold no questions, and what is said of each."""
    (root / "empty").mkdir()
    (root / "loop").mkdir()
    os.symlink(root / "loop", root / "loop" / "again")
    os.symlink(root / "itself.csv", root / "itself.csv")
    return {
        "empty": "a folder|holds no data",
        "loop": "holds no data; what is read ends in",
        "itself.csv": "there is no such file",
        "~nobody-of-this-name/a.csv": "there is no such file",
        "a" * 300 + ".csv": "there is no such file",
        "none.csv": r"there is no such file \(looked for /",
        "none/{split}.jsonl": "there is no such file",
    }
