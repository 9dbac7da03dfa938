"""Does the gain of a reflection (how much likelier it makes the gold answer) foretell whether it helps (gain.ipynb)?

All tables here are made from one frame of reflections, `gain_table`. Intervals resample problems."""

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from reflectevo_lite import prompts
from reflectevo_lite.curate import PlusRow, gain_items, interval, resampled_counts
from reflectevo_lite.evaluate import wilson
from reflectevo_lite.rows import Rollout


def gain_table(rollouts: Sequence[Rollout], gains: Sequence[float]) -> pd.DataFrame:
    """One row per reflection of `gain_items(rollouts)`: id, task, instruction, gain (nats), corrected."""
    items = zip(gain_items(rollouts), gains, strict=True)
    rows = [(r["id"], r["problem"]["task"], x["instruction"], value, x["turn2"]["correct"]) for (r, x), value in items]
    frame = pd.DataFrame(rows, columns=["id", "task", "instruction", "gain", "corrected"])
    return frame.astype({"gain": float, "corrected": bool})


def gain_auc(frame: pd.DataFrame, *, seed: int = 0, resamples: int = 2_000) -> pd.DataFrame:
    """How well gain tells reflections that helped from others, for all tasks and for each: 0.5 is chance, 1 perfect.
    `auc`: of all pairs, one that helped and one that did not, the share in which the former has the larger gain (Hanley
    & McNeil 1982). `within`: the same over pairs on one attempt, which is what ranking reflections asks for. Each with
    its 95 % percentile interval from resampling problems. NaN if there is no such pair."""
    rows = []
    for task, f in [("all", frame), *frame.groupby("task")]:
        rows.append((task, len(f), f["corrected"].mean(), *_across(f, seed, resamples), *_within(f, seed, resamples)))
    columns = ["task", "n", "corrected", "auc", "low", "high", "pairs", "within", "within low", "within high"]
    return pd.DataFrame(rows, columns=columns)


def gain_reliability(frame: pd.DataFrame, *, bins: int = 8) -> pd.DataFrame:
    """Share of reflections that helped, by quantile of the gain: gain (the bin's median), n, corrected, and Wilson's
    95 % interval low, high. Equal gains stay in one bin, so there may be fewer than `bins`."""
    edges = np.unique(frame["gain"].quantile(np.linspace(0, 1, bins + 1)[1:-1]))
    rows = []
    for _, part in frame.groupby(np.searchsorted(edges, frame["gain"])):
        helped = part["corrected"]
        rows.append((part["gain"].median(), len(part), helped.mean(), *wilson(int(helped.sum()), len(part))))
    return pd.DataFrame(rows, columns=["gain", "n", "corrected", "low", "high"])


def gain_by_instruction(frame: pd.DataFrame) -> pd.DataFrame:
    """Means by instruction of the pool, largest gain first: instruction, verify, locate, plan, n, gain, corrected."""
    known = frame[frame["instruction"].isin(prompts.POOL)]
    means = known.groupby("instruction").agg(n=("gain", "size"), gain=("gain", "mean"), corrected=("corrected", "mean"))
    means = means.sort_values("gain", ascending=False).reset_index()
    parts = pd.DataFrame(map(prompts.parts, means["instruction"]), columns=["verify", "locate", "plan"])
    return pd.concat([means[["instruction"]], parts, means[["n", "gain", "corrected"]]], axis=1)


def _across(frame: pd.DataFrame, seed: int, resamples: int) -> tuple[float, float, float]:
    """The AUC over all reflections and its interval: every resample gives the problems' reflections new weights."""
    if frame["corrected"].nunique() < 2:
        return np.nan, np.nan, np.nan
    ordered = frame.sort_values("gain", kind="stable")
    values, problem = ordered["gain"].to_numpy(), ordered["id"].factorize()[0]
    starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]])  # equal gains share a rank
    helped = ordered["corrected"].to_numpy(float)

    def weighted(weights: np.ndarray) -> np.ndarray:
        yes = np.add.reduceat(weights * helped, starts, axis=1)
        no = np.add.reduceat(weights * (1 - helped), starts, axis=1)
        below = no.cumsum(1) - no / 2
        with np.errstate(invalid="ignore"):
            return (yes * below).sum(1) / (yes.sum(1) * no.sum(1))

    counts = resampled_counts(problem.max() + 1, seed, resamples)
    return weighted(np.ones((1, len(frame))))[0], *interval(weighted(c[:, problem]) for c in counts)


def _within(frame: pd.DataFrame, seed: int, resamples: int) -> tuple[Any, ...]:
    """Number of pairs on one attempt, the share in which the reflection that helped has the larger gain, its interval:
    by Mann and Whitney's U within the attempt (rank sum of the h that helped − h(h + 1)/2; ties count half)."""
    ranks = (frame.groupby("id")["gain"].rank() * frame["corrected"]).groupby(frame["id"]).sum()
    helped, size = (frame.groupby("id")["corrected"].agg(how) for how in ("sum", "size"))
    attempts = np.stack([ranks - helped * (helped + 1) / 2, helped * (size - helped)], axis=1).astype(float)
    won, pairs = attempts.sum(0)
    if not pairs:
        return 0, np.nan, np.nan, np.nan
    sums = (counts @ attempts for counts in resampled_counts(len(attempts), seed, resamples))
    with np.errstate(invalid="ignore"):
        return int(pairs), won / pairs, *interval(won / pairs for won, pairs in (s.T for s in sums))


def top_gain(rows: Sequence[PlusRow], gains: Sequence[float]) -> list[PlusRow]:
    """The half of the rows with the larger gain (`gains`: one per row), in their order; of equal gains the earlier."""
    best = sorted(range(len(rows)), key=lambda i: -gains[i])
    return [rows[i] for i in sorted(best[: _half(rows)])]


def random_share(rows: Sequence[PlusRow], seed: int = 0) -> list[PlusRow]:
    """The control to `top_gain`: as many rows, drawn at random, in their order."""
    drawn = random.Random(f"random_share/{seed}").sample(range(len(rows)), _half(rows))
    return [rows[i] for i in sorted(drawn)]


def _half(rows: Sequence[PlusRow]) -> int:
    """Rounds down, but keeps one row if there is any."""
    return max(len(rows) // 2, min(len(rows), 1))
