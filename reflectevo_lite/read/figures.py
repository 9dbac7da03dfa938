"""Every figure, from a data frame: seaborn, one style, colour-blind safe, axes with units, n and 95 % intervals shown.

Each function returns a matplotlib Figure that belongs to no window; `show` displays and keeps it."""

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .. import evaluate, prompts, store
from ..evaluate import Evaluation
from . import mistakes
from .mistakes import taxonomy_shares as taxonomy_shares  # the frames of two figures, at hand beside them
from .tables import reflections as reflections

BLUE, ORANGE, GREEN, RED, PURPLE, BROWN, PINK, GREY, YELLOW, SKY = (  # seaborn's "colorblind"
    "#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc", "#ca9161", "#fbafe4", "#949494", "#ece133", "#56b4e9",
)  # fmt: skip
FAMILIES = {  # family of a setting → its colour, and what it is called
    "prompted": (BLUE, "prompted"),
    "sft": (GREEN, "SFT"),
    "preference": (ORANGE, "DPO, rounds"),
    "reward": (RED, "GRPO"),
    "answers": (PURPLE, "SFT on answers"),
    "control": (GREY, "controls"),
}


def canvas(width: float = 7.5, height: float = 4.0, columns: int = 1) -> tuple[Figure, Any]:
    """An empty figure that a notebook shows as a picture, and its axes (`columns` of them, side by side); inches."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell and not any(Figure in f.type_printers for f in shell.display_formatter.formatters.values()):
        # without pyplot's inline backend nobody told IPython how to draw a figure, and it prints the repr
        from IPython.core.pylabtools import select_figure_formats

        select_figure_formats(shell, {"png"})
    sns.set_theme(style="whitegrid", palette="colorblind", rc={"axes.titlesize": 11, "axes.labelsize": 10})
    figure = Figure(figsize=(width, height), layout="constrained", dpi=110)
    return figure, figure.subplots(1, columns)


def save(figure: Figure, path: str | Path) -> Path:
    """Write a figure as PNG (150 dpi) and return the path."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return Path(path)


def show(figure: Figure, run: store.Run, name: str) -> None:
    """Keep a figure as `figures/<name>.png` of a run and display it."""
    from IPython.display import display

    save(figure, run.path("figures", f"{name}.png"))
    display(figure)


def label(axes: Axes, x: str, y: str, title: str, **more: Any) -> None:
    """Name both axes and the figure; `more` are settings of the axes, such as limits."""
    axes.set(xlabel=x, ylabel=y, **more)
    axes.set_title(title, loc="left")


def _legend_below(axes: Axes, columns: int, at: float = 0.5) -> None:
    place = (at, -0.7 / axes.figure.get_figheight())
    axes.legend(loc="upper center", bbox_to_anchor=place, ncols=columns, fontsize=8, frameon=False)


def _name_rows(axes: Axes, results: pd.DataFrame) -> None:
    """A row for each evaluation of `read.results`, from the top; controls in grey, by their own name alone."""
    axes.set_yticks(range(len(results)), [name.rpartition(" · ")[2] for name in results["setting"]])
    for key, tick in zip(results["key"], axes.get_yticklabels(), strict=True):
        tick.set_color("0.5" if Evaluation.parse(key).controls else "black")
    axes.invert_yaxis()


def finish(axes: Axes, names: Iterable[str], columns: int, x: str, title: str, **limits: Any) -> None:
    """A chart of horizontal bars: their names from the top, and the legend, if any, in so many columns below."""
    axes.set_yticks(range(len(names := list(names))), names)
    axes.invert_yaxis()
    if columns:
        _legend_below(axes, columns, 0.4 if columns > 1 else 0.5)
    label(axes, x, "", title, **limits)


def whiskers(value: Any, low: Any, high: Any) -> np.ndarray:
    """Lengths of error bars below and above a number, or each of several, as matplotlib wants them."""
    return np.clip([value - low, high - value], 0, None).reshape(2, -1)


def _curve(axes: Axes, x: pd.Series, frame: pd.DataFrame, column: str, **style: Any) -> None:
    """A fraction in percent against x, with its interval (columns low and high)."""
    share, low, high = (100 * frame[name] for name in (column, "low", "high"))
    axes.errorbar(x, share, yerr=whiskers(share, low, high), marker="o", **style)


def _colours(settings: Iterable[str]) -> dict[str, str]:
    """A colour for each setting, named in words: its family's, or a free one if that is taken already."""
    families, colours = {s.label: s.family for s in evaluate.SETTINGS.values()}, {}
    for said in settings:
        family = families.get(said) or evaluate.setting(said.replace(" ", "_")).family  # rounds are not registered
        wanted = (FAMILIES[family][0], SKY, BROWN, PINK, YELLOW)
        colours[said] = next((colour for colour in wanted if colour not in colours.values()), GREY)
    return colours


def _stack(axes: Axes, shares: dict[str, pd.Series], colours: Iterable[str], height: float) -> None:
    """Horizontal bars of shares that add up to 100 %."""
    left = 0.0
    for (name, share), colour in zip(shares.items(), colours, strict=True):
        axes.barh(range(len(share)), share, left=left, color=colour, label=name, height=height)
        left = left + share.to_numpy()
    axes.set_xlim(0, 100)


def _n(column: pd.Series) -> str:
    return f"{int(column.max()) if len(column) else 0:,}"


def task_mix(problems: dict[str, list[dict[str, Any]]]) -> Figure:
    """Problems per task and split, and question lengths in words with context and options. `problems`: by split."""
    texts = [(split, p["task"], prompts.question_text(p)) for split, rows in problems.items() for p in rows]
    counted = [(split, task, len(text.split())) for split, task, text in texts]
    frame = pd.DataFrame(counted, columns=["split", "task", "words"])
    height = max(3.4, 0.4 * frame["task"].nunique() + 1.4)
    figure, (left, right) = canvas(9, height, 2)
    sns.countplot(frame, y="task", hue="split", ax=left)
    sns.move_legend(left, "upper center", bbox_to_anchor=(0.5, -0.7 / height), ncols=2, title=None, frameon=False)
    sns.boxplot(frame, y="task", x="words", ax=right, color=BLUE, showfliers=False, width=0.5)
    label(left, "problems", "", f"Task mix (n = {len(frame):,})")
    label(right, "question length (words)", "", "Length")
    right.tick_params(labelleft=False)
    return figure


def instructions(frame: pd.DataFrame) -> Figure:
    """Heat map of `read.by_instruction`: verify × locate × plan, share of second turns that are correct."""
    figure, both = canvas(9.5, 3.9, 2)
    style = {"annot": True, "fmt": ".0f", "cmap": "viridis", "vmin": 0, "cbar_kws": {"label": "corrected (%)"}}
    high = 100 * frame["corrected"].max() if len(frame) else 1
    for axes, plan in zip(both, ("high-level", "low-level"), strict=True):
        table = frame[frame["plan"] == plan].pivot(index="locate", columns="verify", values="corrected")
        table = table.reindex([name for name in frame["locate"].unique() if name in table.index])
        sns.heatmap(100 * table, vmax=high, ax=axes, cbar=plan == "low-level", **style)
        label(axes, "how to verify", "where to look" if plan == "high-level" else "", f"{plan} plan")
    both[1].tick_params(labelleft=False)
    n = f"{frame['n'].sum():,}"
    figure.suptitle(f"Which instruction yields reflections that help? (n = {n} reflections)", fontsize=11)
    return figure


PANELS = {  # kind of training → (column, unit, title) of each panel
    "sft": [("loss", "loss (nats per trained token)", "Supervised fine-tuning"),
            ("accuracy", "tokens predicted (share)", "Token accuracy")],
    "dpo": [("loss", "loss (nats per pair)", "DPO starts at ln 2 = 0.693"),
            ("margin", "reward margin (nats)", "Chosen minus rejected"),
            ("accuracy", "pairs in the right order (share)", "Accuracy of pairs")],
    "grpo": [("reward", "reflections that helped (share)", "GRPO: reward on training questions")],
}  # fmt: skip


def training(curves: pd.DataFrame, kind: str) -> Figure:
    """The curves of every adapter of a kind (of `PANELS`), from `read.training_curves`. Dashed: the loss on held-out
    training questions, if there are any."""
    frame, panels = curves[curves["kind"] == kind], PANELS[kind]
    if frame.empty:
        figure, axes = canvas(7.5, 1)
        axes.set_axis_off()
        axes.text(0.5, 0.5, "Nothing was trained", ha="center", va="center")
        return figure
    known = {name: t.label for name, t in evaluate.TRAININGS.items()}
    names = {name: known.get(name) or evaluate.label(name) for name in frame["adapter"]}
    frame = frame.assign(adapter=frame["adapter"].map(names))
    figure, axes = canvas((7.5, 9.5, 12.5)[len(panels) - 1], 3.6, len(panels))
    style = {"x": "step", "hue": "adapter", "hue_order": list(dict.fromkeys(frame["adapter"]))}
    for part, (column, unit, title) in zip(np.atleast_1d(axes), panels, strict=True):
        first = column == panels[0][0]
        sns.lineplot(frame.dropna(subset=[column]), y=column, legend=first, ax=part, **style)
        if column == "loss" and len(held := frame.dropna(subset=["validation"])):
            sns.lineplot(held, y="validation", ls="--", marker="o", legend=False, ax=part, **style)
        if kind == "dpo" and first:
            part.axhline(np.log(2), color=GREY, ls=":", lw=1.2, label="ln 2")
        if first:
            part.legend(fontsize=8, title=None)
        label(part, "optimiser step", unit, title)
    return figure


def accuracy(results: pd.DataFrame, lines: Mapping[str, float | None] | None = None) -> Figure:
    """Acc@t1 → Acc@t2 for each row of `read.results`, with the interval of the gain. `lines`: accuracies (fractions) to
    draw across, by name; None draws nothing."""
    figure, axes = canvas(9, 0.42 * len(results) + 1.5)
    sure = np.select([results["Δ low"] > 0, results["Δ high"] < 0], [GREEN, RED], GREY)
    for i, row in enumerate(results.to_dict("records")):
        first, second, color = row["Acc@t1"], row["Acc@t2"], sure[i]
        spread = whiskers(second, first + row["Δ low"], first + row["Δ high"])
        axes.plot([first, second], [i, i], color=color, lw=2, alpha=0.6, zorder=1)
        axes.errorbar(second, i, xerr=spread, color=color, capsize=3, lw=1.4, zorder=2)
        axes.scatter([first], [i], facecolor="white", edgecolor="black", s=36, zorder=3)
        axes.scatter([second], [i], color=color, s=46, zorder=3)
        axes.annotate(f"{second:.1f}", (second, i), xytext=(0, 6), textcoords="offset points", ha="center", fontsize=8)
    _name_rows(axes, results)
    told = f"accuracy (%), n = {_n(results['n'])}, bars: 95 % interval of the gain"
    label(axes, told, "", "From the first answer to the second")
    for name, share in (lines or {}).items():
        if share is not None:
            axes.axvline(100 * share, color=PURPLE, ls="--", lw=1.2, label=name)
    faces = {"first answer": "white", "second: a sure gain": GREEN, "no sure change": GREY, "a sure loss": RED}
    faces = {name: face for name, face in faces.items() if face in ("white", *sure)}
    for name, face in faces.items():
        axes.scatter([], [], facecolor=face, edgecolor="black" if face == "white" else face, s=40, label=name)
    _legend_below(axes, 5, 0.35)
    return figure


def flips(results: pd.DataFrame, title: str = "What the second turn changes") -> Figure:
    """The four flips per row of `read.results`, as stacked shares."""
    figure, axes = canvas(9, 0.38 * len(results) + 1.6)
    kinds = {"c→c": "stays right", "i→c": "mended", "c→i": "broken", "i→i": "stays wrong"}
    shares = {f"{kind} {name}": 100 * results[kind] / results["n"].clip(lower=1) for kind, name in kinds.items()}
    _stack(axes, shares, (BLUE, GREEN, RED, GREY), 0.65)
    _name_rows(axes, results)
    _legend_below(axes, 4, 0.4)
    label(axes, "share of questions (%)", "", title)
    return figure


def tokens_accuracy(results: pd.DataFrame) -> Figure:
    """Acc@t2 against tokens spent per question after turn 1, from `read.results`; settings coloured by family."""
    figure, axes = canvas(8.5, max(4.2, 0.27 * len(results) + 1))
    first = results["Acc@t1"].iloc[0] if len(results) else 0
    axes.axhline(first, color="black", ls="--", lw=1)
    axes.annotate(f"Acc@t1 {first:.1f}", (0.01, first), xycoords=("axes fraction", "data"), va="bottom", fontsize=8)
    rows, shown = results.sort_values("Acc@t2").to_dict("records"), set()
    shape = dict.fromkeys(FAMILIES, "o") | {"control": "s"}
    for row in rows:
        x, y, one = row["tokens per question"], row["Acc@t2"], Evaluation.parse(row["key"])
        family = "control" if one.controls else evaluate.setting(one.setting).family
        spread = whiskers(y, row["Acc@t1"] + row["Δ low"], row["Acc@t1"] + row["Δ high"])
        axes.errorbar(x, y, yerr=spread, fmt=shape[family], color=FAMILIES[family][0], capsize=3, ms=6, lw=1.2)
        shown.add(family)
    for family, (colour, said) in FAMILIES.items():
        if family in shown:
            axes.scatter([], [], color=colour, marker=shape[family], label=said)
    axes.set_xlim(left=0)
    _name_beside(axes, rows)
    _legend_below(axes, 3)
    y_label = f"Acc@t2 (%), n = {_n(results['n'])}, bars: 95 % interval of the gain"
    label(axes, "tokens generated after turn 1 (per question)", y_label, "What accuracy costs")
    return figure


def _name_beside(axes: Axes, rows: list[dict[str, Any]]) -> None:
    """Name each point (in order of height) at the right edge, no two labels closer than 5 % of the axes' height."""
    low, high = axes.get_ylim()
    heights = np.array([(row["Acc@t2"] - low) / (high - low) for row in rows])
    steps = min(0.052, 1 / max(1, len(rows))) * np.arange(len(rows))
    pushed_up = np.maximum.accumulate(heights - steps) + steps
    places = np.minimum(pushed_up, 0.99 - steps[::-1])
    leader = {"arrowstyle": "-", "color": GREY, "lw": 0.6, "shrinkB": 4, "relpos": (0, 0.5)}
    style = {"textcoords": "axes fraction", "fontsize": 8, "va": "center", "annotation_clip": False}
    for row, y in zip(rows, places, strict=True):
        x, said = row["tokens per question"], f"{row['setting']}  {row['Acc@t2']:.1f}"
        axes.annotate(said, (x, row["Acc@t2"]), xytext=(1.03, y), arrowprops=leader, **style)


def turns(frame: pd.DataFrame) -> Figure:
    """Acc@t against the turn (left) and against the tokens spent so far (right), from `read.turn_curve`."""
    figure, both = canvas(9.5, 3.8, 2)
    colours = _colours(frame["setting"].unique())
    for name, some in frame.groupby("setting", sort=False):
        for axes, x in zip(both, ("turn", "spent"), strict=True):
            _curve(axes, some[x], some, "accuracy", capsize=3, lw=1.6, label=name, color=colours[name])
    both[0].legend(fontsize=8)
    xticks = sorted(frame["turn"].unique())
    label(both[0], "turn", f"accuracy (%), n = {_n(frame['n'])}", "Further turns", xticks=xticks)
    label(both[1], "tokens spent after turn 1, per question", "", "What they cost")
    return figure


def rounds(frame: pd.DataFrame) -> Figure:
    """Acc@t2 over rounds (left) and what each round's rollouts yielded (right), from `evaluate.rounds_table`."""
    figure, (left, right) = canvas(9.5, 3.6, 2)
    left.axhline(100 * frame["acc_t1"].iloc[0], color=GREY, ls="--", lw=1, label="Acc@t1")
    _curve(left, frame["round"], frame, "acc_t2", color=GREEN, capsize=4, label="Acc@t2")
    left.legend(fontsize=8)
    right.plot(frame["round"], 100 * frame["corrected"], color=BLUE, marker="o")
    xticks, told = list(frame["round"]), "Yield of each round's rollouts"
    label(left, "round (0: prompted base)", "accuracy (%)", "Held-out accuracy, 95 % intervals", xticks=xticks)
    label(right, "round", "reflections that helped (%)", told, xticks=xticks, ylim=(0, 100))
    return figure


def collapse(frame: pd.DataFrame) -> Figure:
    """The collapse watch over rounds, from `evaluate.watch`: diversity (left), sameness and length (right)."""
    figure, (left, right) = canvas(9.5, 3.6, 2)
    varied = {"distinct": "different texts", "distinct_2": "different word pairs", "corrected": "led to a right answer"}
    same = {"same_place": "blame one and the same place", "copied": "copied word triples"}
    for axes, columns in ((left, varied), (right, same)):
        for (column, name), style in zip(columns.items(), ("o-", "s--", "^:"), strict=False):
            axes.plot(frame["round"], 100 * frame[column], style, label=name)
        axes.set(ylim=(0, 100), xticks=list(frame["round"]))
        axes.legend(fontsize=8)
    lengths = " → ".join(f"{words:.0f}" for words in frame["words"])
    label(left, "round", f"share (%), {_n(frame['reflections'])} reflections a round", "Variety and yield")
    label(right, "round", "", f"Sameness; mean length in words {lengths}")
    return figure


def localisation(frame: pd.DataFrame) -> Figure:
    """Share of reflections that blame a truly wrong place, from `read.localisation`."""
    figure, axes = canvas(8, 0.5 * len(frame) + 1.6)
    at, last = np.arange(len(frame)), "blames the last step"
    axes.barh(at, 100 * frame["localised"], color=GREEN, height=0.55, label="blames a wrong place")
    axes.barh(at + 0.33, 100 * frame[last], color=ORANGE, height=0.12, label=last)
    axes.vlines(100 * frame["chance"], at - 0.35, at + 0.4, color="black", lw=1.5, label="a place at random")
    told = f"share of reflections on wrong answers (%), n ≤ {_n(frame['n'])}"
    finish(axes, frame["setting"], 3, told, "Does the reflection find the mistake?", xlim=(0, 100))
    return figure


def truth(frame: pd.DataFrame) -> Figure:
    """Share of reflections that are true in every part beside the share that led to a right answer, from
    `evaluate.truth_table`."""
    figure, axes = canvas(8, 0.5 * len(frame) + 1.6)
    at = np.arange(len(frame))
    axes.barh(at - 0.19, 100 * frame["whole"], color=GREEN, height=0.36, label="true in every part")
    axes.barh(at + 0.19, 100 * frame["mended"], color=BLUE, height=0.36, label="led to a right answer")
    axes.scatter(100 * frame["place"], at - 0.19, color="black", marker="|", s=90, label="names a wrong place")
    told = f"share of reflections on wrong answers (%), n ≤ {_n(frame['n'])}"
    finish(axes, frame["setting"], 3, told, "Do reflections say what is so?", xlim=(0, 100))
    return figure


def error_classes(frame: pd.DataFrame) -> Figure:
    """Share of wrong answers mended, by class of their first error, from `read.error_classes`."""
    figure, axes = canvas(9, 4)
    counts = frame.groupby("class")["n"].max().sort_values(ascending=False)
    palette = _colours(frame["setting"].unique())
    at, width = np.arange(len(counts)), 0.8 / len(palette)
    for i, (name, some) in enumerate(frame.groupby("setting", sort=False)):
        share, n = some.set_index("class").reindex(counts.index).fillna(0)[["mended", "n"]].to_numpy().T
        bounds = np.transpose(list(map(evaluate.wilson, (share * n).round(), n)))
        style = {"color": palette[name], "label": name, "yerr": 100 * whiskers(share, *bounds), "capsize": 3}
        axes.bar(at + i * width, 100 * share, width, ecolor="0.3", **style)
    axes.set_xticks(at + 0.4 - width / 2, [f"{name}\n(n = {n})" for name, n in counts.items()])
    axes.legend(fontsize=8)
    label(axes, "", "mended at turn 2 (%), 95 % intervals", "Which mistakes can be mended?")
    return figure


def taxonomy(shares: pd.DataFrame) -> Figure:
    """Share of each error class beside the paper's, from `taxonomy_shares`."""
    figure, axes = canvas(8, 0.4 * len(shares) + 1.5)
    at, share = np.arange(len(shares)), 100 * shares["share"]
    colours = {"mathematical": BLUE, "logic": ORANGE, "instruction": GREEN, "factual": RED}
    groups = mistakes.PAPER["group"].reindex(shares["class"])
    paper = {"marker": "D", "facecolor": "white", "edgecolor": "black", "s": 34}
    axes.barh(at, share, color=[colours.get(group, GREY) for group in groups], height=0.6)
    spread = whiskers(share, 100 * shares["low"], 100 * shares["high"])
    axes.errorbar(share, at, xerr=spread, fmt="none", ecolor="black", capsize=3, lw=1.1)
    axes.scatter(100 * shares["paper"], at, zorder=4, label="the paper's failures", **paper)
    for name, colour in colours.items():
        axes.barh([0], [0], color=colour, label=name)
    names = [f"{name} ({n:,})" for name, n in zip(shares["class"], shares["n"], strict=True)]
    told = f"share of wrong first attempts (%), n = {_n(shares['total'])}, bars: 95 % interval"
    finish(axes, names, 5, told, "What goes wrong in first attempts")
    return figure


def reflection_style(frame: pd.DataFrame) -> Figure:
    """Length, diversity and the five commonest first verbs of reflections by setting, from `reflections`."""
    texts = {name: frame.loc[frame["setting"] == name, "text"] for name in frame["setting"].unique()}
    figure, (left, middle, right) = canvas(11.5, 0.55 * len(texts) + 2.1, 3)
    sns.boxplot(frame, y="setting", x="words", order=list(texts), color=BLUE, showfliers=False, width=0.55, ax=left)
    left.set_yticks(range(len(texts)), [f"{name}\n(n = {len(some):,})" for name, some in texts.items()])
    label(left, "length (words)", "", "Length")
    distinct = [100 * some.nunique() / len(some) for some in texts.values()]
    middle.barh(range(len(texts)), distinct, color=ORANGE, height=0.55)
    label(middle, "distinct texts (%)", "", "Diversity")
    common = frame["verb"].value_counts().index[:5]
    colours = dict(zip(common, (BLUE, ORANGE, GREEN, RED, PURPLE), strict=False)) | {"other": GREY}
    verbs = frame["verb"].where(frame["verb"].isin(common), "other")
    shares = 100 * pd.crosstab(frame["setting"], verbs, normalize="index").reindex(list(texts))
    shown = {verb: shares[verb] for verb in colours if verb in shares}
    _stack(right, shown, [colours[verb] for verb in shown], 0.55)
    right.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    label(right, "share of reflections (%)", "", "First verb of the plan")
    for axes in (middle, right):
        axes.set(ylim=left.get_ylim(), xlim=(0, 100), yticks=range(len(texts)))
        axes.tick_params(labelleft=False)
    return figure
