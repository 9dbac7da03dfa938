"""Every figure, from a data frame: seaborn, one style, colour-blind safe, axes with units, n and intervals shown.

Each function returns a matplotlib Figure that belongs to no window: notebooks `display(fig)` it, `save` stores it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from .. import prompts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, RED, GREY = "#0173b2", "#de8f05", "#029e73", "#d55e00", "#949494"  # seaborn's "colorblind"


def _figure(width: float = 7.5, height: float = 4.0, columns: int = 1) -> tuple[Figure, Any]:
    import seaborn as sns
    from matplotlib.figure import Figure

    sns.set_theme(
        style="whitegrid", context="notebook", palette="colorblind", rc={"axes.titlesize": 11, "axes.labelsize": 10}
    )
    figure = Figure(figsize=(width, height), layout="constrained", dpi=110)
    return figure, figure.subplots(1, columns)


def save(figure: Figure, path: str | Path) -> Path:
    """Write a figure as PNG (150 dpi) and return the path."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return Path(path)


def task_mix(problems: dict[str, list[dict[str, Any]]]) -> Figure:
    """Problems per task and split, and question lengths in words, context and options included. `problems`: by split."""
    import seaborn as sns

    frame = pd.DataFrame(
        [
            {"split": split, "task": p["task"], "words": len(prompts.question_text(p).split())}
            for split, rows in problems.items()
            for p in rows
        ]
    )
    height = max(3.4, 0.4 * frame["task"].nunique() + 1.4)
    figure, (left, right) = _figure(9, height, 2)
    sns.countplot(frame, y="task", hue="split", ax=left)
    sns.move_legend(left, "upper center", bbox_to_anchor=(0.5, -0.7 / height), ncols=2, title=None, frameon=False)
    sns.boxplot(frame, y="task", x="words", ax=right, color=BLUE, showfliers=False, width=0.5)
    _label(left, "problems", "", f"Task mix (n = {len(frame):,})")
    _label(right, "question length (words)", "", "Length")
    right.tick_params(labelleft=False)
    return figure


def accuracy(results: pd.DataFrame, title: str = "From the first answer to the second") -> Figure:
    """Acc@t1 → Acc@t2 for each row of `analysis.results`, with 95 % intervals of the gain."""
    figure, axes = _figure(9, 0.42 * len(results) + 1.5)
    _dumbbells(axes, results)
    _rows(axes, results)
    n = int(results["n"].max()) if len(results) else 0
    _label(axes, f"accuracy (%), n = {n:,}, bars: 95 % interval of the gain", "", title)
    for name, face, edge in (
        ("Acc@t1", "white", "black"),
        ("Acc@t2, a sure gain", GREEN, GREEN),
        ("Acc@t2, no sure gain", GREY, GREY),
    ):
        axes.scatter([], [], facecolor=face, edgecolor=edge, s=40, label=name)
    axes.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.7 / figure.get_figheight()), ncols=3, fontsize=8, frameon=False
    )
    return figure


def _rows(axes: Axes, results: pd.DataFrame) -> None:
    """A row for each setting, from the top; a control stands in grey below the setting that it controls for."""
    names = [name.split(" · ") for name in results["setting"]]
    axes.set_yticks(range(len(names)), [name[-1] for name in names])
    for name, tick in zip(names, axes.get_yticklabels(), strict=True):
        tick.set_color("0.5" if name[1:] else "black")
    axes.invert_yaxis()


def _dumbbells(axes: Axes, results: pd.DataFrame) -> None:
    for i, row in enumerate(results.itertuples(index=False)):
        first, second = row[2], row[3]
        low, high = first + row[5], first + row[6]
        color = GREEN if row[5] > 0 else RED if row[6] < 0 else GREY
        axes.plot([first, second], [i, i], color=color, lw=2, alpha=0.6, zorder=1)
        axes.errorbar(
            second, i, xerr=[[max(0, second - low)], [max(0, high - second)]], color=color, capsize=3, lw=1.4, zorder=2
        )
        axes.scatter([first], [i], facecolor="white", edgecolor="black", s=36, zorder=3)
        axes.scatter([second], [i], color=color, s=46, zorder=3)
        axes.annotate(f"{second:.1f}", (second, i), xytext=(0, 6), textcoords="offset points", ha="center", fontsize=8)


def flips(results: pd.DataFrame, title: str = "What the second turn changes") -> Figure:
    """The four flips per row of `analysis.results`, as stacked shares."""
    figure, axes = _figure(9, 0.38 * len(results) + 1.6)
    left = pd.Series(0.0, index=results.index)
    for kind, color, name in (
        ("c→c", BLUE, "stays right"),
        ("i→c", GREEN, "mended"),
        ("c→i", RED, "broken"),
        ("i→i", GREY, "stays wrong"),
    ):
        share = 100 * results[kind] / results["n"].clip(lower=1)
        axes.barh(range(len(results)), share, left=left, color=color, label=f"{kind} {name}", height=0.65)
        left = left + share
    _rows(axes, results)
    axes.set_xlim(0, 100)
    axes.legend(
        ncols=4, loc="upper center", bbox_to_anchor=(0.4, -0.7 / figure.get_figheight()), fontsize=8, frameon=False
    )
    _label(axes, "share of questions (%)", "", title)
    return figure


def instructions(frame: pd.DataFrame) -> Figure:
    """Heat map of `analysis.by_instruction`: verify × locate × plan, share of second turns that are correct."""
    import seaborn as sns

    figure, both = _figure(9.5, 3.9, 2)
    high = 100 * frame["corrected"].max() if len(frame) else 1
    for axes, plan in zip(both, ("high-level", "low-level"), strict=True):
        table = frame[frame["plan"] == plan].pivot(index="locate", columns="verify", values="corrected")
        table = table.reindex([name for name in frame["locate"].unique() if name in table.index])
        sns.heatmap(
            100 * table,
            annot=True,
            fmt=".0f",
            cmap="viridis",
            vmin=0,
            vmax=high,
            ax=axes,
            cbar=plan == "low-level",
            cbar_kws={"label": "corrected (%)"},
        )
        _label(axes, "how to verify", "where to look" if plan == "high-level" else "", f"{plan} plan")
    both[1].tick_params(labelleft=False)
    figure.suptitle(
        f"Which instruction yields reflections that help? (n = {frame['n'].sum():,} reflections)", fontsize=11
    )
    return figure


def training(curves: pd.DataFrame, kind: str) -> Figure:
    """The curves of every adapter of a kind: "sft" (loss, token accuracy), "dpo" (loss, reward margin, accuracy of pairs)
    or "grpo" (reward). Dashed: the loss on held-out training questions, where there are any."""
    panels = {
        "sft": [
            ("loss", "loss (nats per trained token)", "Supervised fine-tuning"),
            ("accuracy", "tokens predicted (share)", "Token accuracy"),
        ],
        "dpo": [
            ("loss", "loss (nats per pair)", "DPO starts at ln 2 = 0.693"),
            ("margin", "reward margin (nats)", "Chosen minus rejected"),
            ("accuracy", "pairs in the right order (share)", "Accuracy of pairs"),
        ],
        "grpo": [("reward", "reflections that helped (share)", "GRPO: reward on training questions")],
    }[kind]
    frame = curves[curves["kind"] == kind]
    if frame.empty:
        figure, axes = _figure(7.5, 1)
        axes.text(0.5, 0.5, "Nothing was trained", ha="center", va="center")
        axes.set_axis_off()
        return figure
    figure, axes = _figure((7.5, 9.5, 12.5)[len(panels) - 1], 3.6, len(panels))
    for i, (part, (column, label, title)) in enumerate(zip(_flat(axes), panels, strict=True)):
        _curves(part, frame, column, legend=i == 0)
        _label(part, "optimiser step", label, title)
    return figure


def _curves(axes: Axes, frame: pd.DataFrame, column: str, legend: bool) -> None:
    import seaborn as sns

    shown = frame.dropna(subset=[column])
    order = list(dict.fromkeys(frame["adapter"]))
    sns.lineplot(shown, x="step", y=column, hue="adapter", hue_order=order, ax=axes, legend=legend)
    if column == "loss" and len(held := frame.dropna(subset=["validation"])):
        sns.lineplot(
            held, x="step", y="validation", hue="adapter", hue_order=order, ls="--", marker="o", ax=axes, legend=False
        )


def _flat(axes: Any) -> list[Axes]:
    return list(axes.flat) if hasattr(axes, "flat") else [axes]


def pretraining(history: list[dict[str, float]]) -> Figure:
    """Loss of `tiny.pretrain` against tokens seen, smoothed over 20 steps."""
    frame = pd.DataFrame(history)
    figure, axes = _figure(7.5, 3.2)
    axes.plot(frame["tokens"] / 1e6, frame["loss"].rolling(20, min_periods=1).mean(), color=BLUE)
    axes.set_yscale("log")
    _label(axes, "tokens seen (millions)", "loss (nats per trained token)", "Pre-training of the embedded model")
    return figure


def localisation(frame: pd.DataFrame) -> Figure:
    """Share of reflections that blame a truly wrong place, from `analysis.localisation`."""
    figure, axes = _figure(8, 0.5 * len(frame) + 1.6)
    at = range(len(frame))
    axes.barh(at, 100 * frame["localised"], color=GREEN, height=0.55, label="blames a wrong place")
    axes.barh(
        [i + 0.33 for i in at],
        100 * frame["blames the last step"],
        color=ORANGE,
        height=0.12,
        label="blames the last step",
    )
    axes.vlines(
        100 * frame["chance"],
        [i - 0.35 for i in at],
        [i + 0.4 for i in at],
        color="black",
        lw=1.5,
        label="a place at random",
    )
    axes.set_yticks(list(at), frame["setting"])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.legend(
        fontsize=8, loc="upper center", bbox_to_anchor=(0.4, -0.7 / figure.get_figheight()), ncols=3, frameon=False
    )
    n = int(frame["n"].max()) if len(frame) else 0
    _label(axes, f"share of reflections on wrong answers (%), n ≤ {n:,}", "", "Does the reflection find the mistake?")
    return figure


def error_classes(frame: pd.DataFrame) -> Figure:
    """Share of wrong answers mended, by class of their first error, from `analysis.error_classes`."""
    import seaborn as sns

    figure, axes = _figure(9, 4)
    counts = frame.groupby("class")["n"].max().sort_values(ascending=False)
    names = {c: f"{c}\n(n = {counts[c]})" for c in counts.index}
    shown = frame.assign(mended=100 * frame["mended"], **{"class": frame["class"].map(names)})
    sns.barplot(shown, x="class", y="mended", hue="setting", order=[names[c] for c in counts.index], ax=axes)
    axes.legend(fontsize=8, title=None)
    _label(axes, "", "mended at turn 2 (%)", "Which mistakes can be mended?")
    return figure


def rounds(frame: pd.DataFrame) -> Figure:
    """Acc@t2 over rounds with its interval (left) and what each round's rollouts yielded (right).

    `frame`: round, acc_t1, acc_t2, low, high, corrected (fractions).
    """
    figure, (left, right) = _figure(9.5, 3.6, 2)
    left.axhline(100 * frame["acc_t1"].iloc[0], color=GREY, ls="--", lw=1, label="Acc@t1")
    spread = [100 * (frame["acc_t2"] - frame["low"]), 100 * (frame["high"] - frame["acc_t2"])]
    left.errorbar(
        frame["round"], 100 * frame["acc_t2"], yerr=spread, color=GREEN, marker="o", capsize=4, label="Acc@t2"
    )
    left.legend(fontsize=8)
    right.plot(frame["round"], 100 * frame["corrected"], color=BLUE, marker="o")
    right.set_ylim(0, 100)
    for axes in (left, right):
        axes.set_xticks(list(frame["round"]))
    _label(left, "round (0: prompted base)", "accuracy (%)", "Held-out accuracy, 95 % intervals")
    _label(right, "round", "reflections that helped (%)", "Yield of each round's rollouts")
    return figure


def turns(frame: pd.DataFrame) -> Figure:
    """Acc@t against the turn (left) and against the tokens spent so far (right), one line per setting, with 95 %
    intervals, from `analysis.turn_curve`."""
    figure, both = _figure(9.5, 3.8, 2)
    for name, some in frame.groupby("setting", sort=False):
        accuracy = 100 * some["accuracy"]
        bars = [accuracy - 100 * some["low"], 100 * some["high"] - accuracy]
        for axes, x in zip(both, ("turn", "spent"), strict=True):
            axes.errorbar(some[x], accuracy, yerr=bars, marker="o", capsize=3, lw=1.6, label=name)
    both[0].set_xticks(sorted(frame["turn"].unique()))
    both[0].legend(fontsize=8)
    n = int(frame["n"].max()) if len(frame) else 0
    _label(both[0], "turn", f"accuracy (%), n = {n:,}", "Further turns")
    _label(both[1], "tokens spent after turn 1, per question", "", "What they cost")
    return figure


def collapse(frame: pd.DataFrame) -> Figure:
    """The collapse watch over rounds, from `iteration.watch`: diversity (left), sameness and length (right)."""
    figure, (left, right) = _figure(9.5, 3.6, 2)
    for axes, columns in (
        (
            left,
            {"distinct": "different texts", "distinct_2": "different word pairs", "corrected": "led to a right answer"},
        ),
        (right, {"same_place": "blame one and the same place", "copied": "copied word triples"}),
    ):
        for (column, name), style in zip(columns.items(), ("o-", "s--", "^:"), strict=False):
            axes.plot(frame["round"], 100 * frame[column], style, label=name)
        axes.set_ylim(0, 100)
        axes.set_xticks(list(frame["round"]))
        axes.legend(fontsize=8)
    n = int(frame["reflections"].max()) if len(frame) else 0
    lengths = " → ".join(f"{words:.0f}" for words in frame["words"])
    _label(left, "round", f"share (%), {n:,} reflections a round", "Variety and yield")
    _label(right, "round", "", f"Sameness; mean length in words {lengths}")
    return figure


def transfer(frame: pd.DataFrame, baseline: str) -> Figure:
    """Heat map of `transfer.table`: gain over the baseline in points, trained on (rows) × tested on (columns)."""
    cells = {
        (r["trained on"], r["tested on"]): (
            100 * r["difference"],
            f"{100 * r['difference']:+.1f}\n[{100 * r['low']:+.0f}, {100 * r['high']:+.0f}]",
        )
        for r in frame.to_dict("records")
    }
    bound = max((abs(value) for value, _ in cells.values()), default=0) or 1.0
    figure = _heat(cells, "RdBu", "gain (points)", (-bound, bound))
    n = int(frame.groupby("trained on")["n"].sum().max()) if len(frame) else 0
    _label(figure.axes[0], "tested on", "trained on", f"Gain over {baseline}, 95 % intervals (n = {n:,})")
    return figure


def swaps(frame: pd.DataFrame) -> Figure:
    """Heat map of `transfer.swap_table`: Acc@t2 by whose reflections (rows) and by which Generator (columns)."""
    cells = {
        (r["reflections of"], r["used by"]): (
            100 * r["acc_t2"],
            f"{100 * r['acc_t2']:.1f}\n[{100 * r['low']:.0f}, {100 * r['high']:.0f}]",
        )
        for r in frame.to_dict("records")
    }
    figure = _heat(cells, "viridis", "Acc@t2 (%)")
    n = int(frame["n"].max()) if len(frame) else 0
    _label(figure.axes[0], "second answer by", "reflections of", f"Acc@t2 (%), 95 % intervals (n = {n:,})")
    return figure


def _heat(cells: dict[tuple[str, str], tuple[float, str]], cmap: str, unit: str, scale: tuple = (None, None)) -> Figure:
    import seaborn as sns

    rows, columns = (list(dict.fromkeys(key[i] for key in cells)) for i in (0, 1))
    values = pd.DataFrame([[cells.get((r, c), (float("nan"), ""))[0] for c in columns] for r in rows], rows, columns)
    texts = [[cells.get((r, c), (0, ""))[1] for c in columns] for r in rows]
    figure, axes = _figure(2.6 + 1.6 * len(columns), 1.4 + 0.7 * len(rows))
    sns.heatmap(values, annot=texts, fmt="", cmap=cmap, vmin=scale[0], vmax=scale[1], ax=axes, cbar_kws={"label": unit})
    axes.tick_params(axis="y", rotation=0)
    return figure


def _label(axes: Axes, x: str, y: str, title: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_title(title, loc="left")


def gain(curve: pd.DataFrame, title: str = "Does the gain foretell whether a reflection helps?") -> Figure:
    """Share of reflections that helped against their gain, from `calibration.reliability`, with 95 % intervals."""
    figure, axes = _figure(7, 3.8)
    share, n = 100 * curve["corrected"], int(curve["n"].sum())
    spread = [100 * (curve["corrected"] - curve["low"]).clip(lower=0), 100 * (curve["high"] - curve["corrected"])]
    axes.errorbar(curve["gain"], share, yerr=spread, color=BLUE, marker="o", capsize=4, lw=1.4)
    overall = (share * curve["n"]).sum() / max(1, n)
    axes.axhline(overall, color=GREY, ls="--", lw=1, label=f"all reflections, {overall:.1f} %")
    axes.set_ylim(0, 100)
    axes.legend(fontsize=8, loc="upper left")
    _label(axes, f"gain (nats), median of its quantile bin; n = {n:,}", "led to a right second answer (%)", title)
    return figure
