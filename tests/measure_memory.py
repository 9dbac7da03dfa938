"""Peak memory of generation and curation at 2,000 and at 20,000 problems, each in a process of its own.

    python tests/measure_memory.py

The fake engine answers problems of about 8 KB (`reflectevo bench` measures the embedded model's rollouts). Prints a table
and exits with 1 where the ratio exceeds 1.2. Peak is the process's largest resident set (ru_maxrss).
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import worker

from reflectevo_lite import store

ROOT = Path(__file__).parents[1]


def measure(n, folder):
    problems = folder / "problems.jsonl"
    store.write_jsonl(problems, worker.fake_problems(n, 8000))
    command = [sys.executable, str(ROOT / "tests" / "worker.py"), str(problems), str(folder / "rollouts.jsonl")]
    found = subprocess.run(
        [*command, "--chunk-size", "250", "--curate"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    return json.loads(found.stdout.splitlines()[-1])


def main():
    peaks = []
    for n in (2_000, 20_000):
        with tempfile.TemporaryDirectory() as folder:
            report = measure(n, Path(folder))
        peaks.append(report["peak_kib"] / 1024)
        print(f"{n:8,} problems  peak {peaks[-1]:7.1f} MiB  {report['seconds']:7.1f} s", flush=True)
    print(f"ratio {peaks[1] / peaks[0]:.3f}", flush=True)
    return int(peaks[1] / peaks[0] > 1.2)


if __name__ == "__main__":
    sys.exit(main())
