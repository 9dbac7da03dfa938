"""tests/gpu/run.sh: the whole of what a card gets, at smoke size on this machine."""

import os
import subprocess
import sys

from conftest import ROOT


def test_every_step_runs_and_leaves_its_log(tmp_path):
    environment = os.environ | {"SMOKE": "1", "PYTHON": sys.executable}
    done = subprocess.run(
        ["bash", str(ROOT / "tests" / "gpu" / "run.sh"), str(tmp_path), "400"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=450,
    )
    summary = (tmp_path / "summary.txt").read_text(encoding="utf-8")
    logs = {name: (tmp_path / f"{name}.log").read_text(encoding="utf-8") for name in ("loop", "loop_plain")}
    assert done.returncode == 0, summary + "".join(logs.values())
    steps = [line.split(":")[0] for line in summary.splitlines()]
    tests = sorted(path.stem for path in (ROOT / "tests" / "gpu").glob("test_*.py"))
    assert steps == ["doctor", *tests, "loop_plain", "loop", "training", "generation", "total"]
    assert all(": ok, " in line for line in summary.splitlines()[:-1])
    assert "reflector_only: Acc@t2" in logs["loop"] and "reflector_only: Acc@t2" in logs["loop_plain"]
    table = (tmp_path / "gpu_training.md").read_text(encoding="utf-8")
    assert table.count("| smoke |") == 4 and "failed" not in table
    assert '"failed": {}' in (tmp_path / "generation.json").read_text(encoding="utf-8")


def test_a_failing_step_is_told_and_the_rest_goes_on(tmp_path):
    environment = os.environ | {"SMOKE": "1", "PYTHON": "/bin/false"}
    script = str(ROOT / "tests" / "gpu" / "run.sh")
    (tmp_path / "summary.txt").write_text("env: ok\n", encoding="utf-8")  # of a script that calls this one
    done = subprocess.run(["bash", script, str(tmp_path)], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "doctor: failed (1)" in done.stdout and "generation: failed (1)" in done.stdout
    assert (tmp_path / "summary.txt").read_text(encoding="utf-8").startswith("env: ok\ndoctor: failed (1)")
