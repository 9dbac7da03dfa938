"""What gives the answer away, and what does not."""

import pytest

from reflectevo_lite import curate

CHOICES = ["in the north", "in the south", "on the coast"]


def problem(answer="B", grader="choice", question="Where does it lie?", **more):
    return {"id": "q", "task": "t", "question": question, "answer": answer, "grader": grader, "meta": {}} | more


def attempt(answer="A", text="Answer: A"):
    return {"completion": text, "answer": answer, "correct": False}


@pytest.mark.parametrize(
    ("text", "leaks"),
    [
        ("The answer is (B).", True),
        ("I should choose option C instead.", True),
        ("It must lie in the south, as the map says.", True),
        ("(A) is wrong, for the map says otherwise.", False),  # its own choice
        ("I said in the north without looking at the map.", False),
        ("I misread the map in step 2. Plan: look again.", False),
        ("A more careful reading of the map helps.", False),  # an article
    ],
)
def test_options(text, leaks):
    assert curate.leaks(problem(choices=CHOICES), attempt(), text) == leaks


@pytest.mark.parametrize(
    ("answer", "text", "leaks"),
    [
        ("42", "It comes to 42.", True),
        ("42", "It comes to 42.5, or 142.", False),
        ("4", "Step 4 is wrong.", False),
        ("4", "The sum is 4, not 5.", True),
        ("7", "The question speaks of 7 apples.", False),  # it does
        (["Paris", "the city of Paris"], "It is paris.", True),
    ],
)
def test_other_answers(answer, text, leaks):
    asked = problem(answer, "math", "Ann has 7 apples.")
    assert curate.leaks(asked, attempt("5", "It is 5.\nAnswer: 5"), text) == leaks


def test_masking_leaves_nothing_that_leaks_and_keeps_the_steps():
    hidden = curate.masked(problem(choices=CHOICES), "Step 2 is wrong: not (A) but option B, in the south.")
    assert hidden == "Step 2 is wrong: not … but …, …."
    assert curate.masked(problem("2", "math"), "Step 2 is wrong: it is 2.") == "Step 2 is wrong: it is …."


def test_clean_rollouts_can_be_gone_through_again():
    said = [{"text": t, "turn2": {"correct": True}} for t in ("It is (B).", "I misread the map.")]
    rollout = {"id": "q", "problem": problem(choices=CHOICES), "turn1": attempt(), "reflections": said}
    clean = curate.Clean([rollout])
    assert [[x["text"] for x in r["reflections"]] for r in clean for _ in range(2)] == [["I misread the map."]] * 2
    assert curate.leak_shares([rollout])["d_plus"] == 0.5 and curate.leak_shares(clean)["d_plus"] == 0
    assert len(list(curate.d_plus(clean))) == len(list(curate.d_plus(clean))) == 1
