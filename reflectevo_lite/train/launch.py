"""Training in several processes, through torchrun, the same way from a notebook, from papermill and from a shell.

Fresh processes work on a job file (`__main__`), whatever the calling one has done to a GPU before. Only the main worker
speaks and writes. On CPU they talk over gloo."""

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .. import store
from .params import GRPOParams, Job, TrainParams

JOB, LOG = "job.json", "workers.log"


def rank() -> int:
    """The number of this process among those that train together; 0 is the main one."""
    return int(os.environ.get("RANK", "0"))


def workers() -> int:
    """How many processes train together, this one included."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def start(job: Job) -> dict[str, Any]:
    """Train in `job.params.processes` new processes, which end with this one however it ends; return their record.
    Raises ValueError if there are fewer GPUs, and RuntimeError with the first error in the workers' log if they
    fail."""
    import torch

    processes, package = job.params.processes, str(Path(__file__).parents[2])
    if torch.cuda.is_available() and (cards := torch.cuda.device_count()) < processes:
        raise ValueError(f"processes: {processes}, but this machine has {cards} GPU(s): set processes to that")
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command += ["-m", __package__, str(write_job(job)), "--watch-stdin"]
    pipe, env = subprocess.PIPE, os.environ | {"PYTHONPATH": path}
    with open(job.work / LOG, "w", encoding="utf-8") as log:
        child: Any
        with subprocess.Popen(command, env=env, stdin=pipe, stdout=pipe, stderr=log, encoding="utf-8") as child:
            try:
                for line in child.stdout:
                    print(line, end="", flush=True)
            finally:
                child.stdin.close()  # ends what still works
    if child.returncode != 0:
        raise RuntimeError(_why(job))
    return json.loads((job.out / "training.json").read_text(encoding="utf-8"))


def write_job(job: Job) -> Path:
    """Write a job to a file that a worker can read, beside its checkpoints."""
    store.write_json(job.work / JOB, {**job._asdict(), "out": str(job.out), "params": asdict(job.params)})
    return job.work / JOB


def read_job(path: str | Path) -> Job:
    """The job in a file of `write_job`."""
    found = json.loads(Path(path).read_text(encoding="utf-8"))
    params = (GRPOParams if found["kind"] == "grpo" else TrainParams)(**found["params"])
    return Job(**found | {"out": Path(found["out"]), "params": params})


def end_with_stdin() -> None:
    """End this process when the one that started it, at the other end of its standard input, has gone."""
    while os.read(0, 4096):  # not sys.stdin, whose lock this thread would hold
        pass
    os.kill(os.getpid(), signal.SIGKILL)


def _why(job: Job) -> str:
    """The first exception in the workers' log, or its last lines if there is none."""
    text = (job.work / LOG).read_text(encoding="utf-8", errors="replace")
    errors = [e for e in re.findall(r"^.*?([\w.]+(?:Error|Exception): .+)$", text, re.M) if "ChildFailed" not in e]
    said = errors[0] if errors else "\n".join(text.strip().splitlines()[-5:])
    return f"training {job.out.name} in {job.params.processes} processes failed: {said} (whole log: {job.work / LOG})"
