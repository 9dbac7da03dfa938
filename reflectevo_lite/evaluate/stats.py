"""The statistics behind every table: intervals, tests, and their limits; plain numbers in, plain numbers out.

Nothing here divides by zero: without a question an interval is the whole range, and if all questions agree it still has
the width that so few questions allow."""

import math
from collections.abc import Sequence

import numpy as np

LEVEL = 0.95


def wilson(successes: int, n: int) -> list[float]:
    """95 % Wilson score interval of a single rate (Wilson 1927); [0, 1] if n is 0."""
    from scipy.stats import binomtest

    if n == 0:
        return [0.0, 1.0]
    low, high = binomtest(int(successes), int(n)).proportion_ci(LEVEL, method="wilson")
    return [max(0.0, float(low)), min(1.0, float(high))]


def bootstrap_ci(differences: np.ndarray, seed: int = 0, resamples: int = 10_000) -> list[float]:
    """95 % percentile interval of the mean of paired differences in {−1, 0, 1}, resampling problems. Resampling n
    values of three kinds is one multinomial draw per resample (Efron & Tibshirani 1993, ch. 13). If all are alike,
    every resample is too and would claim certainty: then the interval reaches as far as unseen kinds may weigh, at most
    1 − 0.025^(1/n) (the exact binomial bound for no event in n). [−1, 1] if n is 0."""
    n = len(differences)
    if n == 0:
        return [-1.0, 1.0]
    counts = np.array([(differences == v).sum() for v in (-1, 0, 1)])
    if counts.max() == n:
        value, unseen = float(differences[0]), 1 - (0.5 - LEVEL / 2) ** (1 / n)
        return [value - (1 + value) * unseen, value + (1 - value) * unseen]
    draws = np.random.default_rng(seed).multinomial(n, counts / n, size=resamples)
    low, high = np.percentile((draws[:, 2] - draws[:, 0]) / n, [50 - 50 * LEVEL, 50 + 50 * LEVEL])
    return [float(low), float(high)]


def mean_ci(values: np.ndarray, seed: int = 0, resamples: int = 10_000) -> list[float]:
    """95 % percentile interval of the mean of any numbers by bootstrap; the range of the values if they are too few."""
    from scipy.stats import bootstrap

    if len(values) < 2 or np.ptp(values) == 0:
        return [float(values.min()), float(values.max())] if len(values) else [math.nan, math.nan]
    how = {"n_resamples": resamples, "confidence_level": LEVEL, "method": "percentile", "batch": 1000}
    return [float(end) for end in bootstrap((values,), np.mean, rng=seed, **how).confidence_interval]


def mcnemar(wins: int, losses: int) -> float:
    """Exact two-sided p of McNemar's test (McNemar 1947): discordant pairs under a fair coin; 1 if there are none."""
    from scipy.stats import binomtest

    return float(binomtest(wins, wins + losses, 0.5).pvalue) if wins + losses else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values (Holm 1979), in the order given: the j-th smallest of m times m − j + 1, kept
    monotone and at most 1. Below 0.05 means: significant with a family-wise error of 5 %."""
    p, order = np.array(p_values, float), np.argsort(p_values, kind="stable")
    p[order] = np.maximum.accumulate(np.minimum(1, p[order] * np.arange(len(p), 0, -1)))
    return p.tolist()


def smallest_detectable(discordant: float, n: int) -> float | None:
    """The smallest difference of two paired rates that n problems show with a power of 0.8, by the normal approximation
    (z_{1−α/2} + z_{power}) · sqrt(share of discordant pairs / n) (Connor 1987). None for n = 0."""
    from scipy.stats import norm

    if n == 0:
        return None
    return float((norm.ppf(0.5 + LEVEL / 2) + norm.ppf(0.8)) * math.sqrt(max(discordant, 1 / n) / n))
