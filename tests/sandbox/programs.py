"""For the tests of the sandbox: how they run programs, and on which machines."""

import contextlib
import sys
from pathlib import Path

import pytest

from reflectevo_lite import sandbox
from reflectevo_lite.sandbox.parent import CHILD

LIMIT_S = 5.0
on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the sandbox is for Linux")
contained = pytest.mark.skipif("not contained" in sandbox.level(), reason=f"this machine's level is {sandbox.level()}")


def passes(code, *tests, **more):
    return sandbox.run_tests(code, list(tests), timeout_s=LIMIT_S, **more).passed


def returns(expression):
    """A program whose f(x) gives the expression; it is evaluated at each call."""
    return f"import collections, decimal, fractions\ndef f(x): return {expression}\n"


def children():
    """Process ids of the sandbox's processes that are there now, whoever started them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if str(CHILD).encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found
