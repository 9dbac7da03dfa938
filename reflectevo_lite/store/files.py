"""Whole files and JSON Lines. A whole file is written beside its place and renamed, so a reader never sees half of one."""

from __future__ import annotations

import contextlib
import copy
import errno
import glob
import json
import os
import time
from array import array
from collections.abc import Iterable, Iterator, Sequence
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
DAY = 24 * 60 * 60
GOES_ON = "What was finished is kept; the same command goes on from there once there is room"


class NoRoom(OSError):
    """The disk is full, or a quota or file-size limit is reached."""


@contextlib.contextmanager
def room_at(path: Path) -> Iterator[None]:
    """Turn the system's errors of a full disk into one NoRoom that names `path`."""
    try:
        yield
    except OSError as error:
        if isinstance(error, NoRoom) or error.errno not in FULL:
            raise
        raise NoRoom(f"{path}: no room to write ({error.strerror}). {GOES_ON}") from error


def read_jsonl(path: str | Path) -> list[Any]:
    """All rows of a file; see `iter_jsonl`."""
    return list(iter_jsonl(path))


def iter_jsonl(path: str | Path) -> Iterator[Any]:
    """Rows of a file one by one; an unfinished last line (a killed writer's) is left out.

    Raises FileNotFoundError, and ValueError naming the line that is not JSON.
    """
    with open(path, "rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.endswith(b"\n"):
                yield _parsed(line, path, number)


def _parsed(line: bytes, path: str | Path, number: int) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise ValueError(f"{path}, line {number}: not a JSON row ({error}); mend or delete that line") from error


class Rows(Sequence):
    """The rows of a JSON Lines file, left on disk: a read-only sequence that takes 8 bytes of memory a row.

    Iterating parses one row after the other; a slice is another view, not a copy. An unfinished last line is left out.
    The file must not change meanwhile, except by rows appended to it, which are not seen.
    """

    def __init__(self, path: str | Path) -> None:
        """Raises FileNotFoundError."""
        self.path, self._starts, at = Path(path), array("Q"), 0
        with open(path, "rb") as lines:
            for line in lines:
                if line.endswith(b"\n"):
                    self._starts.append(at)
                at += len(line)
        self._places = range(len(self._starts))

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, i: Any) -> Any:
        view = copy.copy(self)
        view._places = self._places[i] if isinstance(i, slice) else [self._places[i]]
        return view if isinstance(i, slice) else next(iter(view))

    def __iter__(self) -> Iterator[Any]:
        with open(self.path, "rb") as handle:
            for place in self._places:
                if handle.tell() != self._starts[place]:  # reading on in order keeps the handle's buffer
                    handle.seek(self._starts[place])
                yield _parsed(handle.readline(), self.path, place + 1)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))


def write_text(path: str | Path, text: str) -> None:
    """Write a whole file: beside its place, flushed to disk, then renamed. Raises NoRoom on a full disk."""
    with _writing(path) as handle:
        handle.write(text.encode())


def write_json(path: str | Path, value: Any) -> None:
    """Write a JSON file; see `write_text`."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def write_jsonl(path: str | Path, rows: Iterable[Any]) -> int:
    """Write a whole file of rows, one after the other; see `write_text`. Returns how many there were."""
    n = 0
    with _writing(path) as handle:
        for n, row in enumerate(rows, 1):  # noqa: B007 - the count is what is returned
            handle.write(as_lines([row]))
    return n


def append_line(path: str | Path, *rows: Any) -> None:
    """Append one or more rows to a file that only grows; they are on disk when this returns.

    An unfinished last line is cut off first, so that it cannot swallow the new row; if only its end is missing, it is
    ended. Raises OSError (NoRoom on a full disk), and then leaves none of the rows behind.
    """
    path, ending = Path(path), b""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+b", buffering=0) as handle:
        end = handle.seek(0, os.SEEK_END)
        handle.seek(max(0, end - 1))
        if handle.read(1) not in (b"", b"\n"):
            last = path.read_bytes().rpartition(b"\n")[2]
            try:
                json.loads(last)
                ending = b"\n"
            except ValueError:
                end = handle.truncate(end - len(last))
        append_bytes(handle, path, ending + as_lines(rows), end)


def as_lines(rows: Iterable[Any]) -> bytes:
    """Rows as JSON Lines."""
    return "".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in rows).encode()


def append_bytes(handle: FileIO, path: Path, data: bytes, end: int) -> int:
    """Write at offset `end`, flushed to disk, and return the new end; on an error the file ends at `end` again."""
    rest = memoryview(data)
    try:
        with room_at(path):
            while rest:
                rest = rest[handle.write(rest) :]
            os.fsync(handle.fileno())
    except BaseException:
        handle.truncate(end)
        raise
    return end + len(data)


@contextlib.contextmanager
def _writing(path: str | Path) -> Iterator[BinaryIO]:
    """A binary handle to a file beside `path`, which takes its place once the block ends well."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with room_at(path):
        try:
            with open(beside, "wb") as handle:
                yield handle
                handle.flush()
                os.fsync(handle.fileno())
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
            _sweep(path)


def _sweep(path: Path) -> None:
    """Remove what writers that were killed left beside `path` a day ago or earlier."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*"):
        with contextlib.suppress(OSError):  # another process is quicker
            if left.suffix[1:].isdecimal() and left.stat().st_mtime < time.time() - DAY:
                left.unlink()
