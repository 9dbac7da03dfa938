"""Rounds: what each is trained on and starts from, whether it paid, and signs of collapse."""

import json
from types import SimpleNamespace

import pytest
from madeup import eval_row

from reflectevo_lite import embedded, evaluate, store
from reflectevo_lite.evaluate import rounds as iteration
from reflectevo_lite.read import figures
from reflectevo_lite.run import params as table


@pytest.fixture
def rounds(scripted, tmp_path, monkeypatch):
    """A function that makes a round of a scripted run, and the trainings that were asked for."""
    engine, problems = scripted
    run, asked = store.Run(tmp_path), []

    def train(kind, rows, out, *, start=None, **_):
        asked.append((kind, rows, start))
        store.write_json(out / "training.json", {})

    monkeypatch.setattr(iteration, "train_sft", lambda *a, **k: train("sft", *a, **k))
    monkeypatch.setattr(iteration, "train_dpo", lambda *a, **k: train("dpo", *a, **k))
    store.write_json(run.path("adapters", "reflector", "training.json"), {})
    test = problems[40:]
    first = evaluate.first_turns(engine, test, run.path("evals", "turn1.jsonl"), max_new_tokens=96)
    held = evaluate.Asked(test, first, run.path("evals"), 96)

    def make(r=2, some=problems[:40], earlier=(), **options):
        p = SimpleNamespace(**table.defaults() | {"n_rollout": 40, "turns": 2, "round_questions": "same"} | options)
        return iteration.run_round(engine, run, r, p, some, held, earlier)

    return run, asked, make


def test_sft_trains_a_fresh_adapter_on_what_helped(rounds):
    run, asked, make = rounds
    done = make(round_training="sft")
    [(kind, rows, start)] = asked
    assert (kind, start) == ("sft", None) and len(rows) == len(done["data"]) == len(
        run.read("rounds", "2", "d_plus.jsonl")
    )
    assert all(row["reflection"]["turn2"]["correct"] for row in done["data"])
    assert len(done["rows"]) == 20 and done["adapter"] == iteration.adapter_of_round(run, 2)


def test_dpo_goes_on_from_the_round_before_on_its_own_pairs(rounds):
    run, asked, make = rounds
    done = make(round_training="dpo")
    [(kind, rows, start)] = asked
    assert (kind, start) == ("dpo", run.path("adapters", "reflector"))
    assert len(rows) == len(done["data"]) == len(run.read("rounds", "2", "d_pm.jsonl")) > 5
    for pair in done["data"]:
        assert pair["chosen"]["turn2"]["correct"] and not pair["rejected"]["turn2"]["correct"]
    own = {x["text"] for row in run.read("rounds", "2", "rollouts.jsonl") for x in row["reflections"]}
    assert {pair[side]["text"] for pair in done["data"] for side in ("chosen", "rejected")} <= own


@pytest.mark.parametrize("how", iteration.ROUND_DATA)
def test_union_adds_the_rows_of_earlier_rounds(rounds, how):
    _, asked, make = rounds
    second = make(round_training=how)
    third = make(3, round_training=how, round_data="union", earlier=second["data"])
    fresh = len(third["data"]) - len(second["data"])
    assert third["data"][:-fresh] == second["data"] and [len(rows) for _, rows, _ in asked][1] == len(third["data"])


@pytest.mark.parametrize("how", iteration.ROUND_DATA)
def test_a_round_with_nothing_to_train_on_hands_on_the_reflector(rounds, how, capsys):
    run, asked, make = rounds
    done = make(some=[], round_training=how)
    assert not asked and done["rows"] == done["data"] == [] and done["adapter"].name == "reflector"
    assert "round_2: nothing to train on" in capsys.readouterr().out
    assert iteration.adapter_of_round(run, 2) == run.path("adapters", "reflector")
    assert evaluate.left_out(run) == ["round 2"]


@pytest.mark.parametrize("how", iteration.ROUND_DATA)
def test_round_1_is_that_of_notebooks_02_and_03(rounds, how):
    run, *_ = rounds
    for name, n in (("d_plus", 3), ("d_pm", 2)):
        store.write_jsonl(run.path("curated", f"{name}.jsonl"), [{}] * n)
    store.write_jsonl(run.path("rollouts", "train.jsonl"), [])
    store.write_jsonl(run.path("evals", "reflector_only.oracle.jsonl"), [{"id": "q"}])
    done = iteration.first_round(run, how)
    assert len(done["data"]) == (3 if how == "sft" else 2) and done["rows"] == [{"id": "q"}]
    assert json.loads((done["adapter"] / "training.json").read_text()) == {}


def test_a_round_is_said_to_pay_only_where_its_interval_lies_above_zero():
    problems = embedded.problems(60, "train")
    bad = [eval_row(p, False, False) for p in problems]
    good = [eval_row(p, False, i % 2 == 0) for i, p in enumerate(problems)]
    slightly = [eval_row(p, False, i == 0) for i, p in enumerate(problems)]
    assert iteration.paid(good, bad)["pays"] and "it **paid**" in iteration.verdict(2, iteration.paid(good, bad))
    assert not iteration.paid(slightly, bad)["pays"]
    assert "no gain that 60 questions can show" in iteration.verdict(2, iteration.paid(slightly, bad))
    assert "it **cost**" in iteration.verdict(2, iteration.paid(bad, good))
    assert not iteration.paid([], [])["pays"] and "raise n_train" in iteration.verdict(2, iteration.paid([], []))


def test_validation_questions_were_never_rolled_out():
    train = [{"id": str(i)} for i in range(100)]
    for n, n_rollout, held in ((20, 30, 20), (90, 30, 70), (20, 100, 0), (0, 10, 0), (20, 500, 0)):
        pool, validation = iteration.hold_back(train, n, n_rollout)
        assert len(validation) == held and pool + validation == train
        used = [p["id"] for r in (1, 2, 3) for p in iteration.questions_of_round(pool, n_rollout, r)]
        assert not {p["id"] for p in validation} & set(used)
    fresh = [p["id"] for r in (1, 2, 3) for p in iteration.questions_of_round(train, 30, r)]
    assert len(set(fresh)) == 90
    assert iteration.questions_of_round(train, 30, 3, "same") == iteration.questions_of_round(train, 30, 1)


def test_validation_goes_through_the_rounds_reflector_and_none_is_no_error(scripted, tmp_path):
    engine, problems = scripted
    run = store.Run(tmp_path)
    rows = iteration.validate(engine, run, 0, problems[:20], max_new_tokens=96)
    assert [r["id"] for r in rows] == [p["id"] for p in problems[:20]] and any(r["reflection"] for r in rows)
    assert run.path("rounds", "validation", "round_0.oracle.jsonl").exists() and not run.path("evals").exists()
    assert iteration.validate(engine, store.Run(tmp_path / "none"), 0, [], max_new_tokens=96) == []


def rollout(texts, right):
    problem = {"id": "q", "question": "Start with 3. Add 4.", "answer": "7", "grader": "exact", "meta": {}}
    turn2 = [{"correct": ok} for ok in right]
    return {
        "problem": problem,
        "turn1": {"completion": "Step 1: 3 + 4 gives 9"},
        "reflections": [{"text": t, "turn2": a} for t, a in zip(texts, turn2, strict=True)],
    }


def test_the_watch_sees_sameness_copying_and_shrinking():
    varied = [
        rollout([f"Step {i % 5 + 1} looks wrong, cause number {i} of many here"], [i % 3 == 0]) for i in range(40)
    ]
    stuck = [rollout(["Step 1: 3 + 4 gives 9"], [False]) for _ in range(60)]
    frame = evaluate.watch({1: varied, 2: varied, 3: stuck})
    assert list(frame["reflections"]) == [40, 40, 40]
    one, three = frame.iloc[0], frame.iloc[2]
    assert one["distinct"] == 1 and three["distinct"] == 1 / 40 and three["same_place"] == 1 and three["copied"] == 1
    assert one["same_place"] == 0.2 and one["copied"] == 0
    warnings = evaluate.collapse_warnings(frame)
    assert all(line.startswith("Round 3") for line in warnings)
    for word in ("fewer different reflections", "one and the same place", "more text copied", "did not rise"):
        assert any(word in line for line in warnings)
    assert evaluate.collapse_warnings(evaluate.watch({1: varied, 2: varied})) == []
    assert evaluate.watch({1: varied, 2: []})["distinct"].tolist() == [0, 0]  # nothing to look at divides nothing
    assert len(figures.collapse(frame).axes) == 2
