"""Answers as models write them, by kind: what is read, and what is not."""

import pytest
from variants_choice import CHOSEN, OPTIONS, WORDS
from variants_math import DIFFERENT, REPLIES, SAME
from variants_words import CODE, EXACT, TESTS, TEXT

from reflectevo_lite.grading import Reading, extract_choice, grade, read, same_math


def problem(grader, answer="", **more):
    return {"id": "p", "task": "t", "question": "q", "answer": answer, "grader": grader, "meta": {}, **more}


def wrong(rows, verdict):
    return [(row, found) for row in rows if (found := verdict(*row[:-1])) != row[-1]]


@pytest.mark.parametrize("kind", CHOSEN)
def test_choices(kind):
    assert wrong(CHOSEN[kind], lambda reply: extract_choice(reply, WORDS)) == []


@pytest.mark.parametrize("kind", OPTIONS)
def test_choices_among_odd_options(kind):
    assert wrong(OPTIONS[kind], extract_choice) == []


@pytest.mark.parametrize("kind", SAME)
def test_the_same_mathematics(kind):
    assert [pair for pair in SAME[kind] if same_math(*pair) is not True] == []


@pytest.mark.parametrize("kind", DIFFERENT)
def test_different_mathematics(kind):
    assert [pair for pair in DIFFERENT[kind] if same_math(*pair) is not False] == []


@pytest.mark.parametrize("kind", REPLIES)
def test_mathematics_in_replies(kind):
    assert wrong(REPLIES[kind], lambda gold, reply: grade(problem("math", gold), reply).correct) == []


@pytest.mark.parametrize("kind", EXACT)
def test_exact_answers(kind):
    assert wrong(EXACT[kind], lambda gold, reply: grade(problem("exact", gold), reply).correct) == []


@pytest.mark.parametrize("kind", TEXT)
def test_text_answers(kind):
    assert wrong(TEXT[kind], lambda gold, reply: grade(problem("text", [gold]), reply).correct) == []


@pytest.mark.parametrize("kind", CODE)
def test_programs(kind):
    assert wrong(CODE[kind], lambda reply: grade(problem("code", tests=TESTS), reply).correct) == []


@pytest.mark.parametrize(
    ("grader", "reply", "truncated", "reading"),
    [
        ("choice", "The answer is B.", False, ("B", "cue")),
        ("choice", "The answer is B.", True, ("B", "cue")),
        ("choice", r"\boxed{B}", False, ("B", "box")),
        ("choice", "Finish[B]", False, ("B", "call")),
        ("choice", "<answer>B</answer>", False, ("B", "tag")),
        ("choice", "I think it's B.", False, ("B", "verdict")),
        ("choice", "(B)", False, ("B", "last line")),
        ("choice", "the copper lamp", False, ("B", "option text")),
        ("choice", "the copper lamp", True, (None, "cut off")),
        ("choice", "B\n\nQuestion: What is", True, ("B", "last line")),  # a base model goes on; its answer is whole
        ("choice", "B) the copper lamp\n\nStep 1: the lamp", True, ("B", "first line")),
        ("choice", "B) the copper lamp", True, (None, "cut off")),
        ("choice", "A) the copper lamp", False, (None, "two answers")),
        ("choice", "(A) a lamp\n(B) the", True, (None, "cut off")),
        ("choice", "The answer is:\nThing: the copper lamp", False, ("B", "cue")),
        ("choice", "The answer is:\nWrong: the copper lamp", False, (None, "no option")),
        ("choice", "Answer: 7", False, (None, "no option")),
        ("choice", "Answer: none of them", True, (None, "cut off")),
        ("choice", "Answer: none of them", False, (None, "refused")),
        ("choice", "<think>Is it B", True, (None, "cut off")),
        ("choice", "The answer is A or B.", False, (None, "two answers")),
        ("choice", "The answer is E.", False, (None, "no option")),
        ("choice", "Let us think.", False, (None, "no cue")),
        ("choice", "Let us think.", True, (None, "cut off")),
        ("choice", "", False, (None, "empty")),
        ("math", r"So \boxed{12}", True, ("12", "box")),
        ("math", "Answer: 12", False, ("12", "cue")),
        ("math", "Answer: 12", True, (None, "cut off")),
        ("math", "Answer: 12 metres of rope, as said", True, ("12", "cue")),
        ("math", "He walks 12 km", False, ("12", "last value")),
        ("math", "He walks 12 km", True, (None, "cut off")),
        ("math", "12\n\nQuestion: How many", True, ("12", "last line")),
        ("math", "no idea", False, (None, "no cue")),
        ("math", "Answer: 1\nAnswer: 2", False, (None, "two answers")),
        ("exact", "B", False, ("B", "last line")),
        ("text", "a lamp", False, ("a lamp", "last line")),
        ("code", "```python\nx = 1\n```", False, ("x = 1", "code block")),
        ("code", "x = 1", False, ("x = 1", "whole text")),
        ("code", "```python\ndef f(x):\n    return (", True, (None, "cut off")),
        ("code", "", False, (None, "empty")),
    ],
)
def test_a_reading_says_by_which_rule_or_why_not(grader, reply, truncated, reading):
    assert read(problem(grader, "B", choices=WORDS), reply, truncated) == Reading(*reading)
