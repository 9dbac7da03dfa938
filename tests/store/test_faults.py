"""Generation survives kills, Ctrl-C and a full disk to the very bytes; two writers never share a file; memory stays flat."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import worker
from conftest import ROOT

from reflectevo_lite import store
from reflectevo_lite.generate import rollouts

ENV = os.environ | {"PYTHONPATH": str(ROOT)}


def start(problems, out, *options):
    command = [sys.executable, str(ROOT / "tests" / "worker.py"), str(problems), str(out), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENV)
    assert process.stdout.readline() == "ready\n", process.stderr.read()
    return process


def finish(process):
    """What the process reports at its end, or the last line of its complaint."""
    out, err = process.communicate(timeout=120)
    return json.loads(out) if process.returncode == 0 else err.strip().splitlines()[-1]


def wait_for_rows(path, process, more_than=0, seconds=60):
    until = time.time() + seconds
    while not (path.exists() and path.stat().st_size > more_than):
        assert process.poll() is None and time.time() < until
        time.sleep(0.01)


@pytest.fixture(scope="module")
def questions(tmp_path_factory):
    path = tmp_path_factory.mktemp("problems") / "train.jsonl"
    store.write_jsonl(path, worker.fake_problems(207))
    return path


@pytest.fixture(scope="module")
def undisturbed(questions):
    out = questions.with_name("undisturbed.jsonl")
    assert finish(start(questions, out))["rows"] == 207
    return out.read_bytes()


def test_kills_and_ctrl_c_leave_whole_chunks_and_resume_to_the_same_bytes(questions, undisturbed, tmp_path):
    out, rng, found, chunks = tmp_path / "train.jsonl", random.Random(1), b"", [0]
    for blow in (signal.SIGKILL, signal.SIGINT, signal.SIGKILL, signal.SIGINT, signal.SIGKILL):
        process = start(questions, out, "--delay", "0.04")  # 21 chunks of 120 ms
        wait_for_rows(out, process, len(found))
        time.sleep(rng.uniform(0, 0.15))
        process.send_signal(blow)
        process.communicate(timeout=60)
        assert process.returncode in (-blow, 130, 1)
        found = out.read_bytes()
        assert undisturbed.startswith(found) and not store.finished(out)
        if blow == signal.SIGINT:
            assert found.count(b"\n") % 10 == 0
        chunks.append(found.count(b"\n") // 10)
    assert chunks == sorted(chunks) and len(set(chunks)) > 3  # what was written stays, and each went on from there
    assert finish(start(questions, out))["rows"] == 207
    assert out.read_bytes() == undisturbed and store.finished(out)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["train.done", "train.jsonl"]


def test_a_full_disk_gets_one_line_and_the_same_command_goes_on(questions, undisturbed, tmp_path):
    out = tmp_path / "train.jsonl"
    for share in (0.3, 0.3, 0.7):
        said = finish(start(questions, out, "--limit", str(int(share * len(undisturbed)))))
        assert f"{out}: no room to write (File too large)" in said and "goes on from there once there is room" in said
        found = out.read_bytes()
        assert undisturbed.startswith(found) and found.count(b"\n") % 10 == 0
    assert 0.5 * len(undisturbed) < len(found)
    finish(start(questions, out))
    assert out.read_bytes() == undisturbed


def test_a_second_process_is_refused_and_a_dead_one_holds_nothing(questions, undisturbed, tmp_path):
    out = tmp_path / "train.jsonl"
    first = start(questions, out, "--delay", "0.3")
    wait_for_rows(out, first)
    said = finish(start(questions, out))
    assert f"{out} is in use by process {first.pid}" in said and "choose another run_dir" in said
    first.kill()
    first.wait()
    finish(start(questions, out))
    assert out.read_bytes() == undisturbed


def test_a_child_of_a_dead_process_does_not_keep_its_lock(questions, undisturbed, tmp_path):
    out = tmp_path / "train.jsonl"
    fork = f"""if True:
        import os, sys, time
        from reflectevo_lite import store
        def chunk(i):
            if i == 1:
                child = os.fork() or time.sleep(60)
                print(child, flush=True)
                time.sleep(60)
            return [dict(i=i)]
        store.append_chunks({str(out)!r}, 2, chunk, 1)"""
    parent = subprocess.Popen([sys.executable, "-c", fork], stdout=subprocess.PIPE, text=True, env=ENV)
    child = int(parent.stdout.readline())
    with pytest.raises(store.InUse, match=f"process {parent.pid}"):
        store.append_chunks(out, 2, lambda i: [{"i": i}], 1)
    parent.kill()
    parent.wait()
    os.kill(child, 0)  # it lives
    store.append_chunks(out, 2, lambda i: [{"i": i}], 1)
    os.kill(child, signal.SIGKILL)
    assert store.read_jsonl(out) == [{"i": 0}, {"i": 1}]


def test_the_run_lock_of_the_command_does_not_stop_its_own_kernel(questions, tmp_path):
    with open(tmp_path / ".lock", "a+b") as handle, store.locked(handle, tmp_path):
        assert finish(start(questions, tmp_path / "rollouts" / "train.jsonl"))["rows"] == 207


def test_a_file_system_without_locks_gets_a_warning(tmp_path, monkeypatch):
    import errno
    import fcntl

    def unsupported(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with pytest.warns(UserWarning, match="no locks"):
        store.append_chunks(tmp_path / "x.jsonl", 2, lambda i: [{"i": i}], 1)
    assert len(store.read_jsonl(tmp_path / "x.jsonl")) == 2


def test_memory_is_flat_in_the_number_of_problems(tmp_path):
    peaks = {}
    for n in (200, 2000):
        store.write_jsonl(tmp_path / f"{n}.jsonl", worker.fake_problems(n, padding=8000))
        report = finish(start(tmp_path / f"{n}.jsonl", tmp_path / str(n) / "r.jsonl", "--chunk-size", "50", "--curate"))
        assert report["rows"] == n and (tmp_path / str(n) / "curated" / "d_pref.jsonl").stat().st_size
        peaks[n] = report["peak_kib"]
    assert peaks[2000] < 1.2 * peaks[200], peaks


@pytest.mark.parametrize(
    "stored", ["", '{"chunks": 21, "si', "21 chunks of 10\n", '{"chunks": 21, "size": 10, "bytes": 1}', "[]"]
)
def test_a_marker_that_is_torn_or_disagrees_counts_for_nothing(questions, undisturbed, tmp_path, stored):
    out = tmp_path / "train.jsonl"
    out.write_bytes(undisturbed[: len(undisturbed) // 2])
    store.marker(out).write_text(stored, encoding="utf-8")
    left = tmp_path / ".train.done.999999999"
    left.write_text("left by a killed writer", encoding="utf-8")
    os.utime(left, (0, 0))
    engine = worker.FakeEngine()
    rows = rollouts.generate_rollouts(
        engine, questions, out, k=3, temperature=1.0, max_new_tokens=96, seed=5, chunk_size=10, progress=False
    )
    assert len(rows) == 207 and out.read_bytes() == undisturbed and store.finished(out)
    assert not left.exists()
