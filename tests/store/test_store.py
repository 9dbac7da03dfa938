"""Files survive kills; parameters cannot change behind a run's back."""

import json
import zipfile

import pytest

from reflectevo_lite import store


def make(i):
    return [{"i": i, "j": j} for j in range(3 if i < 3 else 2)]


def test_chunks_resume_to_the_same_bytes_from_any_cut(tmp_path):
    whole = tmp_path / "whole.jsonl"
    store.append_chunks(whole, 4, make, 3)
    want = whole.read_bytes()
    for cut in range(len(want) + 1):
        path = tmp_path / f"cut{cut}.jsonl"
        path.write_bytes(want[:cut])
        store.append_chunks(path, 4, make, 3)
        assert path.read_bytes() == want


def test_a_finished_file_is_not_made_again(tmp_path):
    store.append_chunks(tmp_path / "x.jsonl", 4, make, 3)
    store.append_chunks(tmp_path / "x.jsonl", 4, lambda i: pytest.fail("made again"), 3)


def test_interrupted_chunk_leaves_whole_chunks_only(tmp_path):
    def stop_at_two(i):
        if i == 2:
            raise KeyboardInterrupt
        return make(i)

    with pytest.raises(KeyboardInterrupt):
        store.append_chunks(tmp_path / "x.jsonl", 4, stop_at_two, 3)
    assert store.read_jsonl(tmp_path / "x.jsonl") == make(0) + make(1)


def test_truncated_last_line_is_left_out_and_a_broken_middle_is_named(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"a": 1}\n{"a": ')
    assert store.read_jsonl(path) == [{"a": 1}]
    path.write_text('{"a": 1}\nnonsense\n{"a": 2}\n')
    with pytest.raises(ValueError, match="line 2"):
        store.read_jsonl(path)


def test_changed_parameters_are_refused_by_name(tmp_path):
    store.open_run("02_x", tmp_path, k=2, seed=0)
    store.open_run("02_x", tmp_path, k=2, seed=0)
    with pytest.raises(store.ChangedParameters, match="k was 2, is 4"):
        store.open_run("02_x", tmp_path, k=4, seed=0)
    with pytest.raises(store.ChangedParameters, match="seed was 0, is 1"):
        store.open_run("03_y", tmp_path, seed=1)


def test_environment_records_versions_and_fingerprints(tmp_path):
    store.write_jsonl(tmp_path / "data" / "test.jsonl", [{"a": 1}])
    store.open_run("02_x", tmp_path, model="tiny")
    env = json.loads((tmp_path / "env.json").read_text())
    assert env["versions"]["torch"] and len(env["model"]["tiny"]) == 16 and len(env["data"]["test.jsonl"]) == 16


def test_a_missing_file_names_the_notebook_that_makes_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="02_reflection_generation"):
        store.Run(tmp_path).read("rollouts", "train.jsonl")


def test_whatever_the_marker_said_a_shorter_file_is_completed(tmp_path):
    path = tmp_path / "x.jsonl"
    store.append_chunks(path, 4, make, 3)
    want = path.read_bytes()
    path.write_bytes(want[:-5])  # the marker stays
    store.append_chunks(path, 4, make, 3)
    assert path.read_bytes() == want and store.finished(path)


@pytest.mark.parametrize(("chunks", "size"), [(3, 3), (4, 2), (5, 3)])
def test_a_file_of_other_chunks_is_refused_and_kept(tmp_path, chunks, size):
    path = tmp_path / "x.jsonl"
    store.append_chunks(path, 4, make, 3)
    want = path.read_bytes()
    with pytest.raises(ValueError, match=r"finished as 4 chunks of 3 rows.*--force"):
        store.append_chunks(path, chunks, lambda i: pytest.fail("made"), size)
    store.marker(path).unlink()
    with pytest.raises(ValueError, match="more than the 1 chunks of 3"):
        store.append_chunks(path, 1, lambda i: pytest.fail("made"), 3)
    assert path.read_bytes() == want


def test_damage_amid_a_file_is_named_and_nothing_is_dropped(tmp_path):
    path = tmp_path / "x.jsonl"
    store.append_chunks(path, 4, make, 3)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[4] = b"\0" * 9 + b"\n"
    path.write_bytes(b"".join(lines))
    with pytest.raises(ValueError, match=r"line 5: not a JSON row.*head -n 3"):
        store.append_chunks(path, 4, make, 3)
    assert path.read_bytes() == b"".join(lines)


def test_rows_on_disk_behave_as_a_list(tmp_path):
    want = [{"i": i, "text": "ä±" * (i % 5)} for i in range(23)]
    path = tmp_path / "x.jsonl"
    store.write_jsonl(path, want)
    with open(path, "a") as handle:
        handle.write('{"i": 23, "te')
    rows = store.Rows(path)
    assert rows == want and rows != want[:-1] and len(rows) == 23 and rows[-1] == want[-1]
    for part in (slice(3, 9), slice(None, 5), slice(40, None), slice(None, None, -3)):
        assert list(rows[part]) == want[part] and list(rows[part][1:3]) == want[part][1:3]
    with pytest.raises(IndexError):
        rows[23]


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    path = tmp_path / "x.jsonl"
    store.write_jsonl(path, [{"a": 1}])

    def rows():
        yield {"a": 2}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.write_jsonl(path, rows())
    assert store.read_jsonl(path) == [{"a": 1}] and [p.name for p in tmp_path.iterdir()] == ["x.jsonl"]


def test_changed_data_are_refused_once_something_was_made_of_them(tmp_path):
    store.write_jsonl(tmp_path / "data" / "train.jsonl", [{"a": 1}])
    store.open_run("01_data", tmp_path, seed=0)
    store.write_jsonl(tmp_path / "data" / "train.jsonl", [{"a": 2}])  # notebook 01 itself may write them
    store.open_run("02_x", tmp_path, seed=0)
    store.open_run("02_x", tmp_path, seed=0)
    store.write_jsonl(tmp_path / "data" / "train.jsonl", [{"a": 3}])
    with pytest.raises(store.ChangedParameters, match=r"other contents of train\.jsonl"):
        store.open_run("02_x", tmp_path, seed=0)


def test_how_a_run_is_split_and_what_is_read_beside_it_may_change(tmp_path):
    store.open_run("02_x", tmp_path, shard="1/2", other_seeds=[], seed=0)
    store.open_run("02_x", tmp_path, shard=None, other_seeds=["artifacts/seed_1"], seed=0)
    assert store.Run(tmp_path).params()["02_x"]["shard"] is None


def test_a_packed_run_is_unpacked_once_and_then_left_alone(tmp_path):
    made = store.Run(tmp_path / "made")
    for parts in (("evals", "a.oracle.jsonl"), ("evals", "swap", "b.jsonl"), ("data", "test.jsonl")):
        store.write_jsonl(made.path(*parts), [{"id": parts[-1]}])
    kept = tmp_path / "kept"
    kept.mkdir()
    with zipfile.ZipFile(kept / store.PACKED, "w") as packed:
        for file in made.directory.rglob("*.jsonl"):
            packed.write(file, file.relative_to(made.directory))
    run = store.Run(kept)
    assert run.read("evals", "a.oracle.jsonl") == [{"id": "a.oracle.jsonl"}]
    assert run.read("evals", "swap", "b.jsonl") and run.read("data", "test.jsonl")
    assert sorted(p.name for p in kept.iterdir()) == ["data", "evals", store.PACKED]
    run.path("evals", "a.oracle.jsonl").unlink()
    assert not store.Run(kept).path("evals", "a.oracle.jsonl").exists()  # what was done here since is not undone
