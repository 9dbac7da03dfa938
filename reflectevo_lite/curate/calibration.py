"""Does the gain of a reflection foretell whether it helps? AUC, reliability curve, mean gain by instruction.

Gain (`judges.gain`) is scored without writing a second answer; whether the reflection helped is known from the second
answer that was written. All tables here are made from one frame of reflections, `gain_table`. Reflections on one attempt
depend on each other, so intervals resample problems.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .. import prompts
from .judges import resampled_counts, resampled_sums

if TYPE_CHECKING:
    from ..rows import Reflection, Rollout


def gain_items(rollouts: Sequence[Rollout]) -> list[tuple[Rollout, Reflection]]:
    """Every reflection with its rollout, in order: what `judges.gain` takes."""
    return [(row, reflection) for row in rollouts for reflection in row["reflections"]]


def gain_table(rollouts: Sequence[Rollout], gains: Sequence[float]) -> pd.DataFrame:
    """One row per reflection of `gain_items(rollouts)`: id, task, instruction, gain (nats), corrected."""
    rows = [
        {
            "id": row["id"],
            "task": row["problem"]["task"],
            "instruction": reflection["instruction"],
            "gain": value,
            "corrected": reflection["turn2"]["correct"],
        }
        for (row, reflection), value in zip(gain_items(rollouts), gains, strict=True)
    ]
    frame = pd.DataFrame(rows, columns=["id", "task", "instruction", "gain", "corrected"])
    return frame.astype({"gain": float, "corrected": bool})


def gain_auc(frame: pd.DataFrame, *, seed: int = 0, resamples: int = 2_000) -> pd.DataFrame:
    """How well gain tells reflections that helped from others, for all tasks and each: 0.5 is chance, 1 perfect.

    `gain_auc`: over all reflections (the share of pairs, one that helped and one that did not, in which the former has the
    larger gain; Hanley & McNeil 1982). `within`: the same over pairs on one attempt, which is what ranking reflections
    asks for. Each with its 95 % percentile interval, resampling problems. NaN where there is no such pair.
    """
    parts = {"all": frame} | dict(list(frame.groupby("task")))
    return pd.DataFrame([{"task": task, **_auc_row(part, seed, resamples)} for task, part in parts.items()])


def gain_reliability(frame: pd.DataFrame, *, bins: int = 8) -> pd.DataFrame:
    """Share of reflections that helped, by quantile of the gain: gain (the bin's median), n, corrected, low, high.

    The interval is Wilson's, 95 %. Equal gains stay in one bin, so there may be fewer than `bins`.
    """
    from scipy.stats import binomtest

    edges = np.unique(frame["gain"].quantile(np.linspace(0, 1, bins + 1)[1:-1]))
    rows = []
    for _, part in frame.groupby(np.searchsorted(edges, frame["gain"])):
        interval = binomtest(int(part["corrected"].sum()), len(part)).proportion_ci(method="wilson")
        rows.append(
            {
                "gain": part["gain"].median(),
                "n": len(part),
                "corrected": part["corrected"].mean(),
                "low": interval.low,
                "high": interval.high,
            }
        )
    return pd.DataFrame(rows, columns=["gain", "n", "corrected", "low", "high"])


def gain_by_instruction(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean gain of each instruction of the pool, the largest first: instruction, verify, locate, plan, n, gain, corrected."""
    known = frame[frame["instruction"].isin(prompts.POOL)]
    means = known.groupby("instruction").agg(n=("gain", "size"), gain=("gain", "mean"), corrected=("corrected", "mean"))
    means = means.sort_values("gain", ascending=False).reset_index()
    parts = means["instruction"].str.split("-", expand=True).reindex(columns=range(3))
    means.insert(1, "verify", parts[0].map({"1": "trace", "2": "skim"}))
    means.insert(2, "locate", means["instruction"].map(prompts.aspect))
    means.insert(3, "plan", parts[2].map({"1": "high-level", "2": "low-level"}))
    return means


def _auc_row(frame: pd.DataFrame, seed: int, resamples: int) -> dict[str, Any]:
    over, wins = _across(frame, seed, resamples), _wins(frame)
    value, low, high = _ratio(wins, np.arange(len(wins)), seed, resamples)
    return {
        "n": len(frame),
        "corrected": float(frame["corrected"].mean()) if len(frame) else np.nan,
        "auc": over[0],
        "low": over[1],
        "high": over[2],
        "pairs": int(wins[:, 1].sum()),
        "within": value,
        "within low": low,
        "within high": high,
    }


def _wins(frame: pd.DataFrame) -> np.ndarray:
    """For each attempt: pairs in which the reflection that helped has the larger gain (ties as half), and pairs.

    By ranks within the attempt: Mann and Whitney's U = rank sum of those that helped − h(h + 1)/2.
    """
    ranks = frame.groupby("id")["gain"].rank() * frame["corrected"]
    helped = frame.groupby("id")["corrected"].agg(["sum", "size"])
    wins = ranks.groupby(frame["id"]).sum() - helped["sum"] * (helped["sum"] + 1) / 2
    return np.stack([wins, helped["sum"] * (helped["size"] - helped["sum"])], axis=1).astype(float)


def _ratio(sums: np.ndarray, groups: Sequence[Any], seed: int, resamples: int) -> tuple[float, float, float]:
    """First column over second column, with its interval."""
    total = sums.sum(0)
    if not total[1]:
        return np.nan, np.nan, np.nan
    with np.errstate(invalid="ignore"):
        drawn = np.concatenate([d[:, 0] / d[:, 1] for d in resampled_sums(sums, groups, seed, resamples)])
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return float(total[0] / total[1]), float(low), float(high)


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

    drawn = [weighted(counts[:, problem]) for counts in resampled_counts(problem.max() + 1, seed, resamples)]
    low, high = np.nanpercentile(np.concatenate(drawn), [2.5, 97.5])
    return float(weighted(np.ones((1, len(frame))))[0]), float(low), float(high)
