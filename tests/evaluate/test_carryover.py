"""Carrying over to other tasks and other Generators; the paper's own figures beside a run's."""

import pytest
from madeup import eval_row

from reflectevo_lite import embedded, evaluate, store
from reflectevo_lite.evaluate import Asked, Setting, carryover, paper
from reflectevo_lite.read import figures


def test_transfer_trains_on_as_many_rows_of_every_task():
    plus = [{"problem": {"task": t}} for t in "aaaabbc"]
    assert {task: len(rows) for task, rows in carryover.balanced(plus).items()} == {"a": 1, "b": 1, "c": 1}
    assert carryover.safe("mbpp:sanitized v1.2") == "mbpp_sanitized_v1_2"
    problems = [{"task": t, "i": i} for i, t in enumerate("aaaaaabbbc")]
    some = carryover.some_of_each(Asked(problems, list(range(10)), None, 96), 6)
    assert [p["i"] for p in some.problems] == some.first == [0, 1, 6, 7, 9]


@pytest.fixture
def base():
    problems = embedded.problems(150, "test")
    return [eval_row(p, i % 2 == 0, i % 2 == 0 or i % 3 == 0) for i, p in enumerate(problems)]


def test_the_transfer_map_pairs_the_same_questions(base):
    better = [r | {"turn2_correct": True} if r["task"] == "lists" else r for r in base]
    frame = carryover.table({"lists": better}, base).set_index("tested on")
    wrong = sum(not r["turn2_correct"] for r in base if r["task"] == "lists")
    assert frame.loc["lists", "difference"] == pytest.approx(wrong / 50) and frame.loc["lists", "low"] > 0
    assert frame.loc["lineup", "difference"] == 0 and frame.loc["lineup", "low"] < 0 < frame.loc["lineup", "high"]
    assert figures.transfer(frame.reset_index(), "prompted").axes


def test_a_swapped_reflection_reaches_the_other_generator_word_for_word(scripted, tmp_path):
    engine, problems = scripted
    first = evaluate.first_turns(engine, problems, tmp_path / "turn1.jsonl", max_new_tokens=96)
    asked = Asked(problems, first, tmp_path, 96)
    own = evaluate.evaluate(engine, asked, Setting("prompted"))
    rows = evaluate.swap(engine, asked, own, None, "swap.jsonl")
    assert [(r["reflection"], r["turn2"], r["turn2_correct"]) for r in rows] == [
        (r["reflection"], r["turn2"], r["turn2_correct"]) for r in own
    ]  # the same Generator does the same with them
    assert all(r["tokens"] < o["tokens"] for r, o in zip(rows, own, strict=True) if o["reflection"])
    with pytest.raises(ValueError, match="take both from one run"):
        evaluate.swap(engine, asked._replace(problems=problems[1:], first=first[1:]), own, None, "other.jsonl")
    table = carryover.swap_table({("x", "base model"): own, ("x", "b"): rows})
    assert table["acc_t2"].nunique() == 1 and figures.swaps(table).axes


# -- The paper's figures -------------------------------------------------------------------------------------------------
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
