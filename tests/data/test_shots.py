"""Worked examples: of a question's own task, never a test question, the same for all, before every prompt."""

import json

import pytest

from reflectevo_lite import data, embedded, prompts

TRAIN, TEST = (embedded.problems(60, split, 1) for split in ("train", "test"))


def test_examples_stand_before_every_prompt_and_leave_the_training_split():
    train, test = data.with_shots(TRAIN, TEST, 2)
    tasks = {p["task"] for p in TRAIN}
    assert len(train) == len(TRAIN) - 2 * len(tasks) and len(test) == len(TEST) and len(tasks) > 1
    texts = {prompts.question_text(p) for p in train}
    for problem in test:
        asked = prompts.answer_prompt(problem)
        assert [m["role"] for m in asked] == ["user", "assistant"] * 2 + ["user"]
        assert asked[:4] == next(p for p in train if p["task"] == problem["task"])["shots"]
        assert not any(text in m["content"] for m in asked[:4] for text in texts)
        assert asked[1]["content"].startswith("Answer: ") and asked[1] != asked[3]


def test_second_answers_are_shown_second_answers_to_questions_of_the_task():
    _, test = data.with_shots(TRAIN, TEST, 2)
    for problem in {p["grader"]: p for p in test}.values():
        with_it, plain = (prompts.retry_prompt(problem, "x", reflection) for reflection in ("y", None))
        shots = problem["reflection_shots"]
        assert len(shots) == 2 and len(with_it) == 4 * len(shots) + 3
        for i, shot in enumerate(shots):  # question, attempt, request, second answer
            assert [m["content"] for m in with_it[4 * i + 1 : 4 * i + 4 : 2]] == [shot["attempt"], shot["second"]]
            assert shot["reflection"] in with_it[4 * i + 2]["content"] and shot["reflection"] not in str(plain)
            assert shot["attempt"] != shot["second"] == problem["shots"][2 * i + 1]["content"]  # wrong, then gold
            assert not set(shot["reflection"]) & set("0123456789")
            assert prompts.one_stage_prompt(problem, "x")[4 * i + 3]["content"].endswith(shot["second"])
        assert with_it[-2]["content"] == "x" and "y" in with_it[-1]["content"]


def test_a_file_may_bring_attempts_and_reflections_and_programs_have_none(tmp_path):
    said = {"worked": "4, since 2 + 2.", "attempt": "Answer: 22", "reflection": "I wrote the digits side by side."}
    rows = [{"id": str(i), "task": "any", "question": f"{i} + 2?", "answer": str(i + 2), "grader": "exact", "meta": {}}
            for i in range(2)]  # fmt: skip
    rows[0]["meta"] = said
    code = {"question": "Write f.", "answer": "def f(): ...", "grader": "code", "tests": ["assert f() is None"]}
    (tmp_path / "e.jsonl").write_text("\n".join(map(json.dumps, [*rows, rows[0] | code | {"id": "c", "meta": {}}])))
    _, test = data.with_shots(TRAIN, TEST, 3, str(tmp_path / "e.jsonl"))
    first, second = test[0]["reflection_shots"]
    assert (first["attempt"], first["reflection"], first["second"]) == (
        "Answer: 22",
        said["reflection"],
        said["worked"],
    )
    assert second["attempt"] == "Answer: 2" and len(test[0]["shots"]) == 6


@pytest.mark.parametrize("mode", ["oracle", "intrinsic"])
def test_reflections_are_shown_reflections_in_their_mode(mode):
    _, test = data.with_shots(TRAIN, TEST, 3)
    asked = prompts.reflection_prompt(test[0], "an attempt", "1-1-1", mode)
    assert [m["role"] for m in asked] == ["user", "assistant"] * 7 + ["user"]
    assert all(prompts.VERDICT[mode] in m["content"] for m in asked[2::4])
    assert prompts.INSTRUCTIONS["1-1-1"] in asked[-1]["content"] and asked[-2]["content"] == "an attempt"


def test_none_leaves_everything_as_it_was():
    assert data.with_shots(TRAIN, TEST, 0) == (TRAIN, TEST)


def test_examples_from_a_file_keep_the_training_split_and_may_be_worked(tmp_path):
    row = {
        "id": "e",
        "task": "any",
        "question": "2 + 2?",
        "answer": "4",
        "grader": "exact",
        "meta": {"worked": "2, 3, 4."},
    }
    (tmp_path / "e.jsonl").write_text(json.dumps(row))
    train, test = data.with_shots(TRAIN, TEST, 1, str(tmp_path / "e.jsonl"))
    assert len(train) == len(TRAIN) and [p["shots"][1]["content"] for p in (*train, *test)] == ["2, 3, 4."] * 120
    with pytest.raises(ValueError, match=r"has 1 questions to make 2 shots of: lower shots.*shots_from"):
        data.with_shots(TRAIN, TEST, 2, str(tmp_path / "e.jsonl"))


def test_a_test_question_is_never_an_example():
    held = [p for p in TRAIN if p["task"] == TRAIN[0]["task"]]
    with pytest.raises(ValueError, match="has 0 questions"):
        data.with_shots(held, held, 1)
