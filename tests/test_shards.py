"""Shards of a run join to the very file of an unsharded one, and to nothing where anything is missing, double or other."""

import shutil

import pytest
import worker

from reflectevo_lite import cli, rollouts, shards, store

N, CHUNK = 53, 8  # seven chunks, the last one short
PARAMS = {"k": 2, "chunk_size": CHUNK, "seed": 3, "temperature": 1.0}


def generate(run, shard=None):
    return rollouts.generate_rollouts(
        worker.FakeEngine(),
        run.rows("data", "train.jsonl")[:N],
        run.path("rollouts", "train.jsonl"),
        shard=shard,
        progress=False,
        **PARAMS,
    )


def open_run(folder, shard=None, **changed):
    store.write_jsonl(folder / "data" / "train.jsonl", worker.fake_problems(60))
    store.open_run("01_data", folder, n_train=60)
    run = store.open_run(shards.GENERATION, folder, n_rollout=N, shard=shard, **PARAMS | changed)
    return run


@pytest.fixture
def parts(tmp_path):
    """Three run directories with a shard each."""
    for i in (1, 2, 3):
        generate(open_run(tmp_path / f"m{i}", f"{i}/3"), f"{i}/3")
    return [tmp_path / f"m{i}" for i in (1, 2, 3)]


def refused(capsys, *args):
    assert cli.main(["merge", *map(str, args)]) == 2
    said = capsys.readouterr().err.strip()
    assert "\n" not in said
    return said


@pytest.mark.parametrize("n", [1, 3, 8])  # 8 shards of 7 chunks: one is empty
def test_the_merge_is_the_very_file_of_an_unsharded_run(tmp_path, n):
    generate(open_run(tmp_path / "whole"))
    for i in range(n, 0, -1):
        generate(open_run(tmp_path / "run", f"{i}/{n}"), f"{i}/{n}")
    assert cli.main(["merge", str(tmp_path / "run")]) == 0
    assert cli.main(["merge", str(tmp_path / "run")]) == 0  # again: left as it is
    run = open_run(tmp_path / "run")
    assert run.path("rollouts", "train.jsonl").read_bytes() == (tmp_path / "whole/rollouts/train.jsonl").read_bytes()
    assert store.finished(run.path("rollouts", "train.jsonl")) and len(generate(run)) == N  # nothing is made again


def test_run_directories_of_several_machines_join_in_a_new_one(parts, tmp_path):
    generate(open_run(tmp_path / "whole"))
    assert cli.main(["merge", str(tmp_path / "all"), *map(str, parts)]) == 0
    for name in ("rollouts/train.jsonl", "data/train.jsonl"):
        assert (tmp_path / "all" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    made = store.Run(tmp_path / "all").params()
    assert made == store.Run(tmp_path / "whole").params() and made[shards.GENERATION]["shard"] is None


def test_a_missing_a_double_and_an_unfinished_shard_are_named(parts, tmp_path, capsys):
    out = tmp_path / "all"
    assert "missing: shard 2/3" in refused(capsys, out, parts[0], parts[2])
    shutil.copytree(parts[0], tmp_path / "copy")
    assert "shard 1/3 is there twice" in refused(capsys, out, *parts, tmp_path / "copy")
    file = parts[1] / "rollouts" / "train.2-of-3.jsonl"
    file.write_bytes(file.read_bytes()[:-100])
    assert f"{file} is unfinished" in refused(capsys, out, *parts)
    assert "no shards in" in refused(capsys, out) or "no run directory" in refused(capsys, out)
    assert "no run directory" in refused(capsys, out, tmp_path / "nowhere")
    assert not (out / "rollouts").exists()


def test_other_parameters_data_or_rows_are_refused(parts, tmp_path, capsys):
    out = tmp_path / "all"
    shutil.rmtree(parts[1])
    other = open_run(parts[1], "2/3", k=3)
    rollouts.generate_rollouts(
        worker.FakeEngine(),
        other.rows("data", "train.jsonl")[:N],
        other.path("rollouts", "train.jsonl"),
        shard="2/3",
        progress=False,
        **PARAMS | {"k": 3},
    )
    assert "k differs: 2 in" in refused(capsys, out, *parts)
    shutil.rmtree(parts[1])
    generate(open_run(parts[1], "2/3"), "2/3")
    file = parts[1] / "rollouts" / "train.2-of-3.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([lines[1], lines[0], *lines[2:]]))  # as long as the marker says
    assert "the row of question fake-8 should come here, found fake-9" in refused(capsys, out, *parts)
    store.write_jsonl(parts[1] / "data" / "train.jsonl", worker.fake_problems(60, padding=1))
    assert "has changed since its shard was made" in refused(capsys, out, *parts)
    assert not (out / "rollouts").exists() or not list((out / "rollouts").iterdir())


def test_an_unsharded_file_in_the_way_is_kept(parts, capsys):
    for part in parts[1:]:
        for file in (part / "rollouts").iterdir():
            shutil.copy(file, parts[0] / "rollouts" / file.name)
    target = parts[0] / "rollouts" / "train.jsonl"
    target.write_text('{"id": "mine"}\n')
    assert "move it away first" in refused(capsys, parts[0])
    assert target.read_text() == '{"id": "mine"}\n'


@pytest.mark.parametrize("text", ["0/4", "5/4", "1-4", "4", 3, "1/0", "a/b", ""])
def test_a_wrong_shard_is_refused(text):
    with pytest.raises(ValueError, match="should be like 2/4"):
        shards.parse(text)


def test_a_notebook_ends_in_one_line_at_its_shard(tmp_path, capsys):
    run = store.Run(tmp_path)
    shards.wait_for_merge(None, run)
    with pytest.raises(SystemExit) as end:
        shards.wait_for_merge("1/3", run)
    said = capsys.readouterr().out
    assert (
        end.value.code == 0 and said.count("\n") == 1 and "waits for the merge" in said and "reflectevo merge" in said
    )


def test_shards_that_are_not_yet_merged_are_not_made_again_by_mistake(parts):
    run = open_run(parts[0])
    with pytest.raises(ValueError, match=r"holds train\.1-of-3\.jsonl and no train\.jsonl: join the shards"):
        generate(run)
    with pytest.raises(FileNotFoundError, match="shards wait for `reflectevo merge"):
        run.read("curated", "d_plus.jsonl")
    assert len(generate(run, "1/3")) == 21
