"""The bench of training steps: complete on a CPU at a tiny shape, honest about what failed, silent without a GPU."""

import json

import pytest
from conftest import ROOT

from reflectevo_lite.generate import models
from reflectevo_lite.run import bench_gpu


def test_without_a_gpu_it_skips_with_one_line(tmp_path, capsys, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert bench_gpu.run(tmp_path / "gpu") == [] and not (tmp_path / "gpu").exists()
    assert capsys.readouterr().out == "bench of training steps: skipped, no CUDA device\n"


def test_it_runs_whole_at_a_tiny_shape(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    child, calls = bench_gpu._child, []

    def mostly_here(*args):  # the first in a process of its own, as all are in earnest
        calls.append(args)
        return child(*args) if len(calls) == 1 else bench_gpu.measure(*args)

    monkeypatch.setattr(bench_gpu, "_child", mostly_here)
    found = bench_gpu.run(tmp_path, shapes=["smoke"], repeats=1, steps=2, arms=["plain", "ours"], cpu=True)
    assert [(r["kind"], r["arm"]) for r in found] == [(k, a) for k in ("sft", "dpo") for a in ("plain", "ours")]
    assert all(r["error"] is None and r["tokens_per_s"] > 0 for r in found), found
    assert found[0]["speed_ratio"] is None and found[1]["speed_ratio"] > 0
    written = json.loads((tmp_path / "gpu_training.json").read_text())
    losses = {(m["kind"], m["arm"]): m["loss"] for m in written["measurements"]}
    assert losses["sft", "plain"] == pytest.approx(losses["sft", "ours"], abs=0.02)  # the same model, data and step
    assert losses["dpo", "ours"] == pytest.approx(0.6931, abs=1e-3)
    assert not list((tmp_path / ".models").iterdir()) and "torch" in written["env"]["versions"]
    assert (tmp_path / "gpu_training.md").read_text().count("\n| smoke |") == 4


def row(arm, repeat, speed, peak):
    return {"shape": "s", "kind": "sft", "arm": arm, "repeat": repeat, "tokens_per_s": speed, "peak_gib": peak,
            "share_of_peak": 0.4, "backend": "x"}  # fmt: skip


def test_ratios_are_of_medians_and_a_failed_arm_is_kept():
    rows = [row("plain", i, s, 20.0) for i, s in enumerate((100, 110, 9))]
    rows += [row("ours", i, s, 10.0) for i, s in enumerate((200, 190, 900))]
    rows += [{"shape": "s", "kind": "sft", "arm": "ours, 4 bits", "repeat": 0, "error": "out of memory"}]
    plain, ours, failed = bench_gpu.summarise(rows)
    assert (ours["speed_ratio"], ours["memory_ratio"]) == (2.0, 0.5) and plain["speed_ratio"] is None
    assert failed["error"] == "out of memory" and failed["tokens_per_s"] is None and failed["repeats"] == 0
    text = bench_gpu.table([plain, ours, failed], {"gpu": "H", "versions": {"torch": "2"}}, "cmd")
    assert "| 200 | 2.00 | 10.0 | 0.50 | 40.0% | 3 |" in text and "failed: out of memory" in text


def test_rows_have_the_lengths_they_claim():
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(models.resolve("tiny"))
    rows = bench_gpu.rows_of("dpo", 40, tokenizer, bench_gpu.MAX_LENGTH)
    assert rows == bench_gpu.rows_of("dpo", 40, tokenizer, bench_gpu.MAX_LENGTH)
    lengths = {name: [len(tokenizer(r[name])["input_ids"]) for r in rows] for name in rows[0]}
    assert min(lengths["prompt"]) >= 200 and max(lengths["prompt"]) <= 700 and len(set(lengths["prompt"])) > 20
    assert all(100 <= n <= 350 for name in ("chosen", "rejected") for n in lengths[name])
