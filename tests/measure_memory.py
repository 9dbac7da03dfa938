"""Peak memory of generation (and curation) at 2,000 and at 20,000 problems, each in a process of its own.

    python tests/measure_memory.py            the fake engine, problems of about 8 KB: minutes
    python tests/measure_memory.py --tiny     the embedded model as well (8 new tokens, one reflection): longer

Prints a table and exits with 1 where a ratio exceeds 1.2. Peak is the process's largest resident set (ru_maxrss).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import worker

from reflectevo_lite import store, synthetic

ROOT = Path(__file__).parents[1]
OPTIONS = {
    "fake": ["--curate"],
    "tiny": ["--engine", "tiny", "--k", "1", "--max-new-tokens", "8"],
}


def measure(engine, n, folder):
    problems = folder / "problems.jsonl"
    store.write_jsonl(problems, worker.fake_problems(n, 8000) if engine == "fake" else synthetic.problems(n, "train"))
    command = [sys.executable, str(ROOT / "tests" / "worker.py"), str(problems), str(folder / "rollouts.jsonl")]
    found = subprocess.run(
        [*command, "--chunk-size", "250", *OPTIONS[engine]],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    return json.loads(found.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--sizes", type=int, nargs=2, default=[2_000, 20_000])
    args = parser.parse_args()
    worst = 0.0
    for engine in ("fake", "tiny") if args.tiny else ("fake",):
        peaks = []
        for n in args.sizes:
            with tempfile.TemporaryDirectory() as folder:
                report = measure(engine, n, Path(folder))
            peaks.append(report["peak_kib"] / 1024)
            print(f"{engine:5s}{n:8,} problems  peak {peaks[-1]:7.1f} MiB  {report['seconds']:7.1f} s", flush=True)
        print(f"{engine:5s} ratio {peaks[1] / peaks[0]:.3f}", flush=True)
        worst = max(worst, peaks[1] / peaks[0])
    return int(worst > 1.2)


if __name__ == "__main__":
    sys.exit(main())
