"""Gain against actual correction: the AUC is the textbook's, its interval covers, the curve's bins count every row."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import mannwhitneyu, norm

from notebooks.beyond import gain, pictures
from reflectevo_lite import curate, prompts
from reflectevo_lite.curate import sets
from reflectevo_lite.generate.rollouts import generate_rollouts


def made_up(n=200, k=4, effect=1.0, spread=1.0, seed=0):
    """`n` attempts × `k` reflections; gain = attempt's own level (`spread`) + noise + `effect` where it helped."""
    rng = np.random.default_rng(seed)
    helped = rng.random((n, k)) < 0.3
    gains = spread * rng.normal(size=(n, 1)) + rng.normal(size=(n, k)) + effect * helped
    return pd.DataFrame(
        {
            "id": np.repeat(np.arange(n), k),
            "task": np.where(np.repeat(np.arange(n), k) % 2, "odd", "even"),
            "instruction": rng.choice(prompts.POOL, n * k),
            "gain": gains.ravel(),
            "corrected": helped.ravel(),
        }
    )


def one(frame, **more):
    return gain.gain_auc(frame, **more).iloc[0]


def test_auc_is_mann_whitneys_statistic_ties_included():
    frame = made_up().assign(gain=lambda f: f["gain"].round())
    helped, others = frame.loc[frame["corrected"], "gain"], frame.loc[~frame["corrected"], "gain"]
    wanted = mannwhitneyu(helped, others).statistic / (len(helped) * len(others))
    assert one(frame, resamples=50)["auc"] == pytest.approx(wanted)


def test_within_attempts_compares_only_reflections_on_the_same_attempt():
    frame = made_up(effect=1.0, spread=30.0)  # attempts differ far more than reflections on one attempt do
    row = one(frame, resamples=50)
    wins = [
        (a > b)
        for _, part in frame.groupby("id")
        for a in part.loc[part["corrected"], "gain"]
        for b in part.loc[~part["corrected"], "gain"]
    ]
    assert row["within"] == pytest.approx(np.mean(wins)) and row["pairs"] == len(wins)
    assert row["within"] > 0.7 > row["auc"] > 0.4


def test_both_intervals_cover_the_truth_at_their_rate():
    truth, n = norm.cdf(1 / 2**0.5), 60
    runs = [one(made_up(60, spread=0.0, seed=s), resamples=200) for s in range(n)]
    for low, high in (("low", "high"), ("within low", "within high")):
        covered = sum(r[low] <= truth <= r[high] for r in runs)
        assert covered >= 0.85 * n  # 95 % of 60 is 57; fewer than 51 has probability 0.001
        assert np.mean([r[high] - r[low] for r in runs]) < 0.3


def test_the_interval_resamples_problems():
    frame = made_up(60, 1, spread=0.0)
    copies = pd.concat([frame] * 9)  # nine reflections that say the same are no more evidence than one
    assert one(copies)["low"] == pytest.approx(one(frame)["low"], abs=1e-9)
    apart = copies.assign(id=range(len(copies)))
    assert one(apart)["high"] - one(apart)["low"] < 0.5 * (one(frame)["high"] - one(frame)["low"])


def test_a_row_for_all_and_for_each_task_same_figures_for_the_same_seed():
    frame = made_up()
    table = gain.gain_auc(frame, resamples=50)
    assert list(table["task"]) == ["all", "even", "odd"] and table["n"].iloc[1:].sum() == table["n"].iloc[0]
    pd.testing.assert_frame_equal(table, gain.gain_auc(frame, resamples=50))


def test_the_reliability_curve_counts_every_row_once_and_rises_with_the_gain():
    frame = made_up(400, effect=2.0, spread=0.0)
    curve = gain.gain_reliability(frame, bins=5)
    assert curve["n"].sum() == len(frame) and len(curve) == 5 and curve["gain"].is_monotonic_increasing
    assert (curve["corrected"] * curve["n"]).sum() == pytest.approx(frame["corrected"].sum())
    assert curve["corrected"].iloc[-1] > curve["corrected"].iloc[0] + 0.4
    assert ((curve["low"] <= curve["corrected"]) & (curve["corrected"] <= curve["high"])).all()
    assert len(gain.gain_reliability(frame.assign(gain=(frame["gain"] > 1) * 1.0), bins=5)) <= 2


def test_mean_gain_by_instruction():
    frame = made_up()
    frame.loc[frame["instruction"] == "2-8-1", "gain"] += 50
    frame.loc[0, "instruction"] = "generic"
    table = gain.gain_by_instruction(frame)
    assert list(table.loc[0, ["instruction", "verify", "locate", "plan"]]) == ["2-8-1", "skim", "facts", "high-level"]
    assert table["n"].sum() == len(frame) - 1
    part = frame[frame["instruction"] == "1-3-2"]
    row = table[table["instruction"] == "1-3-2"].iloc[0]
    assert (row["gain"], row["corrected"]) == pytest.approx((part["gain"].mean(), part["corrected"].mean()))


@pytest.mark.parametrize("rows", [0, 1, 8])
def test_too_little_to_say_anything_is_no_error(rows):
    frame = made_up(2).head(rows).assign(corrected=False)
    row = one(frame, resamples=20)
    assert row["n"] == rows and np.isnan([row["auc"], row["low"], row["within"], row["within high"]]).all()
    curve = gain.gain_reliability(frame)
    assert curve["n"].sum() == rows and pictures.reliability(curve)
    assert len(gain.gain_by_instruction(frame)) <= rows


def test_the_table_holds_every_reflection_with_its_own_gain(scripted, tmp_path):
    from reflectevo_lite.generate import rollouts

    engine, problems = scripted
    rows = rollouts.generate_rollouts(
        engine, problems, tmp_path / "r.jsonl", k=2, temperature=1.0, chunk_size=20, progress=False
    )
    items = curate.gain_items(rows)
    frame = gain.gain_table(rows, [float(i) for i in range(len(items))])
    assert len(frame) == len(items) == sum(len(r["reflections"]) for r in rows) > 0
    for (row, reflection), found in zip(items, frame.itertuples(), strict=True):
        assert (found.id, found.task, found.instruction, found.corrected) == (
            row["id"],
            row["problem"]["task"],
            reflection["instruction"],
            reflection["turn2"]["correct"],
        )
    figure = pictures.reliability(gain.gain_reliability(frame))
    assert f"n = {len(frame):,}" in figure.axes[0].get_xlabel()


@pytest.fixture
def rows(scripted, tmp_path):
    engine, problems = scripted
    out = tmp_path / "r.jsonl"
    return list(generate_rollouts(engine, problems, out, k=6, temperature=1.0, chunk_size=20, progress=False))


def test_top_gain_keeps_the_best_half_and_its_control_as_many(rows):
    everything = list(sets.unfiltered(rows, 41))
    gains = [float(len(r["reflection"]["text"])) + i / 1000 for i, r in enumerate(everything)]
    top = gain.top_gain(everything, gains)
    kept = [gains[everything.index(r)] for r in top]
    assert len(top) == 20 and min(kept) >= sorted(gains)[-20] and kept != sorted(kept, reverse=True)
    drawn = gain.random_share(everything, seed=1)
    assert len(drawn) == 20 and drawn == gain.random_share(everything, seed=1)
    assert drawn != gain.random_share(everything, seed=2) and drawn != top
    assert [everything.index(r) for r in drawn] == sorted(everything.index(r) for r in drawn)


def test_half_of_next_to_nothing(rows):
    one = list(sets.unfiltered(rows, 1))
    assert gain.top_gain(one, [0.0]) == one == gain.random_share(one)
    assert gain.top_gain([], []) == gain.random_share([]) == []
    assert len(gain.top_gain(one * 3, [0.0] * 3)) == len(gain.random_share(one * 3)) == 1
