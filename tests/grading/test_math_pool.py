"""The worker processes of `same_math`: they end in time, run at once, and belong to one process."""

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import ROOT

from reflectevo_lite.grading import Grade, grade_many, math_pool, same_math


def run_python(code, *arguments):
    return subprocess.run(
        [sys.executable, *arguments], input=code, text=True, capture_output=True, cwd=ROOT, timeout=60
    )


def test_a_tower_of_powers_ends_in_time_and_costs_no_other_answer():
    start = time.monotonic()
    assert same_math("5", "9^{9^{9^9}}") is False
    assert time.monotonic() - start < 2 * math_pool.LIMIT_S
    assert same_math("5", "10/2") is True


def test_two_workers_run_at_once(monkeypatch):
    both, read = threading.Barrier(2, timeout=30), math_pool._read

    def wait_for_both(worker, limit_s):
        if limit_s == math_pool.LIMIT_S:  # asked, not started
            both.wait()
        return read(worker, limit_s)

    monkeypatch.setattr(math_pool, "_read", wait_for_both)
    rows = [{"id": "p", "grader": "math", "answer": "2x"}] * 2
    assert grade_many(rows, ["Answer: x+x", "Answer: x+1"], workers=2, progress=False) == [
        Grade(True, "x+x"),
        Grade(False, "x+1"),
    ]


def test_threads_agree_with_the_main_thread():
    pairs = [("x^2-1", f"(x-1)(x+{i})") for i in range(12)]
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(lambda pair: same_math(*pair), pairs)) == [i == 1 for i in range(12)]


def test_a_script_without_a_file_can_compare():
    """As a notebook and stdin have none, whatever imports `__main__` again fails there."""
    done = run_python("from reflectevo_lite.grading import same_math\nprint(same_math('x+x', '2x'))", "-")
    assert done.stdout.strip() == "True", done.stderr


def test_no_worker_outlives_its_parent():
    code = (
        "import os, signal\nfrom reflectevo_lite import grading\n"
        "grading.same_math('x+x', '2x')\n"
        "print(grading.math_pool._idle[0].pid, flush=True)\nos.kill(os.getpid(), signal.SIGKILL)"
    )
    pid = int(run_python(code, "-").stdout)
    for _ in range(50):
        stat = Path(f"/proc/{pid}/stat")
        if not stat.exists() or stat.read_text(encoding="utf-8").split()[2] == "Z":
            return
        time.sleep(0.1)
    pytest.fail("the worker still runs")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_does_not_share_the_workers():
    same_math("x+x", "2x")
    child = os.fork()
    if child == 0:
        os._exit(0 if not math_pool._idle and same_math("y+y", "2y") else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert same_math("x+x", "3x") is False


def test_the_import_is_light():
    code = (
        "import sys, reflectevo_lite.grading\n"
        "print([m for m in ('sympy', 'math_verify', 'torch', 'tqdm', 'reflectevo_lite.sandbox') if m in sys.modules])"
    )
    assert run_python(code, "-").stdout.strip() == "[]"
