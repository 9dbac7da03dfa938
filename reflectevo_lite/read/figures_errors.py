"""Figures about mistakes and about the reflections on them; the style is that of `plots`.

Each function takes a data frame and returns a matplotlib Figure; `taxonomy_shares` and `reflections` make the frames
from an explorer's transcripts. Intervals are 95 % Wilson score intervals.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .. import evaluate
from . import errors
from .figures import BLUE, GREEN, GREY, ORANGE, RED, _figure, _label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .explorer import Transcripts

VERBS = (  # noqa: SIM905 - what reflections tell oneself to do; a text's first one is its pattern
    "add adjust analyse analyze apply avoid break calculate change check choose compare compute confirm consider convert correct count "
    "define derive determine divide double-check ensure evaluate examine find fix focus follow go identify include keep list look "
    "make multiply pay plan re-read read recalculate recheck reconsider recount redo reread rethink review revise rewrite separate "
    "simplify solve start state subtract take test think trace try understand use validate verify work write"
).split()
_VERB = re.compile(r"\b(" + "|".join(sorted(VERBS, key=len, reverse=True)) + r")\b", re.IGNORECASE)


# -- what went wrong -------------------------------------------------------------------------------------------------------
def taxonomy_shares(frame: pd.DataFrame) -> pd.DataFrame:
    """Wrong first attempts by class of their first error, one per question; from a frame with id, outcome and class.

    Columns: class, n (labelled so), share and its interval (fractions of all wrong first attempts), total, paper (the
    share among the paper's failures). What nobody labelled is a class of its own.
    """
    wrong = frame[frame["outcome"].isin(["fixed", "still wrong"])].drop_duplicates("id")
    counts = wrong["class"].astype(str).value_counts()
    names = [*errors.CLASSES, *([errors.UNLABELLED] if counts.get(errors.UNLABELLED) else [])]
    n = np.array([int(counts.get(name, 0)) for name in names])
    low, high = np.transpose([evaluate.wilson(k, len(wrong)) for k in n])
    paper = [errors.PAPER.get(name, np.nan) / 100 for name in names]
    share = n / max(1, len(wrong))
    return pd.DataFrame(
        {"class": names, "n": n, "share": share, "low": low, "high": high, "total": len(wrong), "paper": paper}
    )


def taxonomy(shares: pd.DataFrame, title: str = "What goes wrong in first attempts") -> Figure:
    """Share of each error class with its interval, beside the paper's; `shares`: see `taxonomy_shares`."""
    figure, axes = _figure(8, 0.4 * len(shares) + 1.5)
    at = np.arange(len(shares))
    groups = [errors.GROUPS.get(name, "") for name in shares["class"]]
    colours = {"mathematical": BLUE, "logic": ORANGE, "instruction": GREEN, "factual": RED}
    axes.barh(at, 100 * shares["share"], color=[colours.get(g, GREY) for g in groups], height=0.6)
    _error_bars(axes, at, shares)
    axes.scatter(100 * shares["paper"], at, marker="D", facecolor="white", edgecolor="black", s=34, zorder=4)
    axes.set_yticks(at, [f"{name} ({n:,})" for name, n in zip(shares["class"], shares["n"], strict=True)])
    axes.invert_yaxis()
    for name, colour in colours.items():
        axes.barh([0], [0], color=colour, label=name)
    axes.scatter([], [], marker="D", facecolor="white", edgecolor="black", s=34, label="the paper's failures")
    axes.legend(
        ncols=5, fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.4, -0.62 / figure.get_figheight())
    )
    total = int(shares["total"].max()) if len(shares) else 0
    _label(axes, f"share of wrong first attempts (%), n = {total:,}, bars: 95 % interval", "", title)
    return figure


def _error_bars(axes: Axes, at: np.ndarray, rates: pd.DataFrame) -> None:
    """Intervals of horizontal bars; `rates` holds share, low, high as fractions."""
    spread = [100 * (rates["share"] - rates["low"]).clip(lower=0), 100 * (rates["high"] - rates["share"]).clip(lower=0)]
    axes.errorbar(100 * rates["share"], at, xerr=spread, fmt="none", ecolor="black", capsize=3, lw=1.1)


# -- what reflections look like --------------------------------------------------------------------------------------------
def reflections(transcripts: Transcripts, settings: list[str], limit: int = 2000) -> pd.DataFrame:
    """Reflections of some settings, with their texts: setting, text, words, verb, corrected.

    At most `limit` per setting, the first ones; `corrected` says whether the second attempt was right.
    """
    from .explorer import setting_name

    rows = []
    for setting in settings:
        frame = transcripts.frame
        asked = (frame["setting"] == setting) & (frame["outcome"].isin(["fixed", "still wrong"]))
        for i in np.flatnonzero(asked)[:limit]:
            item = transcripts.item(int(i))
            if text := item["reflection"]:
                rows.append(
                    {
                        "setting": setting_name(setting),
                        "text": text,
                        "words": len(text.split()),
                        "verb": first_verb(text),
                        "corrected": item["outcome"] == "fixed",
                    }
                )
    return pd.DataFrame(rows, columns=["setting", "text", "words", "verb", "corrected"])


def first_verb(text: str) -> str:
    """The first thing that a reflection tells itself to do, after "Plan:" where it has one; "none" without any."""
    found = _VERB.search(text.rpartition("Plan:")[2])
    return found[1].lower() if found else "none"


def reflection_style(frame: pd.DataFrame, top: int = 5) -> Figure:
    """Length, diversity and first verb of reflections by setting; `frame`: see `reflections`."""
    import seaborn as sns

    names = list(dict.fromkeys(frame["setting"]))
    figure, (left, middle, right) = _figure(11.5, 0.55 * len(names) + 2.1, 3)
    sns.boxplot(frame, y="setting", x="words", order=names, color=BLUE, showfliers=False, width=0.55, ax=left)
    distinct = [frame.loc[frame["setting"] == name, "text"] for name in names]
    n = np.array([len(texts) for texts in distinct])
    left.set_yticks(range(len(names)), [f"{name}\n(n = {count:,})" for name, count in zip(names, n, strict=True)])
    _label(left, "length (words)", "", "Length")
    share = np.array([texts.nunique() for texts in distinct]) / np.maximum(n, 1)
    middle.barh(range(len(names)), 100 * share, color=ORANGE, height=0.55)
    middle.set(ylim=left.get_ylim(), xlim=(0, 100), yticks=range(len(names)))
    _label(middle, "distinct texts (%)", "", "Diversity")
    _verbs(right, frame, names, top)
    right.set(ylim=left.get_ylim(), xlim=(0, 100), yticks=range(len(names)))
    _label(right, "share of reflections (%)", "", "First verb of the plan")
    for axes in (middle, right):
        axes.tick_params(labelleft=False)
    return figure


def _verbs(axes: Axes, frame: pd.DataFrame, names: list[str], top: int) -> None:
    import seaborn as sns

    common = [verb for verb, _ in Counter(frame["verb"]).most_common(top)]
    palette = [*sns.color_palette("colorblind", top)[: len(common)], GREY]
    left = np.zeros(len(names))
    for verb, colour in zip([*common, "other"], palette, strict=True):
        hit = ~frame["verb"].isin(common) if verb == "other" else frame["verb"] == verb
        share = 100 * np.array([hit[frame["setting"] == name].mean() for name in names])
        if share.any():
            axes.barh(range(len(names)), share, left=left, color=colour, label=verb, height=0.55)
        left += share
    axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))


# -- what it costs, and what foretells it ----------------------------------------------------------------------------------
def tokens_accuracy(results: pd.DataFrame, title: str = "What accuracy costs") -> Figure:
    """Acc@t2 against tokens spent per question after turn 1; `results`: the table of `analysis.results`."""
    figure, axes = _figure(8.5, max(4.2, 0.27 * len(results) + 1))
    first = results["Acc@t1"].iloc[0] if len(results) else 0
    axes.axhline(first, color="black", ls="--", lw=1)
    axes.annotate(f"Acc@t1 {first:.1f}", (0.01, first), xycoords=("axes fraction", "data"), va="bottom", fontsize=8)
    rows = results.sort_values("Acc@t2").to_dict("records")
    for row in rows:
        x, y, control = row["tokens per question"], row["Acc@t2"], "·" in row["setting"]
        spread = [[max(0, y - row["Acc@t1"] - row["Δ low"])], [max(0, row["Δ high"] - y + row["Acc@t1"])]]
        style = {"fmt": "s", "color": GREY} if control else {"fmt": "o", "color": BLUE}
        axes.errorbar(x, y, yerr=spread, capsize=3, ms=6, lw=1.2, **style)
    axes.set_xlim(left=0)
    _labels_beside(axes, rows)
    n = int(results["n"].max()) if len(results) else 0
    y_label = f"Acc@t2 (%), n = {n:,}, bars: 95 % interval of the gain"
    _label(axes, "tokens generated after turn 1 (per question); grey squares: controls", y_label, title)
    return figure


def _labels_beside(axes: Axes, rows: list[dict[str, Any]], gap: float = 0.052) -> None:
    """Name each point at the right edge, no two labels closer than `gap` of the axes' height, with a thin leader."""
    low, high = axes.get_ylim()
    gap = min(gap, 1 / max(1, len(rows)))
    place = 0.0
    places = [place := max(place + gap, (row["Acc@t2"] - low) / (high - low)) for row in rows]
    shift = max(0.0, places[-1] - 0.99) if places else 0.0
    for i in range(len(places) - 1, -1, -1):  # too high at the top: press down from there
        places[i] = min(places[i], (places[i + 1] - gap) if i + 1 < len(places) else 0.99) if shift else places[i]
    for row, y in zip(rows, places, strict=True):
        axes.annotate(
            f"{row['setting']}  {row['Acc@t2']:.1f}", (row["tokens per question"], row["Acc@t2"]), xytext=(1.03, y), textcoords="axes fraction",
            fontsize=8, va="center", annotation_clip=False, arrowprops={"arrowstyle": "-", "color": GREY, "lw": 0.6, "shrinkB": 4, "relpos": (0, 0.5)},
        )  # fmt: skip
