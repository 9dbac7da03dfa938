"""Worker processes for `grading.same_math`: started when needed, reused, killed when a comparison takes too
long.

`multiprocessing` would import the caller's `__main__` again, which fails from notebooks and stdin, and a
signal would work in the main thread only. So a worker is a plain `python math_worker.py` that is sent JSON
lines, and a timer kills it. There are as many workers as threads that compare at the same time. They end with
their input, so none outlives us.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

MAX_CHARS = 2000  # longer answers are wrong without a look
LIMIT_S = 4.0  # for one comparison
START_S = 90.0  # for importing sympy, on a busy machine

_WORKER = str(Path(__file__).with_name("math_worker.py"))
_idle: list[_Worker] = []
_lock = threading.Lock()


class _Worker:
    """One process and its pipes."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-X", "utf8", _WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
            start_new_session=True,
        )  # Ctrl-C is for us alone
        if self._read(START_S).strip() != "ready":
            self.close()
            raise RuntimeError(f"no math worker starts; look at: {sys.executable} -c 'import math_verify'")

    def ask(self, gold: str, candidate: str) -> str:
        """`true`, `false`, or nothing if the worker died or was killed."""
        try:
            self.process.stdin.write(json.dumps([gold, candidate]) + "\n")
            self.process.stdin.flush()
        except OSError:
            return ""
        return self._read(LIMIT_S)

    def _read(self, limit_s: float) -> str:
        timer = threading.Timer(limit_s, self.process.kill)
        timer.daemon = True
        timer.start()
        try:
            return self.process.stdout.readline()
        finally:
            timer.cancel()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):  # unsent input of a dead process
                pipe.close()


def same(gold: str, candidate: str) -> bool:
    """Compares in a worker; False if it takes longer than LIMIT_S.

    Raises RuntimeError if no worker can be started.
    """
    start = time.monotonic()
    answer = _ask(gold, candidate)
    if not answer and time.monotonic() - start < LIMIT_S / 2:  # it died by itself, or of the last timer
        answer = _ask(gold, candidate)
    return answer == "true"


def _ask(gold: str, candidate: str) -> str:
    with _lock:
        worker = _idle.pop() if _idle else None
    worker = worker or _Worker()
    answer = ""
    try:
        answer = worker.ask(gold, candidate).strip()
    finally:  # after Ctrl-C its answer would be the next one's
        if answer:
            with _lock:
                _idle.append(worker)
        else:
            worker.close()
    return answer


def close() -> None:
    """Ends all idle workers; the next comparison starts a new one."""
    with _lock:
        workers, _idle[:] = list(_idle), []
    for worker in workers:
        worker.close()


def _forget() -> None:
    """In a forked child: the pipes belong to the parent."""
    global _lock
    _lock = threading.Lock()
    _idle.clear()


atexit.register(close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
