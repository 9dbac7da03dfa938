"""The CPU's table compares like with like, and says what it measured."""

import json

import bench
import pytest
from bench import cpu, table

from reflectevo_lite.run import cli


def test_rounds_are_paired_and_their_order_is_swapped(monkeypatch):
    clock, order = [0.0], []
    monkeypatch.setattr(table.time, "perf_counter", lambda: clock[0])

    def work(name, seconds):
        def done(i):
            order.append(name)
            clock[0] += seconds[i]
            return 120

        return done

    pairs = table.paired(work("a", [15, 4, 30]), work("b", [30, 12, 30]), 3)
    row = table.comparison("m", "x/s", "b", pairs)
    assert order == ["b", "a", "a", "b", "b", "a", "a", "b"]  # the first round warms up
    assert (row["ratio"], row["low"], row["high"], row["rate"], row["baseline"]) == (2, 1, 3, 8, 4)


def test_the_command_stores_its_table(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(cpu, "checking", lambda rounds: [])  # processes of their own; measured below
    monkeypatch.setattr(cpu.memory, "__defaults__", (10, 20))
    assert cli.main(["bench", "--rounds", "1", "--size", "8", "--out", str(tmp_path)]) == 0
    stored = json.loads((tmp_path / "bench.json").read_bytes())
    assert stored["rows"][0]["measure"].startswith("rollouts") and stored["environment"]["cpus"]
    [peak] = [row for row in stored["rows"] if row["unit"] == "MiB"]
    assert peak["against"] == "10 problems" and peak["rate"] > 100 and 0.5 < peak["ratio"] < 1.5
    written = (tmp_path / "bench.md").read_text(encoding="utf-8")
    assert written in capsys.readouterr().out
    assert sum(line.startswith("| ") for line in written.splitlines()) == len(stored["rows"]) + 2


def test_grading_and_the_sandbox_are_measured_on_right_answers():
    rows = cpu.checking(1)
    assert [row["measure"] for row in rows if row["against"] == "math-verify alone"] == [
        "grading: mathematics", "grading: letters", "grading: numbers"
    ]  # fmt: skip
    assert any(row["against"] == "one at a time" for row in rows) and all(row["rate"] > 0 for row in rows)


@pytest.mark.parametrize(
    ("options", "line"), [(["--gpu"], "needs a CUDA device"), (["--rounds", "0"], "--rounds of 1")]
)
def test_what_cannot_be_measured_is_said_in_a_line(tmp_path, capsys, monkeypatch, options, line):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert cli.main(["bench", "--out", str(tmp_path), *options]) == 2
    said = capsys.readouterr().err
    assert line in said and said.count("\n") == 1 and not list(tmp_path.iterdir())


def test_seconds_bound_the_card_s_tables(tmp_path, monkeypatch):
    given = {}
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr(bench, "measure", lambda out, **how: "cpu")
    for name in ("generation", "training"):
        monkeypatch.setattr(bench, name, lambda out, seconds, name=name: given.update({name: seconds}) or name)
    assert bench.run(tmp_path, gpu=True, seconds=600) == "cpu\ngeneration\ntraining"
    assert given["generation"] <= 120 and sum(given.values()) == 600
