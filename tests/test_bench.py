"""The table compares like with like, and says what it measured."""

import json
from functools import partial

import pytest

from reflectevo_lite.run import bench, cli


def test_rounds_are_paired_and_their_order_is_swapped():
    order = []

    def rate(name, values):
        def measured(i):
            order.append(name)
            return values[i]

        return measured

    row = bench.compare("m", "x/s", rate("a", [8, 30, 4]), "b", rate("b", [4, 10, 4]), 3, warm_up=False)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert (row["ratio"], row["low"], row["high"], row["rate"], row["baseline"]) == (2, 1, 3, 8, 4)


def test_generation_at_a_real_shape_runs_on_a_tiny_one():
    from transformers import Qwen3Config

    config = Qwen3Config(
        vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, tie_word_embeddings=True, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    rows = bench.gpu_generation(
        rounds=1, rows=6, alone=1, new_tokens=8, prompt_tokens=(5, 9), config=config, device="cpu"
    )
    assert [row["measure"].split(",")[1].split()[0] for row in rows] == ["continuous", "padded"]
    assert all(row["rate"] > 0 and row["ratio"] > 0 for row in rows)


def test_the_command_stores_its_table(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bench, "checking", lambda rounds: [])  # processes of their own; measured where it counts
    monkeypatch.setattr(bench, "memory", partial(bench.memory, (10, 20)))
    assert cli.main(["bench", "--rounds", "1", "--size", "8", "--out", str(tmp_path)]) == 0
    stored = json.loads((tmp_path / "bench.json").read_text())
    assert stored["rows"][0]["measure"].startswith("rollouts") and stored["environment"]["cpus"]
    [peak] = [row for row in stored["rows"] if row["unit"] == "MiB"]
    assert peak["against"] == "10 problems" and peak["rate"] > 100 and 0.5 < peak["ratio"] < 1.5
    table = (tmp_path / "bench.md").read_text()
    assert table in capsys.readouterr().out
    assert sum(line.startswith("| ") for line in table.splitlines()) == len(stored["rows"]) + 1


@pytest.mark.parametrize(
    ("options", "line"), [(["--gpu"], "needs a CUDA device"), (["--rounds", "0"], "--rounds of 1")]
)
def test_what_cannot_be_measured_is_said_in_a_line(tmp_path, capsys, options, line):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    assert cli.main(["bench", "--out", str(tmp_path), *options]) == 2
    said = capsys.readouterr().err
    assert line in said and said.count("\n") == 1
