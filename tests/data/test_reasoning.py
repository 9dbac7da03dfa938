"""reasoning_gym:TASK, where the package is installed: made, split and graded by its own scorers."""

import json

import pytest

from reflectevo_lite import data, grading, prompts
from reflectevo_lite.data.base import question_key

pytest.importorskip("reasoning_gym")
SUM = "reasoning_gym:chain_sum?min_terms=2&max_terms=2&min_digits=1&max_digits=2"


def test_no_question_is_in_both_splits_and_a_smaller_draw_is_the_head_of_a_larger_one():
    test, train = data.load(SUM, "test", n=40), data.load(SUM, "train", n=120)
    assert not {*map(question_key, test)} & {question_key(p) for p in data.load(SUM, "train", n=120, seed=7)}
    assert train[:30] == data.load(SUM, "train", n=30) and len({*map(question_key, train)}) == 120
    assert {p["task"] for p in test} == {"chain_sum min_terms=2&max_terms=2&min_digits=1&max_digits=2"}
    assert all(p["question"].count("+") + p["question"].count("-") >= 1 for p in test)


def test_a_small_space_gives_what_it_has():
    with pytest.warns(UserWarning, match="fewer than the 500 asked for"):
        assert 20 < len(data.load("reasoning_gym:products?min_digits=1&max_digits=1", "train", n=500)) < 100


@pytest.mark.parametrize("task", ["gcd", "rotate_matrix", "number_filtering", "simple_integration", "puzzle24", "ab"])
def test_gold_answers_are_right_by_the_tasks_scorer_after_a_stay_on_disk(task):
    rows = json.loads(json.dumps(data.load(f"reasoning_gym:{task}", "train", n=3)))
    right = grading.grade_many(rows, [f"Let me see.\n{prompts.gold_completion(p)}" for p in rows], progress=False)
    assert [g.correct for g in right] == [True] * 3
    assert not any(grading.grade(p, "I say:\nAnswer: xyzzy").correct for p in rows)
    assert grading.read(rows[0], "").rule == "empty"


def test_another_form_of_the_answer_is_the_scorers_business():
    row = data.load("reasoning_gym:simple_integration", "train", n=1)[0]
    assert grading.grade(row, f"Answer: 1 - 1 + {row['answer']}").correct


def test_an_answer_that_takes_for_ever_is_wrong():
    row = data.load("reasoning_gym:puzzle24", "train", n=1)[0]
    assert not grading.grade(row, "Answer: 9**9**9**9").correct
    assert grading.grade(row, prompts.gold_completion(row)).correct


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("reasoning_gym:gdc", "did you mean 'reasoning_gym:gcd'"),
        ("reasoning_gym:gcd?max=3", r"'max' \(its fields: min_numbers, max_numbers"),
        ("reasoning_gym:rearc", "refuses its own gold answers"),
    ],
)
def test_what_cannot_be_had_gets_one_line(name, said):
    with pytest.raises(ValueError, match=said) as caught:
        data.load(name, "train", n=2)
    assert "\n" not in str(caught.value)
