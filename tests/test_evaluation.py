"""Figures: right on rows made by hand, sane at the edges, and in agreement with statsmodels."""

import json

import numpy as np
import pytest

from reflectevo_lite import evaluation, rollouts, store


def row(i, first, second, task="a"):
    return {
        "id": str(i),
        "task": task,
        "turn1_correct": first,
        "turn2_correct": second,
        "tokens": 10,
    }


def test_figures_of_hand_made_rows():
    rows = [row(0, True, True), row(1, True, False), row(2, False, True), row(3, False, True), row(4, False, False)]
    found = evaluation.describe("x.intrinsic", "all", rows, 0)
    assert (found["acc_t1"], found["acc_t2"], found["flips"]) == (0.4, 0.6, {"cc": 1, "ci": 1, "ic": 2, "ii": 1})
    assert (
        found["delta"] == pytest.approx(0.2)
        and found["delta_ci"][0] < 0.2 < found["delta_ci"][1]
        and found["tokens"] == 50
    )
    assert (found["setting"], found["mode"], found["control"]) == ("x", "intrinsic", None)


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [row(0, True, True)],
        [row(0, False, False)],
        [row(i, True, True) for i in range(9)],
        [row(i, False, True) for i in range(9)],
    ],
)
def test_edges_divide_by_nothing(rows):
    found = evaluation.describe("x.oracle", "all", rows, 0)
    both = evaluation.compare("x", rows, "y", rows, 0)
    assert np.isfinite([found["acc_t1"], found["delta"], *found["delta_ci"], both["diff"], both["p_mcnemar"]]).all()
    assert both["diff"] == 0 and both["p_mcnemar"] == 1 and both["n"] == len(rows)


def test_mcnemar_agrees_with_statsmodels():
    from statsmodels.stats.contingency_tables import mcnemar

    for wins, losses in ((5, 1), (0, 8), (12, 12), (40, 21)):
        want = mcnemar([[10, wins], [losses, 10]], exact=True).pvalue
        assert evaluation.mcnemar(wins, losses) == pytest.approx(want)


def test_bootstrap_interval_covers_at_its_rate():
    rng, hits, truth = np.random.default_rng(0), 0, 0.15
    for trial in range(300):
        sample = rng.choice([-1, 0, 1], size=200, p=[0.1, 0.65, 0.25])
        low, high = evaluation.bootstrap_ci(sample, seed=trial, resamples=2000)
        hits += low <= truth <= high
    assert 0.91 <= hits / 300 <= 0.98


def test_a_difference_of_the_detectable_size_is_detected_at_the_promised_power():
    rng, n, discordant = np.random.default_rng(1), 600, 0.3
    mde = evaluation.smallest_detectable(discordant, n)
    hits = 0
    for _ in range(300):
        d = rng.choice([-1, 0, 1], size=n, p=[(discordant - mde) / 2, 1 - discordant, (discordant + mde) / 2])
        hits += evaluation.mcnemar(int((d == 1).sum()), int((d == -1).sum())) < 0.05
    assert 0.7 < hits / 300 < 0.9


def test_shuffled_leaves_nothing_in_its_place_and_loses_nothing():
    for n in (0, 1, 2, 3, 50):
        moved = evaluation.shuffled(list(range(n)), seed=3)
        assert sorted(moved) == list(range(n))
        assert n < 2 or all(i != m for i, m in enumerate(moved))


def test_oracle_never_breaks_and_intrinsic_may(scripted, tmp_path):
    engine, problems = scripted
    first = evaluation.first_turns(engine, problems, tmp_path / "turn1.jsonl", max_new_tokens=96)
    prompted = evaluation.Setting("prompted")
    oracle = evaluation.evaluate(engine, problems, first, prompted, tmp_path, turns=4)
    intrinsic = evaluation.evaluate(engine, problems, first, prompted, tmp_path, mode="intrinsic")
    assert not any(r["turn1_correct"] and not r["turn2_correct"] for r in oracle)
    assert all(r["turn2"] is None for r in oracle if r["turn1_correct"]) and all(r["turn2"] for r in intrinsic)
    assert any(r["turn1_correct"] and not r["turn2_correct"] for r in intrinsic)
    by_turn = [sum(r["correct"][t] for r in oracle) for t in range(4)]
    assert by_turn == sorted(by_turn) and by_turn[3] > by_turn[0]


def test_controls_differ_from_the_setting_in_one_thing(scripted, tmp_path):
    engine, problems = scripted
    first = evaluation.first_turns(engine, problems, tmp_path / "turn1.jsonl", max_new_tokens=96)
    common = (engine, problems, first, evaluation.Setting("prompted"), tmp_path)
    plain = evaluation.evaluate(*common)
    retry = evaluation.evaluate(*common, control="retry")
    moved = evaluation.evaluate(*common, control="shuffled")
    assert all(r["reflection"] is None for r in retry) and not any(
        r["turn2_correct"] for r in retry if not r["turn1_correct"]
    )
    assert sorted(r["reflection"] for r in moved if r["reflection"]) == sorted(
        r["reflection"] for r in plain if r["reflection"]
    )
    with pytest.raises(ValueError, match="there are retry and shuffled"):
        evaluation.evaluate(*common, control="magic")


def test_metrics_can_be_recomputed_from_the_rows(scripted, tmp_path):
    engine, problems = scripted
    first = evaluation.first_turns(engine, problems, tmp_path / "evals" / "turn1.jsonl", max_new_tokens=96)
    for setting in (evaluation.Setting("prompted"), evaluation.Setting("one_stage", one_stage=True)):
        evaluation.evaluate(engine, problems, first, setting, tmp_path / "evals")
    metrics = json.loads(json.dumps(evaluation.metrics(tmp_path / "evals")))
    for found in metrics["rows"]:
        rows = [
            r
            for r in store.read_jsonl(tmp_path / "evals" / f"{found['setting']}.{found['mode']}.jsonl")
            if found["task"] in ("all", r["task"])
        ]
        assert found["n"] == len(rows) and found["acc_t2"] == pytest.approx(
            sum(r["turn2_correct"] for r in rows) / len(rows)
        )
    assert {c["a"] for c in metrics["comparisons"]} == {"one_stage.oracle"}
    assert {r["task"] for r in metrics["rows"]} == {"all", "arithmetic", "lists", "lineup"}


def test_graded_attempts_keep_prompt_and_tokens(scripted):
    engine, problems = scripted
    from reflectevo_lite import prompts

    conversations = [prompts.answer_prompt(p) for p in problems]
    found = rollouts.answer(engine, problems, conversations, max_new_tokens=96)
    assert all(
        a["prompt"] == c and a["tokens"] > 0 and not a["truncated"] for a, c in zip(found, conversations, strict=True)
    )
