"""Model-written code, run where it can do no harm, and its tests, judged where it cannot forge the verdict.

In come Python source and assert statements; out goes a Verdict. `parent.py` asks and judges, `child.py` is locked."""

from .asserts import read_asserts
from .parent import SandboxError, Verdict, level, run_tests
