"""Runs model-written Python against assert statements, with no danger to the machine and no false pass.

    >>> run_tests("def add(a, b): return a + b", ["assert add(1, 2) == 3"])
    Verdict(passed=True, reason='')

*No forged verdict.* The test above is taken apart here: the program's process gets `add(1, 2)` and sends back a typed
value; this process compares it with the 3, which the other never saw. What stands around a call (`not`, `in`, `set(…)`,
`math.isclose(…)`) is evaluated in a second locked process that never held the program. To pass is to return the values.

*No danger.* A fresh interpreter per check: clean environment, temporary working directory, own session, killed as a
group; limits on memory, processor time, file size, descriptors and the answer; as root a user id of its own; Landlock
without any right; a seccomp filter that allows some 45 system calls, so that nothing is opened, connected, started or
signalled. What the program imports is imported before. `level` tries all that once per process and tells what holds.

What this does NOT stop:
- bugs in the kernel, and in the interpreter's parser, which reads the program before it is locked in;
- side channels of the hardware, and timing; a program that knows a test's arguments and answers them by rote;
- use of the processors and of 1 GiB per check until the time is up: a verdict near it depends on the machine's load;
- at a weak level, whatever `level` names, and processes that outlive the check.
Programs that need files, sockets, subprocesses, or packages beyond the standard library fail here. So does all code
outside Linux on x86_64 and aarch64, and if the kernel refuses: `run_tests` raises `SandboxError`.
Sources: https://github.com/google-research/google-research/tree/master/mbpp (tests and how they are run),
https://docs.kernel.org/userspace-api/landlock.html."""

import contextlib
import functools
import itertools
import json
import marshal
import math
import os
import platform
import select
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen
from typing import NamedTuple

from .asserts import MODULES, read_asserts, same
from .seccomp import make_filter

MEMORY = 1 << 30  # bytes of address space; the interpreter takes 30 MB of it, a thread up to 140
MAX_ANSWER = 1 << 20  # bytes that a program's process may send back in all
MAX_REASON = 400  # characters
LAYERS = ("uid", "landlock", "seccomp")
KINDS = ("files-read", "files-write", "network", "processes", "signals", "parent", "memory", "disk", "syscalls")
CHILD = Path(__file__).with_name("child.py")
_checks = itertools.count()


class SandboxError(RuntimeError):
    """Model-written code is not run on this machine; the text says why, in one line."""


class Verdict(NamedTuple):
    """Whether all tests passed; if not, what happened first (printable, at most MAX_REASON characters)."""

    passed: bool
    reason: str

    def __bool__(self) -> bool:
        return self.passed


def run_tests(code: str, tests: Sequence[str], *, setup: str = "", timeout_s: float = 10.0) -> Verdict:
    """Runs a program, then `setup` (MBPP's test_setup_code), and judges by the assert statements in `tests`.
    `timeout_s`: wall-clock seconds for start, program, calls; for asserts other than `call == literal`, as long again.
    Raises SandboxError if the code may not be run (ALLOW_WEAK_SANDBOX=1 in the environment runs it even if `level`
    names kinds that are not contained), ValueError for tests that cannot be judged: none at all, statements other than
    asserts, a call that depends on a lambda or comparing loop."""
    asserts = [a for test in tests for a in read_asserts(test)]
    if not asserts:
        raise ValueError("no assert statement to judge the program by")
    layers = _layers()
    job = {"code": str(code), "setup": str(setup), "calls": [c for a in asserts for c in a.calls]}  # no numpy strings
    values, error = _values(job, layers, timeout_s)
    if error:
        return Verdict(False, _printable(error))
    values = iter(values)
    answers = [list(itertools.islice(values, len(a.calls))) for a in asserts]
    for a, answer, holds in zip(asserts, answers, _judge(asserts, answers, layers, timeout_s), strict=True):
        if not holds:
            return Verdict(False, _printable(f"{', '.join(a.calls)} gave {json.dumps(answer)[1:-1]}"))
    return Verdict(True, "")


def level() -> str:
    """What contains a program here: "uid+seccomp", or "…; not contained: network, disk" with names of KINDS. Asked of a
    program that tries each kind, once per process (50 ms). Outside Linux nothing is contained."""
    held, leaks = _probed()
    return ("+".join(held) or "limits only") + (f"; not contained: {', '.join(leaks)}" if leaks else "")


def _judge(asserts, answers, layers, timeout_s):
    """For each assert whether it holds on the values that came back for its calls."""
    holds = [bool(a.literal) and same(answer[0], a.literal[0]) for a, answer in zip(asserts, answers, strict=True)]
    others = {i: f"bool(({a.condition})(*given[{i}]))" for i, a in enumerate(asserts) if not a.literal}
    if others:
        job = {"calls": list(others.values()), "given": json.dumps(answers)}
        for i, value in zip(others, _values(job, layers, timeout_s)[0], strict=False):
            holds[i] = value is True
    return holds


def _printable(text):
    return "".join(c if c.isprintable() else " " for c in text[:MAX_REASON])


def _values(job, layers, timeout_s):
    """Parsed values for job["calls"] as far as they came, and what stopped them, or ""."""
    lines, end = _ask({"layers": layers, "required": layers, **job}, timeout_s)
    if lines and not set(layers) <= set(json.loads(lines[0])):  # written before the program began
        raise SandboxError(f"not run: of the sandbox's layers {layers} only {lines[0].decode()} hold now")
    values, steps = [], ["before the tests", *job["calls"]]
    for step, line in itertools.zip_longest(steps, lines[1 : len(steps) + 1]):
        if line is None:
            return values[1:], f"{step}: {end or 'the process ended without an answer'}"
        try:
            kind, value = json.loads(line)
        except (ValueError, TypeError, RecursionError):
            kind, value = "error", "an answer that cannot be read"
        if kind != "value":
            return values[1:], f"{step}: {value}"
        values.append(value)
    return values[1:], ""


def _ask(job, timeout_s):
    """Run a job in a process of its own. Returns the whole lines of its answer and what ended it, or ""."""
    job = {"code": "", "setup": "", "given": "", "modules": MODULES, "memory": MEMORY, "filter": make_filter(), **job}
    # a user id that no other check has at the same time, so that neither limits nor signals are shared
    uid = 0x50000000 + os.getpid() % 0x10000 * 0x1000 + next(_checks) % 0x1000
    job |= {"cpu_s": math.ceil(timeout_s) + 1, "parent": os.getpid(), "uid": uid}
    deadline = time.monotonic() + timeout_s
    with contextlib.ExitStack() as stack:
        directory = tempfile.mkdtemp(prefix="reflectevo-")
        stack.callback(_remove, directory)
        process = _start(job, directory)
        stack.callback(_end, process)
        data, end = _read(process.stdout.fileno(), deadline, timeout_s)
    return data.split(b"\n", len(job["calls"]) + 3)[:-1], end


def _start(job, directory):
    command = [sys.executable, "-s", "-P", "-S", "-B", "-W", "ignore", "-X", "utf8", str(CHILD)]
    # -I but for its -E: PYTHONHASHSEED fixes the order of sets of strings; some clusters' Python needs LD_LIBRARY_PATH.
    env = {"PYTHONHASHSEED": "0"} | {k: v for k, v in os.environ.items() if k == "LD_LIBRARY_PATH"}
    with os.fdopen(os.memfd_create("job"), "w+b") as f:  # unlike a pipe it never blocks the writer
        marshal.dump(job, f)
        f.seek(0)
        return Popen(command, stdin=f, stdout=PIPE, stderr=DEVNULL, cwd=directory, env=env, start_new_session=True)


def _read(fd, deadline, timeout_s):
    """All bytes until the other side closes, the deadline or the cap; and which of the two latter it was."""
    data, poll = bytearray(), select.poll()
    poll.register(fd, select.POLLIN)
    while len(data) <= MAX_ANSWER:
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(math.ceil(left * 1000)):
            return bytes(data), f"no answer within {timeout_s:g} s"
        if not (chunk := os.read(fd, 1 << 16)):
            return bytes(data), ""
        data += chunk
    return bytes(data), f"an answer of more than {MAX_ANSWER >> 20} MB"


def _end(process):
    """Kill the group, whose number is its own until the leader has been waited for, and reap the leader."""
    with process:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()


def _remove(directory):
    """Remove a directory; at a weak level a program may have closed directories in it, or laid links."""
    for base, names, _ in os.walk(directory):  # top down; links are not followed
        for path in (os.path.join(base, name) for name in names):
            if not os.path.islink(path):
                with contextlib.suppress(OSError):
                    os.chmod(path, 0o700)
    shutil.rmtree(directory, ignore_errors=True)


PROBE = """
import ctypes, mmap, os, signal, socket
def write(directory):
    path = os.path.join(directory, ".reflectevo-probe-%d" % os.getpid())
    open(path, "w").close()
    os.unlink(path)
def connect():
    if socket.socket().connect_ex(("127.0.0.1", 9)) not in (0, 111): raise OSError
def fork():
    child = os.fork()
    if child == 0: os._exit(0)
    os.waitpid(child, 0)
def grow():
    with open("big", "wb") as f: os.pwrite(f.fileno(), b"x", 64 << 20)
def call():
    if ctypes.CDLL(None).personality(-1) < 0: raise OSError     # only asks; nothing needs it
def leaks(parent):
    tries = [*(("files-read", open, path) for path in ("/etc/passwd", os.__file__)),
             *(("files-write", write, path) for path in (".", "/tmp", "/var/tmp", "/dev/shm")),
             ("network", connect), ("processes", fork), ("signals", os.kill, parent, 0),
             ("parent", open, "/proc/%d/environ" % parent), ("memory", mmap.mmap, -1, 10 << 30),
             ("disk", grow), ("syscalls", call)]
    found = []
    for kind, act, *args in tries:
        try: act(*args)
        except (OSError, MemoryError): continue
        found.append(kind)
    return found
"""


@functools.cache
def _probed():
    """(layers that hold, kinds that are not contained), found by a program of ours that tries each kind."""
    if not sys.platform.startswith("linux"):
        return (), KINDS
    for wanted in (LAYERS, ("namespaces", *LAYERS)):  # namespaces are slow to make: only where needed
        job = {"layers": wanted, "required": (), "code": PROBE, "calls": [f"leaks({os.getpid()})"]}
        lines, _ = _ask(job, 30.0)
        try:
            held, _, (_, found) = (json.loads(line) for line in lines)
        except (ValueError, TypeError):  # it did not come to an end
            held, found = [], KINDS
        if not found:
            break
    return tuple(held), tuple(kind for kind in KINDS if kind in found)


def _layers():
    """The layers that every check must have. Raises SandboxError if they do not suffice."""
    if not sys.platform.startswith("linux"):
        raise SandboxError(f"model code runs on Linux only (Colab, a container, WSL 2), not on {platform.system()}")
    held, leaks = _probed()
    if leaks and os.environ.get("ALLOW_WEAK_SANDBOX") != "1":
        raise SandboxError(f"this machine cannot contain {', '.join(leaks)} (ALLOW_WEAK_SANDBOX=1 runs code anyway)")
    return held
