"""One self-contained HTML page about a run: summary, warnings, tables, figures, sampled transcripts, record.

Figures are embedded, style is inline and nothing is loaded from a network, so the page opens on a plane. Whatever comes
from a model, a data set or a parameter is escaped.
"""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from .. import evaluate, store
from . import tables, transcripts

STYLE = """
:root{--ink:#1c1c1a;--soft:#5d5b54;--line:#e2dfd7;--paper:#fbfaf7;--good:#02735a;--bad:#a83e00;--blue:#0173b2}
*{box-sizing:border-box}body{font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;max-width:72rem;margin:0 auto;
 padding:2.2rem 1.2rem 4rem;color:var(--ink);background:var(--paper)}
h1{font-size:1.7rem;line-height:1.2;margin:0}h2{font-size:1.2rem;margin:2.6rem 0 .6rem;padding-top:.4rem;border-top:1px solid var(--line)}
.sub{color:var(--soft);margin:.3rem 0 1rem}nav{font-size:.9rem;margin-bottom:1.2rem}nav a{color:var(--blue);margin-right:1rem;text-decoration:none}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(11rem,1fr));gap:.8rem;margin:1rem 0}
.tile{background:#fff;border:1px solid var(--line);border-radius:10px;padding:.7rem 1rem}.tile b{display:block;font-size:1.75rem;line-height:1.25}
.tile span{color:var(--soft);font-size:.86rem}.summary li{margin:.25rem 0}
.warn{background:#fdf4e3;border:1px solid #ecd3a0;border-radius:10px;padding:.6rem 1.1rem}.warn ul{margin:.3rem 0;padding-left:1.2rem}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.86rem;background:#fff;width:100%;border:1px solid var(--line)}
td,th{padding:.34rem .5rem;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}th{font-weight:600;color:var(--soft)}
td:first-child,th:first-child{text-align:left}tr.control td{color:var(--soft)}td small{color:var(--soft)}
figure{margin:1.4rem 0;background:#fff;border:1px solid var(--line);border-radius:10px;padding:1rem;text-align:center}
figure img{max-width:100%;height:auto}figcaption{color:var(--soft);font-size:.88rem;margin-top:.4rem}
details{margin:.45rem 0;background:#fff;border:1px solid var(--line);border-radius:8px}summary{cursor:pointer;padding:.45rem .9rem}
details[open]>summary{border-bottom:1px solid var(--line)}details .rl-page{border:0;border-radius:0 0 8px 8px}
pre{background:#fff;border:1px solid var(--line);border-radius:8px;padding:.8rem;white-space:pre-wrap;overflow-wrap:anywhere;font-size:.8rem}
small{color:var(--soft)}@media print{body{max-width:none;background:#fff}nav{display:none}figure,tr{break-inside:avoid}}
"""
FIGURES = {  # file stem → caption, in the order of the page; other figures of the run follow
    "accuracy": "Acc@t1 and Acc@t2 of every setting and control",
    "localisation": "Does the reflection find the mistake?",
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
FEW = 200  # held-out questions below which a table deserves a warning


def build_report(run_dir: str | Path, *, transcripts: int = 30, seed: int = 0) -> Path:
    """Write `<run_dir>/report.html` and return its path. Raises FileNotFoundError where metrics.json is missing."""
    run = store.Run(run_dir)
    metrics = tables.load_metrics(run)
    sections = {
        "Results": "".join(_results(metrics, mode) for mode in ("oracle", "intrinsic")),
        "Against prompted reflection": _comparisons(metrics),
        "Figures": _figures(run),
        "Transcripts": _transcripts(run, transcripts, seed),
        "Parameters": f"<pre>{escape(yaml.safe_dump(run.params(), allow_unicode=True))}</pre>",
        "Versions and fingerprints": _record(run),
    }
    sections = {name: html for name, html in sections.items() if html}
    links = "".join(f'<a href="#s{i}">{escape(name)}</a>' for i, name in enumerate(sections))
    body = "".join(f'<a id="s{i}"></a><h2>{escape(name)}</h2>{html}' for i, (name, html) in enumerate(sections.items()))
    store.write_text(run.path("report.html"), _page(run.directory.name, _head(run, metrics, links) + body))
    return run.path("report.html")


def _page(title: str, body: str) -> str:
    style = STYLE + transcripts.STYLE
    viewport = '<meta name="viewport" content="width=device-width,initial-scale=1">'
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">{viewport}<title>{escape(title)}: ReflectEvo run</title>'
        f"<style>{style}</style></head><body>{body}</body></html>\n"
    )


# -- summary and warnings --------------------------------------------------------------------------------------------------
def _head(run: store.Run, metrics: dict[str, Any], links: str) -> str:
    models = {p["model"] for p in run.params().values() if p.get("model")}
    what = f"A ReflectEvo run{' on the model ' + escape(', '.join(sorted(map(str, models)))) if models else ''}"
    said = headline(metrics)
    lines = "".join(f"<li>{escape(line)}</li>" for line in said if "·" not in line)
    controls = "".join(f"<li>{escape(line)}</li>" for line in said if "·" in line)
    folded = (
        f'<details><summary>The controls</summary><ul class="summary">{controls}</ul></details>' if controls else ""
    )
    found = warnings(run, metrics)
    box = f'<div class="warn"><b>Read with care</b><ul>{"".join(f"<li>{escape(w)}</li>" for w in found)}</ul></div>'
    return (
        f'<h1>{escape(run.directory.name)}</h1><p class="sub">{what}.</p><nav>{links}</nav>{_tiles(metrics)}'
        f'<ul class="summary">{lines}</ul>{folded}{box if found else ""}'
    )


def _tiles(metrics: dict[str, Any]) -> str:
    """Three figures: the base model, prompted, and the best setting of all."""
    table = tables.results(metrics)
    if table.empty:
        return ""
    trained = table[~table["setting"].str.contains("·")].sort_values("Acc@t2").iloc[-1]
    prompted = table[table["key"] == "prompted.oracle"]
    tiles = [("right at once (Acc@t1)", trained["Acc@t1"])]
    tiles += [("after a prompted reflection", row["Acc@t2"]) for row in prompted.to_dict("records")]
    tiles += [(f"at best: {trained['setting']}", trained["Acc@t2"])] if trained["key"] != "prompted.oracle" else []
    shown = "".join(f'<div class="tile"><b>{value:.1f} %</b><span>{escape(name)}</span></div>' for name, value in tiles)
    return f'<div class="tiles">{shown}</div>'


def headline(metrics: dict[str, Any]) -> list[str]:
    """The run in a few sentences, each computed from metrics.json."""
    frame = tables.comparisons(metrics)
    table = tables.results(metrics)
    base = table[table["key"] == "prompted.oracle"] if len(table) else table
    if base.empty:
        return ["Prompted reflection was not evaluated, so nothing can be said against it."]
    lines = [
        f"Out of {int(base['n'].iloc[0]):,} held-out questions the base model answers {base['Acc@t1'].iloc[0]:.1f} % at once, "
        f"and {base['Acc@t2'].iloc[0]:.1f} % after reflecting as it is prompted to."
    ]
    for row in frame.to_dict("records"):
        sure = None if not row["significant"] else "more" if row["difference"] > 0 else "fewer"
        interval = f"{row['low']:.1f} to {row['high']:.1f}"
        lines.append(
            f"{row['setting']}: {abs(row['difference']):.1f} points {sure} than prompted reflection (95 % interval {interval})."
            if sure
            else f"{row['setting']}: no significant difference from prompted reflection ({interval})."
        )
    return lines


def warnings(run: store.Run, metrics: dict[str, Any]) -> list[str]:
    """What a reader of this run should know before believing it: one sentence each, none where all is well."""
    return [*_small(metrics), *_missing(run, metrics), *_truncated(run)]


def _small(metrics: dict[str, Any]) -> Iterator[str]:
    sizes = {r["n"] for r in metrics["rows"] if r["task"] == "all"}
    if not sizes:
        yield "No setting was evaluated."
    elif min(sizes) < FEW:
        seen = [c["mde"] for c in metrics["comparisons"] if c.get("mde")]
        least = f"; differences below about {100 * max(seen):.0f} points cannot be seen" if seen else ""
        yield f"Only {min(sizes):,} held-out questions{least}."
    if len(sizes) > 1:
        yield f"Settings were evaluated on different numbers of questions ({min(sizes):,} to {max(sizes):,})."


def _missing(run: store.Run, metrics: dict[str, Any]) -> Iterator[str]:
    late = [stage for stage in store.STAGES[:-1] if not store.stage_finished(run.directory, stage)]
    if late:
        yield f"Not executed to the end in this run: {', '.join(late)}."
    controls = {(r["setting"], r["control"]) for r in metrics["rows"]}
    if ("prompted", None) in controls and ("prompted", "retry") not in controls:
        yield "There is no plain-retry control: part of every gain may come from merely trying twice."
    if left := tables.left_out(run):
        yield f"Nothing to train on, so left out: {', '.join(left)}."
    if not run.path("env.json").exists():
        yield "env.json is missing: versions and fingerprints are unknown."


def _truncated(run: store.Run) -> Iterator[str]:
    """How many completions the length limit cut, by file."""
    for name, path in {
        "first answers": run.path("evals", "turn1.jsonl"),
        "rollouts": run.path("rollouts", "train.jsonl"),
    }.items():
        cut = asked = 0
        for row in store.iter_jsonl(path) if path.exists() else ():
            attempts = [row["turn1"], *(r["turn2"] for r in row["reflections"])] if "reflections" in row else [row]
            asked += len(attempts)
            cut += sum(bool(a.get("truncated")) for a in attempts)
        if cut:
            yield f"{cut:,} of {asked:,} completions ({100 * cut / asked:.1f} %) among the {name} were cut by max_new_tokens."


# -- tables ----------------------------------------------------------------------------------------------------------------
def _results(metrics: dict[str, Any], mode: str) -> str:
    frame = tables.results(metrics, mode=mode)
    if frame.empty:
        return ""
    shown = [
        {
            "setting": r["setting"],
            "Acc@t1": _rate(r["Acc@t1"], r["n"]),
            "Acc@t2": _rate(r["Acc@t2"], r["n"]),
            "Δ": _range(r["Δ"], r["Δ low"], r["Δ high"]),
            "mended": f"{r['i→c']:,}",
            "broken": f"{r['c→i']:,}",
            "tokens per question": f"{r['tokens per question']:.1f}",
            "n": f"{r['n']:,}",
        }
        for r in frame.to_dict("records")
    ]
    told = "wrong answers go on, and the model is told" if mode == "oracle" else "every answer goes on, nothing is told"
    return (
        f"<p><b>{mode.capitalize()} mode</b>: {told}.</p>{_table(shown)}<small>Percent with 95 % intervals: Wilson for the rates, "
        "paired bootstrap over questions for Δ. Grey rows are controls.</small>"
    )


def _comparisons(metrics: dict[str, Any]) -> str:
    frame = tables.comparisons(metrics)
    shown = [
        {
            "setting": r["setting"],
            "difference (points)": _range(r["difference"], r["low"], r["high"]),
            **{name: _p(value) for name, value in r.items() if name.startswith("p (")},
            "detectable": "–" if pd.isna(r["detectable"]) else f"{r['detectable']:.1f}",
            "n": f"{r['n']:,}",
        }
        for r in frame.to_dict("records")
    ]
    note = "<small>Paired on the same questions; <i>detectable</i>: the difference seen with 80 % power.</small>"
    return _table(shown) + note if shown else ""


def _table(rows: list[dict[str, str]]) -> str:
    """Rows of HTML cells; the first column is text and escaped here."""
    names = list(rows[0])
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "".join(
        f'<tr class="{"control" if "·" in row[names[0]] else ""}"><td>{escape(row[names[0]])}</td>'
        + "".join(f"<td>{row[name]}</td>" for name in names[1:])
        + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _rate(percent: float, n: int) -> str:
    low, high = evaluate.wilson(round(percent * n / 100), n)
    return f"{percent:.1f} <small>{100 * low:.1f}–{100 * high:.1f}</small>"


def _range(value: float, low: float, high: float) -> str:
    return f"{value:+.1f} <small>{low:+.1f} to {high:+.1f}</small>"


def _p(value: float) -> str:
    return "&lt; 0.001" if value < 0.001 else f"{value:.3f}"


# -- figures, transcripts, record ------------------------------------------------------------------------------------------
def _figures(run: store.Run) -> str:
    known = [(run.path("figures", f"{stem}.png"), caption) for stem, caption in FIGURES.items()]
    others = sorted(p for p in run.path("figures").glob("*.png") if p.stem not in FIGURES)
    found = [*known, *((p, p.stem.replace("_", " ").capitalize()) for p in others)]
    return "".join(_figure(path, caption) for path, caption in found if path.exists())


def _figure(path: Path, caption: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return (
        f'<figure><img alt="{escape(caption)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _transcripts(run: store.Run, n: int, seed: int) -> str:
    """Sampled questions of the best-known setting, in turn from each outcome; broken ones come from intrinsic mode."""
    from .explorer import Explorer, setting_name

    try:
        explorer = Explorer(run.directory)
    except FileNotFoundError:
        return ""
    settings = explorer.options("setting")
    setting = next((s for s in ("reflector_only", "prompted", *settings) if f"{s}.oracle" in settings), None)
    picked = sample(explorer.frame, [f"{setting}.oracle", f"{setting}.intrinsic"], n, seed)
    if not picked:
        return ""
    parts = []
    for i in picked:
        explorer.shown, explorer.position = [i], 0
        row = explorer.frame.iloc[i]
        title = f"{transcripts.outcome_chip(row['outcome'])} {escape(row['id'])}"
        parts.append(f"<details><summary>{title}</summary>{explorer.page()}</details>")
    name = escape(setting_name(f"{setting}.oracle"))
    return f"<p>{len(parts)} questions under <b>{name}</b>, sampled from every outcome (seed {seed}).</p>" + "".join(
        parts
    )


def sample(frame: pd.DataFrame, settings: list[str], n: int, seed: int) -> list[int]:
    """Row numbers of up to `n` transcripts, in turn from each outcome; seeded.

    Of the second setting (intrinsic mode) only broken answers are taken, which the first (oracle mode) cannot have.
    """
    groups = []
    for outcome in transcripts.OUTCOMES:
        setting = settings[outcome == "broken"]
        rows = [int(i) for i in ((frame["setting"] == setting) & (frame["outcome"] == outcome)).to_numpy().nonzero()[0]]
        groups.append(random.Random(f"report/{seed}/{outcome}").sample(rows, min(n, len(rows))))
    return [group[i] for i in range(n) for group in groups if i < len(group)][:n]


def _record(run: store.Run) -> str:
    env = json.loads(run.path("env.json").read_text()) if run.path("env.json").exists() else {}
    rows = [*_flat(env)]
    return _table([{"what": name, "value": escape(str(value))} for name, value in rows]) if rows else ""


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """A nested mapping as (name, value) pairs."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}: {key}" if name else str(key))
    else:
        yield name, value
