"""How far judges agree, and the bootstrap over problems that this room's intervals come from."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd


def agreement(
    verdicts: Mapping[str, Sequence[float]], problems: Sequence[str], *, seed: int = 0, resamples: int = 10_000
) -> pd.DataFrame:
    """How far judges agree on the same pairs: one row for every two judges. `verdicts`: by judge, one preference per
    pair; `problems`: each pair's problem id. Columns: judge, other, pairs; `decides`, `other decides`: shares without a
    tie; `both decide`: pairs without any tie. Over these, `agree` (share) and `kappa` (Cohen 1960) with its 95 %
    interval `low`, `high` from resampling problems. NaN if undefined."""
    columns = ["judge", "other", "pairs", "decides", "other decides", "both decide", "agree", "kappa", "low", "high"]
    signs = {name: np.sign(preferences) for name, preferences in verdicts.items()}
    twos = itertools.combinations(signs, 2)
    rows = [(a, b, *_agreement(signs[a], signs[b], problems, seed, resamples)) for a, b in twos]
    return pd.DataFrame(rows, columns=columns)


def _agreement(x: np.ndarray, y: np.ndarray, problems: Sequence[str], seed: int, resamples: int) -> tuple[Any, ...]:
    if not len(x):
        return 0, np.nan, np.nan, 0, np.nan, np.nan, np.nan, np.nan
    cells = np.stack([(x == s) & (y == t) for s in (1, -1) for t in (1, -1)], axis=1).astype(float)
    table = cells.sum(0)
    both = int(table.sum())
    by_problem = pd.DataFrame(cells).groupby(np.asarray(problems), sort=False).sum().to_numpy()
    low, high = interval(kappa(counts @ by_problem) for counts in resampled_counts(len(by_problem), seed, resamples))
    agree = (table[0] + table[3]) / both if both else np.nan
    return len(x), np.mean(x != 0), np.mean(y != 0), both, agree, kappa(table[None])[0], low, high


def kappa(tables: np.ndarray) -> np.ndarray:
    """Cohen's kappa of 2 × 2 tables, each a row [both first, first/second, second/first, both second]; or NaN."""
    n = tables.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        a, b, c, d = (tables / n[:, None]).T
        chance = (a + b) * (a + c) + (c + d) * (b + d)
        return np.where(chance < 1 - 1e-12, (a + d - chance) / (1 - chance), np.nan)


def resampled_counts(n: int, seed: int, resamples: int) -> Iterator[np.ndarray]:
    """How often each of `n` problems is drawn in each resample, in blocks of (≤ resamples) × n: a cluster bootstrap,
    for rows of one problem depend on each other (Davison & Hinkley 1997, section 3.8)."""
    rng, block = np.random.default_rng(seed), max(1, 1_000_000 // n)
    for start in range(0, resamples, block):
        yield rng.multinomial(n, np.full(n, 1 / n), size=min(block, resamples - start))


def interval(draws: Iterable[np.ndarray]) -> tuple[float, float]:
    """95 % percentile interval of a statistic's resamples (arrays), ignoring NaN; NaN if nothing else is left."""
    drawn = np.concatenate([[np.nan], *draws])
    if np.isnan(drawn).all():
        return np.nan, np.nan
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return float(low), float(high)
