"""The truth meter against reflections whose parts are known to be true or not."""

import random

import pytest
from tiny_model.corpus import reflection_text

from reflectevo_lite import embedded
from reflectevo_lite.embedded import tasks
from reflectevo_lite.embedded.truth import CAUSES


def scenes(n, seed=0):
    rng = random.Random(seed)
    while n:
        task = tasks.sample_task(rng, "corpus")
        attempt = task.hasty()
        if errors := task.errors(attempt):
            n -= 1
            yield rng, task, attempt, errors


def check(task, attempt, text):
    return embedded.truth(embedded.tasks.to_problem(task), attempt.text(task), text)


@pytest.mark.parametrize("instruction", ["generic", "1-1-2", "2-5-1", "1-3-1"])
def test_what_the_corpus_writes_of_a_true_place_is_true(instruction):
    for _, task, attempt, errors in scenes(60):
        place, cause = errors[0]
        found = check(task, attempt, reflection_text(task, attempt, place, cause, instruction))
        assert found.whole, (found, place, cause)


def test_each_untrue_part_is_seen():
    for _, task, attempt, errors in scenes(80, seed=1):
        place, cause = errors[0]
        if place == embedded.ANSWER:
            continue
        wrong = {place for place, _ in errors}
        text = reflection_text(task, attempt, place, cause, "2-1-2")
        right = next((i for i in range(1, len(attempt.ops) + 1) if i not in wrong), None)
        if right:
            untrue = reflection_text(task, attempt, right, "method", "2-1-1")
            assert not check(task, attempt, untrue).place
            elsewhere = f"{text.partition(' Plan: ')[0]} Plan: redo step {right} with care and go on from there."
            found = check(task, attempt, elsewhere)
            assert all(found[:5]) and not found.plan
        other = next(c for c in CAUSES if c != cause)
        assert not check(task, attempt, text.replace(CAUSES[cause], CAUSES[other])).cause
        assert not check(task, attempt, f"Step {place} is right. {text}").marks
        assert not check(task, attempt, text.rsplit(": ", 1)[0] + ": juggle.").facts


@pytest.mark.parametrize(
    "text", ["", "Step 2 B", "The answerThe answer is wrong.", "Step 9 is wrong: because. Plan: x."]
)
def test_a_broken_text_is_not_true(text):
    _, task, attempt, _ = next(scenes(1))
    assert not check(task, attempt, text).form or not check(task, attempt, text).whole


def test_finding_nothing_is_true_of_a_right_answer_alone():
    said = "I find no mistake. Plan: keep the answer."
    for _, task, attempt, _ in scenes(20):
        assert not check(task, attempt, said).place
        while errors := task.errors(attempt):
            attempt = task.retry(attempt, errors[0][0])
        assert check(task, attempt, said).whole


def test_an_unreadable_attempt_tells_nothing():
    _, task, _, _ = next(scenes(1))
    assert embedded.truth(embedded.tasks.to_problem(task), "I don't know.", "Step 1 is wrong.") is None
