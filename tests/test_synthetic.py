"""The embedded world obeys the laws that give its numbers a meaning."""

import random

import pytest

from reflectevo_lite.embedded import tasks as synthetic
from reflectevo_lite.embedded.tasks import ANSWER


def tasks(n=400, family=None):
    rng = random.Random(7)
    families = (family,) if family else tuple(synthetic.FAMILIES)
    return [synthetic.sample_task(rng, "corpus", families) for _ in range(n)]


@pytest.mark.parametrize("family", synthetic.FAMILIES)
def test_attempts_survive_writing_and_reading(family):
    for task in tasks(150, family):
        attempt = task.hasty()
        assert task.parse(attempt.text(task)) == attempt
        assert synthetic.to_task(synthetic.to_problem(task)) == task


@pytest.mark.parametrize("family", synthetic.FAMILIES)
def test_a_hasty_solver_is_right_about_half_the_time(family):
    share = sum(t.hasty().answer == t.gold() for t in tasks(600, family)) / 600
    assert 0.35 < share < 0.75


def test_a_wrong_answer_has_a_diagnosis_and_an_attempt_without_errors_is_right():
    for task in tasks():
        attempt = task.hasty()
        if not (errors := task.errors(attempt)):
            assert attempt.answer == task.gold()
        elif attempt.answer != task.gold():
            assert errors[0][0] == ANSWER or 1 <= errors[0][0] <= len(task.ops)


def test_redoing_the_wrong_place_mends_and_any_other_place_hardly_ever_does():
    mended = wrong = others = places = 0
    for task in tasks(800):
        attempt = task.hasty()
        if attempt.answer == task.gold():
            continue
        errors = dict(task.errors(attempt))
        first = next(iter(errors))
        assert first not in dict(task.errors(task.retry(attempt, first)))
        mended += task.retry(attempt, first).answer == task.gold()
        wrong += 1
        false = [p for p in range(1, len(attempt.ops) + 1) if p not in errors]
        others += sum(task.retry(attempt, p).answer == task.gold() for p in false)
        places += len(false)
    assert wrong > 300 and mended / wrong > 0.65 and others / places < 0.06


def test_every_attempt_can_be_mended_and_some_need_more_than_one_correction():
    needed = [task.corrections_needed(task.hasty()) for task in tasks()]
    assert max(needed) < 8 and sum(n > 1 for n in needed) > 0.1 * sum(n > 0 for n in needed)
    assert all((n == 0) == (t.hasty().answer == t.gold()) for n, t in zip(needed, tasks(), strict=True))


def test_blaming_a_right_step_can_break_a_right_answer():
    broken = 0
    for task in tasks():
        attempt = task.hasty()
        if not task.errors(attempt):
            broken += any(task.retry(attempt, p).answer != task.gold() for p in range(1, len(task.ops) + 1))
    assert broken > 20


def test_splits_are_disjoint_and_seeded():
    train, test = synthetic.problems(300, "train"), synthetic.problems(300, "test")
    assert not {p["question"] for p in train} & {p["question"] for p in test}
    assert train == synthetic.problems(300, "train") and train != synthetic.problems(300, "train", seed=1)
    assert len({p["id"] for p in train}) == len({p["question"] for p in train}) == 300
    assert {synthetic.split_of(p["question"]) for p in test} == {"test"}


def test_unknown_family_is_named():
    with pytest.raises(ValueError, match="'geometry'; there are arithmetic, lists, lineup"):
        synthetic.problems(1, "train", families=("geometry",))


@pytest.mark.parametrize(
    "text", ["", "Answer: 3", "Step 1: 7 - 5 gives", "Step 2: 7 - 5 gives 2\nAnswer: 2", "prose", "Step 1: x gives y"]
)
def test_malformed_attempts_are_read_as_none(text):
    problem = synthetic.to_problem(tasks(1, "arithmetic")[0])
    assert synthetic.diagnose(problem, text) is None


@pytest.mark.parametrize("family", synthetic.FAMILIES)
def test_nonsense_in_the_right_form_is_diagnosed_without_a_crash(family):
    task = tasks(1, family)[0]
    text = "\n".join(f"Step {i}: put Zed over the moon gives ?" for i in range(1, 9)) + "\nAnswer: 12"
    assert len(synthetic.diagnose(synthetic.to_problem(task), text)) > 3


def test_blamed_place():
    assert synthetic.blamed("Step 1 is right. Step 3 is wrong: it is miscalculated.") == 3
    assert synthetic.blamed("Step 6 is missing: …") == 6
    assert synthetic.blamed("The answer is wrong: …") == ANSWER
    assert synthetic.blamed("I find no mistake.") is None
