"""Files survive kills; parameters cannot change behind a run's back."""

import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT

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
    path.write_text('{"a": 1}\n{"a": ', encoding="utf-8")
    assert store.read_jsonl(path) == [{"a": 1}]
    path.write_text('{"a": 1}\nnonsense\n{"a": 2}\n', encoding="utf-8")
    with pytest.raises(ValueError, match="line 2"):
        store.read_jsonl(path)


def test_environment_records_versions_and_fingerprints(tmp_path):
    run = store.Run(tmp_path)
    store.write_jsonl(run.path("data", "test.jsonl"), [{"a": 1}])
    store.record_environment(run, {"data": store.fingerprints(run), "model": {"tiny": "abc"}})
    env = run.environment()
    assert env["versions"]["torch"] and len(env["data"]["test.jsonl"]) == 16
    store.record_environment(run, {"data": {}, "model": None})
    assert run.environment()["model"] == {"tiny": "abc"}  # a stage without a model does not forget it


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
    with open(path, "a", encoding="utf-8") as handle:
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


def test_a_packed_run_is_never_written_to_and_its_copy_is_gone_on_with(tmp_path, monkeypatch):
    monkeypatch.setenv("REFLECTEVO_CACHE", str(tmp_path / "cache"))
    made = store.Run(tmp_path / "made")
    for parts in (("evals", "a.oracle.jsonl"), ("evals", "swap", "b.jsonl"), ("data", "test.jsonl")):
        store.write_jsonl(made.path(*parts), [{"id": parts[-1]}])
    kept = tmp_path / "kept"
    (kept / "figures").mkdir(parents=True)
    (kept / "figures" / "a.png").touch()
    with zipfile.ZipFile(kept / store.PACKED, "w") as packed:
        for file in made.directory.rglob("*.jsonl"):
            packed.write(file, file.relative_to(made.directory))
    run = store.Run(kept)
    assert run.read("evals", "a.oracle.jsonl") == [{"id": "a.oracle.jsonl"}]
    assert run.read("evals", "swap", "b.jsonl") and run.read("data", "test.jsonl")
    assert run.directory.name == "kept" and run.path("figures", "a.png").exists()
    assert sorted(p.name for p in kept.iterdir()) == ["figures", store.PACKED]
    run.path("evals", "a.oracle.jsonl").unlink()
    assert not store.Run(kept).path("evals", "a.oracle.jsonl").exists()  # what was done here since is not undone


def test_the_cache_lies_where_it_can_be_written(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    monkeypatch.delenv("REFLECTEVO_CACHE", raising=False)
    assert store.cache_dir() == tmp_path / "x" / "reflectevo_lite"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert store.cache_dir() == tmp_path / ".cache" / "reflectevo_lite"
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    assert store.cache_dir().parent == Path(tempfile.gettempdir())


def test_appended_rows_are_whole_and_a_killed_writer_s_half_line_goes(tmp_path):
    path = tmp_path / "deep" / "x.jsonl"
    store.append_line(path, {"a": 1})
    store.append_line(path, {"a": "ä"}, {"a": 3})
    whole = path.read_bytes()
    path.write_bytes(whole + '{"a": "ü'.encode()[:-1])
    store.append_line(path, {"a": 4})
    assert path.read_bytes() == whole + b'{"a":4}\n'
    path.write_bytes(whole + b'{"a": 5}')  # whole but for its end
    store.append_line(path, {"a": 6})
    assert [row["a"] for row in store.iter_jsonl(path)] == [1, "ä", 3, 5, 6]


def test_a_full_disk_leaves_nothing_of_an_appended_row(tmp_path):
    path = tmp_path / "x.jsonl"
    store.append_line(path, {"a": 1})
    code = f"""if True:
        import resource, signal
        from reflectevo_lite import store
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (12, 12))
        try:
            store.append_line({str(path)!r}, dict(a="long enough"))
        except store.NoRoom as error:
            print(error)"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT).stdout
    assert f"{path}: no room to write" in said and path.read_bytes() == b'{"a":1}\n'


def test_what_a_killed_writer_left_beside_a_file_goes_after_a_day(tmp_path):
    old, young, other = (tmp_path / name for name in (".x.json.123", ".x.json.124", ".x.json.tmp"))
    for left in (old, young, other):
        left.touch()
    for left in (old, other):
        os.utime(left, (0, 0))
    store.write_json(tmp_path / "x.json", {})
    assert sorted(p.name for p in tmp_path.iterdir()) == [".x.json.124", ".x.json.tmp", "x.json"]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with source notebooks, an executed run, and the working directory in it."""
    root = tmp_path / "project"
    for folder in ("notebooks/solutions", "params", "artifacts/run/notebooks", "artifacts/mine/notebooks"):
        (root / folder).mkdir(parents=True)
    store.write_json(root / "notebooks" / "01_data.ipynb", {"metadata": {}})
    store.write_json(root / "artifacts" / "mine" / "notebooks" / "01_data.ipynb", {"metadata": {}})
    store.write_json(root / "artifacts" / "run" / "notebooks" / "01_data.ipynb", {"metadata": {"papermill": {}}})
    (root / "artifacts" / "run" / "notebooks" / "02_torn.ipynb").write_text('{"meta', encoding="utf-8")
    (root / "artifacts" / "file").touch()
    monkeypatch.chdir(root / "notebooks")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return root


@pytest.mark.parametrize("asked", ["artifacts/run", "artifacts/new", "elsewhere", "../beside", Path("artifacts/run")])
def test_a_folder_of_its_own_may_hold_a_run(project, asked):
    assert store.run_dir(asked) == (project / asked).resolve() == store.run_dir(str(project / asked))


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        *((asked, "name a folder, such as artifacts/my_run") for asked in (None, "", "  ", 7, ["a"])),
        *((asked, "holds the project itself") for asked in (".", "..", "artifacts/..")),
        *(
            (asked, "lies among the project's own files")
            for asked in ("notebooks", "notebooks/solutions", "notebooks/new")
        ),
        ("artifacts/mine", "holds notebooks that are not a run's"),
        ("artifacts/file", "is a file"),
        ("artifacts/{seed}", "has a brace"),
        ("artifacts/}", "has a brace"),
        ("~", "home directory"),
        ("/", "root of a disk"),
    ],
)
def test_a_run_never_writes_where_it_could_overwrite_something(project, asked, why):
    with pytest.raises(store.BadRunDir, match=re.escape(why)) as error:
        store.run_dir(asked)
    assert (
        isinstance(error.value, ValueError) and "\n" not in str(error.value) and "artifacts/my_run" in str(error.value)
    )


def test_another_project_is_no_run_either(project, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(store.BadRunDir, match="holds the project itself"):
        store.run_dir(project)
    (project / "params").rmdir()
    (project / "pyproject.toml").touch()
    with pytest.raises(store.BadRunDir, match="holds the project itself"):
        store.run_dir(project)
    with pytest.raises(store.BadRunDir, match="lies among the project's own files"):
        store.run_dir(ROOT / "notebooks" / "run")  # the package's own, wherever one works


def test_the_cache_is_one_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("REFLECTEVO_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert store.cache_dir() == tmp_path / "reflectevo_lite"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert store.cache_dir() == Path.home() / ".cache" / "reflectevo_lite"
    monkeypatch.setenv("REFLECTEVO_CACHE", str(tmp_path / "own"))
    assert store.cache_dir() == tmp_path / "own"
