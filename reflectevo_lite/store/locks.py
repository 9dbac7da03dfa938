"""Locks on open files, so that one process at a time writes. They end with the process, however it dies.

The data file itself is locked, so nothing is left beside it. The filelock library can do that from version 4 on only:
older ones empty the file that they lock, and forked children keep it locked.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows has no advisory locks
    fcntl = None  # type: ignore[assignment]

_held: set[int] = set()  # descriptors


class InUse(RuntimeError):
    """Another process is writing here."""


@contextlib.contextmanager
def locked(handle: IO[Any], what: str | Path) -> Iterator[None]:
    """Keep other processes out of an open file until the block ends or the file is closed.

    Raises InUse, naming `what` and the process that holds it. On a file system without locks it warns and goes on.
    """
    try:
        if fcntl:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InUse(f"{what} is in use by {_holder(handle)}: wait for it, or choose another run_dir") from None
    except OSError as error:  # some network file systems
        reason = f"this file system has no locks ({error.strerror})"
        warnings.warn(f"{what}: {reason}; see that one process works here", stacklevel=3)
    _held.add(fd := handle.fileno())
    try:
        yield
    finally:
        _held.discard(fd)
        with contextlib.suppress(OSError, ValueError, AttributeError):  # no locks; closed; no fcntl
            fcntl.flock(handle, fcntl.LOCK_UN)


def _holder(handle: IO[Any]) -> str:
    """The process that holds a file's lock, from Linux's table of locks."""
    inode = str(os.fstat(handle.fileno()).st_ino)
    with contextlib.suppress(OSError):
        for fields in map(str.split, Path("/proc/locks").read_text(encoding="utf-8").splitlines()):
            if fields[1] == "FLOCK" and fields[5].split(":")[-1] == inode:
                return f"process {fields[4]}"
    return "another process"


def _give_up_locks() -> None:
    """In a forked child: let go of the descriptors, for a lock lasts as long as any process has one."""
    for fd in _held:
        with contextlib.suppress(OSError), open(os.devnull, "r+b", buffering=0) as null:
            os.dup2(null.fileno(), fd, inheritable=False)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_give_up_locks)
