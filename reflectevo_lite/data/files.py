"""Rows of a source: from a local copy, else the hub, else the original files by https.

A local copy lies in `<data_dir>/<folder>` in one of three forms:

    original files     under the names that the set's page gives (Train.txt, MATH/train/*/*.json …)
    a saved dataset    what `datasets.Dataset(Dict).save_to_disk` writes
    hub rows           <part>.jsonl, .json, .parquet or .csv, or the hub's own <part>-00000-of-00001.parquet

In the last two a variant or hub configuration is a subfolder: bbh/snarks/test.jsonl, mbpp/sanitized/train.parquet.
"""

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from .. import store
from .base import Row, Source
from .tables import Unread, read_table

Indexed = list[tuple[int | str, Row]]  # rows with their index in the set


class SourceMissing(FileNotFoundError):
    """There is no copy of a source at hand; the message says which file to put where."""


def rows_of(source: Source, part: str = "", data_dir: str | Path | None = None) -> Indexed:
    """(index, published row) of one part, or of all pooled for "". Raises SourceMissing; ValueError for a bad file."""
    parts = [part] if part else list(source.parts)  # the first of a pooled set is the whole
    for root in filter(None, (data_dir, store.cache_dir())):
        found = {name: local_rows(source, name, Path(root)) for name in parts}
        if any(rows is not None for rows in found.values()):
            return _joined(found)
    reasons = []
    on_hub = ([part] if part else source.hub_parts) if source.hub else ()
    by_https = parts[:1] if source.file_url(parts[0]) else ()
    for get, names in ((hub_rows, on_hub), (fetched_rows, by_https)):
        try:
            if names:
                return _joined({name: get(source, name) for name in names})
        except Exception as error:  # datasets, its file systems and httpx raise dozens of kinds when offline
            reasons.append(f"{type(error).__name__}: {error}".splitlines()[0][:120])
    raise SourceMissing(_missing(source, parts[0], data_dir, (reasons or ["no public copy is known"])[0]))


def _joined(groups: dict[str, Indexed | None]) -> Indexed:
    """Rows of several groups under one another; if there are two or more, the index begins with the group's name."""
    there = {name: rows for name, rows in groups.items() if rows is not None}
    return [(f"{name}-{i}" if len(there) > 1 else i, row) for name, rows in there.items() for i, row in rows]


def _missing(source: Source, part: str, data_dir: str | Path | None, reason: str) -> str:
    wanted = source.file(part) or (source.parts[part][0] if source.get else f"{part}.jsonl")
    place = Path(data_dir or "<data_dir>") / source.folder / wanted
    hub = f"https://huggingface.co/datasets/{source.hub}" if source.hub else source.url
    nowhere = f"{source.name}: no local copy of its {part} part, and none could be fetched ({reason})"
    return f"{nowhere}; get it from {source.file_url(part) or source.get or hub} and save it as {place}"


def local_rows(source: Source, part: str, root: Path) -> Indexed | None:
    """Rows of a local copy below `root`; None if there is none. ValueError for an unreadable file."""
    home, variant = root / source.folder, source.name.partition(":")[2]
    if (rows := _matching(home, source.parts[part], source.read or read_rows)) is not None:
        return list(enumerate(rows))
    places = [home / variant] if variant else [home, home / "data"]
    for place in [*places, *(home / config for config in source.configs if len(source.configs) == 1)]:
        rows = _exported(place, part)
        if rows is None and source.assign and part == next(iter(source.parts)):
            rows = _saved(place)
        if rows is not None:
            return list(enumerate(rows))
    by_config = {config: _exported(home / config, part) for config in source.configs}
    whole = by_config and all(rows is not None for rows in by_config.values())
    return _joined({config: list(enumerate(rows)) for config, rows in by_config.items()}) if whole else None


def _exported(place: Path, part: str) -> list[Row] | None:
    if (rows := _saved(place / part)) is not None:
        return rows
    endings = (".jsonl", ".json", ".parquet", ".csv", "-*.parquet")
    return _matching(place, [part + ending for ending in endings], read_rows)


def _saved(place: Path) -> list[Row] | None:
    if not (place / "state.json").exists():
        return None
    from datasets import load_from_disk

    return list(load_from_disk(str(place)))


def _matching(place: Path, patterns: Iterable[str], read: Callable[[Path], list[Row]]) -> list[Row] | None:
    """Rows of all files that match the first pattern with a match; an unreadable one is named in one line."""

    def natural(path: Path) -> list[int | str]:  # 2.json before 10.json
        return [int(bit) if bit.isdecimal() else bit for bit in re.split(r"(\d+)", str(path))]

    paths = next(filter(None, (sorted(place.glob(pattern), key=natural) for pattern in patterns)), None)
    rows = []
    for path in paths or ():
        try:
            rows += read(path)
        except Exception as error:
            why = f"it has no field {error}" if isinstance(error, KeyError) else str(error).split("\n")[0]
            named = str(path.parent) in why  # the file itself, or one that belongs beside it
            raise ValueError(why if named else f"{path}: cannot be read ({type(error).__name__}: {why})") from error
    return rows if paths else None


def read_rows(path: Path) -> list[Row]:
    """Rows of a JSON, JSON Lines, parquet or CSV file. ValueError, in one line, for a row that cannot be read."""
    rows = read_table(path)
    if wrong := next(((place, row) for place, row in rows if isinstance(row, Unread)), None):
        raise ValueError(f"{path}, {': '.join(wrong)}")
    return [row for _, row in rows]


def hub_rows(source: Source, part: str) -> Indexed:
    """Rows of a hub split, through `datasets`, which raises its own errors."""
    by_config = {name: from_hub(source.hub, name, part) for name in source.configs or ("",)}
    return _joined({name: list(enumerate(rows)) for name, rows in by_config.items()})


def from_hub(hub: str, config: str = "", part: str | None = None) -> Any:
    """A hub data set: one split, or all of them by name. Raises what `datasets` raises."""
    from datasets import load_dataset

    with hub_or_cache():
        return load_dataset(hub, config or None, split=part)


@contextlib.contextmanager
def hub_or_cache() -> Iterator[None]:
    """Without a network, the hub would be asked for each file for half a minute; switched off, its cache serves at once."""
    import httpx
    from datasets import config
    from huggingface_hub import constants

    before = config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    offline = any(before)
    try:
        if not offline:
            httpx.head(constants.ENDPOINT, timeout=10)
    except httpx.TransportError:
        offline = True
    config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = offline
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = before


def fetched_rows(source: Source, part: str) -> Indexed | None:
    """Rows of the original file, downloaded into `store.cache_dir()`; httpx's errors, ConnectionError if offline."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        if os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE"):
            raise ConnectionError("offline mode is switched on")
    import httpx

    answer = httpx.get(source.file_url(part), timeout=30, follow_redirects=True).raise_for_status()  # 30 s of silence
    store.write_text(store.cache_dir() / source.folder / source.file(part), answer.content.decode("utf-8"))
    return local_rows(source, part, store.cache_dir())
