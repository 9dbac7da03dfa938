"""`reflectevo`: bad input gets one clear line, a failing cell is named, a locked directory stays locked."""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import nbformat
import pytest
from conftest import ROOT

from reflectevo_lite import store
from reflectevo_lite.run import cli, pipeline, products


@pytest.fixture
def toy(tmp_path):
    """Tiny notebooks without any model, with the real ones' names and parameters."""
    (tmp_path / "notebooks" / "beyond").mkdir(parents=True)
    for stage in products.ORDER:
        lines = [f"{name} = {value!r}" for name, value in pipeline.defaults(stage).items()]
        cell = nbformat.v4.new_code_cell("\n".join(lines))
        cell.metadata["tags"] = ["parameters"]
        body = nbformat.v4.new_code_cell("if globals().get('judge_pairs') == 13:\n    raise ValueError('unlucky')")
        notebook = nbformat.v4.new_notebook(cells=[cell, body], metadata={"language_info": {"name": "python"}})
        folder = tmp_path / "notebooks" / ("beyond" if stage in pipeline.BEYOND else "")
        nbformat.write(notebook, folder / f"{stage}.ipynb")
    (tmp_path / "p.yaml").write_text(f"run_dir: {tmp_path / 'run'}\n", encoding="utf-8")
    return tmp_path


def call(toy, *args):
    return cli.main([args[0], str(toy / "p.yaml"), "--notebooks", str(toy / "notebooks"), *args[1:]])


def test_unknown_parameter_gets_one_line_with_the_nearest_name(toy, capsys):
    assert call(toy, "run", "-p", "sft_lerning_rate", "0.2") == 2
    said = capsys.readouterr().err.strip()
    assert said.count("\n") == 0 and "'sft_lerning_rate'" in said and "did you mean sft_learning_rate?" in said
    assert not (toy / "run").exists()


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (("-p", "sft_epochs", "[1, 2]"), "sft_epochs: [1, 2] is not a number above 0"),
        (("--with", "grpo,magic"), "no notebook 'magic'; there are grpo, resampling, transfer, gain"),
        (("-p", "k", "[1"), "-p k, line 1: "),
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
    assert "p.yaml, line 1: " in capsys.readouterr().err


def test_run_skip_force_and_changed_parameters(toy, capsys):
    assert call(toy, "run") == 0
    assert call(toy, "run") == 0 and capsys.readouterr().out.count("finished before") == 6
    store.write_text(toy / "run" / "run.yaml", "03_sft: {sft_epochs: 3}\n")
    assert call(toy, "run", "-p", "sft_epochs", "4") == 2
    assert "sft_epochs was 3, is 4" in capsys.readouterr().err
    assert call(toy, "run", "-p", "sft_epochs", "4", "--only", "3", "--force") == 0
    done = [stage for stage in store.STAGES if store.stage_finished(toy / "run", stage)]
    assert done == ["01_data", "02_reflection_generation", "03_sft"]  # what was built on the old one is set aside
    assert len(list((toy / "run" / "before").rglob("*.ipynb"))) == 4


def test_notebooks_beyond_run_when_asked_and_the_analysis_after_them(toy, capsys):
    assert call(toy, "run") == 0 and not store.stage_finished(toy / "run", "gain")
    capsys.readouterr()
    assert call(toy, "run", "--with", "gain") == 0
    said = capsys.readouterr().out
    assert said.count("finished before") == 5 and "[6/7] gain: " in said and "[7/7] 06_analysis: " in said
    assert call(toy, "run", "--only", "gain", "--force") == 0
    assert store.stage_finished(toy / "run", "05_iteration") and not store.stage_finished(toy / "run", "06_analysis")


def test_a_failing_cell_is_named_and_the_run_goes_on_from_there(toy, capsys):
    assert call(toy, "run", "-p", "judge_pairs", "13") == 1
    said = capsys.readouterr().err
    assert "04_dpo, cell" in said and "ValueError: unlucky" in said and said.count("\n") <= 3
    assert not store.stage_finished(toy / "run", "04_dpo") and store.stage_finished(toy / "run", "03_sft")
    assert call(toy, "run") == 0


def test_a_second_process_is_refused_and_a_dead_one_leaves_no_lock(toy, capsys):
    code = (
        "import time, pathlib\nfrom reflectevo_lite.run import pipeline\n"
        f"with pipeline._locked(pathlib.Path({str(toy / 'run')!r})):\n    print('locked', flush=True)\n    time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT)
    other.stdout.readline()
    assert call(toy, "run") == 2
    assert f"{toy / 'run'} is in use by" in capsys.readouterr().err
    other.kill()
    other.wait()
    assert call(toy, "run") == 0


def test_a_run_directory_is_locked_from_any_thread(toy):
    def lock():
        with pipeline._locked(toy / "run"):
            return True

    with ThreadPoolExecutor(1) as pool:  # where no signal handler can be set
        assert pool.submit(lock).result()


def test_plan_loads_nothing(toy, capsys):
    assert call(toy, "plan") == 0
    assert capsys.readouterr().out.count("to do") == 6 and not (toy / "run").exists()


def test_report_of_nothing_says_what_to_run(tmp_path, capsys):
    assert cli.main(["report", str(tmp_path)]) == 2
    assert "run notebook 06_analysis first" in capsys.readouterr().err


def test_importing_the_package_is_quick_and_never_imports_torch():
    modules = "reflectevo_lite, reflectevo_lite.run.cli, reflectevo_lite.run.pipeline, reflectevo_lite.grading"
    heavy = ("torch", "transformers", "pandas", "datasets", "scipy", "papermill", "openai")
    code = f"import sys, json, {modules}; print(json.dumps([m for m in {heavy} if m in sys.modules]))"
    started = time.perf_counter()
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert json.loads(found.stdout) == [] and time.perf_counter() - started < 20


def test_every_public_name_has_a_docstring():
    import ast

    for path in (ROOT / "reflectevo_lite").rglob("*.py"):
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
    assert pip == ["-c constraints.txt", "-e .[test]"] and set(project["optional-dependencies"]) == {
        "test", "gpu", "smollm2", "reasoning",
    }  # fmt: skip
    assert f"python{project['requires-python']}" in next(d for d in env["dependencies"] if str(d).startswith("python"))
    pins = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    wanted = {d.split(">")[0].split("<")[0].split("=")[0].strip() for d in project["dependencies"]}
    assert wanted <= pins


def test_a_full_disk_gets_one_line_and_exit_2(toy, capsys, monkeypatch):
    import errno

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device", "run/notebooks/01_data.ipynb")

    monkeypatch.setattr(pipeline, "execute", full)
    assert call(toy, "run") == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("reflectevo: run/notebooks/01_data.ipynb: no room to write") and "\n" not in said


@pytest.mark.parametrize("counts, whole", [([1, 2], True), ([1, None], False), ([], True)])
def test_a_copy_whose_kernel_died_is_not_finished(tmp_path, counts, whole):
    """papermill writes an end time, no exception and "completed" for the cells after a dead kernel's last one."""
    cells = [{"cell_type": "markdown"}, *({"cell_type": "code", "execution_count": n} for n in counts)]
    copy = {"cells": cells, "metadata": {"papermill": {"end_time": "2026-01-01", "exception": None}}}
    store.executed_copy(tmp_path, "01_data").parent.mkdir()
    store.executed_copy(tmp_path, "01_data").write_text(json.dumps(copy))
    assert store.stage_finished(tmp_path, "01_data") is whole


def test_sigterm_stops_a_run_and_its_kernel_like_ctrl_c(toy):
    """As `timeout` and batch systems stop it. The kernel says that it runs, and would say that it went on."""
    path, kernel = toy / "notebooks" / "01_data.ipynb", toy / "kernel"
    notebook = nbformat.read(path, as_version=4)
    body = f"import os, pathlib, time\npathlib.Path({str(kernel)!r}).write_text(str(os.getpid()))\ntime.sleep(60)"
    notebook.cells.append(nbformat.v4.new_code_cell(body))
    nbformat.write(notebook, path)
    command = [sys.executable, "-m", "reflectevo_lite.run.cli", "run", str(toy / "p.yaml")]
    run = subprocess.Popen([*command, "--notebooks", str(toy / "notebooks")], stderr=subprocess.PIPE, encoding="utf-8")
    while not (kernel.exists() and kernel.read_text()) and run.poll() is None:
        time.sleep(0.1)
    run.terminate()
    said = run.communicate(timeout=30)[1].strip().splitlines()
    assert run.returncode == 130 and said[-1] == "reflectevo: interrupted; the same command goes on from here"
    assert "Traceback" not in "\n".join(said)
    with pytest.raises(ProcessLookupError):
        os.kill(int(kernel.read_text()), 0)


def test_without_a_command_it_prints_its_help(capsys):
    assert cli.main([]) == 0 and "COMMAND" in capsys.readouterr().out
