"""Runs of the same parameters with other seeds, pooled: is it more than the luck of one run?"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from reflectevo_lite import read
from reflectevo_lite.evaluate import BASELINE, LEVEL, Evaluation


def pooled(runs: Sequence[str | Path]) -> pd.DataFrame:
    """Mean over seeds and its 95 % interval by Student's t, of Acc@t2 in percent and of its difference from prompted
    reflection in points; smallest and largest. `runs`: run directories, or metrics.json files; only what every run has
    is pooled. A seed is of the whole loop, so a handful leaves the interval wide; None for one."""
    files = [path if path.suffix == ".json" else path / "metrics.json" for path in map(Path, runs)]
    tables = [_accuracies(file) for file in files]
    shared, base = set(tables[0]).intersection(*tables) if tables else set(), Evaluation(BASELINE)
    rows = []
    for one in sorted(shared, key=lambda e: e.order):
        acc = [100 * table[one] for table in tables]
        row: dict[str, object] = {"setting": one.label, "seeds": len(tables)}
        row |= _spread("Acc@t2", acc) | {"smallest": min(acc), "largest": max(acc)}
        if base in shared and one != base:
            row |= _spread("difference", [100 * (table[one] - table[base]) for table in tables])
        rows.append(row)
    return pd.DataFrame(rows)


def over_seeds(values: Sequence[float]) -> tuple[float, list[float] | None]:
    """Mean over runs with other seeds, and its 95 % interval by Student's t; None for fewer than two runs."""
    from scipy.stats import t

    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, None
    half = float(t.ppf(0.5 + LEVEL / 2, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values)))
    return mean, [mean - half, mean + half]


def _accuracies(file: Path) -> dict[Evaluation, float]:
    every = [r for r in read.load_metrics(file)["rows"] if r["task"] == "all" and r["mode"] == "oracle"]
    return {Evaluation(r["setting"], r["mode"], r["control"]): r["acc_t2"] for r in every}


def _spread(name: str, values: Sequence[float]) -> dict[str, object]:
    mean, ci = over_seeds(values)
    return {name: mean, f"{name} low": ci and ci[0], f"{name} high": ci and ci[1]}
