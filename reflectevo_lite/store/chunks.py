"""JSON Lines files that grow by chunks. A run that is cut off goes on after the last whole chunk, to the same bytes.

One process at a time writes: the open file is locked, and the lock ends with the process, however it dies."""

import contextlib
import json
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from .files import append_bytes, as_lines, write_json

try:
    import fcntl
except ImportError:  # Windows has no advisory locks
    fcntl = None  # type: ignore[assignment]

OTHER_FILE = "choose another run directory (or file), or redo it with `reflectevo run … --force`"
_held: set[int] = set()  # descriptors of locked files
Listener = Callable[[int, list[Any]], None]  # hears of a chunk's number and rows


def append_chunks(
    path: str | Path, chunks: int, make: Callable[[int], Iterable[Any]], size: int, on_chunk: Listener | None = None
) -> None:
    """Append chunk after chunk of rows, resuming after the last whole one; one chunk is in memory at a time. `make(i)`
    returns the `size` rows of chunk i (the last may hold fewer) and must depend on i alone. `on_chunk(i, rows)` hears
    of every chunk in order, those on disk included; what it raises about these leaves the file as it is. A finished
    file has a marker beside it. Raises InUse if another process appends to the file, NoRoom on a full disk, ValueError
    if it was made of other chunks or a row amid it is damaged; it is left with whole chunks in any case."""
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
    """The file that says that a chunked file is finished; it counts only while it agrees with that file."""
    return Path(path).with_suffix(".done")


def finished(path: str | Path) -> dict[str, int] | None:
    """What a chunked file's marker says: chunks, size, bytes. None if it is missing or disagrees with the file."""
    try:
        said = json.loads(marker(path).read_bytes())
        fits = said.keys() >= {"chunks", "size", "bytes"} and said["bytes"] == Path(path).stat().st_size
    except (OSError, ValueError, AttributeError):
        return None
    return said if fits else None


def _tell_finished(path: Path, chunks: int, size: int, hear: Listener) -> bool:
    """If the file is finished, let `hear` hear of its chunks. Raises ValueError if they are not those asked for."""
    if (said := finished(path)) is None:
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
                after = sum(line.endswith(b"\n") for line in lines)
                if len(rows) + 1 + after <= size:  # a torn tail, of one chunk: it is made again
                    break
                raise ValueError(
                    f"{path}, line {i * size + len(rows) + 1}: not a JSON row, with {after} more after it. Put the file"
                    f" back as it was, or cut it there (`head -n {i * size}`): the same command makes the rest again"
                ) from None
            if len(rows) == size:
                yield i, rows, end
                rows, i = [], i + 1
    if rows and short:
        yield i, rows, end


class InUse(RuntimeError):
    """Another process is writing here."""


@contextlib.contextmanager
def locked(handle: IO[Any], what: str | Path) -> Iterator[None]:
    """Keep other processes out of an open file until the block ends or the file is closed. Raises InUse, naming `what`
    and the process that holds it; on a file system without locks it warns. (filelock before 4 empties files.)"""
    try:
        if fcntl:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InUse(f"{what} is in use by {_holder(handle)}: wait for it, or choose another run_dir") from None
    except OSError as error:  # some network file systems
        warnings.warn(f"{what}: no locks here ({error.strerror}); see that one process works on it", stacklevel=3)
    _held.add(fd := handle.fileno())
    try:
        yield
    finally:
        _held.discard(fd)
        with contextlib.suppress(OSError, ValueError, AttributeError):  # no locks; closed; no fcntl
            fcntl.flock(handle, fcntl.LOCK_UN)


def _holder(handle: IO[Any]) -> str:
    by_inode = rf"^\d+: FLOCK +\w+ +\w+ +(\d+) \S+:{os.fstat(handle.fileno()).st_ino} "
    with contextlib.suppress(OSError):
        if found := re.search(by_inode, Path("/proc/locks").read_text(encoding="utf-8"), re.MULTILINE):
            return f"process {found[1]}"
    return "another process"


def _give_up_locks() -> None:  # in a forked child, for a lock lasts as long as any process has the descriptor
    for fd in _held:
        with contextlib.suppress(OSError), open(os.devnull, "r+b", buffering=0) as null:
            os.dup2(null.fileno(), fd, inheritable=False)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_give_up_locks)
