"""One of several processes on a job file of `launch`: torchrun --nproc-per-node 2 -m reflectevo_lite.train JOB.json"""

import os
import sys
import threading
from contextlib import redirect_stdout

from . import launch
from .training import run


def main(path: str, *options: str) -> None:
    """Train on a job file as one of its processes, each on a GPU of its own if there are any."""
    if "--watch-stdin" in options:
        threading.Thread(target=launch.end_with_stdin, daemon=True).start()
    import torch

    job = launch.read_job(path)
    if launch.workers() != job.params.processes:
        raise ValueError(f"the job is for {job.params.processes} processes, but {launch.workers()} were started")
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere if launch.rank() else sys.stdout):
        run(job)


if __name__ == "__main__":
    main(*sys.argv[1:])
