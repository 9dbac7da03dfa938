"""The notebooks: tidy as committed, in step with each other, and executed through papermill on the embedded model."""

import ast
import json
import shutil
import statistics

import pytest
import recompute
import yaml
from conftest import ROOT

from reflectevo_lite.data import load as problems
from reflectevo_lite.embedded import making as tiny
from reflectevo_lite.run import pipeline
from reflectevo_lite.store import files as store

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
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


def test_a_shared_parameter_has_one_default():
    seen = {}
    for stage in pipeline.STAGES:
        for name, value in pipeline.declared_parameters(ROOT / "notebooks" / f"{stage}.ipynb").items():
            assert seen.setdefault(name, value) == value, f"{name} in {stage}"


@pytest.mark.parametrize("stage", pipeline.STAGES)
def test_a_notebook_records_every_parameter_it_declares(stage):
    path = ROOT / "notebooks" / f"{stage}.ipynb"
    source = "\n".join("".join(c["source"]) for c in cells(path, "code"))
    calls = [
        n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Call) and ast.unparse(n.func) == "store.open_run"
    ]
    assert len(calls) == 1 and ast.literal_eval(calls[0].args[0]) == stage
    assert {k.arg for k in calls[0].keywords} | {"run_dir"} == set(pipeline.declared_parameters(path))
    assert all(k.arg == ast.unparse(k.value) for k in calls[0].keywords)


@pytest.mark.parametrize("path", sorted((ROOT / "params").rglob("*.yaml")), ids=lambda p: p.stem)
def test_every_params_file_fits_the_notebooks(path):
    plan = pipeline.make_plan(pipeline.load_params(path), ROOT / "notebooks")
    assert set(plan.params) == set(pipeline.STAGES)


PAPER = {path.stem: pipeline.load_params(path) for path in sorted((ROOT / "params" / "paper").glob("*.yaml"))}


def test_the_papers_presets_are_four_benchmarks_by_two_models_on_500_questions():
    assert len(PAPER) == 8 and len({p["run_dir"] for p in PAPER.values()}) == 8
    assert all(p["n_test"] * len(p["sources"]) == 500 and p["seed"] == 0 for p in PAPER.values())
    assert {p["model"] for p in PAPER.values()} == {
        "meta-llama/Meta-Llama-3-8B-Instruct",
        "mistralai/Mistral-7B-Instruct-v0.2",
    }
    assert all(not problems._check(p["sources"], p["n_test"], 3) for p in PAPER.values())  # every source is known


def test_the_papers_presets_differ_in_model_and_questions_alone():
    own = {"run_dir", "model", "sources", "n_train", "n_test", "n_rollout", "shown_tests"}
    shared = [{name: value for name, value in p.items() if name not in own} for p in PAPER.values()]
    assert all(p == shared[0] for p in shared)
    assert shared[0]["grad_accum"] * shared[0]["sft_batch_size"] == 16 * 4  # the paper's rows in a step
    assert shared[0]["grad_accum"] * shared[0]["dpo_batch_size"] == 1 * 32 * 4


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("run") / "small"
    params = yaml.safe_load((ROOT / "params" / "tiny_cpu.yaml").read_text()) | SMALL | {"run_dir": str(run_dir)}
    plan = pipeline.make_plan(params, ROOT / "notebooks")
    return plan, pipeline.run(plan, say=lambda line: None)


def test_the_whole_pipeline_runs_through_papermill(small_run):
    plan, seconds = small_run
    assert list(seconds) == list(pipeline.STAGES) and all(pipeline.finished(plan.run_dir, s) for s in pipeline.STAGES)
    metrics = json.loads((plan.run_dir / "metrics.json").read_text())
    settings = {r["setting"] for r in metrics["rows"]}
    assert {
        "prompted",
        "reflector_only",
        "one_stage",
        "two_stage",
        "unfiltered",
        "dpo_pm",
        "dpo_pref",
        "sft_dpo",
        "grpo",
        "qa",
        "round_2",
    } <= settings
    assert {r["mode"] for r in metrics["rows"]} == {"oracle", "intrinsic"}
    assert {r["control"] for r in metrics["rows"]} == {None, "retry", "shuffled", "resample", "resample_vote"}
    assert {r["tested on"] for r in metrics["transfer"]} == {"arithmetic", "lists", "lineup"}
    assert recompute.main(plan.run_dir) == []
    for row in metrics["rows"]:
        assert sum(row["flips"].values()) == row["n"] and row["delta_ci"][0] <= row["delta"] <= row["delta_ci"][1]


def test_the_run_keeps_its_record_figures_and_report(small_run):
    plan, _ = small_run
    assert set(yaml.safe_load((plan.run_dir / "run.yaml").read_text())) == set(pipeline.STAGES)
    figures = {p.stem for p in (plan.run_dir / "figures").glob("*.png")}
    assert {
        "task_mix",
        "instructions",
        "training_sft",
        "training_dpo",
        "training_grpo",
        "rounds",
        "turns",
        "collapse",
        "transfer",
        "swap",
        "accuracy",
        "localisation",
        "flips",
    } <= figures
    page = (plan.run_dir / "report.html").read_text()
    assert page.count("data:image/png;base64") >= 6 and "http" not in page.split("<h2>Parameters")[0].replace(
        "https://arxiv", ""
    )


def test_a_second_call_is_a_quick_no_op_with_the_same_table(small_run):
    plan, _ = small_run
    before = (plan.run_dir / "metrics.json").read_bytes()
    assert sum(pipeline.run(plan, say=lambda line: None).values()) == 0
    assert (plan.run_dir / "metrics.json").read_bytes() == before


def test_force_sets_aside_all_that_a_stage_made(small_run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(small_run[0].run_dir, copy)
    (copy / store.PACKED).touch()
    pipeline.set_aside(copy, list(pipeline.STAGES))
    left = {p.relative_to(copy).parts[0] for p in copy.rglob("*") if p.is_file()} - {"before"}
    assert left <= {"run.yaml", "env.json", ".lock"}


@pytest.mark.parametrize("kept", sorted((ROOT / "artifacts" / "reference").glob("*/rows.zip")), ids=str)
def test_notebook_06_shows_a_reference_run_without_a_model(kept, tmp_path):
    import papermill

    copy = tmp_path / "reference"
    shutil.copytree(kept.parent, copy)
    before = json.loads((copy / "metrics.json").read_text())
    source = str(ROOT / "notebooks" / "06_analysis.ipynb")
    parameters = {"run_dir": str(copy)}  # not its other seeds: what is read beside a run may differ from call to call
    papermill.execute_notebook(
        source, str(tmp_path / "06.ipynb"), parameters, kernel_name="python3", progress_bar=False
    )
    assert json.loads((copy / "metrics.json").read_text()) == before


def test_every_training_prompt_of_the_run_is_clean(small_run):
    from reflectevo_lite.curate import curation

    run = store.Run(small_run[0].run_dir)
    plus = run.read("curated", "d_plus.jsonl")
    assert plus
    for kind in ("reflector", "corrector", "one_stage"):
        for row in curation.sft_rows(kind, plus):
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
    steps = sum(max(1, round(0.001 * stage.steps)) for stage in tiny.RECIPE)
    assert (out / "model.safetensors").exists()
    assert json.loads((out / "pretraining.json").read_text())["steps"] == steps
