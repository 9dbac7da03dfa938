"""The graders: text, exact and code, their dispatch, and what no completion may do to them."""

import sys
import time
from types import ModuleType, SimpleNamespace

import pytest

from reflectevo_lite.grading import Grade, grade, grade_many, graders, text_scores
from reflectevo_lite.grading.program import read_code


def problem(grader, answer, **more):
    return {"id": "p", "task": "t", "question": "q", "answer": answer, "grader": grader, "meta": {}, **more}


@pytest.mark.parametrize(
    ("golds", "prediction", "scores"),
    [
        (["the red barn"], "Red barn!", (1, 1)),
        (["red barn"], "a big red barn", (0, 0.8)),
        (["barn", "a shed"], "Shed.", (1, 1)),
        (["yes"], "yes yes", (0, 2 / 3)),
        (["12"], "twelve", (0, 0)),
        (["the"], "", (1, 1)),
        (["dog"], "", (0, 0)),
        ([], "dog", (0, 0)),
    ],
)
def test_text_scores_follow_squad(golds, prediction, scores):
    assert text_scores(golds, prediction) == pytest.approx(scores)


@pytest.mark.parametrize(
    "reply",
    [
        "Answer: a red barn",
        "It says so.\n**Answer:** Red barn.",
        "The answer is the red barn.",
        "red barn",
        "reasons\n\nRed barn\n",
        "Finish[red barn]",
        "Answer: red barn\n\nQuestion: x\nAnswer: shed",
    ],
)
def test_text_answers_are_found_where_models_write_them(reply):
    assert grade(problem("text", ["a shed", "red barn"]), reply).correct


@pytest.mark.parametrize(
    ("reply", "correct", "answer"),
    [
        ("2+3=5\nAnswer: 5", True, "5"),
        ("Answer:  5 \nmore", True, "5"),
        ("Answer: 4\nAnswer: 5", False, None),
        ("Answer: 4\nNo, wait.\nAnswer: 5", True, "5"),
        ("Answer: five", False, "five"),
        ("Answer: 5.", True, "5"),
        ("The answer is 5", True, "5"),
        ("5", True, "5"),
        ("Step 2: 5", False, None),
        ("Answer:\n5", True, "5"),
    ],
)
def test_exact_answers_are_found_where_models_write_them(reply, correct, answer):
    assert grade(problem("exact", "5"), reply) == Grade(correct, answer)


def test_exact_ignores_case_and_spacing():
    assert grade(problem("exact", "b C a"), "Answer:  B  c A").correct


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        ("Here:\n```python\nx = 1\n```\nbye", "x = 1"),
        ("```\nx = 1\n```", "x = 1"),
        ("x = 1", "x = 1"),
        ("", None),
        ("```python\nx = 1", "x = 1"),
        ("```python\ndef f():\n    return 1\n```\nUse:\n```python\nf()\n```", "def f():\n    return 1"),
        ("```bash\npip install something long\n```\n```py\r\nx = 1\r\n```", "x = 1"),
    ],
)
def test_extract_code_takes_the_program(reply, code):
    assert read_code(reply).answer == code


def test_code_is_graded_by_the_sandbox(monkeypatch):
    calls = []
    fake = ModuleType("reflectevo_lite.sandbox")
    fake.run_tests = lambda *a, **k: calls.append((a, k)) or SimpleNamespace(passed=True, reason="")
    monkeypatch.setitem(sys.modules, "reflectevo_lite.sandbox", fake)
    monkeypatch.setattr(sys.modules["reflectevo_lite"], "sandbox", fake, raising=False)
    row = problem("code", "", tests=["assert f(1) == 2"], setup="import math")
    assert grade_many([row], ["```python\nf = 1\n```"], progress=False) == [Grade(True, "f = 1")]
    assert calls == [(("f = 1", ["assert f(1) == 2"]), {"setup": "import math"})]


def test_grade_many_keeps_the_order_of_mixed_graders():
    rows = [
        problem("math", "4"),
        problem("choice", "B", choices=["x", "y"]),
        problem("math", "5"),
        problem("exact", "5"),
    ]
    grades = grade_many(rows, ["Answer: 2+2", "Finish[B]", r"\boxed{6}", "Answer: 5"], workers=2, progress=False)
    assert grades == [Grade(True, "2+2"), Grade(True, "B"), Grade(False, "6"), Grade(True, "5")]


def test_grade_many_refuses_unequal_lengths():
    with pytest.raises(ValueError, match="1 problems but 0 completions"):
        grade_many([problem("exact", "5")], [])


def test_cheap_graders_start_no_thread(monkeypatch):
    monkeypatch.setattr(graders, "ThreadPoolExecutor", None)
    assert grade_many([problem("exact", "5")] * 3, ["Answer: 5"] * 3) == [Grade(True, "5")] * 3


def test_an_unknown_grader_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'vibes'.*choice, math, text, code, exact"):
        grade(problem("vibes", "5"), "5")


@pytest.mark.parametrize("grader", ["choice", "math", "text", "exact"])
@pytest.mark.parametrize(
    "piece",
    [
        None,
        "",
        "\0",
        "\ud800",
        "a",
        "A ",
        "(",
        "{",
        "[",
        '"',
        "\n",
        " ",
        r"\boxed{",
        r"\frac{1}{",
        "$",
        "1",
        "1,",
        "Answer:",
        "answer is ",
        "answer a b c ",
        "Finish[",
        "<answer>",
        "A or ",
        "\nQuestion:",
        "A is correct ",
    ],
)
def test_no_reply_breaks_or_delays_a_grader(grader, piece):
    row = problem(grader, "B", choices=["Yes", "No", "a storm was coming"])
    reply = piece and piece * (2_000_000 // len(piece))
    start = time.monotonic()
    assert isinstance(grade(row, reply).correct, bool)
    assert time.monotonic() - start < 2
