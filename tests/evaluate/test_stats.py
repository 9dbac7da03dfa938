"""The statistics: they cover at their rate, agree with independent implementations, and survive the edges."""

import math

import numpy as np
import pytest

from notebooks.beyond.seeds import over_seeds
from reflectevo_lite.evaluate import stats


def test_wilson_interval_covers_at_its_rate():
    rng = np.random.default_rng(0)
    for truth, n in ((0.5, 60), (0.05, 60), (0.9, 400)):
        right = rng.binomial(n, truth, size=4000)
        intervals = {k: stats.wilson(k, n) for k in set(right.tolist())}
        covered = np.mean([intervals[k][0] <= truth <= intervals[k][1] for k in right.tolist()])
        assert 0.93 <= covered <= 0.98, (truth, n, covered)


@pytest.mark.parametrize(("k", "n"), [(0, 1), (1, 1), (0, 30), (30, 30), (7, 30), (500, 1200)])
def test_wilson_agrees_with_statsmodels(k, n):
    from statsmodels.stats.proportion import proportion_confint

    assert stats.wilson(k, n) == pytest.approx(proportion_confint(k, n, method="wilson"), abs=1e-9)


def test_paired_interval_covers_at_its_rate_even_where_differences_are_rare():
    rng, truth = np.random.default_rng(1), 0.15
    hits = [
        low <= truth <= high
        for trial in range(300)
        for low, high in [
            stats.bootstrap_ci(rng.choice([-1, 0, 1], size=200, p=[0.1, 0.65, 0.25]), seed=trial, resamples=2000)
        ]
    ]
    assert 0.91 <= np.mean(hits) <= 0.98
    rare = [rng.choice([0, 1], size=50, p=[0.98, 0.02]) for _ in range(400)]  # often 50 zeros: no spread to resample
    assert np.mean([low <= 0.02 <= high for low, high in map(stats.bootstrap_ci, rare)]) >= 0.93


def test_an_interval_of_equal_differences_keeps_the_width_that_so_few_questions_allow():
    assert stats.bootstrap_ci(np.zeros(0)) == [-1.0, 1.0] and stats.wilson(0, 0) == [0.0, 1.0]
    assert stats.bootstrap_ci(np.array([1])) == pytest.approx([-0.95, 1.0])
    for n in (1, 9, 1200):
        for value in (-1, 0, 1):
            low, high = stats.bootstrap_ci(np.full(n, value))
            assert -1 <= low <= value <= high <= 1 and high - low == pytest.approx(2 * (1 - 0.025 ** (1 / n)))


def test_bootstrap_agrees_with_resampling_one_by_one():
    differences = np.array([1] * 30 + [0] * 60 + [-1] * 10)
    rng = np.random.default_rng(5)
    means = rng.choice(differences, size=(4000, 100)).mean(axis=1)
    assert stats.bootstrap_ci(differences, 3) == pytest.approx(np.percentile(means, [2.5, 97.5]), abs=0.015)
    assert stats.bootstrap_ci(differences, 3) == stats.bootstrap_ci(differences, 3)


def test_mcnemar_is_the_exact_binomial_and_agrees_with_statsmodels():
    from statsmodels.stats.contingency_tables import mcnemar

    for wins, losses in ((5, 1), (0, 8), (12, 12), (40, 21), (1, 0)):
        n = wins + losses
        by_hand = min(1.0, 2 * sum(math.comb(n, k) for k in range(min(wins, losses) + 1)) / 2**n)
        assert stats.mcnemar(wins, losses) == pytest.approx(by_hand)
        assert by_hand == pytest.approx(mcnemar([[10, wins], [losses, 10]], exact=True).pvalue)
    assert stats.mcnemar(0, 0) == 1


def test_holm_by_hand_and_by_statsmodels():
    # m = 4. Smallest first: 4 × 0.005 = 0.02; 3 × 0.01 = 0.03; 2 × 0.03 = 0.06; 1 × 0.04 = 0.04, kept monotone at 0.06.
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([]) == [] and stats.holm([0.2]) == [0.2] and stats.holm([0.9, 0.8]) == [1.0, 1.0]
    from statsmodels.stats.multitest import multipletests

    p = np.random.default_rng(0).uniform(0, 0.1, 40).tolist()
    assert stats.holm(p) == pytest.approx(multipletests(p, method="holm")[1])


def test_holm_keeps_false_alarms_under_five_percent_where_nothing_differs():
    rng = np.random.default_rng(2)
    p_of = [stats.mcnemar(w, 40 - w) for w in range(41)]
    alarms = sum(min(stats.holm([p_of[w] for w in rng.binomial(40, 0.5, size=20)])) < 0.05 for _ in range(400))
    assert alarms / 400 <= 0.05
    assert sum(min(rng.uniform(size=20)) < 0.05 for _ in range(400)) > 100  # uncorrected, twenty tests raise many


def test_interval_over_seeds_is_students():
    mean, (low, high) = over_seeds([70.0, 72.0, 74.0])
    assert mean == 72 and (low, high) == pytest.approx(
        (72 - 4.303 * 2 / math.sqrt(3), 72 + 4.303 * 2 / math.sqrt(3)), 1e-3
    )
    assert over_seeds([70.0]) == (70.0, None)
