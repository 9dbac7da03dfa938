"""`reflectevo`: bad input gets one clear line, a failing cell is named, a locked directory stays locked."""

import json
import subprocess
import sys
import time

import nbformat
import pytest
from conftest import ROOT

from reflectevo_lite.run import cli, pipeline
from reflectevo_lite.store import files as store


@pytest.fixture
def toy(tmp_path):
    """Six tiny notebooks without any model."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    for stage in pipeline.STAGES:
        cell = nbformat.v4.new_code_cell(f'run_dir = "artifacts/x"\n{stage[3:]}_size = 3\nlearning_rate = 0.1')
        cell.metadata["tags"] = ["parameters"]
        body = nbformat.v4.new_code_cell(f"if {stage[3:]}_size == 13:\n    raise ValueError('unlucky')")
        notebook = nbformat.v4.new_notebook(cells=[cell, body], metadata={"language_info": {"name": "python"}})
        nbformat.write(notebook, folder / f"{stage}.ipynb")
    (tmp_path / "p.yaml").write_text(f"run_dir: {tmp_path / 'run'}\n")
    return tmp_path


def call(toy, *args):
    return cli.main([args[0], str(toy / "p.yaml"), "--notebooks", str(toy / "notebooks"), *args[1:]])


def test_unknown_parameter_gets_one_line_with_the_nearest_name(toy, capsys):
    assert call(toy, "run", "-p", "lerning_rate", "0.2") == 2
    said = capsys.readouterr().err.strip()
    assert said.count("\n") == 0 and "'lerning_rate'" in said and "did you mean learning_rate?" in said
    assert not (toy / "run").exists()


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (("-p", "sft_size", "[1, 2]"), "should be a int like 3"),
        (("--only", "09"), "no notebook '09'; there are 01_data"),
    ],
)
def test_bad_arguments_exit_2(toy, capsys, args, hint):
    assert call(toy, "run", *args) == 2
    assert hint in capsys.readouterr().err


def test_missing_and_broken_params_files(toy, capsys):
    assert cli.main(["run", str(toy / "q.yaml")]) == 2
    assert f"there are {toy / 'p.yaml'}" in capsys.readouterr().err
    (toy / "p.yaml").write_text("a: [1")
    assert call(toy, "run") == 2
    assert "not valid YAML" in capsys.readouterr().err


def test_run_skip_force_and_changed_parameters(toy, capsys):
    assert call(toy, "run") == 0
    assert call(toy, "run") == 0 and capsys.readouterr().out.count("finished before") == 6
    store.write_text(toy / "run" / "run.yaml", "03_sft: {sft_size: 3, learning_rate: 0.1}\n")
    assert call(toy, "run", "-p", "sft_size", "4") == 2
    assert "sft_size was 3, is 4" in capsys.readouterr().err
    assert call(toy, "run", "-p", "sft_size", "4", "--only", "3", "--force") == 0
    done = [stage for stage in pipeline.STAGES if pipeline.finished(toy / "run", stage)]
    assert done == ["01_data", "02_reflection_generation", "03_sft"]  # what was built on the old one is set aside
    assert len(list((toy / "run" / "before").rglob("*.ipynb"))) == 4


def test_a_failing_cell_is_named_and_the_run_goes_on_from_there(toy, capsys):
    assert call(toy, "run", "-p", "dpo_size", "13") == 1
    said = capsys.readouterr().err
    assert "04_dpo, cell" in said and "ValueError: unlucky" in said and said.count("\n") <= 3
    assert not pipeline.finished(toy / "run", "04_dpo") and pipeline.finished(toy / "run", "03_sft")
    assert call(toy, "run") == 0


def test_a_second_process_is_refused_and_a_dead_one_leaves_no_lock(toy, capsys):
    code = f"import time, pathlib\nfrom reflectevo_lite import pipeline\nwith pipeline.lock(pathlib.Path({str(toy / 'run')!r})):\n    print('locked', flush=True)\n    time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT)
    other.stdout.readline()
    assert call(toy, "run") == 2
    assert f"in use by process {other.pid}" in capsys.readouterr().err
    other.kill()
    other.wait()
    assert call(toy, "run") == 0


def test_plan_loads_nothing(toy, capsys):
    assert call(toy, "plan") == 0
    assert capsys.readouterr().out.count("to do") == 6 and not (toy / "run").exists()


def test_report_of_nothing_says_what_to_run(tmp_path, capsys):
    assert cli.main(["report", str(tmp_path)]) == 2
    assert "run notebook 06_analysis first" in capsys.readouterr().err


def test_importing_the_package_is_quick_and_never_imports_torch():
    code = "import sys, reflectevo_lite, reflectevo_lite.run.cli, reflectevo_lite.run.pipeline, reflectevo_lite.grading, json; print(json.dumps([m for m in ('torch', 'transformers', 'pandas', 'datasets') if m in sys.modules]))"
    started = time.perf_counter()
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert json.loads(found.stdout) == [] and time.perf_counter() - started < 20


def test_every_public_name_has_a_docstring():
    import ast

    for path in (ROOT / "reflectevo_lite").glob("*.py"):
        tree = ast.parse(path.read_text())
        assert ast.get_docstring(tree), path
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{path.name}: {node.name}"


def test_environment_yml_follows_pyproject():
    import tomllib

    import yaml

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    env = yaml.safe_load((ROOT / "environment.yml").read_text())
    pip = next(d["pip"] for d in env["dependencies"] if isinstance(d, dict))
    assert pip == ["-c constraints.txt", "-e .[test]"] and set(project["optional-dependencies"]) == {"test", "gpu"}
    assert f"python{project['requires-python']}" in next(d for d in env["dependencies"] if str(d).startswith("python"))
    pins = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    wanted = {d.split(">")[0].split("<")[0].split("=")[0].strip() for d in project["dependencies"]}
    assert wanted <= pins


def shard_notebook(toy):
    """A toy notebook 02 that makes its part of four rows, and goes on only for the whole."""
    source = """from reflectevo_lite import shards, store
run, part = store.Run(run_dir), shards.parse(shard)
out = run.path("rollouts", "train.jsonl")
mine = shards.chunks(part, 4)
store.append_chunks(shards.path(out, part) if part else out, len(mine), lambda i: [{"id": mine[i]}], 1)
shards.wait_for_merge(shard, run)
run.path("whole").touch()"""
    cells = [nbformat.v4.new_code_cell('run_dir = "artifacts/x"\nshard = None'), nbformat.v4.new_code_cell(source)]
    cells[0].metadata["tags"] = ["parameters"]
    path = toy / "notebooks" / "02_reflection_generation.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"language_info": {"name": "python"}}), path)


def test_a_shard_ends_after_generation_and_says_what_comes_next(toy, capsys):
    shard_notebook(toy)
    assert call(toy, "run", "-p", "shard", "1/2") == 0
    said = capsys.readouterr().out
    assert "Shard 1/2 is finished; curation waits for the merge" in said and "[2/2] 02_reflection_generation" in said
    run = toy / "run"
    assert store.read_jsonl(run / "rollouts" / "train.1-of-2.jsonl") == [{"id": 0}, {"id": 2}]
    assert not (run / "whole").exists() and not pipeline.finished(run, "02_reflection_generation")
    assert call(toy, "run", "-p", "shard", "1/2") == 0 and capsys.readouterr().out.count("finished before") == 2
    assert call(toy, "run", "-p", "shard", "2/2", "--only", "02") == 0  # another part in the same directory
    assert store.read_jsonl(run / "rollouts" / "train.2-of-2.jsonl") == [{"id": 1}, {"id": 3}]
    assert call(toy, "run", "--only", "02") == 0 and (run / "whole").exists()
    assert {p.name for p in (run / "notebooks").glob("02*")} == {
        f"02_reflection_generation{part}.ipynb" for part in ("", ".1-of-2", ".2-of-2")
    }


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (("-p", "shard", "1/2", "--only", "02,03"), "03_sft cannot run on shard 1/2 alone: join the shards"),
        (("-p", "shard", "3/2"), "'3/2' should be like 2/4"),
    ],
)
def test_a_shard_cannot_do_what_needs_the_whole(toy, capsys, args, hint):
    shard_notebook(toy)
    assert call(toy, "run", *args) == 2
    said = capsys.readouterr().err.strip()
    assert hint in said and "\n" not in said and not (toy / "run").exists()


def test_a_full_disk_gets_one_line_and_exit_2(toy, capsys, monkeypatch):
    import errno

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device", "run/notebooks/01_data.ipynb")

    monkeypatch.setattr(pipeline, "execute", full)
    assert call(toy, "run") == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("reflectevo: run/notebooks/01_data.ipynb: no room to write") and "\n" not in said


def test_all_of_a_collection_may_also_be_a_list(toy, capsys):
    notebook = toy / "notebooks" / "03_sft.ipynb"
    notebook.write_text(notebook.read_text().replace("sft_size = 3", 'sft_size = 3\\nkinds = \\"all\\"'))
    assert call(toy, "plan", "-p", "kinds", "[a, b]") == 0 and "kinds = ['a', 'b']" in capsys.readouterr().out
    assert call(toy, "plan", "-p", "kinds", "3") == 2


@pytest.mark.parametrize("counts, whole", [([1, 2], True), ([1, None], False), ([], True)])
def test_a_copy_whose_kernel_died_is_not_finished(tmp_path, counts, whole):
    """papermill writes an end time, no exception and "completed" for the cells after a dead kernel's last one."""
    cells = [{"cell_type": "markdown"}, *({"cell_type": "code", "execution_count": n} for n in counts)]
    copy = {"cells": cells, "metadata": {"papermill": {"end_time": "2026-01-01", "exception": None}}}
    pipeline.executed_copy(tmp_path, "01_data").parent.mkdir()
    pipeline.executed_copy(tmp_path, "01_data").write_text(json.dumps(copy))
    assert pipeline.finished(tmp_path, "01_data") is whole
