"""JSON Lines files that grow by chunks. A run that is cut off goes on after the last whole chunk, to the same bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from .files import append_bytes, as_lines, write_json
from .locks import locked

OTHER_FILE = "choose another run directory (or file), or redo it with `reflectevo run … --force`"


def append_chunks(
    path: str | Path,
    chunks: int,
    make: Callable[[int], Iterable[Any]],
    size: int,
    on_chunk: Callable[[int, list], None] | None = None,
) -> None:
    """Append chunk after chunk of rows, resuming after the last whole one.

    `make(i)` returns the rows of chunk i: `size` of them, but for the last chunk, which may hold fewer. It must depend
    on i alone, so that an interrupted and resumed file equals an undisturbed one. `on_chunk(i, rows)` hears of every
    chunk in order, those on disk included; what it raises about these leaves the file as it is. One chunk is in memory
    at a time.

    A finished file has a marker beside it (`<name>.done`); one that does not agree with the file counts for nothing.
    Errors: InUse if another process appends to the file; NoRoom on a full disk; ValueError if the file was made of
    other chunks, or a row amid it is damaged. Whatever the error, the file is left with whole chunks.
    """
    path, hear = Path(path), on_chunk or (lambda i, rows: None)
    path.parent.mkdir(parents=True, exist_ok=True)
    if _tell_finished(path, chunks, size, hear):
        return
    with open(path, "ab", buffering=0) as handle, locked(handle, path):
        if _tell_finished(path, chunks, size, hear):  # another process was quicker
            return
        first, end = 0, 0
        for i, rows, at in _found_chunks(path, size):
            if i >= chunks:
                raise ValueError(f"{path} holds more than the {chunks} chunks of {size} rows asked for: {OTHER_FILE}")
            hear(i, rows)
            first, end = i + 1, at
        marker(path).unlink(missing_ok=True)
        handle.truncate(end)
        for i in range(first, chunks):
            rows = list(make(i))
            end = append_bytes(handle, path, as_lines(rows), end)
            hear(i, rows)
        write_json(marker(path), {"chunks": chunks, "size": size, "bytes": path.stat().st_size})


def marker(path: str | Path) -> Path:
    """The file that says that a chunked file is finished."""
    return Path(path).with_suffix(".done")


def finished(path: str | Path) -> dict[str, int] | None:
    """What the marker of a chunked file says (chunks, size, bytes); None if it is missing or disagrees with the file."""
    try:
        said, found = json.loads(marker(path).read_bytes()), Path(path).stat().st_size
    except (OSError, ValueError):
        return None
    fits = isinstance(said, dict) and said.keys() >= {"chunks", "size", "bytes"} and said["bytes"] == found
    return said if fits else None


def _tell_finished(path: Path, chunks: int, size: int, hear: Callable[[int, list], None]) -> bool:
    """If the file is finished, let `hear` hear of its chunks. Raises ValueError if they are not those asked for."""
    said = finished(path)
    if said is None:
        return False
    if (said["chunks"], said["size"]) != (chunks, size):
        made = f"{said['chunks']} chunks of {said['size']} rows"
        raise ValueError(f"{path} was finished as {made}, not {chunks} of {size}: {OTHER_FILE}")
    for i, rows, _ in _found_chunks(path, size, short=True):
        hear(i, rows)
    return True


def _found_chunks(path: Path, size: int, *, short: bool = False) -> Iterator[tuple[int, list, int]]:
    """(i, rows, offset of its end) of the whole chunks on disk; with `short`, of what is left after them too."""
    rows: list[Any] = []
    end = i = 0
    with open(path, "rb") as lines:
        for line in lines:
            end += len(line)
            try:
                rows.append(json.loads(line if line.endswith(b"\n") else b""))
            except ValueError:
                _refuse_damage(path, lines, i * size + len(rows), size)
                break
            if len(rows) == size:
                yield i, rows, end
                rows, i = [], i + 1
    if rows and short:
        yield i, rows, end


def _refuse_damage(path: Path, rest: Iterable[bytes], good: int, size: int) -> None:
    """A torn tail is made again; if more than its own chunk follows a damaged row, something else happened to the file."""
    after = sum(line.endswith(b"\n") for line in rest)
    if good % size + 1 + after > size:
        raise ValueError(
            f"{path}, line {good + 1}: not a JSON row, with {after} more after it. Put the file back as it was, or cut it "
            f"there (truncate with `head -n {good // size * size}`): the same command makes the rest again"
        )
