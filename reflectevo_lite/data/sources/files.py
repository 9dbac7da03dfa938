"""Rows of a source from a local copy, from the hub, or from the original files by https, in this order.

A local copy of a set lies in `<data_dir>/<folder>` in one of three forms:

    original files     under the names that the set's page gives (Train.txt, MATH/train/*/*.json …)
    a saved dataset    what `datasets.Dataset(Dict).save_to_disk` writes
    hub rows           <part>.jsonl, .json, .parquet or .csv, or the hub's own <part>-00000-of-00001.parquet

For the last two a variant or hub configuration is a subfolder: bbh/snarks/test.jsonl,
mbpp/sanitized/train.parquet.
"""

from __future__ import annotations

import ast
import contextlib
import csv
import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from .base import Part, Row, Source

TIMEOUT_S, DEADLINE_S = 30, 900  # silence of the server; the whole of one file


class SourceMissing(FileNotFoundError):
    """There is no copy of a source at hand; the message says which file to put where."""


def rows_of(source: Source, part: str, data_dir: str | Path | None = None) -> list[tuple[str, Row]]:
    """(index, published row) of one part: the local copy where there is one, else the hub, else the original.

    Raises SourceMissing (one line) where nothing can be had, ValueError for a file that cannot be read.
    """
    for root in (data_dir, cache_dir()):
        if root is not None and (found := local_rows(source, part, Path(root))) is not None:
            return found
    reasons = []
    for get in (hub_rows, fetched_rows):
        try:
            if (found := get(source, part)) is not None:
                return found
        except Exception as error:  # datasets, its file systems and urllib raise dozens of kinds when offline
            reasons.append(f"{type(error).__name__}: {error}".splitlines()[0][:120])
    raise SourceMissing(_missing(source, part, data_dir, reasons[0] if reasons else "no public copy is known"))


def pooled_rows(source: Source, data_dir: str | Path | None = None) -> list[tuple[str, Row]]:
    """(index, published row) of every part of a set that is split by rule; see `rows_of`."""
    for root in (data_dir, cache_dir()):
        found = {part: local_rows(source, part, Path(root)) for part in source.parts} if root is not None else {}
        if any(rows is not None for rows in found.values()):
            return _joined(found)
    whole = next(iter(source.parts))  # a pooled set's page names its whole first
    if not source.hub:
        return rows_of(source, whole, data_dir)
    try:
        return _joined({part: hub_rows(source, part) for part in source.hub_parts})
    except Exception as error:
        with contextlib.suppress(Exception):
            if (rows := fetched_rows(source, whole)) is not None:
                return rows
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:120]
        raise SourceMissing(_missing(source, whole, data_dir, reason)) from error


def _joined(parts: dict[str, list[tuple[str, Row]] | None]) -> list[tuple[str, Row]]:
    there = {part: rows for part, rows in parts.items() if rows is not None}
    return [
        (index if len(there) == 1 else f"{part}-{index}", row) for part, rows in there.items() for index, row in rows
    ]


def _missing(source: Source, part: str, data_dir: str | Path | None, reason: str) -> str:
    plain = [file for file in source.parts[part].files if "*" not in file]
    file = (plain or [f"{part}.jsonl"])[0]
    place = Path(data_dir or "<data_dir>") / source.folder / file
    hub = f"https://huggingface.co/datasets/{source.hub}" if source.hub else source.url
    origin = source.parts[part].url or source.get or hub
    nowhere = f"{source.name}: no local copy of its {part} part, and none could be fetched ({reason})"
    return f"{nowhere}; get it from {origin} and save it as {place}"


# -- local copies ---------------------------------------------------------------------------------------
def local_rows(source: Source, part: str, root: Path) -> list[tuple[str, Row]] | None:
    """Rows of a local copy below `root`; None if there is none. ValueError for an unreadable file."""
    home = root / source.folder
    for pattern in source.parts[part].files:
        if paths := sorted(home.glob(pattern), key=_natural):
            return _numbered([row for path in paths for row in _read(source, path)])
    places = [home / source.variant, *([home / "data"] if not source.variant else [])]
    for place in places + ([home / source.configs[0]] if len(source.configs) == 1 else []):
        if (rows := _hub_copy(place, part)) is not None:
            return _numbered(rows)
        if source.assign and part == next(iter(source.parts)) and (place / "state.json").exists():
            return _numbered(_saved(place))
    if len(source.configs) > 1:
        by_config = {config: _hub_copy(home / config, part) for config in source.configs}
        if all(rows is not None for rows in by_config.values()):
            return _by_config(by_config)
    return None


def _hub_copy(place: Path, part: str) -> list[Row] | None:
    """Hub rows of `part` in a folder: a saved dataset or exported files."""
    if (place / part / "state.json").exists():
        return _saved(place / part)
    names = [f"{part}.jsonl", f"{part}.json", f"{part}.parquet", f"{part}.csv", f"{part}-*.parquet"]
    for name in names:
        if paths := sorted(place.glob(name), key=_natural):
            return [row for path in paths for row in read_rows(path)]
    return None


def _saved(place: Path) -> list[Row]:
    from datasets import load_from_disk

    return list(load_from_disk(str(place)))


def _read(source: Source, path: Path) -> list[Row]:
    """Rows of an original file; whatever is wrong with it becomes one line that names it."""
    try:
        return (source.read or read_rows)(path)
    except Exception as error:
        why = str(error).split("\n")[0]
        raise ValueError(
            why if str(path.parent) in why else f"{path}: cannot be read ({type(error).__name__}: {why})"
        ) from error


def read_rows(path: Path) -> list[Row]:
    """Rows of a JSON, JSON Lines, parquet or CSV file. ValueError (one line) for an unreadable file."""
    try:
        if path.suffix == ".parquet":
            from pyarrow import parquet

            return parquet.read_table(path).to_pylist()
        if path.suffix == ".csv":
            with open(path, encoding="utf-8-sig", newline="") as handle:
                return [{name: _cell(value) for name, value in row.items()} for row in csv.DictReader(handle)]
        text = path.read_text(encoding="utf-8-sig")
        return _json_lines(path, text) if path.suffix == ".jsonl" else _json_rows(path, text)
    except (
        OSError,
        ValueError,
        csv.Error,
    ) as error:  # pyarrow's errors and UnicodeDecodeError are ValueErrors
        why = str(error).split("\n")[0]
        raise ValueError(why if str(path) in why else f"{path}: cannot be read ({why})") from error


def _json_rows(path: Path, text: str) -> list[Row]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return _json_lines(path, text)  # many a .json file holds one row a line
    return value if isinstance(value, list) else value.get("data") or value.get("examples") or [value]


def _json_lines(path: Path, text: str) -> list[Row]:
    rows = []
    for number, line in enumerate(text.split("\n"), 1):  # splitlines() would cut at U+2028 inside a string
        try:
            rows += [json.loads(line)] if line.strip() else []
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number}: not a JSON row ({error.msg})") from error
    return rows


def _cell(value: str) -> object:
    """A CSV cell; lists and dicts come back from the JSON or Python text that exports write them as."""
    if not value or value[0] not in "[{":
        return value
    for parse in (json.loads, ast.literal_eval):
        with contextlib.suppress(ValueError, SyntaxError):
            return parse(value)
    return value


def _natural(path: Path) -> list[tuple[int, int | str]]:
    """Sort key that puts 2.json before 10.json."""
    return [(0, int(bit)) if bit.isdigit() else (1, bit) for bit in re.split(r"(\d+)", str(path)) if bit]


def _numbered(rows: list[Row]) -> list[tuple[str, Row]]:
    return [(str(index), row) for index, row in enumerate(rows)]


def _by_config(rows: dict[str, list[Row]]) -> list[tuple[str, Row]]:
    return [(f"{config}-{index}", row) for config, of in rows.items() for index, row in enumerate(of)]


# -- from outside ---------------------------------------------------------------------------------------
def hub_rows(source: Source, part: str) -> list[tuple[str, Row]] | None:
    """Rows of a hub split through `datasets`; None for a set without a hub copy that loads."""
    if not source.hub:
        return None
    with _hub_reached_or_offline():
        from datasets import load_dataset

        def rows(config: str) -> list[Row]:
            return list(load_dataset(source.hub, config or None, split=part))

        loaded = {config: rows(config) for config in source.configs or ("",)}
    return _numbered(next(iter(loaded.values()))) if len(loaded) == 1 else _by_config(loaded)


@contextlib.contextmanager
def _hub_reached_or_offline() -> Iterator[None]:
    """Inside, the hub's libraries are offline where the hub cannot be reached: its cache still serves, and no
    file is retried for half a minute."""
    import huggingface_hub
    from datasets import config

    flags = [(config, "HF_HUB_OFFLINE"), (huggingface_hub.constants, "HF_HUB_OFFLINE")]
    before = [getattr(module, name) for module, name in flags]
    offline = any(before) or not _reachable(huggingface_hub.constants.ENDPOINT)
    try:
        for module, name in flags:
            setattr(module, name, offline)
        yield
    finally:
        for (module, name), value in zip(flags, before, strict=True):
            setattr(module, name, value)


def _reachable(url: str) -> bool:
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=10).close()
    except urllib.error.HTTPError:
        return True  # an answer, if an unfriendly one
    except OSError:
        return False
    return True


def fetched_rows(source: Source, part: str) -> list[tuple[str, Row]] | None:
    """Rows of the original file, downloaded once into `cache_dir()`; None for a part without a plain file."""
    where: Part = source.parts[part]
    if not (where.url and where.files):
        return None
    switches = (os.environ.get(name, "") for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"))
    if any(switch.upper() in ("1", "ON", "YES", "TRUE") for switch in switches):
        raise ConnectionError("offline mode is switched on")
    download(where.url, cache_dir() / source.folder / where.files[0])
    return local_rows(source, part, cache_dir())


def cache_dir() -> Path:
    """Where downloaded originals are kept: $REFLECTEVO_CACHE, else reflectevo_lite in the user's cache."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("REFLECTEVO_CACHE") or home / "reflectevo_lite")


def download(url: str, path: Path) -> None:
    """Fetch `url` to `path`: beside its place, then renamed, so that no half file is ever read.

    Raises OSError when the server is silent for 30 s, the file takes over 15 minutes or ends early;
    ValueError for a URL that is not https.
    """
    if not url.startswith("https://"):
        raise ValueError(f"{url} is not https")
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer, open(beside, "wb") as handle:
            for block in _blocks(answer, url):
                handle.write(block)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _blocks(answer: object, url: str) -> Iterator[bytes]:
    began, got, due = time.monotonic(), 0, answer.headers.get("Content-Length")
    while block := answer.read(1 << 20):
        got += len(block)
        yield block
        if time.monotonic() - began > DEADLINE_S:
            raise TimeoutError(f"{url} took longer than {DEADLINE_S} s")
    if due is not None and got != int(due):
        raise OSError(f"{url} ended after {got} of {due} bytes")
