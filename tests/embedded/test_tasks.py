"""The embedded world obeys the laws that give its numbers a meaning."""

import random
import subprocess
import sys

import pytest
from conftest import ROOT

from reflectevo_lite.embedded import ANSWER, FAMILIES, blamed, diagnose, problems, sample_task, to_task
from reflectevo_lite.embedded.tasks import split_of, to_problem


def tasks(n=400, family=None):
    rng = random.Random(7)
    return [sample_task(rng, "corpus", (family,) if family else tuple(FAMILIES)) for _ in range(n)]


def test_importing_the_room_loads_no_torch():
    heavy = "torch", "transformers", "tokenizers", "pandas", "numpy", "jinja2"
    code = f"import sys, reflectevo_lite.embedded; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "[]\n", done.stdout + done.stderr


@pytest.mark.parametrize("family", FAMILIES)
def test_attempts_survive_writing_and_reading(family):
    for task in tasks(150, family):
        attempt = task.hasty()
        assert task.parse(attempt.text(task)) == attempt
        assert to_task(to_problem(task)) == task


@pytest.mark.parametrize("family", FAMILIES)
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
    needed = []
    for task in tasks():
        attempt, n = task.hasty(), 0
        while attempt.answer != task.gold():
            attempt, n = task.retry(attempt, task.errors(attempt)[0][0]), n + 1
            assert n < 8
        needed.append(n)
    assert sum(n > 1 for n in needed) > 0.1 * sum(n > 0 for n in needed)


def test_blaming_a_right_step_can_break_a_right_answer():
    broken = 0
    for task in tasks():
        attempt = task.hasty()
        if not task.errors(attempt):
            broken += any(task.retry(attempt, p).answer != task.gold() for p in range(1, len(task.ops) + 1))
    assert broken > 20


def test_splits_are_disjoint_and_seeded():
    train, test = problems(300, "train"), problems(300, "test")
    assert not {p["question"] for p in train} & {p["question"] for p in test}
    assert train == problems(300, "train") and train != problems(300, "train", seed=1)
    assert len({p["id"] for p in train}) == len({p["question"] for p in train}) == 300
    assert {split_of(p["question"]) for p in test} == {"test"}


@pytest.mark.parametrize(
    "text", ["", "Answer: 3", "Step 1: 7 - 5 gives", "Step 2: 7 - 5 gives 2\nAnswer: 2", "prose", "Step 1: x gives y"]
)
def test_malformed_attempts_are_read_as_none(text):
    problem = to_problem(tasks(1, "arithmetic")[0])
    assert diagnose(problem, text) is None


@pytest.mark.parametrize("family", FAMILIES)
def test_nonsense_in_the_right_form_is_diagnosed_without_a_crash(family):
    task = tasks(1, family)[0]
    text = "\n".join(f"Step {i}: put Zed over the moon gives ?" for i in range(1, 9)) + "\nAnswer: 12"
    assert len(diagnose(to_problem(task), text)) > 3


@pytest.mark.parametrize("family", FAMILIES)
def test_a_redo_keeps_steps_that_nothing_asked_for(family):
    task = tasks(1, family)[0]
    attempt = task.hasty()
    longer = type(attempt)((*attempt.ops, *("more",) * 4), (*attempt.states, *("?",) * 4), attempt.answer)
    assert task.retry(longer, 1).ops[-1] == "more"


def test_a_state_that_is_no_number_is_an_error_like_any_other():
    problem = next(to_problem(t) for t in tasks(50, "arithmetic") if t.ops[1] == "add 3")
    text = "Step 1: x gives Dan\nStep 2: Dan + 3 gives 4\nAnswer: 4"
    assert dict(diagnose(problem, text))[2] == "calculation"


def test_blamed_place():
    assert blamed("Step 1 is right. Step 3 is wrong: it is miscalculated.") == 3
    assert blamed("Step 6 is missing: …") == 6
    assert blamed("The answer is wrong: …") == ANSWER
    assert blamed("I find no mistake.") is None
