"""Prompts say what they may say and nothing more."""

from collections import Counter

import pytest

from reflectevo_lite import prompts
from reflectevo_lite.embedded import tasks as synthetic

PROBLEM = synthetic.problems(3, "train")[2]
ATTEMPT = "Step 1: … \nAnswer: B"


def test_pool_is_2_by_8_by_2():
    assert len(prompts.POOL) == 32 and prompts.POOL[0] == "1-1-1" and prompts.POOL[-1] == "2-8-2"
    assert len(set(prompts.INSTRUCTIONS.values())) == 33


def test_drawn_instructions_are_balanced_and_seeded():
    drawn = prompts.draw_instructions(100, seed=4)
    counts = Counter(drawn)
    assert max(counts.values()) - min(counts.values()) <= 1 and set(counts) == set(prompts.POOL)
    assert drawn == prompts.draw_instructions(100, seed=4) != prompts.draw_instructions(100, seed=5)


def test_unknown_instruction_is_named():
    with pytest.raises(ValueError, match="3-1-1"):
        prompts.draw_instructions(4, 0, ["3-1-1"])


@pytest.mark.parametrize(
    "build",
    [
        lambda mode: prompts.reflection_prompt(PROBLEM, ATTEMPT, mode=mode),
        lambda mode: prompts.retry_prompt(PROBLEM, ATTEMPT, "r", mode),
        lambda mode: prompts.retry_prompt(PROBLEM, ATTEMPT, None, mode),
        lambda mode: prompts.one_stage_prompt(PROBLEM, ATTEMPT, mode),
    ],
)
def test_a_verdict_is_given_in_oracle_mode_only(build):
    assert prompts.VERDICT["oracle"] in build("oracle")[-1]["content"]
    assert prompts.VERDICT["oracle"] not in str(build("intrinsic"))
    assert [m["role"] for m in build("oracle")] == ["user", "assistant", "user"]


def test_question_text_shows_choices_context_and_only_the_shown_tests():
    code = {
        "id": "x",
        "task": "t",
        "question": "Write f.",
        "answer": "",
        "grader": "code",
        "tests": ["assert f(2) == 4"],
        "shown_tests": ["assert f(1) == 1"],
        "context": "Background.",
        "meta": {},
    }
    text = prompts.question_text(code)
    assert text.startswith("Background.\nWrite f.") and "f(1)" in text and "f(2)" not in text
    assert "(D) " in prompts.question_text(PROBLEM)


def test_one_stage_layout_round_trips_and_survives_its_absence():
    assert prompts.split_one_stage(prompts.join_one_stage("r one", "a\nAnswer: 2")) == ("r one", "a\nAnswer: 2")
    assert prompts.split_one_stage("Answer: 3") == ("Answer: 3", "Answer: 3")


@pytest.mark.parametrize(("size", "k"), [(32, 3), (32, 5), (5, 3), (4, 4), (3, 7)])
def test_one_answers_instructions_differ_as_far_as_the_pool_goes(size, k):
    pool = prompts.POOL[:size]
    drawn = prompts.draw_instructions(40 * k, 1, pool, k=k)
    counts = Counter(drawn)
    assert max(counts.values()) - min(counts.values()) <= 1
    for i in range(0, len(drawn), k):
        hand = Counter(drawn[i : i + k])
        assert max(hand.values()) <= -(-k // size)


def test_a_pool_is_named_by_all_identifiers_or_patterns():
    assert prompts.instruction_pool() == list(prompts.POOL)
    assert prompts.instruction_pool("1-*-*") == [n for n in prompts.POOL if n.startswith("1-")]
    assert prompts.instruction_pool(["2-1-1", "1-1-*", "2-1-1"]) == ["1-1-1", "1-1-2", "2-1-1"]
    for wrong in ("verify 1", ["1-1-1", "9-*-*"], [], ["1-1"]):
        with pytest.raises(ValueError, match="1-1-1 to 2-8-2"):
            prompts.instruction_pool(wrong)
