"""The card's tables: complete on a CPU at a tiny shape, honest about what failed, and resumed, not made again."""

import json
import os
import sys
from pathlib import Path

import pytest
from bench import child, gpu
from transformers import AutoTokenizer

from reflectevo_lite.generate import models

ARMS = ["plain", "ours"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A bench at the smoke shape, its children on their own."""
    out = tmp_path_factory.mktemp("bench")
    text = gpu.training(out, seconds=300, shapes=["smoke"], arms=ARMS, repeats=1)
    return out, text


def test_training_runs_whole_in_processes_of_its_own(trained):
    out, text = trained
    stored = json.loads((out / "gpu_training.json").read_bytes())
    found = {(row["kind"], row["arm"]): row for row in stored["rows"]}
    assert list(found) == [(kind, arm) for kind in ("sft", "dpo") for arm in ARMS]
    assert not any("error" in row for row in found.values()), stored["rows"]
    assert found["sft", "plain"]["loss"] == pytest.approx(
        found["sft", "ours"]["loss"], abs=0.02
    )  # same model, data, step
    assert found["dpo", "ours"]["loss"] == pytest.approx(0.6931, abs=1e-3)
    assert (out / "gpu_training.md").read_text(encoding="utf-8") == text and text.count("\n| smoke |") == 4
    assert "torch" in stored["environment"]["versions"]
    logs = sorted(path.name for path in (out / "logs").iterdir())
    assert "train_steps-smoke-sft-plain-0.log" in logs and "make_model-smoke.log" in logs
    assert sorted(path.name for path in out.iterdir()) == ["gpu_training.json", "gpu_training.md", "logs"]  # no models


def test_what_is_measured_is_not_measured_again(trained, monkeypatch):
    out, text = trained
    monkeypatch.setattr(gpu, "Child", lambda *args: pytest.fail("measured again"))
    assert gpu.training(out, seconds=60, shapes=["smoke"], arms=ARMS, repeats=1) == text
    monkeypatch.setattr(gpu, "_card", lambda: "another card")
    with pytest.raises(ValueError, match=r"another card.*--out"):
        gpu.training(out, seconds=60, shapes=["smoke"], arms=ARMS, repeats=1)


class Scripted:
    """Stands in for a child: takes its answer from a list, or fails."""

    found, asked = [], []

    def __init__(self, job, log, result):
        self.job, self.log = job, log

    def measure(self, seconds):
        self.asked.append((self.job[0], self.job[1].get("arm"), seconds))
        return self.found.pop(0) if self.job[0] != "make_model" else {}

    def close(self):
        pass


def measured(speed, peak=20.0):
    return {"tokens_per_s": speed, "peak_gib": peak, "share_of_peak": 0.4, "backend": "x"}


def test_order_limits_and_a_failed_arm_that_is_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "Child", Scripted)
    monkeypatch.setattr(gpu, "_card", lambda: "H")
    monkeypatch.setattr(gpu.importlib.util, "find_spec", lambda name: True)
    wanted = [("sft", arm) for arm in ("plain", "ours", "plain, 4 bits", "ours, 4 bits")]
    assert gpu.ORDER[:4] == wanted and gpu.ORDER[4][0] == gpu.ORDER[7][0] == "dpo" and len(gpu.ORDER) == 10
    Scripted.found = [measured(100), {"error": "out of memory"}, *[measured(1)] * 18]
    text = gpu.training(tmp_path, seconds=50, repeats=1)
    assert [what for what, *_ in Scripted.asked].count("make_model") == 2
    assert Scripted.asked[0][0] == "make_model" and Scripted.asked[11][0] == "make_model"
    assert all(seconds <= 50 for *_, seconds in Scripted.asked)
    assert "| Qwen3-1.7B | SFT | ours (failed: out of memory) | – | – | – | – | – | 0 |" in text
    Scripted.asked.clear()
    monkeypatch.setattr(
        gpu, "_known", lambda path, settings: json.loads(path.with_suffix(".json").read_bytes())["rows"]
    )
    Scripted.found = [measured(200, 10.0)]
    text = gpu.training(tmp_path, seconds=50, repeats=1)
    assert [arm for _, arm, _ in Scripted.asked] == [None, "ours"]
    assert "| Qwen3-1.7B | SFT | ours | 200 | 2.00 | 10.0 | 0.50 | 40.0% | 1 |" in text


def test_with_no_time_left_nothing_is_begun(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "Child", lambda *args: pytest.fail("begun"))
    gpu.training(tmp_path, seconds=gpu.LEAST - 1, shapes=["smoke"], arms=ARMS, repeats=1)
    assert "5 measurements are left for the next time" in capsys.readouterr().out


def test_ratios_are_of_medians():
    row = {"shape": "s", "kind": "sft"}
    rows = [row | {"arm": "plain"} | measured(speed) for speed in (100, 110, 9)]
    rows += [row | {"arm": "ours"} | measured(speed, 10.0) for speed in (200, 190, 900)]
    assert gpu.training_lines(rows)[1] == "s | SFT | ours | 200 | 2.00 | 10.0 | 0.50 | 40.0% | 3"


def a_child(tmp_path, monkeypatch, script):
    """A child that runs `script` instead of measuring."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    (tmp_path / "python").write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    (tmp_path / "python").chmod(0o755)
    (tmp_path / "place").mkdir()
    return gpu.Child(("train_steps", {}, 9), tmp_path / "logs" / "a.log", tmp_path / "place" / "0.json")


@pytest.mark.parametrize("found", [None, {"rate": 1}])
def test_a_child_that_hangs_is_ended_and_what_it_had_found_is_kept(tmp_path, monkeypatch, found):
    hanging = a_child(tmp_path, monkeypatch, "exec sleep 60")
    if found:
        hanging.result.write_text(json.dumps(found), encoding="utf-8")
    assert hanging.measure(0.6) == (found or {"error": "stopped after 1 s"}) and hanging.process.returncode


def test_a_child_s_whole_output_is_logged_and_its_last_line_is_the_error(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    failing = a_child(
        tmp_path, monkeypatch, 'read line; echo "$PYTHONPATH"; echo trace >&2; echo "Error: why" >&2; exit 3'
    )
    assert failing.measure(20) == {"error": "Error: why"}
    first, *rest = (tmp_path / "logs" / "a.log").read_text(encoding="utf-8").splitlines()
    assert rest == ["trace", "Error: why"]
    bench, package, *others = first.split(os.pathsep)
    assert (
        (Path(bench) / "bench").is_dir() and (Path(package) / "reflectevo_lite").is_dir() and others == ["/elsewhere"]
    )


def test_generation_is_kept_as_it_goes_and_a_failure_is_told(tmp_path, monkeypatch):
    row = {
        "batching": "padded",
        "measure": "m",
        "unit": "u",
        "rate": 2.0,
        "against": "a",
        "baseline": 1.0,
        "ratio": 2.0,
    }
    row |= {"low": 2.0, "high": 2.0, "rounds": 1}
    monkeypatch.setattr(gpu, "Child", Scripted)
    Scripted.found = [row, {"error": "stopped after 60 s"}]
    assert "**2×**" in gpu.generation(tmp_path, seconds=120)
    stored = json.loads((tmp_path / "generation.json").read_bytes())
    assert stored["rows"] == [row] and stored["failed"] == {"generate": "stopped after 60 s"}


def test_generation_at_a_tiny_shape(monkeypatch):
    for batching in ("padded", "generate"):
        *_, row = child.answer(batching, "smoke", prompts=4, new_tokens=8, rounds=1)
        assert row["rate"] > 0 and row["baseline"] > 0 and row["batching"] == batching


@pytest.mark.parametrize("longest", [child.MAX_LENGTH, 64])
def test_rows_have_the_tokens_that_they_claim(longest):
    tokenizer = AutoTokenizer.from_pretrained(models.resolve("tiny"))
    rows = child.rows_of("dpo", 40, tokenizer, longest)
    assert rows == child.rows_of("dpo", 40, tokenizer, longest)
    share = longest / child.MAX_LENGTH
    for name in ("prompt", "chosen", "rejected"):
        found = [len(tokenizer(row[name])["input_ids"]) for row in rows]
        low, high = child.LENGTHS[name]
        assert min(found) >= max(2, int(low * share)) and max(found) <= high * share
        assert len(set(found)) > (20 if share == 1 else 3)
