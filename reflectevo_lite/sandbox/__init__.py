"""Model-written code, run where it can do no harm, and its tests, judged where it cannot forge the verdict."""

from .parent import SandboxError, Verdict, level, run_tests

__all__ = ["SandboxError", "Verdict", "level", "run_tests"]
