"""The paper's own figures beside a run's."""

import pytest
from madeup import eval_row

from notebooks.beyond import paper
from reflectevo_lite import embedded, evaluate, store


@pytest.fixture
def base():
    problems = embedded.problems(150, "test")
    return [eval_row(p, i % 2 == 0, i % 2 == 0 or i % 3 == 0) for i, p in enumerate(problems)]


def test_the_papers_headlines_are_in_its_figures():
    frame = paper.published().assign(key=lambda frame: [key.stem for key in frame["key"]])
    frame = frame.set_index(["model", "benchmark", "key"])["Acc@t2"]
    llama, mistral = "Llama-3-8B-Instruct", "Mistral-7B-Instruct-v0.2"
    assert (
        frame[llama, "BIG-bench", "prompted.oracle.retry"] == 52.4
        and frame[llama, "BIG-bench", "one_stage.oracle"] == 71.2
    )
    assert (
        frame[mistral, "BIG-bench", "prompted.oracle"] == 44.4
        and frame[mistral, "BIG-bench", "two_stage.oracle"] == 71.1
    )
    assert paper.orientation().shape == (16, 4) and paper.orientation().isna().sum().sum() == 4 + 2 * 3
    guessed = paper.orientation()["LogiQA"].xs("a blind guess after a wrong letter", level="setting")
    assert guessed[llama] == 53.5 and (paper.orientation()["LogiQA"].loc[llama] <= 53.5).all()


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("meta-llama/Meta-Llama-3-8B-Instruct", "Llama-3-8B-Instruct"),
        ("/models/mistralai/Mistral-7B-Instruct-v0.2/", "Mistral-7B-Instruct-v0.2"),
        ("unsloth/llama-3-8b-Instruct-bnb-4bit", "Llama-3-8B-Instruct"),
        ("meta-llama/Llama-3.1-8B-Instruct", None),
        ("mistralai/Mistral-7B-Instruct-v0.3", None),
        ("tiny", None),
    ],
)
def test_a_model_is_recognised_as_the_papers_or_not_at_all(model, name):
    assert paper.matching(model) == name


def test_ours_stand_beside_the_papers_only_where_model_and_benchmark_match(base, tmp_path):
    for name in ("prompted.oracle", "prompted.oracle.retry"):
        store.write_jsonl(tmp_path / f"{name}.jsonl", [r | {"turn2_correct": True} for r in base])
    metrics = evaluate.metrics(tmp_path)
    assert paper.beside(metrics, "tiny").empty and paper.beside(metrics, "meta-llama/Meta-Llama-3-8B-Instruct").empty
    moved = {"rows": [r | {"task": "logiqa"} for r in metrics["rows"] if r["task"] == "lists"]}
    found = paper.beside(moved, "meta-llama/Meta-Llama-3-8B-Instruct").set_index("setting")
    assert list(found.index) == ["prompted reflection", "prompted reflection · plain retry"]
    assert found.loc["prompted reflection", "Acc@t2 (paper)"] == 36.2 and not found.loc["prompted reflection", "inside"]
    assert found.loc["prompted reflection", "low"] < found.loc["prompted reflection", "Acc@t2"]
