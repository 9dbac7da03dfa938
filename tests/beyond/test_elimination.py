"""What a guess among the options left would get, by rows made by hand."""

import pytest

from notebooks.beyond.elimination import eliminated, elimination, floor
from reflectevo_lite import store


def attempt(answer, correct):
    return {"prompt": [], "completion": "", "answer": answer, "correct": correct, "tokens": 1, "truncated": False}


def problem(i, answer, choices):
    meta = {"source": "mine"}
    return {
        "id": f"q{i}",
        "task": "t",
        "question": "?",
        "answer": answer,
        "grader": "choice",
        "choices": choices,
        "meta": meta,
    }


@pytest.fixture
def run(tmp_path):
    run, four, two = store.Run(tmp_path), list("wxyz"), ["yes", "no"]
    test = [problem(0, "A", four), problem(1, "B", four), problem(2, "C", four), problem(3, "A", two)]
    first = [attempt("A", True), attempt("A", False), attempt(None, False), attempt("B", False)]
    rows = [
        {"id": p["id"], "task": "t", "turn1_correct": a["correct"], "turn2_correct": right, "tokens": 1}
        for p, a, right in zip(test, first, [True, True, False, True], strict=True)
    ]
    trained = [{"id": str(i), "problem": problem(i, "B", four), "turn1": attempt("A", False)} for i in range(3)]
    trained += [{"id": "x", "problem": problem(9, "D", four), "turn1": attempt("A", False)}]
    for name, found in {
        "data/test": test,
        "evals/turn1": first,
        "evals/prompted.oracle": rows,
        "rollouts/train": trained,
    }.items():
        store.write_jsonl(run.path(f"{name}.jsonl"), found)
    return run


def test_a_wrong_letter_removes_its_option_and_an_unread_answer_none(run):
    (row,) = elimination(run).to_dict("records")
    assert row["blind"] == pytest.approx((1 + 1 / 3 + 1 / 4 + 1) / 4)  # of two options the other is right
    assert (row["acc_t1"], row["acc_t2"], row["n"]) == (0.25, 0.75, 4)
    assert row["excess"] == pytest.approx(0.75 - row["blind"]) and row["low"] < row["excess"] < row["high"]


def test_the_likeliest_gold_is_learned_from_training_rollouts(run):
    (row,) = elimination(run).to_dict("records")
    assert row["fitted"] == 0.5  # q0 was right, and after a wrong A comes B; nothing was seen after B or no letter


def test_other_answers_have_no_guess(run):
    other = [p | {"grader": "exact"} for p in run.read("data", "test.jsonl")]
    store.write_jsonl(run.path("data", "test.jsonl"), other)
    assert elimination(run).empty and floor(run) is None


def test_by_accuracy_alone():
    assert eliminated(0.302, 4) == pytest.approx(0.5347, abs=1e-4)  # the paper's Llama-3-8B on LogiQA
    assert eliminated(0.4, 2) == 1
