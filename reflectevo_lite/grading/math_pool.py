"""Are two mathematical answers the same, or does reasoning-gym's scorer accept one? Asked of worker processes, which
are reused, and killed if they take too long.

`multiprocessing` would import the caller's `__main__` again, which fails from notebooks and stdin, and a signal would
work in the main thread only. So a worker is a plain `python math_worker.py` that is sent JSON lines, and a timer kills
it. There are as many workers as threads that compare at the same time. They end with their input, so none outlives us.
"""

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from decimal import Decimal
from pathlib import Path

MAX_CHARS = 2000  # longer answers are wrong without a look
LIMIT_S = 4.0  # for one comparison
START_S = 90.0  # for importing sympy, on a busy machine

_INTEGER = re.compile(r"[+-]?\d+", re.ASCII)
_WORKER = str(Path(__file__).with_name("math_worker.py"))
_idle: list[subprocess.Popen] = []  # append and pop are safe among threads
_POOLS: dict[str, list[subprocess.Popen]] = {"math": _idle, "scored": []}


def same_math(gold: str, candidate: str) -> bool:
    """True if two short answers (LaTeX or plain) are the same mathematically; gold first, its form counts. Works from
    any thread, from notebooks and without an importable `__main__`. Takes about 1 ms, and at most 4 s (then False); the
    first call starts a worker, about 2 s more. Raises RuntimeError only if math-verify cannot be imported."""
    gold, candidate = str(gold).strip(), str(candidate).strip()
    if not gold or not candidate:
        return False
    if gold == candidate:
        return len(gold) <= MAX_CHARS or bool(_INTEGER.fullmatch(gold))
    if _INTEGER.fullmatch(gold) and _INTEGER.fullmatch(candidate):  # the usual case, soon told, of any length
        return Decimal(gold) == Decimal(candidate)
    if max(len(gold), len(candidate)) > MAX_CHARS:
        return False
    start = time.monotonic()
    answer = _ask("math", [gold, candidate])
    if not answer and time.monotonic() - start < LIMIT_S / 2:  # it died by itself, or of the last timer
        answer = _ask("math", [gold, candidate])
    return answer == "true"


def scores_full(generator: list, entry: object, answer: str) -> bool:
    """True if reasoning-gym's `generator` ([task, configuration]) gives an answer to `entry` its full score.

    At most 4 s, then False; the first call starts a worker, about 2 s more. RuntimeError without the package.
    """
    return _ask("scored", [generator, entry, answer[-MAX_CHARS:]]) == "true"


def _ask(kind: str, message: object) -> str:
    """`true`, `false`, or nothing if the worker died or was killed."""
    try:
        worker = _POOLS[kind].pop()
    except IndexError:
        worker = _start(kind)
    answer = ""
    try:
        with contextlib.suppress(OSError):
            worker.stdin.write(json.dumps(message) + "\n")
            worker.stdin.flush()
            answer = _read(worker, LIMIT_S)
    finally:  # after Ctrl-C its answer would be the next one's
        if answer:
            _POOLS[kind].append(worker)
        else:
            _end(worker)
    return answer


def _start(kind: str) -> subprocess.Popen:
    worker = subprocess.Popen(
        [sys.executable, "-P", "-X", "utf8", _WORKER, kind],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
        start_new_session=True,  # Ctrl-C is for us alone
    )
    if _read(worker, START_S) != "ready":
        _end(worker)
        raise RuntimeError(f"no {kind} worker starts; look at: {sys.executable} -P {_WORKER} {kind} < {os.devnull}")
    return worker


def _read(worker: subprocess.Popen, limit_s: float) -> str:
    timer = threading.Timer(limit_s, worker.kill)
    timer.daemon = True
    timer.start()
    try:
        return worker.stdout.readline().strip()
    finally:
        timer.cancel()


def _end(worker: subprocess.Popen) -> None:
    with contextlib.suppress(OSError), worker:  # closes the pipes; what a dead process did not read is no error
        worker.kill()


if hasattr(os, "register_at_fork"):
    # the pipes belong to the parent
    os.register_at_fork(after_in_child=lambda: [pool.clear() for pool in _POOLS.values()])
