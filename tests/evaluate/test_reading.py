"""Rows keep how each answer was read; shares of unread and cut-off answers are right, and warned of if they are large."""

import json

import pytest

from notebooks.beyond.resampling import resample
from reflectevo_lite import evaluate, generate, read, store
from reflectevo_lite.evaluate import Asked, Evaluation, Setting

CHOICE = {"id": "q", "task": "t", "question": "?", "answer": "B", "grader": "choice", "choices": ["red", "blue"], "meta": {}}  # fmt: skip


class Says:
    """Answers with texts in turn; one that ends with "…" was cut there."""

    name = "says"

    def __init__(self, *texts):
        self.texts, self.said = texts, 0

    def generate(self, conversations, *, n=1, temperature=0.0, max_new_tokens=512, seed=0, adapter=None):
        found = []
        for _ in conversations:
            text = self.texts[self.said % len(self.texts)]
            self.said += 1
            found.append([generate.Completion(text.removesuffix("…"), 5, text.endswith("…"))])
        return found


def attempt(how, answer=None, cut=False, text="hm"):
    return {"completion": text, "answer": answer, "correct": False, "tokens": 1, "truncated": cut, "read": how}


def rollout(task, first, *seconds):
    problem = CHOICE | {"task": task}
    return {"id": task, "problem": problem, "turn1": first, "reflections": [{"turn2": a} for a in seconds]}


def test_shares_of_hand_made_rows():
    rows = [
        rollout("a", attempt("cue", "A"), attempt("no cue"), attempt("cut off", cut=True)),
        rollout("a", attempt("refused"), attempt("cue", "A", cut=True), attempt("cue", "A")),
        rollout("b", attempt("empty")),
    ]
    found = {(r["task"], r["turn"]): r for r in evaluate.reading("rollouts", rows)}
    assert list(found) == [("all", 1), ("all", 2), ("a", 1), ("a", 2), ("b", 1)]
    assert [(r["n"], r["unreadable"], r["cut_off"]) for r in found.values()] == [
        (3, 1 / 3, 0), (4, 0.5, 0.5), (2, 0, 0), (4, 0.5, 0.5), (1, 1, 0)
    ]  # fmt: skip
    assert found["a", 2]["how"] == {"cue": 2, "no cue": 1, "cut off": 1} and found["a", 1]["how"]["refused"] == 1
    assert evaluate.reading("rollouts", []) == []


@pytest.mark.parametrize(
    ("text", "how", "correct", "counted"),
    [
        ("Answer: B", "cue", True, (0, 0)),
        ("Answer: B\nThis is since…", "cue", True, (0, 1)),  # cut, but the answer had been said
        ("I think it may…", "cut off", False, (1, 1)),
        ("I cannot see it", "no cue", False, (1, 0)),
        ("Answer: none of them", "refused", False, (0, 0)),
        ("", "empty", False, (1, 0)),
    ],
)
def test_an_attempt_keeps_how_it_was_read(text, how, correct, counted):
    [found] = generate.answer(Says(text), [CHOICE], [[]])
    assert (found["read"], found["correct"], found["truncated"]) == (how, correct, text.endswith("…"))
    share = evaluate.reading("rollouts", [rollout("t", found)])[0]
    assert (share["unreadable"], share["cut_off"]) == counted


def test_every_turn_and_every_fresh_answer_is_kept(tmp_path):
    run, setting = store.Run(tmp_path), Setting("prompted")
    engine = Says("Answer: A", "think", "what?", "think", "Answer: A. So it is…")  # answers at turns 1, 2 and 3
    store.write_jsonl(run.path("data", "test.jsonl"), [CHOICE])
    first = evaluate.first_turns(engine, [CHOICE], run.path("evals", "turn1.jsonl"), max_new_tokens=9)
    asked = Asked([CHOICE], first, run.path("evals"), 9)
    [row] = evaluate.evaluate(engine, asked, setting, turns=3)
    assert (row["read"], row["truncated"]) == (["no cue", "cue"], [False, True])
    found = {(r["setting"], r["turn"]): r for r in evaluate.reading_of(run) if r["task"] == "t"}
    assert list(found) == [("first answers", 1), ("prompted.oracle", 2), ("prompted.oracle", 3)]
    assert [r["cut_off"] for r in found.values()] == [0, 0, 1]
    fresh = resample(Says("Answer: A", "what?"), asked, Evaluation("prompted"))
    assert fresh["resample_vote"][0]["read"] == ["cue", "no cue"] and "read" not in fresh["resample"][0]
    [share] = evaluate.reading("x", fresh["resample_vote"])[1:]
    assert (share["turn"], share["n"], share["unreadable"]) == (2, 2, 0.5)
    [[setting, problem, turn, why, text]] = evaluate.unread(run)
    assert (setting, problem["id"], turn, why, text) == ("prompted.oracle", "q", 2, "no cue", "what?")


def test_rows_of_an_older_version_are_read_again_where_their_problem_is_known(scripted, tmp_path):
    engine, problems = scripted
    run = store.Run(tmp_path)
    store.write_jsonl(run.path("data", "test.jsonl"), problems)
    first = evaluate.first_turns(engine, problems, run.path("evals", "turn1.jsonl"), max_new_tokens=96)
    asked = Asked(problems, first, run.path("evals"), 96)
    evaluate.evaluate(engine, asked, Setting("prompted"))
    generate.generate_rollouts(engine, problems, run.path("rollouts", "train.jsonl"), progress=False)
    now = [r for r in evaluate.reading_of(run) if r["setting"] != "prompted.oracle"]
    for file in ("evals/turn1.jsonl", "evals/prompted.oracle.jsonl", "rollouts/train.jsonl"):
        rows = store.read_jsonl(run.path(file))
        for row in rows:
            for each in (row, row.get("turn1"), *(r["turn2"] for r in row.get("reflections", ()))):
                each and each.pop("read", None)
            if "turn1_correct" in row:
                row.pop("truncated", None)
        store.write_jsonl(run.path(file), rows)
        done = run.path(file).with_suffix(".done")
        store.write_json(done, json.loads(done.read_bytes()) | {"bytes": run.path(file).stat().st_size})
    assert evaluate.reading_of(run) == now and {r["setting"] for r in now} == {"rollouts", "first answers"}
    before = engine.calls[:]
    generate.generate_rollouts(engine, problems, run.path("rollouts", "train.jsonl"), progress=False)
    again = evaluate.first_turns(engine, problems, run.path("evals", "turn1.jsonl"), max_new_tokens=96)
    assert engine.calls == before and "read" not in again[0]
    evaluate.evaluate(engine, asked._replace(first=again), Setting("prompted"), Evaluation("prompted", "intrinsic"))


def share(setting="rollouts", task="snarks", n=100, unreadable=0.0, cut_off=0.0, **how):
    return {
        "setting": setting,
        "task": task,
        "turn": 1,
        "n": n,
        "unreadable": unreadable,
        "cut_off": cut_off,
        "how": how,
    }


def test_large_shares_are_warned_of_with_the_remedy_and_small_ones_are_not():
    quiet = [share(unreadable=0.1, cut_off=0.1), share(n=9, unreadable=1), share(task="all", unreadable=0.5)]
    assert evaluate.reading_warnings(quiet) == []
    [unread] = evaluate.reading_warnings([*quiet, share(unreadable=0.41, cue=59, empty=41)])
    assert "41% of 100 (rollouts, snarks, turn 1), mostly for: empty" in unread and "worked examples" in unread
    [cut] = evaluate.reading_warnings([share(cut_off=0.2 + i / 100) for i in range(5)])
    assert cut.startswith("Answers that were cut off: 24%") and "in 2 other places" in cut and "max_new_tokens" in cut


def test_ten_unread_answers_are_quoted_only_if_there_is_a_warning(tmp_path):
    run = store.Run(tmp_path)
    rows = [rollout("t", attempt("no cue", text=f"<b>hm {i}")) for i in range(30)]
    store.write_jsonl(run.path("rollouts", "train.jsonl"), rows)
    shares = evaluate.reading_of(run)
    notes = read.reading_notes(run, shares)
    assert notes.startswith("Of 30 answers 100.0% could not be read, 0.0% were cut off")
    assert notes.count("--- rollouts, t, q, turn 1: no cue\n<b>hm") == 10
    assert "---" not in read.reading_notes(run, evaluate.reading("x", [rollout("t", attempt("cue", "A"))]))
    assert list(read.readings(shares)["how"]) == ["no cue 30"] * 2
    assert list(read.readings(evaluate.reading("x", [rollout("t", attempt("cue", "A"))]))["task"]) == ["all"]
