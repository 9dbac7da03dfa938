"""Whole files and JSON Lines. A whole file is written beside its place and renamed: no reader sees half of one."""

import contextlib
import copy
import errno
import glob
import itertools
import json
import os
import time
from array import array
from collections.abc import Iterable, Iterator, Sequence
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
GOES_ON = "What was finished is kept; the same command goes on from there once there is room"


class NoRoom(OSError):
    """The disk is full, or a quota or limit is reached."""


@contextlib.contextmanager
def room_at(path: Path) -> Iterator[None]:
    """Turn the system's errors of a full disk into one NoRoom that names `path`."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise NoRoom(f"{path}: no room to write ({error.strerror}). {GOES_ON}") from error


def read_jsonl(path: str | Path) -> list[Any]:
    """All rows of a file, as from `Rows`."""
    return list(Rows(path))


def iter_jsonl(path: str | Path) -> Iterator[Any]:
    """Rows of a file one by one, as from `Rows`."""
    return iter(Rows(path))


class Rows(Sequence):
    """The rows of a JSON Lines file, left on disk: a read-only sequence that takes 8 bytes of memory a row. A slice is
    another view. An unfinished last line (a killed writer's) is left out; rows appended later are not seen, and the
    file must not change otherwise. Raises FileNotFoundError, and ValueError naming the line that is not JSON."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        with open(path, "rb") as lines:
            sizes = (len(line) for line in lines if line.endswith(b"\n"))
            self._starts = array("Q", itertools.accumulate(sizes, initial=0))
        self._places = range(len(self._starts) - 1)

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
                try:
                    row = json.loads(handle.readline())
                except ValueError as error:
                    fault = f"not a JSON row ({error}); mend or delete that line"
                    raise ValueError(f"{self.path}, line {place + 1}: {fault}") from error
                yield row

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))


def write_text(path: str | Path, text: str) -> None:
    """Write a whole file and flush it to disk. Raises NoRoom on a full disk."""
    with _writing(path) as handle:
        handle.write(text.encode())


def read_json(path: Path) -> Any:
    """What a JSON file holds. Raises ValueError naming a file that is torn or something else."""
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}): put it back, or delete it and redo its notebook") from error


def write_json(path: str | Path, value: Any) -> None:
    """Write a JSON file, as `write_text` does."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def write_jsonl(path: str | Path, rows: Iterable[Any]) -> int:
    """Write a whole file of rows, one in memory at a time, as `write_text` does. Returns how many there were."""
    with _writing(path) as handle:
        sizes = [handle.write(as_lines([row])) for row in rows]
    return len(sizes)


def append_line(path: str | Path, *rows: Any) -> None:
    """Append rows to a file that only grows, and flush them to disk. An unfinished last line is cut off first, or ended
    if only its end is missing. Raises OSError (NoRoom on a full disk), and then leaves none of the rows behind."""
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
    """Rows as lines of JSON."""
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
            for left in path.parent.glob(f".{glob.escape(path.name)}.*"):  # of killed writers, a day ago or earlier
                with contextlib.suppress(OSError):  # another process is quicker
                    if left.suffix[1:].isdecimal() and left.stat().st_mtime < time.time() - 24 * 60 * 60:
                        left.unlink()
