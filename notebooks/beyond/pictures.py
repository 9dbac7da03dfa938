"""The figures of the notebooks here, from tables with their intervals (columns low and high), in percent."""

from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from reflectevo_lite.read import figures


def bars(frame: pd.DataFrame, rows: str, share: str, x: str, title: str, mark: str | None = None) -> Figure:
    """A horizontal bar for each row, named by the column `rows`: column `share` (a fraction) with its interval; `mark`,
    another column of fractions, stands beside it as a black stroke."""
    figure, axes = figures.canvas(8.5, 0.42 * len(frame) + 1.5)
    at = np.arange(len(frame))
    axes.barh(at, 100 * frame[share], color=figures.BLUE, height=0.6, xerr=_spread(frame, share), capsize=3)
    if mark:
        axes.scatter(100 * frame[mark], at, color="black", marker="|", s=260, lw=2, label=mark)
    told = f"{x}, n ≤ {frame['n'].max():,}, bars: 95 % interval"
    figures.finish(axes, frame[rows], bool(mark), told, title, xlim=(0, 100))
    return figure


def reliability(frame: pd.DataFrame) -> Figure:
    """Share of reflections that helped against their gain, from `gain.gain_reliability`."""
    figure, axes = figures.canvas(7, 3.8)
    style = {"marker": "o", "color": figures.BLUE, "capsize": 4, "lw": 1.4}
    axes.errorbar(frame["gain"], 100 * frame["corrected"], yerr=_spread(frame, "corrected"), **style)
    n = frame["n"].sum()
    overall = (100 * frame["corrected"] * frame["n"]).sum() / max(1, n)
    axes.axhline(overall, color=figures.GREY, ls="--", lw=1, label=f"all reflections, {overall:.1f} %")
    axes.legend(fontsize=8, loc="upper left")
    x, y = f"gain (nats), median of its quantile bin; n = {n:,}", "led to a right second answer (%)"
    figures.label(axes, x, y, "Does the gain foretell whether a reflection helps?", ylim=(0, 100))
    return figure


def heat(frame: pd.DataFrame, names: tuple[str, str, str], title: str, sign: str, **style: Any) -> Figure:
    """Each cell's value in percent, with its interval below; `names`: the columns of rows, columns and values."""
    rows, columns, value = names
    percent = 100 * frame[[value, "low", "high"]]
    text = [f"{v:{sign}.1f}\n[{low:{sign}.0f}, {high:{sign}.0f}]" for v, low, high in percent.to_numpy()]
    cells = frame.assign(percent=percent[value], text=text)
    order: dict[str, Any] = {"index": cells[rows].unique(), "columns": cells[columns].unique()}
    size = (2.6 + 1.6 * len(order["columns"]), 1.4 + 0.7 * len(order["index"]))
    figure, axes = figures.canvas(*size)
    values, texts = (cells.pivot(index=rows, columns=columns, values=v).reindex(**order) for v in ("percent", "text"))
    sns.heatmap(values, annot=texts.fillna(""), fmt="", ax=axes, **style)
    axes.tick_params(axis="y", rotation=0)
    figures.label(axes, columns, rows, f"{title}, 95 % intervals, n of a cell ≤ {frame['n'].max():,}")
    return figure


def _spread(frame: pd.DataFrame, share: str) -> np.ndarray:
    return 100 * figures.whiskers(frame[share], frame["low"], frame["high"])
