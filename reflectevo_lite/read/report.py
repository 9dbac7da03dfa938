"""One HTML page about a run: summary, warnings, tables, figures, sampled transcripts, record.

Nothing is loaded from a network, so the page opens on a plane. `templates/report.html` escapes what it is given.
"""

from __future__ import annotations

import base64
import itertools
import json
import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from .. import evaluate, store
from ..evaluate import Evaluation
from . import tables
from .explorer import Explorer, setting_name
from .transcripts import OUTCOMES, render

FIGURES = {  # file stem → caption, in the order of the page; other figures of the run follow
    "headline": "From the first answer to the second, in short",
    "accuracy": "Acc@t1 and Acc@t2 of every setting and control",
    "localisation": "Does the reflection find the mistake?",
    "truth": "Do reflections say what is so?",
    "rounds": "Round after round",
    "turns": "Further turns",
    "flips": "What the second turn changes",
    "taxonomy": "What goes wrong in first attempts, by the paper's classes",
    "error_classes": "Which mistakes are mended",
    "instructions": "Success by instruction",
    "reflection_style": "Length, diversity and first verb of reflections",
    "gain": "The gain of a reflection against its outcome",
    "tokens_accuracy": "What accuracy costs in tokens",
}
TROUBLE = re.compile("refused, [^:;]+|no (?:text(?:, only thoughts)?|token count|finish reason)")
FEW_STEPS = 10  # of an optimiser, in which a model learns next to nothing
FEW = 200  # held-out questions below which a table deserves a warning


def build_report(run_dir: str | Path, *, out: str | Path | None = None, transcripts: int = 30, seed: int = 0) -> Path:
    """Write `out`, or `<run_dir>/report.html`, and return its path. Raises FileNotFoundError if metrics.json is missing."""
    if out and (Path(out).suffix != ".html" or Path(out).is_dir()):
        raise ValueError(f"--out {out}: name a file that ends in .html")
    run = store.Run(run_dir)
    metrics, params = tables.load_metrics(run), run.params()
    metrics.setdefault("reading", evaluate.reading_of(run))  # not in older files
    made = (Evaluation(r["setting"], r["mode"], r["control"]) for r in metrics["rows"])
    controls = {e.label for e in made if e.controls}
    said, results = headline(metrics), {mode: tables.results(metrics, mode=mode) for mode in ("oracle", "intrinsic")}
    page = render(
        "report.html",
        title=run.directory.name,
        models=sorted({str(p["model"]) for p in params.values() if p.get("model")}),
        said=[line for line in said if line.rpartition(": ")[0] not in controls],
        controls=[line for line in said if line.rpartition(": ")[0] in controls],
        grey=controls,
        tiles=_tiles(metrics),
        warnings=[*warnings(run, metrics)],
        results={mode: table.to_dict("records") for mode, table in results.items()},
        unmoved={mode: tables.unmoved(results[mode]) for mode in results if len(results[mode])},
        accused=tables.accused(run).to_dict("records"),
        comparisons=tables.comparisons(metrics).to_dict("records"),
        readings=tables.readings(metrics["reading"]).query("unreadable > 0 or `cut off` > 0").to_dict("records"),
        health=evaluate.health(run).to_dict("records"),
        wilson=evaluate.wilson,
        figures=_figures(run),
        sampled=_sampled(run, transcripts, seed),
        seed=seed,
        params=yaml.safe_dump(params, allow_unicode=True),
        record=pd.json_normalize(run.environment(), sep=": ").to_dict("records")[0].items(),
    )
    target = Path(out) if out else run.path("report.html")
    store.write_text(target, page)
    return target


def _tiles(metrics: dict[str, Any]) -> list[tuple[str, float]]:
    """Three figures: the base model, prompted, and the best of the settings that reflect."""
    table = tables.results(metrics)
    if table.empty:
        return []
    asked = [(e, evaluate.setting(e.setting)) for e in map(Evaluation.parse, table["key"])]
    best = table[[not (e.controls or s.answers or s.plain) for e, s in asked]].sort_values("Acc@t2").iloc[-1]
    tiles = [("right at once (Acc@t1)", best["Acc@t1"])]
    tiles += [("after a prompted reflection", acc) for acc in table.loc[table["key"] == tables.BASE.stem, "Acc@t2"]]
    return tiles + [(f"at best: {best['setting']}", best["Acc@t2"])] * (best["key"] != tables.BASE.stem)


def headline(metrics: dict[str, Any]) -> list[str]:
    """The run in a few sentences, each computed from metrics.json."""
    table = tables.results(metrics)
    base = table[table["key"] == tables.BASE.stem].to_dict("records") if len(table) else []
    if not base:
        return ["Prompted reflection was not evaluated, so nothing can be said against it."]
    first, second = base[0]["Acc@t1"], base[0]["Acc@t2"]
    asked = f"Out of {base[0]['n']:,} held-out questions the base model answers {first:.1f} % at once"
    lines = [f"{asked}, and {second:.1f} % after reflecting as it is prompted to."]
    for row in tables.comparisons(metrics).to_dict("records"):
        more, interval = "more" if row["difference"] > 0 else "fewer", f"{row['low']:.1f} to {row['high']:.1f}"
        sure = f"{abs(row['difference']):.1f} points {more} than prompted reflection (95 % interval {interval})"
        open_ = f"not told apart from prompted reflection after Holm's correction (uncorrected interval {interval})"
        lines.append(f"{row['setting']}: {sure if row['significant'] else open_}.")
    return lines


def warnings(run: store.Run, metrics: dict[str, Any]) -> Iterator[str]:
    """What a reader of this run should know before believing it: one sentence each, none if all is well."""
    sizes = {r["n"] for r in metrics["rows"] if r["task"] == "all"}
    if not sizes:
        yield "No setting was evaluated."
    elif min(sizes) < FEW:
        seen = [c["mde"] for c in metrics["comparisons"] if c.get("mde")]
        least = f"; differences below about {100 * max(seen):.0f} points cannot be seen" if seen else ""
        yield f"Only {min(sizes):,} held-out questions{least}."
    if len(sizes) > 1:
        yield f"Settings were evaluated on different numbers of questions ({min(sizes):,} to {max(sizes):,})."
    if late := [stage for stage in store.STAGES[:-1] if not store.stage_finished(run.directory, stage)]:
        yield f"Not executed to the end in this run: {', '.join(late)}."
    controls = [r["control"] for r in metrics["rows"] if r["setting"] == evaluate.BASELINE]
    if None in controls and "retry" not in controls:
        yield "There is no plain-retry control: part of every gain may come from merely trying twice."
    guessed = pd.DataFrame(metrics.get("elimination", []))
    for task, some in guessed.groupby("task") if len(guessed) else ():
        below = some[some["excess"] <= 0]["setting"].nunique()
        guess = f"a blind guess among the options left after a wrong one gives {100 * some['blind'].iloc[0]:.1f} %"
        yield f"{task} is multiple choice: {guess}, and {below} of {some['setting'].nunique()} settings are not above it."
    records = {p.parent.name: json.loads(p.read_bytes()) for p in run.directory.glob("adapters/*/training.json")}
    if short := sorted(name for name, record in records.items() if record["steps"] < FEW_STEPS):
        yield f"Trained for fewer than {FEW_STEPS} steps, on a few rows: {', '.join(short)}."
    if left := evaluate.left_out(run):
        yield f"Nothing to train on, so left out: {', '.join(left)}."
    if not run.path("env.json").exists():
        yield "env.json is missing: versions and fingerprints are unknown."
    yield from evaluate.reading_warnings(metrics.get("reading", ()))
    yield from evaluate.health_warnings(evaluate.health(run))
    yield from refusals(run)


def refusals(run: store.Run) -> Iterator[str]:
    """What servers refused, or left out of their replies: a sentence for each kind, none if all is well."""
    places = {"rollouts": "rollouts/train*", "first answers": "evals/turn1*", "second turns": "evals/*.*"}
    for name, pattern in places.items():
        seen, paths = Counter[str](), run.directory.glob(f"{pattern}.jsonl")
        for row in itertools.chain.from_iterable(map(store.iter_jsonl, paths)):
            told = row.get("reflections", ())
            for part in [row.get("turn1", row), *told, *(r["turn2"] for r in told)]:
                seen.update(["asked", *TROUBLE.findall(part.get("trouble", ""))])
        share = f"of {(asked := seen.pop('asked', 0)):,} completions among the {name}"
        yield from (f"{n:,} {share} ({100 * n / asked:.1f} %): {kind}." for kind, n in seen.most_common())


def _figures(run: store.Run) -> list[tuple[str, str]]:
    """(caption, PNG in base64) of each figure of the run."""
    pngs = {path.stem: path for path in sorted(run.path("figures").glob("*.png"))}
    captions = FIGURES | {stem: stem.replace("_", " ").capitalize() for stem in pngs if stem not in FIGURES}
    return [(captions[s], base64.b64encode(pngs[s].read_bytes()).decode()) for s in captions if s in pngs]


def _sampled(run: store.Run, n: int, seed: int) -> dict[str, Any]:
    """Sampled questions of the best-known setting, in turn from each outcome; broken ones come from intrinsic mode."""
    try:
        explorer = Explorer(run.directory)
    except FileNotFoundError:
        return {}
    found = [Evaluation.parse(name) for name in explorer.options("setting")]
    one = next(e for e in (Evaluation("reflector_only"), tables.BASE, *found) if e in found)
    pages = []
    for i in sample(explorer.frame, [one.stem, one._replace(mode="intrinsic").stem], n, seed):
        explorer.show([i])
        pages.append((*explorer.frame.loc[i, ["outcome", "id"]], explorer.page()))
    return {"name": setting_name(one.stem), "pages": pages} if pages else {}


def sample(frame: pd.DataFrame, settings: list[str], n: int, seed: int) -> list[int]:
    """Row numbers of up to `n` transcripts, in turn from each outcome; seeded. Of the second setting (intrinsic mode)
    only broken answers are taken, which the first (oracle mode) cannot have."""
    groups = []
    for outcome in OUTCOMES:
        wanted = (frame["setting"] == settings[outcome == "broken"]) & (frame["outcome"] == outcome)
        rows = wanted.to_numpy().nonzero()[0].tolist()
        groups.append(random.Random(f"report/{seed}/{outcome}").sample(rows, min(n, len(rows))))
    return [group[i] for i in range(n) for group in groups if i < len(group)][:n]
