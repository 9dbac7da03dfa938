"""Twenty blows to a generation with the embedded model; afterwards the file is the very file of an undisturbed run.

    python tests/kill_twenty.py [--blows 20] [--problems 120] [--seed 0]

SIGKILL and SIGINT at random moments, and disks that fill up: a small tmpfs where this process may mount one, else a
limit on file size. Prints a table, one line per blow, and exits with 1 unless every blow met a process at work and the
bytes agree in the end. Minutes on two cores.
"""

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from reflectevo_lite import store
from reflectevo_lite.embedded import tasks as synthetic

ROOT = Path(__file__).parents[1]
CHUNK = 2


def start(problems, out, *options):
    """A process that generates, once it says that it can be disturbed."""
    command = [sys.executable, str(ROOT / "tests" / "worker.py"), str(problems), str(out), "--engine", "tiny"]
    process = subprocess.Popen(
        [*command, "--chunk-size", str(CHUNK), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    process.stdout.readline()
    return process


def strike(kind, problems, out, moment, room):
    """One attempt that does not reach its end; returns its exit status and what it said last.

    `moment`: (bytes, seconds): a signal comes that long after the file has grown by so much.
    """
    size = out.stat().st_size if out.exists() else 0
    process = start(problems, out, *(["--limit", str(room)] if kind == "file-size limit" else []))
    if kind.startswith("SIG"):
        while process.poll() is None and (out.stat().st_size if out.exists() else 0) < size + moment[0]:
            time.sleep(0.005)
        time.sleep(moment[1])
        process.send_signal(getattr(signal, kind))
    said = process.communicate()[1].strip().splitlines()
    return process.returncode, said[-1] if said else ""


@contextlib.contextmanager
def small_disk(kib):
    """A folder on a tmpfs of `kib` KiB; None where mounting is not allowed."""
    folder = Path(tempfile.mkdtemp(prefix="small-disk-"))
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(folder)], capture_output=True
    ).returncode
    try:
        yield folder if mounted == 0 else None
    finally:
        if mounted == 0:
            subprocess.run(["umount", str(folder)], check=True)
        folder.rmdir()


def fill(problems, out, room):
    """Go on with the file on a disk that holds `room` bytes, then bring it back; None where there is no such disk."""
    with small_disk(max(1, room // 1024)) as disk:
        if disk is None:
            return None
        if out.exists():
            shutil.copy(out, disk / out.name)
        result = strike("full disk", problems, disk / out.name, None, 0)
        shutil.copy(disk / out.name, out)
    return result


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--blows", type=int, default=20)
    parser.add_argument("--problems", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        problems, whole, out = (Path(folder) / name for name in ("problems.jsonl", "whole.jsonl", "struck.jsonl"))
        store.write_jsonl(problems, synthetic.problems(args.problems, "train", seed=1))
        process = start(problems, whole)
        began = time.perf_counter()
        process.communicate()
        seconds, want = time.perf_counter() - began, whole.read_bytes()
        print(
            f"undisturbed: {args.problems} rows, {len(want):,} bytes, {seconds:.1f} s in chunks of {CHUNK}", flush=True
        )
        chunk, hits = CHUNK / args.problems, 0  # a chunk as a share of the whole
        for i in range(args.blows):
            kind = ["SIGKILL", "SIGINT", "SIGKILL", "full disk"][i % 4]
            before = out.stat().st_size if out.exists() else 0
            room = before + int(rng.uniform(0.5, 3) * chunk * len(want)) + 8192
            moment = int(rng.choice([0, 1, 1, 2]) * chunk * len(want)), rng.uniform(0, 1) * chunk * seconds
            result = fill(problems, out, room) if kind == "full disk" else None
            if result is None:
                kind = "file-size limit" if kind == "full disk" else kind
                result = strike(kind, problems, out, moment, room)
            found = out.read_bytes() if out.exists() else b""
            rows, state = found.count(b"\n"), "ok" if want.startswith(found) else "DIFFERS"
            hits += result[0] != 0
            said = result[1].split("jsonl: ")[-1][:60] if "no room" in result[1] else ""
            print(f"{i + 1:3d}  {kind:16s} exit {result[0]:4d}  {rows:4d} rows  {state}  {said}", flush=True)
        start(problems, out).communicate()
        same = out.read_bytes() == want and store.finished(out) is not None
        left = sorted(p.name for p in Path(folder).glob(".*"))
        print(f"{hits} of {args.blows} met a process at work; left over: {left or 'nothing'}")
        print(f"resumed to the end: {'the same bytes' if same else 'NOT the same bytes'} as undisturbed")
    return int(not same or hits < args.blows)


if __name__ == "__main__":
    sys.exit(main())
