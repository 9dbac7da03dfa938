"""Training in several processes, through accelerate, the same way from a notebook, from papermill and from a shell.

The job (rows and parameters) is written to a file; a fresh process starts the workers on it, so it does not matter
what the calling process has done to a GPU before. Only the main worker writes. On CPU the workers talk over gloo.

    python -m reflectevo_lite.launch JOB.json --processes 2            what `run` calls
    accelerate launch --num_processes 2 -m reflectevo_lite.launch JOB.json   (GPUs)   the same, by hand
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from .. import store
from . import training

JOB, LOG = "job.json", "workers.log"


def is_worker() -> bool:
    """Whether this process is one of several that a launcher started."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def run(job: training.Job) -> dict[str, Any]:
    """Train in `job.params.processes` new processes and return the record that they left.

    What the main worker prints is printed here too. Raises ValueError where there are fewer GPUs, and RuntimeError with
    the end of the workers' log where they fail. The workers end with the calling process, however that ends.
    """
    _check_devices(job.params.processes)
    path = write_job(job)
    command = [sys.executable, "-m", __name__, str(path), "--processes", str(job.params.processes), "--watch-stdin"]
    with open(job.work / LOG, "w", encoding="utf-8") as log:
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
            env=_environment(),
        )
        try:
            for line in child.stdout:
                if not line.startswith("Launching training on"):  # accelerate calls CPUs "CUDAs"
                    print(line, end="", flush=True)
            status = child.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
    if status != 0:
        raise RuntimeError(_why(job))
    return json.loads((job.out / "training.json").read_text())


def write_job(job: training.Job) -> Path:
    """Write a job to a file that a worker can read, beside its checkpoints."""
    store.write_json(job.work / JOB, {**job._asdict(), "out": str(job.out), "params": dataclasses.asdict(job.params)})
    return job.work / JOB


def read_job(path: str | Path) -> training.Job:
    """The job in a file of `write_job`."""
    from .grpo import GRPOParams

    found = json.loads(Path(path).read_text())
    kind = GRPOParams if found["kind"] == "grpo" else training.TrainParams
    return training.Job(**found | {"out": Path(found["out"]), "params": kind(**found["params"])})


def main(argv: list[str] | None = None) -> None:
    """Start the workers on a job file, or be one of them where a launcher started this process."""
    parser = argparse.ArgumentParser(prog="reflectevo_lite.launch", description="Train a job in several processes.")
    parser.add_argument("job", help="a file that reflectevo_lite.launch.write_job wrote")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--watch-stdin", action="store_true", help="end when the standard input is closed")
    args = parser.parse_args(argv)
    if args.watch_stdin:
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    if is_worker() or args.processes == 1:
        worker(args.job)
    else:
        from accelerate import notebook_launcher
        from accelerate.utils import is_cuda_available

        # it asks without touching the GPU, which forked workers could not use afterwards
        if not is_cuda_available():
            os.environ["ACCELERATE_USE_CPU"] = "true"
        notebook_launcher(worker, (args.job,), num_processes=args.processes, use_port=str(_free_port()))


def worker(path: str) -> None:
    """Train on a job file as one of its processes, each on a GPU of its own where there are any."""
    import torch

    job = read_job(path)
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size != job.params.processes:
        raise ValueError(f"the job is for {job.params.processes} processes, but {size} were started")
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    training.run(job)


def _check_devices(processes: int) -> None:
    import torch

    if torch.cuda.is_available() and torch.cuda.device_count() < processes:
        raise ValueError(
            f"processes: {processes}, but this machine has {torch.cuda.device_count()} GPU(s): set processes to that"
        )


def _environment() -> dict[str, str]:
    """The calling process's environment, in which a new one finds this package."""
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]))
    return {"OMP_NUM_THREADS": "1"} | os.environ | {"PYTHONPATH": path}


def _end_with_stdin() -> None:
    """End this process and its workers when the process that started it has gone."""
    while os.read(0, 4096):  # not sys.stdin: its lock, held by this thread, would lock up the forked workers
        pass
    os.killpg(os.getpgrp(), signal.SIGKILL)


def _why(job: training.Job) -> str:
    """The first exception in the workers' log, or its last lines where there is none."""
    text = (job.work / LOG).read_text(errors="replace")
    errors = [e for e in re.findall(r"^ *([\w.]+(?:Error|Exception): .+)$", text, re.M) if "ChildFailed" not in e]
    said = errors[0] if errors else "\n".join(text.strip().splitlines()[-5:])
    return f"training {job.out.name} in {job.params.processes} processes failed: {said} (whole log: {job.work / LOG})"


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


if __name__ == "__main__":
    main()
