"""docs/adding.md: what it shows is what works. (Its source is added by tests/data.)"""

import re

import pytest
from conftest import ROOT, ScriptedEngine

from reflectevo_lite import embedded, evaluate, generate, read, store
from reflectevo_lite.evaluate import SETTINGS, TRAININGS
from reflectevo_lite.read import figures
from reflectevo_lite.run import params, plan, products


def code(heading):
    """The first block of Python under a heading."""
    text = (ROOT / "docs" / "adding.md").read_text(encoding="utf-8").split(f"## {heading}\n")[1]
    return re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]


@pytest.fixture
def added():
    before = dict(SETTINGS), dict(TRAININGS)
    source = code("Add a setting")
    scope = {"Setting": evaluate.Setting, "Training": evaluate.Training, "UNFILTERED": "curated/unfiltered.jsonl"}
    exec(source, scope)
    for table, entries in ((TRAININGS, scope["_TRAININGS"]), (SETTINGS, scope["_SETTINGS"])):
        table.update({entry.name: entry for entry in entries if entry is not ...})
    yield source
    for table, old in zip((SETTINGS, TRAININGS), before, strict=True):
        table.clear()
        table.update(old)


def test_a_setting_is_a_few_lines_and_stands_everywhere(added, tmp_path):
    assert len(added.splitlines()) <= 20
    problems = embedded.problems(30, "test", seed=2)
    engine, run = ScriptedEngine(problems), store.Run(tmp_path)
    store.write_jsonl(run.path("data", "test.jsonl"), problems)
    evaluate.first_turns(engine, problems, run.path("evals", "turn1.jsonl"), max_new_tokens=96)
    for name in ("dpo_pm", "corrector", "one_stage_unfiltered"):
        store.write_json(run.path("adapters", name, "training.json"), {})
    asked = evaluate.held_out(run, max_new_tokens=96, seed=0)
    for stage in ("03_sft", "04_dpo"):
        for setting in evaluate.settings(stage, run):
            for evaluation, turns in setting.evaluations().items():
                evaluate.evaluate(engine, asked, setting, evaluation, turns)
    labels = {"DPO (D±), then the corrector", "one-stage SFT (unfiltered)"}
    table = read.results(evaluate.metrics(run.path("evals")))
    assert labels <= set(table["setting"])
    assert len(figures.accuracy(table).axes[0].get_yticklabels()) == len(table)
    planned = {part.what for part in plan.count(params.defaults(), store.STAGES)}
    assert labels | {"SFT: one-stage (unfiltered)"} <= planned
    assert "adapters/one_stage_unfiltered" in products.products("03_sft")
    assert "evals/dpo_corrected.*" in products.products("04_dpo")


def test_an_engine_is_a_class_with_one_method(tmp_path):
    scope = {}
    exec(code("Add an engine"), scope)
    problems = embedded.problems(10, "train", seed=2)
    engine = scope["Parrot"]()
    rows = generate.generate_rollouts(engine, problems, tmp_path / "r.jsonl", k=2, temperature=1.0, progress=False)
    assert len(rows) == 10 and all(len(r["reflections"]) == 2 for r in rows if not r["turn1"]["correct"])
