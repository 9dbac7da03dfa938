"""Carrying over to other tasks and other Generators."""

import pytest
from madeup import eval_row

from notebooks.beyond import transfer
from reflectevo_lite import embedded, evaluate
from reflectevo_lite.evaluate import Asked, Setting


def test_transfer_trains_on_as_many_rows_of_every_task():
    plus = [{"problem": {"task": t}} for t in "aaaabbc"]
    assert {task: len(rows) for task, rows in transfer.balanced(plus).items()} == {"a": 1, "b": 1, "c": 1}
    assert transfer.safe("mbpp:sanitized v1.2") == "mbpp_sanitized_v1_2"
    problems = [{"task": t, "i": i} for i, t in enumerate("aaaaaabbbc")]
    some = transfer.some_of_each(Asked(problems, list(range(10)), None, 96), 6)
    assert [p["i"] for p in some.problems] == some.first == [0, 1, 6, 7, 9]


@pytest.fixture
def base():
    problems = embedded.problems(150, "test")
    return [eval_row(p, i % 2 == 0, i % 2 == 0 or i % 3 == 0) for i, p in enumerate(problems)]


def test_the_transfer_map_pairs_the_same_questions(base):
    better = [r | {"turn2_correct": True} if r["task"] == "lists" else r for r in base]
    frame = transfer.table({"lists": better}, base).set_index("tested on")
    wrong = sum(not r["turn2_correct"] for r in base if r["task"] == "lists")
    assert frame.loc["lists", "difference"] == pytest.approx(wrong / 50) and frame.loc["lists", "low"] > 0
    assert frame.loc["lineup", "difference"] == 0 and frame.loc["lineup", "low"] < 0 < frame.loc["lineup", "high"]
    assert transfer.transfer_map(frame.reset_index(), "prompted").axes


def test_a_swapped_reflection_reaches_the_other_generator_word_for_word(scripted, tmp_path):
    engine, problems = scripted
    first = evaluate.first_turns(engine, problems, tmp_path / "turn1.jsonl", max_new_tokens=96)
    asked = Asked(problems, first, tmp_path, 96)
    own = evaluate.evaluate(engine, asked, Setting("prompted"))
    rows = transfer.swap(engine, asked, own, None, "swap.jsonl")
    assert [(r["reflection"], r["turn2"], r["turn2_correct"]) for r in rows] == [
        (r["reflection"], r["turn2"], r["turn2_correct"]) for r in own
    ]  # the same Generator does the same with them
    assert all(r["tokens"] < o["tokens"] for r, o in zip(rows, own, strict=True) if o["reflection"])
    with pytest.raises(ValueError, match="take both from one run"):
        transfer.swap(engine, asked._replace(problems=problems[1:], first=first[1:]), own, None, "other.jsonl")
    table = transfer.swap_table({("x", "base model"): own, ("x", "b"): rows})
    assert table["acc_t2"].nunique() == 1 and transfer.swap_map(table).axes
