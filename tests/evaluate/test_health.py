"""What reflections do instead of helping is counted, and warned of with a remedy."""

import pytest

from reflectevo_lite import evaluate, store

QUESTION = "How many pens do three boxes of four pens each hold in all?"
GOOD = "I added the numbers. Each box holds the same. Plan: multiply boxes by pens, and check by counting."
SICK = {
    "empty": {"text": " "},
    "cut off": {"text": GOOD, "tokens": 64},
    "loops": {"text": "I must do it again and " * 6},
    "echo": {"text": f"{QUESTION} Answer: 7"},
    "leaks": {"text": f"{GOOD} It is 12 pens."},
    "unmoved": {"text": GOOD, "answer": "7"},
    "unread": {"text": GOOD, "answer": None, "read": "no cue"},
}


def rollout(task, reflections):
    problem = {"id": "q", "task": task, "question": QUESTION, "answer": "12", "grader": "exact", "meta": {}}
    first = {"completion": "Answer: 7", "answer": "7", "correct": False}
    made = [{"text": GOOD, "tokens": 20, "answer": "9", "read": "cue", "correct": False} | x for x in reflections]
    told = [
        {"text": x["text"], "tokens": x["tokens"], "turn2": {key: x[key] for key in ("answer", "read", "correct")}}
        for x in made
    ]
    return {"problem": problem, "turn1": first, "reflections": told}


def health(tmp_path, *rows):
    run = store.Run(tmp_path)
    store.write_jsonl(run.path("rollouts", "train.jsonl"), rows)
    run.path("run.yaml").write_text("02_reflection_generation: {max_new_tokens: 64}", encoding="utf-8")
    return evaluate.health(run)


@pytest.mark.parametrize("sign", SICK)
def test_each_sign_is_seen_alone_and_warned_of_in_the_task_where_it_is_worst(tmp_path, sign):
    well = rollout("well", [{"correct": True}] * 10)
    table = health(tmp_path, well, rollout("sick", [SICK[sign]] * 9 + [{}])).set_index("task")
    assert list(table.index) == ["all", "well", "sick"] and list(table["reflections"]) == [20, 10, 10]
    shares = table.loc["sick", [*SICK, "helped"]]
    assert shares[sign] == 0.9 and (shares.drop(sign) == 0).all()
    (line,) = evaluate.health_warnings(table.reset_index())
    assert line.startswith("90% of 10 ") and "(sick): " in line


def test_a_run_in_which_hardly_anything_helped_says_so_and_a_sound_or_empty_one_nothing(tmp_path):
    (line,) = evaluate.health_warnings(health(tmp_path, rollout("t", [{}] * 40)))
    assert line.startswith("In no task more than 0.0% of the reflections helped") and "reflectevo calibrate" in line
    assert evaluate.health_warnings(health(tmp_path, rollout("t", [{"correct": True}] * 20))) == []
    assert evaluate.health_warnings(health(tmp_path, rollout("t", SICK.values()))) == []  # too few to warn of
    assert evaluate.health(store.Run(tmp_path / "none")).empty
