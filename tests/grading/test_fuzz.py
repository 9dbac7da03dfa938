"""Random edits of gold answers: nothing else may be read from them. More cases: REFLECTEVO_FUZZ=20000."""

import os
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reflectevo_lite.grading import grade, read

CASES = int(os.environ.get("REFLECTEVO_FUZZ", "600"))
OPTIONS = [
    ["a paper kite", "the copper lamp", "an old violin", "the broken clock"],
    ["Yes", "No"],
    ["True", "False", "Neither"],
    ["red", "dark red", "blue"],
    ["$5", "$15", "$50"],
    ["C. S. Lewis", "A. A. Milne", "T. H. White"],
    ["I", "II", "III", "IV"],
]
CUES = [
    "",
    "Answer: ",
    "**Answer:** ",
    "The answer is ",
    "So the answer is ",
    "Therefore, the correct answer is ",
    "answer:  ",
]
CUES += [
    "Final Answer: ",
    "The final answer is: ",
    "ANSWER: ",
    "### Answer\n",
    "Ans: ",
    "Answer:\n\n",
    "I think the answer is ",
]
BEFORE = [
    "",
    "",
    "",
    "Let us think step by step.\n",
    "First 3 and 4 make 7. ",
    "Option A looks odd, B too.\n\n",
    "Step 1: 2 + 9 = 11\n",
]
AFTER = [
    "",
    "",
    "",
    ".",
    " .",
    "</s>",
    "<|im_end|>",
    "\n",
    "\n\n",
    ".\n\nQuestion: What else?\nAnswer: 999",
    " because it fits",
]
AFTER += [".\nI hope this helps.", " ", "!", "\n\nHuman: thanks"]
WRAPS = [
    "{}",
    "{}",
    "**{}**",
    "*{}*",
    "`{}`",
    '"{}"',
    "'{}'",
    "({})",
    "[{}]",
    "\\boxed{{{}}}",
    "$\\boxed{{{}}}$",
    "Finish[{}]",
]
WRAPS += ["<answer>{}</answer>", "__{}__", "\\text{{{}}}", "${}$", "\\({}\\)", " {} "]
SPACES = [lambda s: s, lambda s: s.replace(" ", "  "), str.upper, str.lower, str.capitalize, str.strip]
STYLES = [
    "{letter}",
    "{letter}",
    "({letter})",
    "{letter}.",
    "{letter})",
    "{letter}. {text}",
    "({letter}) {text}",
    "{text}",
    "Option {letter}",
]

seen = Counter()


def edited(draw, answer):
    """An answer, dressed: what models and their templates put around it."""
    said = draw(st.sampled_from(WRAPS)).format(draw(st.sampled_from(SPACES))(answer))
    return draw(st.sampled_from(BEFORE)) + draw(st.sampled_from(CUES)) + said + draw(st.sampled_from(AFTER))


@st.composite
def choice_replies(draw):
    options = draw(st.sampled_from(OPTIONS))
    index = draw(st.integers(0, len(options) - 1))
    said = draw(st.sampled_from(STYLES)).format(letter="ABCDEFG"[index], text=options[index])
    return options, "ABCDEFG"[index], edited(draw, said)


@st.composite
def number_replies(draw):
    value = draw(st.integers(-9999, 99999))
    forms = [str(value), f"{value:,}", f"{value}.0", f"x = {value}", f"{value} apples", f"${value}", f"{value}%"]
    return str(value), edited(draw, draw(st.sampled_from(forms))).replace("!", ".")  # 3! is 6


@st.composite
def word_replies(draw):
    words = draw(st.lists(st.sampled_from(["kite", "lamp", "fig", "17", "nora", "pear"]), min_size=1, max_size=4))
    brackets = draw(st.lists(st.sampled_from([")", "]", ">"]), min_size=1, max_size=4))
    gold = " ".join(draw(st.sampled_from([words, brackets])))
    return gold, edited(draw, gold)


def problem(grader, answer, options=()):
    return {"id": "p", "task": "t", "question": "q", "answer": answer, "grader": grader, "meta": {}, "choices": options}


def counted(kind, right):
    seen[kind, "all"] += 1
    seen[kind, "missed"] += not right


fuzzed = settings(
    max_examples=CASES, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


@fuzzed
@given(choice_replies())
def test_no_other_option_is_read(case):
    options, letter, reply = case
    found = read(problem("choice", letter, options), reply).answer
    assert found in (letter, None), (reply, found)
    counted("choice", found)


@fuzzed
@given(number_replies(), st.integers(1, 9))
def test_no_other_number_is_read(case, more):
    value, reply = case
    others = {str(int(value) + more), str(-int(value)), value[:-1], value + "0", "7", "999", "3"} - {"", "-"}
    for other in others:
        assert int(other) == int(value) or not grade(problem("math", other), reply).correct, (reply, other)
    counted("math", grade(problem("math", value), reply).correct)


@fuzzed
@given(word_replies())
def test_no_other_words_are_read(case):
    gold, reply = case
    for other in (gold.split(" ")[0], gold + " fig", gold[::-1], "999"):
        assert other == gold or not grade(problem("exact", other), reply).correct, (reply, other)
    counted("exact", grade(problem("exact", gold), reply).correct)


@pytest.fixture(scope="module", autouse=True)
def shares():
    yield
    for kind in sorted({kind for kind, _ in seen}):
        print(f"{kind}: {seen[kind, 'all']} edits, {seen[kind, 'missed'] / seen[kind, 'all']:.1%} not read")
