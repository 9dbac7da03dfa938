"""Runs model-written Python against assert statements, with no danger to the machine and no false pass.

    >>> run_tests("def add(a, b): return a + b", ["assert add(1, 2) == 3"])
    Verdict(passed=True, reason='')

*No forged verdict.* The test above is taken apart here: the program's process gets `add(1, 2)` and sends
back a typed value; this process compares it with the 3, which the other never saw. What stands around a
call (`not`, `in`, `set(…)`, `math.isclose(…)`) is evaluated on the plain values, in a second locked process
that never held the program. There is no result to steal, patch or print: to pass is to return the values.

*No danger.* A fresh interpreter per check: clean environment, temporary working directory, own session,
killed as a group; limits on memory, processor time, file size and descriptors; a cap on the answer; as
root a user id of its own; Landlock without any right; a seccomp filter that allows some 45 system calls
(memory, clocks, threads, descriptors already open) and refuses all others, so that nothing is opened,
connected, started or signalled. What the program imports from the standard library is imported before.
`level` tries all that once per process and tells what truly held.

What this does NOT stop:
- bugs in the kernel, and in the interpreter's parser, which reads the program before it is locked in;
- side channels of the hardware, and timing;
- the use of the processors and of 1 GiB of memory until the time is up: a verdict near the time limit
  depends on what else the machine does, and several checks at a time need memory for each;
- a program that knows a test's arguments and answers them by rote;
- at a weak level, whatever `level` names, and processes that outlive the check.
Programs that need files, sockets, subprocesses, or packages beyond the standard library fail here.

Linux on x86_64 and aarch64. Elsewhere, and where the kernel refuses, `run_tests` raises `SandboxError`.
Sources: https://github.com/google-research/google-research/tree/master/mbpp (tests and how they are run),
https://man7.org/linux/man-pages/man2/seccomp.2.html, https://docs.kernel.org/userspace-api/landlock.html.
"""

import ast
import builtins
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
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from .child import decode

MEMORY = 1 << 30  # bytes of address space; the interpreter takes 30 MB of it, a thread up to 140
MAX_ANSWER = 1 << 20  # bytes that a program's process may send back in all
MAX_REASON = 400  # characters
LAYERS = ("uid", "landlock", "seccomp")
KINDS = ("files-read", "files-write", "network", "processes", "signals", "parent", "memory", "disk", "syscalls")
MODULES = ("math", "cmath", "collections", "itertools", "re")  # what asserts may use around the calls
CHILD = Path(__file__).with_name("child.py")

# System calls that remain, as (x86_64, aarch64) numbers: none takes a path, an address or another's id.
ALLOWED = {
    "read": (0, 63),
    "write": (1, 64),
    "futex": (202, 98),
    "mmap": (9, 222),
    "munmap": (11, 215),
    "mremap": (25, 216),
    "brk": (12, 214),
    "mprotect": (10, 226),
    "madvise": (28, 233),
    "close": (3, 57),
    "fstat": (5, 80),
    "lseek": (8, 62),
    "pread64": (17, 67),
    "writev": (20, 66),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "getitimer": (36, 102),
    "setitimer": (38, 103),
    "alarm": (37, None),
    "nanosleep": (35, 101),
    "clock_nanosleep": (230, 115),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "gettimeofday": (96, 169),
    "time": (201, None),
    "times": (100, 153),
    "getrusage": (98, 165),
    "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123),
    "getpid": (39, 172),
    "gettid": (186, 178),
    "getuid": (102, 174),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getegid": (108, 177),
    "uname": (63, 160),
    "getrandom": (318, 278),
    "set_robust_list": (273, 99),
    "rseq": (334, 293),
    "set_tid_address": (218, 96),
    "restart_syscall": (219, 128),
    "exit": (60, 93),
    "exit_group": (231, 94),
}
CLONE, CLONE3 = (56, 220), (435, 435)
MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column above, AUDIT_ARCH_*


class SandboxError(RuntimeError):
    """Model-written code is not run on this machine; the text says why, in one line."""


class Verdict(NamedTuple):
    """Whether all tests passed; if not, what happened first (printable, at most MAX_REASON characters)."""

    passed: bool
    reason: str

    def __bool__(self):
        return self.passed


def run_tests(code, tests, *, setup="", timeout_s=10.0, allow_weak_sandbox=None):
    """Run a program and judge it by assert statements.

    code, setup: Python source; the setup (MBPP's test_setup_code) runs after the program, beside it.
    tests: a list of sources, each of one or more assert statements; all must hold.
    timeout_s: wall-clock seconds for start, program and calls together; for asserts that are more than
        `call == literal`, as long again at most.
    allow_weak_sandbox: True runs the code even where `level` names kinds that are not contained; None asks
        the environment (ALLOW_WEAK_SANDBOX=1).

    Returns a Verdict. Raises SandboxError where the code may not be run, ValueError for tests that cannot be
    judged: none at all, statements other than asserts, a call that depends on a lambda or comparing loop.
    """
    asserts = [a for test in tests for a in _asserts(test)]
    if not asserts:
        raise ValueError("no assert statement to judge the program by")
    layers = _layers(allow_weak_sandbox)
    calls = [call for a in asserts for call in a.calls]
    program = {"code": str(code), "setup": str(setup)}  # numpy's strings do not travel
    values, error = _values({**program, "calls": calls}, layers, timeout_s)
    if error:
        return Verdict(False, _printable(error))
    values = iter(values)
    answers = [list(itertools.islice(values, len(a.calls))) for a in asserts]
    for a, answer, holds in zip(asserts, answers, _judge(asserts, answers, layers, timeout_s), strict=True):
        if not holds:
            return Verdict(False, _printable(f"{', '.join(a.calls)} gave {json.dumps(answer)[1:-1]}"))
    return Verdict(True, "")


def level():
    """What contains a program here: "uid+seccomp", or "…; not contained: network, disk" with names of KINDS.

    Found by a program that tries each kind, once per process (50 ms). Outside Linux nothing is contained.
    """
    held, leaks = _probed()
    return ("+".join(held) or "limits only") + (f"; not contained: {', '.join(leaks)}" if leaks else "")


# ---------------------------------------------------------------- tests: what is asked, what is judged
class _Assert(NamedTuple):
    calls: list  # sources that the program's process evaluates
    rest: str  # the condition, with _0, _1 … where their values go
    literal: tuple  # (value,) where the condition is `call == literal`, else ()


class _Split(ast.NodeTransformer):
    """Takes the expressions that need the program out of a condition and leaves _0, _1 … for them."""

    def __init__(self, condition):
        self.calls = []
        names = [n for n in ast.walk(condition) if isinstance(n, ast.Name)]
        self.own = {n.id for n in names if isinstance(n.ctx, ast.Store)}  # variables of loops and lambdas
        self.own |= {n.arg for n in ast.walk(condition) if isinstance(n, ast.arg)}
        self.asked = None if any(map(self._asks, names)) else _first_call(condition)

    def visit(self, node):
        whole = isinstance(node, (ast.ListComp, ast.SetComp, ast.DictComp)) and self._only_calls(node)
        if node is self.asked or whole or self._asks(_root(node)):
            if not whole and self.own & {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}:
                raise ValueError(f"cannot judge {ast.unparse(node)[:100]!r}, a call inside a lambda or loop")
            self.calls.append(ast.unparse(node))
            return ast.Name(f"_{len(self.calls) - 1}", ast.Load())
        return self.generic_visit(node)

    def _asks(self, node):
        """Whether this is a name that only the program can have defined."""
        known = {*dir(builtins), *MODULES, *self.own}
        return isinstance(node, ast.Name) and node.id not in known

    def _only_calls(self, loop):
        """Whether a loop asks the program and compares nothing, so that it can go there as a whole."""
        nodes = list(ast.walk(loop))
        return any(map(self._asks, nodes)) and not any(isinstance(n, ast.Compare) for n in nodes)


def _root(node):
    while isinstance(node, (ast.Call, ast.Attribute, ast.Subscript)):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node


def _first_call(condition):
    """The call of the program where all names are built-in ones: MBPP has functions named sum and max."""
    calls = [n for n in ast.walk(condition) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]
    around = ("set", "list", "tuple", "dict", "sorted", "abs", "round", "len", "str")
    return min(calls, key=lambda n: (n.func.id in around, not all(map(_literal, n.args))), default=None)


def _literal(node):
    """(value,) of a literal, () of any other expression."""
    try:
        return (ast.literal_eval(node),)
    except (ValueError, TypeError):
        return ()


def _asserts(test):
    try:
        statements = ast.parse(test.strip()).body
    except SyntaxError as e:
        raise ValueError(f"cannot judge {test[:100]!r}: {e}") from None
    for statement in statements:
        if not isinstance(statement, ast.Assert):
            raise ValueError(f"cannot judge {test[:100]!r}: not an assert statement")
        split = _Split(statement.test)
        rest = ast.fix_missing_locations(split.visit(statement.test))
        if not split.calls:
            raise ValueError(f"cannot judge {test[:100]!r}: it asks nothing of the program")
        yield _Assert(split.calls, ast.unparse(rest), _expected(rest))


def _expected(rest):
    if isinstance(rest, ast.Compare) and len(rest.ops) == 1 and isinstance(rest.ops[0], ast.Eq):
        left, right = rest.left, rest.comparators[0]
        if isinstance(left, ast.Name) or isinstance(right, ast.Name):
            return _literal(right if isinstance(left, ast.Name) else left)
    return ()


def _judge(asserts, answers, layers, timeout_s):
    """For each assert whether it holds on the values that came back for its calls."""
    holds = [bool(a.literal) and _same(answer[0], a.literal[0]) for a, answer in zip(asserts, answers, strict=True)]
    others = {}
    for i, a in enumerate(asserts):
        if not a.literal:
            names = ", ".join(f"_{k}" for k in range(len(a.calls)))
            others[i] = f"bool((lambda {names}: {a.rest})(*given[{i}]))"
    if others:
        job = {"calls": list(others.values()), "given": json.dumps(answers)}
        for i, value in zip(others, _values(job, layers, timeout_s)[0], strict=False):
            holds[i] = value is True
    return holds


def _same(wire, want):
    """Whether a value as it travels equals `want`, as == says. Builds no more than one number or string:
    a set or dict of hostile members (with colliding hashes) can take minutes to build."""
    kind, body = "", None
    try:
        if isinstance(wire, dict):
            ((kind, body),) = wire.items()
        elif isinstance(wire, list):
            kind, body = "list", wire
        if kind in ("list", "tuple"):
            return type(want).__name__ == kind and len(body) == len(want) and all(map(_same, body, want))
        if kind in ("set", "frozenset"):  # of equal size, and no two members of `want` are equal
            return (
                isinstance(want, (set, frozenset))
                and len(body) == len(want)
                and all(any(_same(b, w) for b in body) for w in want)
            )
        if kind == "dict":
            return (
                isinstance(want, dict)
                and len(body) == len(want)
                and all(any(_same(k, w) and _same(v, want[w]) for k, v in body) for w in want)
            )
        return bool(decode(wire) == want)
    except Exception:  # nothing that `encode` wrote
        return False


# ---------------------------------------------------------------- one process
def _values(job, layers, timeout_s):
    """Parsed values for job["calls"] as far as they came, and what stopped them, or ""."""
    lines, end = _ask({"layers": layers, "required": layers, **job}, timeout_s)
    if lines and not set(layers) <= set(json.loads(lines[0])):  # written before the program began
        raise SandboxError(f"not run: of the sandbox's layers {layers} only {lines[0].decode()} hold now")
    values, steps = [], ["before the tests", *job["calls"]]
    for line in lines[1 : len(steps) + 1]:
        try:
            kind, value = json.loads(line)
        except (ValueError, TypeError, RecursionError):
            kind, value = "error", "an answer that cannot be read"
        if kind != "value":
            return values[1:], f"{steps[len(values)]}: {value}"
        values.append(value)
    if len(values) < len(steps):
        return values[1:], f"{steps[len(values)]}: {end or 'the process ended without an answer'}"
    return values[1:], ""


def _ask(job, timeout_s):
    """Run a job in a process of its own. Returns the whole lines of its answer and what ended it, or ""."""
    job = {
        "code": "",
        "setup": "",
        "given": "",
        "modules": MODULES,
        "memory": MEMORY,
        "filter": _filter(),
        "cpu_s": math.ceil(timeout_s) + 1,
        "parent": os.getpid(),
        "uid": _new_uid(),
        **job,
    }
    deadline = time.monotonic() + timeout_s
    directory = tempfile.mkdtemp(prefix="reflectevo-")
    try:
        process = _start(job, directory)
        try:
            data, end = _read(process.stdout.fileno(), deadline)
        finally:
            _end(process)
    finally:
        _remove(directory)
    end = f"no answer within {timeout_s:g} s" if end == "timeout" else end
    return data.split(b"\n", len(job["calls"]) + 3)[:-1], end


def _start(job, directory):
    # -I is -E -P -s. Here -E is left out: the environment is made below, and PYTHONHASHSEED fixes the order
    # of sets of strings, so that a program gets the same verdict each time.
    command = [sys.executable, "-s", "-P", "-S", "-B", "-W", "ignore", "-X", "utf8", str(CHILD)]
    environment = {"PYTHONHASHSEED": "0"}
    if "LD_LIBRARY_PATH" in os.environ:  # some clusters' Python does not start without it
        environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
    with os.fdopen(os.memfd_create("job"), "w+b") as f:  # unlike a pipe it never blocks the writer
        marshal.dump(job, f)
        f.seek(0)
        return subprocess.Popen(
            command,
            stdin=f,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=directory,
            env=environment,
            start_new_session=True,
        )


_checks = itertools.count()


def _new_uid():
    """A user id that no other check has at the same time, so that neither limits nor signals are shared."""
    return 0x50000000 + os.getpid() % 0x10000 * 0x1000 + next(_checks) % 0x1000


def _read(fd, deadline):
    """All bytes until the other side closes, the deadline or the cap; and which of the two latter it was."""
    data, poll = bytearray(), select.poll()
    poll.register(fd, select.POLLIN)
    while len(data) <= MAX_ANSWER:
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(math.ceil(left * 1000)):
            return bytes(data), "timeout"
        chunk = os.read(fd, 1 << 16)
        if not chunk:
            return bytes(data), ""
        data += chunk
    return bytes(data), f"an answer of more than {MAX_ANSWER >> 20} MB"


def _end(process):
    """Kill the group, whose number is its own until the leader has been waited for, and reap the leader."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()
    process.stdout.close()


def _remove(directory):
    """Remove a directory; at a weak level a program may have closed directories in it, or laid links."""
    for base, names, _ in os.walk(directory):  # top down; links are not followed
        for path in (os.path.join(base, name) for name in names):
            if not os.path.islink(path):
                with contextlib.suppress(OSError):
                    os.chmod(path, 0o700)
    shutil.rmtree(directory, ignore_errors=True)


def _printable(text):
    return "".join(c if c.isprintable() else " " for c in text[:MAX_REASON])


# ---------------------------------------------------------------- the filter, and what truly holds
@functools.cache
def _filter():
    """The seccomp filter (struct sock_filter of linux/filter.h), b"" for a machine without a table.

    Of clone only threads are left. clone3 hides its flags from a filter and is said not to exist, upon which
    the C library takes clone. Calls in another architecture's way kill; x32 calls have numbers of their own.
    """
    column, arch = MACHINES.get(platform.machine(), (None, None))
    if column is None or sys.maxsize < 2**32 or sys.byteorder != "little":
        return b""
    load, equal, has_bits, give = 0x20, 0x15, 0x45, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ, BPF_JMP|JSET, BPF_RET
    allow, kill, refuse, absent = 0x7FFF0000, 0x80000000, 0x50000 | 1, 0x50000 | 38  # EPERM, ENOSYS
    code = [(load, 0, 0, 4), (equal, 1, 0, arch), (give, 0, 0, kill), (load, 0, 0, 0)]
    for numbers in ALLOWED.values():
        if numbers[column] is not None:
            code += [(equal, 0, 1, numbers[column]), (give, 0, 0, allow)]
    code += [
        (equal, 0, 1, CLONE3[column]),
        (give, 0, 0, absent),
        (equal, 1, 0, CLONE[column]),
        (give, 0, 0, refuse),
        (load, 0, 0, 16),
        (has_bits, 0, 1, 0x10000),
        (give, 0, 0, allow),
        (give, 0, 0, refuse),
    ]
    return b"".join(struct.pack("HBBI", *instruction) for instruction in code)


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


def _layers(allow_weak):
    """The layers that every check must have. SandboxError where they don't do and weakness isn't allowed."""
    if not sys.platform.startswith("linux"):
        raise SandboxError(
            f"model-written code is only run on Linux, and this is {platform.system()}: "
            "use Colab, a container, or WSL 2"
        )
    held, leaks = _probed()
    if allow_weak is None:
        allow_weak = os.environ.get("ALLOW_WEAK_SANDBOX") == "1"
    if leaks and not allow_weak:
        raise SandboxError(
            f"model-written code is not run: this machine cannot contain {', '.join(leaks)} "
            "(allow_weak_sandbox: true, or ALLOW_WEAK_SANDBOX=1, runs it all the same)"
        )
    return held
