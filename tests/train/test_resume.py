"""Killed in the middle of a training (SIGKILL, a process of its own), and going on; training in two processes."""

import dataclasses
import json
import os
import signal
import subprocess
import sys

import nbformat
import pytest
from conftest import ROOT, ScriptedEngine
from test_training import same, weights

from reflectevo_lite import curate, store
from reflectevo_lite.curate import sets
from reflectevo_lite.embedded import tasks as synthetic
from reflectevo_lite.generate import rollouts
from reflectevo_lite.train import __main__ as worker
from reflectevo_lite.train import launch, training
from reflectevo_lite.train.params import Job

PARAMS = training.TrainParams(learning_rate=3e-3, epochs=1, batch_size=8, checkpoints=4)
KILLED = """
import os, signal, sys
from transformers import Trainer
from reflectevo_lite.train import launch
from reflectevo_lite.train import training
step, calls = Trainer.training_step, []
def killed(self, *args, **kwargs):
    calls.append(1)
    if len(calls) == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, *args, **kwargs)
Trainer.training_step = killed
training.run(launch.read_job(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    problems = synthetic.problems(200, "train", seed=21)
    out = tmp_path_factory.mktemp("rollouts") / "r.jsonl"
    return rollouts.generate_rollouts(ScriptedEngine(problems), problems, out, k=4, temperature=1.0, progress=False)


@pytest.fixture(scope="module")
def sft(rows):
    return curate.examples("reflector", sets.unfiltered(rows, 64))


@pytest.fixture(scope="module")
def dpo(rows):
    return curate.examples("preference", sets.d_pm(rows))[:64]


@pytest.fixture(scope="module")
def straight(sft, dpo, tmp_path_factory):
    """SFT, and DPO on top of it, undisturbed and in one process."""
    folder = tmp_path_factory.mktemp("straight")
    records = {"sft": training.train_sft(sft, folder / "sft", model="tiny", params=PARAMS)}
    records["dpo"] = training.train_dpo(dpo, folder / "dpo", model="tiny", params=PARAMS, start=folder / "sft")
    return folder, records


def environment():
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_killed_in_the_middle_it_resumes_to_the_same_adapter(kind, straight, sft, dpo, tmp_path):
    folder, records = straight
    start = folder / "sft" if kind == "dpo" else None
    job = Job(kind, {"sft": sft, "dpo": dpo}[kind], tmp_path / kind, "tiny", PARAMS, str(start) if start else None)
    command = [sys.executable, "-c", KILLED, str(launch.write_job(job))]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    left = [path.name for path in job.work.glob("checkpoint-*")]
    assert left == ["checkpoint-4"] and not job.out.exists()
    record = training.run(job)
    assert same(weights(job.out), weights(folder / kind)) and not job.work.exists()
    assert [h["loss"] for h in record["history"]] == [h["loss"] for h in records[kind]["history"]]


def test_a_half_written_checkpoint_is_passed_over(tmp_path):
    for step, state in ((2, "{}"), (4, '{"global_step": 4, "log'), (10, None)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if state:
            (folder / "trainer_state.json").write_text(state)
    assert training.last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-2")
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint-2"]
    assert training.last_checkpoint(tmp_path / "none") is None


def test_checkpoints_of_another_training_are_not_gone_on_from(sft, tmp_path):
    job = Job("sft", sft, tmp_path / "x", "tiny", PARAMS)
    other = job._replace(params=dataclasses.replace(PARAMS, learning_rate=1e-3))
    training.claim(other)
    training.claim(job)  # nothing was trained there yet
    store.write_json(job.work / "checkpoint-2" / "trainer_state.json", {})
    training.claim(job)
    with pytest.raises(ValueError, match=r"x\.checkpoints was trained with other params"):
        training.run(other)


# -- Two processes --------------------------------------------------------------------------------------------------------
def _agrees(found, alone):
    losses = [h["loss"] for h in found["history"]]
    assert len(losses) == 8 and losses == pytest.approx([h["loss"] for h in alone["history"]], abs=1e-4)
    assert found["steps"] == alone["steps"] and found["params"]["processes"] == 2


def test_two_processes_from_the_command_line_learn_what_one_does(straight, dpo, tmp_path):
    folder, records = straight
    params = dataclasses.replace(PARAMS, processes=2)
    job = Job("dpo", dpo, tmp_path / "dpo", "tiny", params, str(folder / "sft"))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "reflectevo_lite.train", str(launch.write_job(job))]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("rows,") == 1  # one of the two speaks
    _agrees(json.loads((job.out / "training.json").read_text()), records["dpo"])


def test_two_processes_from_a_notebook_learn_what_one_does(straight, sft, tmp_path):
    import papermill

    (tmp_path / "rows.json").write_text(json.dumps(sft))
    code = f"""import json
from reflectevo_lite.train import training
params = training.TrainParams(learning_rate=3e-3, epochs=1, batch_size=8, processes=2)
rows = json.load(open({str(tmp_path / "rows.json")!r}))
record = training.train_sft(rows, {str(tmp_path / "sft")!r}, model="tiny", params=params)"""
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(code)], metadata={"language_info": {"name": "python"}}
    )
    nbformat.write(notebook, tmp_path / "n.ipynb")
    papermill.execute_notebook(
        str(tmp_path / "n.ipynb"), str(tmp_path / "out.ipynb"), kernel_name="python3", cwd=str(ROOT), progress_bar=False
    )
    said = json.dumps(nbformat.read(tmp_path / "out.ipynb", 4).cells[0].outputs)
    assert "sft: 64 rows" in said and "CUDA" not in said
    _agrees(json.loads((tmp_path / "sft" / "training.json").read_text()), straight[1]["sft"])


def test_what_failed_in_a_worker_is_said(sft, tmp_path, monkeypatch):
    job = Job("sft", sft, tmp_path / "x", "tiny", dataclasses.replace(PARAMS, processes=2))
    job.work.mkdir()
    crash = "import sys; sys.exit('Traceback:\\n  raise ValueError(\\n  ValueError: raise it\\n====')"
    real = subprocess.Popen
    monkeypatch.setattr(launch.subprocess, "Popen", lambda command, **k: real([sys.executable, "-c", crash], **k))
    with pytest.raises(
        RuntimeError, match=r"training x in 2 processes failed: ValueError: raise it \(whole log: .*x\.ch"
    ):
        launch.start(job)


def test_a_job_file_gives_the_job_back(sft, tmp_path):
    job = Job("sft", sft, tmp_path / "x", "tiny", PARAMS, str(tmp_path / "start"))
    assert launch.read_job(launch.write_job(job)) == job
    with pytest.raises(ValueError, match="the job is for 1 processes, but 2 were started"):
        os.environ["WORLD_SIZE"] = "2"
        try:
            worker.main(str(job.work / launch.JOB))
        finally:
            del os.environ["WORLD_SIZE"]


def test_workers_end_with_the_process_that_started_them():
    code = "import threading, time\nfrom reflectevo_lite.train.launch import end_with_stdin\nthreading.Thread(target=end_with_stdin, daemon=True).start()\nprint('up', flush=True)\ntime.sleep(60)"
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        env=environment(),
    )
    assert child.stdout.readline() == b"up\n"
    child.stdin.close()
    assert child.wait(timeout=30) == -signal.SIGKILL
