"""The notebooks: tidy as committed, in step with each other, and executed through papermill on the embedded model."""

import ast
import json
import re
import shutil
import statistics
from pathlib import Path

import pytest
import recompute
import yaml
from conftest import ROOT
from planned import assert_planned
from tiny_model.corpus import RECIPE

from reflectevo_lite import curate, evaluate, store
from reflectevo_lite.data import SOURCES
from reflectevo_lite.run import open_run, pipeline, products
from reflectevo_lite.run import params as table
from reflectevo_lite.run.record import REFERENCE

LESSONS = ROOT / "notebooks"
NOTEBOOKS = sorted([*LESSONS.glob("*.ipynb"), *LESSONS.glob("beyond/*.ipynb")])
SMALL = {"n_train": 400, "n_test": 60, "n_rollout": 120, "chunk_size": 60, "rounds": 2, "turns": 3}
SMALL |= {"n_validation": 40, "n_transfer": 30}
SMALL |= {"grpo_steps": 2, "grpo_batch_size": 16}


def cells(path, kind):
    return [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == kind]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_committed_without_outputs_and_more_story_than_code(path):
    code, text = cells(path, "code"), cells(path, "markdown")
    assert not any(c["outputs"] or c["execution_count"] for c in code)
    assert len(text) >= len(code)
    assert statistics.median(len("".join(c["source"]).splitlines()) for c in code) <= 7
    functions = [n for c in code for n in ast.walk(ast.parse("".join(c["source"]))) if isinstance(n, ast.FunctionDef)]
    assert all(f.end_lineno - f.lineno < 6 for f in functions)
    assert json.loads(path.read_text())["metadata"]["kernelspec"]["name"] == "python3"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_every_parameter_is_a_field_of_colabs_form(path):
    [cell] = [c for c in cells(path, "code") if "parameters" in c["metadata"].get("tags", [])]
    for line in "".join(cell["source"]).splitlines():
        value, form = line.partition(" = ")[2].split("  # @param ")
        choices = ast.literal_eval(form.replace("type:", '"type":'))
        if isinstance(choices, list):
            assert ast.literal_eval(value) in choices
        else:
            fits = {"string": str, "boolean": bool, "integer": int, "number": (int, float), "raw": object}
            assert isinstance(ast.literal_eval(value), fits[choices["type"]])


def declared(path):
    """The names and defaults in a notebook's parameters cell."""
    [cell] = [c for c in cells(path, "code") if "parameters" in c["metadata"].get("tags", [])]
    body = ast.parse("".join(cell["source"])).body
    return {node.targets[0].id: ast.literal_eval(node.value) for node in body}


@pytest.mark.parametrize(
    "path", [p for p in NOTEBOOKS if p.stem not in ("00_tiny_model", "quickstart")], ids=lambda p: p.stem
)
def test_parameters_cells_are_those_of_the_one_table(path):
    assert declared(path) == table.defaults(path.stem)
    assert list(declared(path)) == list(table.defaults(path.stem))
    source = "\n".join("".join(c["source"]) for c in cells(path, "code"))
    assert source.count("open_run(") == 1 and f'open_run("{path.stem}", globals())' in source
    used = {
        n.id for n in ast.walk(ast.parse(source.split("open_run(")[1].partition("\n")[2])) if isinstance(n, ast.Name)
    }
    assert not used & set(declared(path)), "a parameter is taken from p, once, not from the cell"


@pytest.mark.parametrize("path", sorted((ROOT / "params").rglob("*.yaml")), ids=lambda p: p.stem)
def test_every_params_file_fits_the_notebooks(path):
    asked = pipeline.make_plan(pipeline.load_params(path), ROOT / "notebooks")
    assert set(asked.params) == set(products.ORDER)


PAPER = {path.stem: pipeline.load_params(path) for path in sorted((ROOT / "params" / "paper").glob("*.yaml"))}


def test_the_papers_presets_are_four_benchmarks_by_two_models_on_500_questions():
    assert len(PAPER) == 8 and len({p["run_dir"] for p in PAPER.values()}) == 8
    assert all(p["n_test"] * len(p["sources"]) == 500 and p["seed"] == 0 for p in PAPER.values())
    assert {p["model"] for p in PAPER.values()} == {
        "meta-llama/Meta-Llama-3-8B-Instruct",
        "mistralai/Mistral-7B-Instruct-v0.2",
    }
    assert all(name in SOURCES for p in PAPER.values() for name in p["sources"])


def test_the_papers_presets_differ_in_model_and_questions_alone():
    own = {"run_dir", "model", "sources", "n_train", "n_test", "n_rollout", "shown_tests"}
    shared = [{name: value for name, value in p.items() if name not in own} for p in PAPER.values()]
    assert all(p == shared[0] for p in shared)
    assert shared[0]["grad_accum"] * shared[0]["sft_batch_size"] == 16 * 4  # the paper's rows in a step
    assert shared[0]["grad_accum"] * shared[0]["dpo_batch_size"] == 1 * 32 * 4


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("run") / "small"
    params = pipeline.load_params(ROOT / "params" / "tiny_cpu.yaml", SMALL | {"run_dir": str(run_dir)})
    asked = pipeline.make_plan(params, ROOT / "notebooks")
    return asked, pipeline.run_plan(asked, beyond=",".join(pipeline.BEYOND), say=lambda line: None)


def test_the_whole_pipeline_runs_through_papermill(small_run):
    asked, seconds = small_run
    assert list(seconds) == list(products.ORDER)
    assert all(store.stage_finished(asked.run_dir, stage) for stage in products.ORDER)
    metrics = json.loads((asked.run_dir / "metrics.json").read_text())
    settings = {r["setting"] for r in metrics["rows"]}
    assert set(evaluate.SETTINGS) | {"round_2"} == settings
    assert {r["mode"] for r in metrics["rows"]} == {"oracle", "intrinsic"}
    assert {r["control"] for r in metrics["rows"]} == {None, *evaluate.CONTROLS}
    assert {r["tested on"] for r in metrics["transfer"]} == {"arithmetic", "lists", "lineup"}
    assert recompute.main(asked.run_dir) == []
    for row in metrics["rows"]:
        assert sum(row["flips"].values()) == row["n"] and row["delta_ci"][0] <= row["delta"] <= row["delta_ci"][1]


def test_the_plan_counts_what_the_run_did(small_run):
    asked, _ = small_run
    assert_planned(asked, store.Run(asked.run_dir))


def test_every_executed_notebook_shows_its_pictures(small_run):
    """A figure is a picture: no output is only the text of an object that should be seen."""
    for stage in products.ORDER:
        notebook = json.loads(store.executed_copy(small_run[0].run_dir, stage).read_text())
        outputs = [o for c in notebook["cells"] if c["cell_type"] == "code" for o in c["outputs"] if "data" in o]
        pictures = sum("image/png" in o["data"] for o in outputs)
        assert pictures == PICTURES[stage], (stage, pictures)
        for output in outputs:
            only = "".join(output["data"].get("text/plain", "")) if set(output["data"]) == {"text/plain"} else ""
            assert not only.startswith("<") and "object at 0x" not in only, (stage, only)


PICTURES = {stage: len(names) for stage, names in products.FIGURES.items()} | {
    "resampling": 0,
    "ablation": 0,
    "one_pass": 0,
}


def test_the_run_keeps_its_record_figures_and_report(small_run):
    asked, _ = small_run
    assert set(yaml.safe_load((asked.run_dir / "run.yaml").read_text())) == set(products.ORDER)
    figures = {p.stem for p in (asked.run_dir / "figures").glob("*.png")}
    assert figures == {name for names in products.FIGURES.values() for name in names}
    page = (asked.run_dir / "report.html").read_text()
    outside = re.sub(r'base64,[^"]*', "base64,", page.split("<h2>Parameters")[0]).replace("https://arxiv", "")
    assert page.count("data:image/png;base64") >= 6 and "http" not in outside


def test_a_second_call_is_a_quick_no_op_with_the_same_table(small_run):
    asked, _ = small_run
    before = (asked.run_dir / "metrics.json").read_bytes()
    assert sum(pipeline.run_plan(asked, say=lambda line: None).values()) == 0
    assert (asked.run_dir / "metrics.json").read_bytes() == before


def test_force_sets_aside_all_that_a_stage_made(small_run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(small_run[0].run_dir, copy)
    (copy / "rows.zip").touch()
    products.set_aside(copy, list(products.ORDER))
    left = {p.relative_to(copy).parts[0] for p in copy.rglob("*") if p.is_file()} - {"before"}
    assert left <= {"run.yaml", "env.json", ".lock"}


@pytest.mark.parametrize("kept", sorted((ROOT / "artifacts" / "reference").glob("*/rows.zip")), ids=str)
def test_notebook_06_shows_a_reference_run_without_a_model_and_without_a_trace(kept, tmp_path, monkeypatch):
    """Its figures follow from its rows again, its seeds are read as recorded, and no file of it is touched."""
    import papermill

    monkeypatch.setenv("REFLECTEVO_CACHE", str(tmp_path / "cache"))
    before = {path: path.read_bytes() for path in kept.parent.rglob("*") if path.is_file()}
    source, out = str(ROOT / "notebooks" / "06_analysis.ipynb"), str(tmp_path / "06.ipynb")
    how = {"kernel_name": "python3", "progress_bar": False, "cwd": str(ROOT)}
    papermill.execute_notebook(source, out, parameters={"run_dir": str(kept.parent)}, **how)
    assert {path: path.read_bytes() for path in kept.parent.rglob("*") if path.is_file()} == before
    run = store.Run(kept.parent)
    assert run.path("report.html").is_relative_to(tmp_path) and run.path("report.html").exists()
    recorded = json.loads((kept.parent / "metrics.json").read_text())
    found = json.loads(run.path("metrics.json").read_text())
    assert {name: found[name] for name in recorded} == recorded  # an older run lacks what was not counted then
    assert any(share["setting"] == "first answers" and share["n"] for share in found["reading"])
    assert run.params() == yaml.safe_load((kept.parent / "run.yaml").read_text())
    assert (
        Path(out).read_text(encoding="utf-8").count("One seed: no interval over seeds") == 1
    )  # in the cell, and not below it


@pytest.mark.parametrize("path", [p for p in NOTEBOOKS if p.stem[:2] not in ("00", "01", "qu")], ids=lambda p: p.stem)
def test_opened_alone_a_notebook_says_which_files_it_lacks_and_how_to_get_them(path, tmp_path):
    given = declared(path) | {"run_dir": str(tmp_path / "fresh")}
    with pytest.raises(FileNotFoundError) as error:
        open_run(path.stem, given)
    said = str(error.value)
    assert "\n" not in said and "lacks what 01_data" in said and "reflectevo run" in said and REFERENCE in said
    assert (ROOT / REFERENCE / "rows.zip").exists() and not (tmp_path / "fresh").exists()


def test_every_training_prompt_of_the_run_is_clean(small_run):
    run = store.Run(small_run[0].run_dir)
    plus = run.read("curated", "d_plus.jsonl")
    assert plus
    for kind in ("reflector", "corrector", "one_stage"):
        for row in curate.examples(kind, plus):
            said = "\n".join(m["content"] for m in row["prompt"])
            assert row["completion"][0]["content"] not in said and "answer is correct" not in said.lower()
    tested = {p["question"] for p in run.read("data", "test.jsonl")}
    assert not tested & {r["problem"]["question"] for r in plus} and not tested & {
        p["question"] for p in run.read("data", "train.jsonl")
    }


def test_notebook_00_makes_a_model(tmp_path):
    import papermill

    out = tmp_path / "model"
    papermill.execute_notebook(
        str(ROOT / "notebooks" / "00_tiny_model.ipynb"),
        str(tmp_path / "00.ipynb"),
        kernel_name="python3",
        cwd=str(ROOT),
        parameters={"out": str(out), "shorten": 0.001, "gate_questions": 60, "check_gates": False},
        progress_bar=False,
    )
    steps = sum(max(1, round(0.001 * stage.steps)) for stage in RECIPE)
    assert (out / "model.safetensors").exists()
    assert json.loads((out / "pretraining.json").read_text())["steps"] == steps
