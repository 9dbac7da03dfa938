"""The sceptic's tables over a small made-up run: no model is loaded."""

import random

import numpy as np
import pytest
from conftest import ScriptedEngine
from madeup import make_run
from tiny_model.corpus import reflection_text

from notebooks.beyond import ablation, injected, ladder, verifier, words
from notebooks.beyond.evidence import evidence
from reflectevo_lite import embedded, evaluate, store
from reflectevo_lite.evaluate import Setting
from reflectevo_lite.generate import Completion
from reflectevo_lite.run.params import defaults


class Params(dict):
    __getattr__ = dict.__getitem__


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    run = make_run(tmp_path_factory.mktemp("made"), n=90)
    return run, ScriptedEngine(run.read("data", "test.jsonl")), evaluate.held_out(run, max_new_tokens=96, seed=0)


def test_every_rung_is_answered_and_the_best_is_what_training_is_measured_by(made):
    run, engine, asked = made
    ladder.climb(engine, run, asked, Params(defaults()))
    table = ladder.ladder_table(run)
    assert len(table) == 7 and (table["n"] == 90).all() and table["true"].between(0, 1).all()
    learned = ladder.learned_table(run)
    best = table.loc[table["acc_t2"].idxmax()]
    right = np.mean([r["turn2_correct"] for r in run.read("evals", "reflector_only.oracle.jsonl")])
    (row,) = learned.to_dict("records")
    assert row["best untrained prompt"] == best["prompt"] and row["difference"] == pytest.approx(right - best["acc_t2"])
    calls = len(engine.calls)
    ladder.climb(engine, run, asked, Params(defaults()))  # finished rungs are read back
    assert len(engine.calls) == calls


def test_the_best_instruction_is_the_one_that_helped_most_often():
    helped = {"1-1-1": [True, False], "1-2-1": [True, True, False], "2-1-1": [False] * 5}
    rows = [{"reflections": [{"instruction": k, "turn2": {"correct": v}} for k, vs in helped.items() for v in vs]}]
    assert ladder.best_instruction(rows) == "1-2-1"
    assert ladder.best_instruction([]) == "generic"


def test_a_reflection_with_a_wrong_place_mends_less_than_its_own(made):
    run, engine, asked = made
    words.edit_words(engine, run, asked, "reflector_only")
    table = words.words_table(run).set_index("edit")
    assert table.loc["another place, planned for", "diff high"] < 0  # the scripted world redoes what is blamed
    assert table.loc["another cause", "difference"] == table.loc["a plan for another step", "difference"] == 0
    assert (table["n"] > 0).all() and table["unedited"].between(0, 1).all()


def test_edits_change_their_part_alone():
    problem = embedded.problems(1, "train", seed=5)[0]
    task = embedded.tasks.to_task(problem)
    attempt = task.hasty()
    place = next(p for p, _ in task.errors(attempt) if p != embedded.ANSWER)
    text = reflection_text(task, attempt, place, "method", "1-1-2")
    rng = random.Random(0)
    found = {
        part: words.changed(problem, attempt.text(task), text, part, rng)
        for part in ("place", "cause", "plan", "elsewhere")
    }
    own = embedded.truth(problem, attempt.text(task), text)
    changed = {part: embedded.truth(problem, attempt.text(task), t) for part, t in found.items()}
    assert own.form and all(t.form for t in changed.values()) and len({text, *found.values()}) == 5
    assert not changed["place"].place and changed["plan"].place and not changed["plan"].plan
    assert changed["elsewhere"].plan and not changed["elsewhere"].place and changed["cause"].place
    assert words.changed(problem, attempt.text(task), "Look again.", "place", rng) is None
    assert (
        words.cut(problem, "", "Step 1 is right. Step 2 is wrong: because. Plan: redo step 2.", rng)
        == "Step 2 is wrong."
    )
    assert words.cut(problem, "", "I misread it. I should look again.", rng) == "I misread it."


def test_a_verifier_that_errs_breaks_right_answers(made):
    run, engine, asked = made
    verifier.accuse(engine, asked, Setting("reflector_only", reflector="x"))
    rows = run.read("evals", "verifier", "reflector_only.oracle.accused.jsonl")
    assert all(r["reflection"] for r in rows)  # right ones, too
    store.write_jsonl(run.path("evals", "verifier", "confidence.jsonl"), [-1.0] * len(rows))
    table = verifier.verifier_table(run, "reflector_only").set_index("verifier")
    told = table.loc["gold answer, 0% flipped"]
    assert told["broken"] == told["accused"] == 0 and told["auroc"] == 1
    second = [r["turn2_correct"] or r["turn1_correct"] for r in rows]
    assert told["acc_t2"] == pytest.approx(np.mean(second))
    noisy = table.loc["gold answer, 30% flipped"]
    right = [r for r in rows if r["turn1_correct"]]
    assert noisy["broken"] == pytest.approx(0.3 * np.mean([not r["turn2_correct"] for r in right]))
    assert noisy["accused"] == pytest.approx(0.3) and noisy["auroc"] == 0.7
    assert table.loc["its own likelihood", "auroc"] == 0.5 and table.loc["its own likelihood", "accused"] == 0


@pytest.mark.parametrize(
    ("text", "accused"),
    [
        ("I find no mistake. Plan: keep the answer.", False),
        ("Step 1 is right. Step 2 is wrong: it is miscalculated.", True),
        ("There are no errors in it.", False),
        ("The answer is correct.", False),
        ("I divided where I should have multiplied.", True),
    ],
)
def test_what_a_reflection_says_of_the_answer(text, accused):
    assert verifier.accuses(text) == accused


def test_true_and_lucky_reflections_are_told_apart_and_kept_in_equal_number(made, tmp_path):
    run = store.Run(tmp_path)
    rolled = made[0].read("rollouts", "train.jsonl")
    plus = [{k: r[k] for k in ("id", "problem", "turn1")} | {"reflection": x} for r in rolled for x in r["reflections"]]
    store.write_jsonl(run.path("curated", "d_plus.jsonl"), plus)
    found = ablation.true_and_lucky(run)
    kept = {name: run.read("curated", f"{name}.jsonl") for name in found}
    assert len(kept["plus_true"]) == len(kept["plus_lucky"]) == min(found.values()) > 0
    for name, rows in kept.items():
        for r in rows:
            truth = embedded.truth(r["problem"], r["turn1"]["completion"], r["reflection"]["text"])
            assert truth.whole == (name == "plus_true")


def test_a_mistake_put_into_a_right_answer_is_one_and_its_line_is_found_again():
    rng, text = random.Random(0), "Step 1: 3 + 4 = 7\nStep 2: 7 x 12 gives 84\nAnswer: 84"
    for _ in range(20):
        found = injected.inject(text, rng)
        changed = [i for i, (a, b) in enumerate(zip(text.split("\n"), found.text.split("\n"), strict=True)) if a != b]
        assert changed == [found.line] and found.kind == "number" and found.was in ("7", "84")
        step, quoted = f"Step {found.line + 1} is wrong: redo it.", ("3 + 4", "7 x 12")[found.line]
        assert injected.named(found.text, step) == injected.named(found.text, f"Is {quoted} so?") == found.line
        assert injected.named(found.text, f"Step {2 - found.line} is right. {step}") == found.line
    assert injected.named(text, "I was too hasty.") is None
    said = injected.inject("Ann stands before Ben.\nSo Ann is named.", rng)
    assert (said.text.split("\n")[0], said.kind, said.was) == ("Ann stands after Ben.", "opposite", "before")
    assert injected.inject("Answer: 3 + 4 = 7", rng) is None  # the last line states the result


class BlamesTheFirstStep:
    name = "blames"

    def generate(self, conversations, **how):
        return [[Completion("Step 1 is wrong: redo it.", 7, False)] for _ in conversations]


def test_reflections_on_mistakes_that_were_put_in(made):
    run, _, asked = made
    injected.reflect(BlamesTheFirstStep(), run, asked)
    first, table = run.read("evals", "injected", "turn1.jsonl"), injected.injected_table(run)
    assert 0 < len(first) <= sum(a["correct"] for a in asked.first) and not any(a["correct"] for a in first)
    assert set(table["setting"]) >= {evaluate.label("prompted"), evaluate.label("reflector_only")}
    for told in table.to_dict("records"):
        assert told["n"] == len(first) and told["names none"] == told["mended"] == 0
        assert told["named"] == pytest.approx(np.mean([a["line"] == 0 for a in first]))
        assert 0 < told["low"] <= told["named"] <= told["high"] and 0 < told["chance"] < 1


def test_adapters_answer_first_questions(made, monkeypatch):
    run, engine, asked = made
    for name in ("reflector", "qa"):
        store.write_json(run.path("adapters", name, "training.json"), {})
    ablation.first_answers(engine, run, asked)
    table = ablation.first_table(run)
    assert list(table["adapter"]) == ["reflector (D+)", "answers only"] and (table["difference"] == 0).all()
    assert set(evidence(run)) >= {"elimination", "truth", "first", "ladder", "learned", "words", "verifier", "injected"}
