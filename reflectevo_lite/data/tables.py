"""Rows of one file: CSV (with , ; | or tabs), JSON, JSON Lines or parquet, each also gzipped. Text is UTF-8, with or
without a byte order mark, whatever the machine's locale and line ends."""

import ast
import contextlib
import csv
import gzip
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ENDINGS = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet")
FOREIGN = {b"PK": "a zip archive or a spreadsheet: unpack it, or save the sheet as CSV", b"%PDF": "a PDF, not a table"}
FOREIGN |= dict.fromkeys((b"\xff\xfe", b"\xfe\xff"), "UTF-16 text: save it as UTF-8")
SPLITS = {"train": "train", "training": "train", "test": "test"}  # what files, columns and hub parts call them
SPLITS |= dict.fromkeys(("validation", "valid", "val", "dev", "eval"), "validation")
Placed = tuple[str, Any]  # "line 7" or, where lines say nothing, "row 7"; and the row, or Unread


class Unread(str):
    """What is wrong with a row that cannot be used."""


def is_table(name: str) -> bool:
    """Whether a file's name has one of the `ENDINGS`, with or without .gz."""
    return name.lower().removesuffix(".gz").endswith(ENDINGS)


def split_said(name: str) -> str:
    """The split that a name says: "my_train-00001" → "train"; "" if it says none or several."""
    found = {SPLITS[word] for word in re.split(r"[^a-z]+", name.lower()) if word in SPLITS}
    return found.pop() if len(found) == 1 else ""


def read_table(path: Path) -> list[Placed]:
    """Every row of a file with its place. Raises ValueError, in one line, for a file that cannot be read."""
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
        ending = Path(path.name.lower().removesuffix(".gz")).suffix
        if foreign := next((what for start, what in FOREIGN.items() if data.startswith(start)), None):
            raise ValueError(foreign)
        if data.startswith(b"PAR1") or ending == ".parquet":
            from pyarrow import parquet

            return _numbered(parquet.read_table(io.BytesIO(data)).to_pylist())
        text = data.decode("utf-8-sig")
        if "\0" in text:
            raise ValueError("null bytes: no text, or UTF-16 without its mark; save it as UTF-8")
        return list(_csv(text) if ending in (".csv", ".tsv") else _json(text, ending))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}, line {line}: not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except Exception as error:  # gzip, pyarrow, csv and json have a dozen kinds
        what = "nested too deeply" if isinstance(error, RecursionError) else (str(error) or repr(error)).splitlines()[0]
        raise ValueError(f"{path}{', ' if what.startswith('line ') else ': '}{what}") from error


def _numbered(rows: list[Any]) -> list[Placed]:
    return [(f"row {number}", row) for number, row in enumerate(rows, 1)]


def _csv(text: str) -> Iterator[Placed]:
    head = text.lstrip("\r\n").split("\n", 1)[0]
    separator = max("\t,;|", key=lambda sign: len(next(csv.reader([head], delimiter=sign), ())))
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    header, start, limit = [], 1, csv.field_size_limit(2**31 - 1)  # a cell may be longer than csv's 128 KiB
    try:
        for cells in lines:
            place, start = f"line {start}", lines.line_num + 1
            if not header:
                header = [name.strip() for name in cells]
                if twice := [name for name in dict.fromkeys(header) if name and header.count(name) > 1]:
                    raise ValueError(f"{place}: the column {twice[0]!r} occurs twice")
            elif any(cells):
                row = {name: _cell(cell) for name, cell in zip(header, cells, strict=False) if name}
                wrong = f"{len(cells)} cells under {len(header)} columns; quote a cell that holds the separator"
                yield place, row if len(cells) == len(header) else Unread(f"{wrong} {separator!r}")
    except csv.Error as error:
        raise ValueError(f"line {start}: {error}; inside a quoted cell a quote is written twice") from error
    finally:
        csv.field_size_limit(limit)


def _cell(value: str) -> object:
    """A CSV cell; lists and dicts come back from the JSON or Python text that exports write them as."""
    for parse in (json.loads, ast.literal_eval) if value[:1] in ("[", "{") else ():
        with contextlib.suppress(ValueError, SyntaxError, RecursionError, MemoryError):
            return parse(value)
    return value


def _json(text: str, ending: str) -> list[Placed]:
    # splitlines() would cut at U+2028 inside a string
    lines = [(f"line {number}", line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if lines and (ending == ".json" or lines[0][1].lstrip().startswith("[")):
        try:
            return _listed(json.loads(text))
        except json.JSONDecodeError as error:
            if isinstance(_line(lines[0][1]), Unread):  # else many a .json file holds one row a line
                raise ValueError(f"line {error.lineno}: not JSON ({error.msg})") from error
    return [(place, _line(line)) for place, line in lines]


def _line(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        return Unread(f"not a JSON row ({getattr(error, 'msg', error)})")


def _listed(value: Any) -> list[Placed]:
    """The list of rows in a JSON value, under whatever keys; lists under "train" and "test" are their splits."""
    found = dict(_lists(value))
    if isinstance(value, list) or len(found) < 2:
        return _numbered(value if isinstance(value, list) else next(iter(found.values()), [value]))
    if not all(map(split_said, found)):
        raise ValueError(f"several lists of rows ({', '.join(found)}): keep one, or call them train and test")
    return [(f"{key}, {at}", {"split": split_said(key)} | row) for key, v in found.items() for at, row in _numbered(v)]


def _lists(value: Any, key: str = "") -> Iterator[tuple[str, list[Any]]]:
    if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
        yield key, value
    for name, inner in value.items() if isinstance(value, dict) else ():
        yield from _lists(inner, f"{key}.{name}".lstrip("."))
