"""One self-contained HTML page about a run: summary, table, figures, sampled transcripts, parameters, versions.

Figures are embedded and nothing is loaded from a network, so the page opens on a plane.
"""

from __future__ import annotations

import base64
import html
import json
import random
from pathlib import Path
from typing import Any

import yaml

from . import analysis, evaluation, prompts, store

STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a}
table{border-collapse:collapse;font-size:.88rem;margin:1rem 0}td,th{padding:.25rem .6rem;border-bottom:1px solid #ddd;text-align:right}
td:first-child,th:first-child{text-align:left}img{max-width:100%}pre{background:#f6f6f4;padding:.7rem;white-space:pre-wrap;font-size:.85rem}
summary{cursor:pointer;font-weight:600}.good{color:#02735a}.bad{color:#b64500}details{margin:.5rem 0}small{color:#555}
"""
FIGURES = {  # file stem → caption, in the order of the page
    "accuracy": "Acc@t1 and Acc@t2 of every setting and control",
    "localisation": "Does the reflection find the mistake?",
    "rounds": "Round after round",
    "turns": "Further turns",
    "flips": "What the second turn changes",
    "error_classes": "Which mistakes are mended",
    "instructions": "Success by instruction",
}


def build_report(run_dir: str | Path, *, transcripts: int = 30, seed: int = 0) -> Path:
    """Write `<run_dir>/report.html` and return its path. Raises FileNotFoundError where metrics.json is missing."""
    run = store.Run(run_dir)
    metrics = analysis.load_metrics(run)
    body = [
        f"<h1>ReflectEvo run <code>{html.escape(run.directory.name)}</code></h1>",
        _summary(metrics),
        _left_out(run),
        *(_results(metrics, mode) for mode in ("oracle", "intrinsic")),
        _comparisons(metrics),
        _figures(run),
        _transcripts(run, transcripts, seed),
        _record(run),
    ]
    page = f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(run.directory.name)}</title><style>{STYLE}</style>"
    store.write_text(run.path("report.html"), page + "\n".join(part for part in body if part) + "</html>\n")
    return run.path("report.html")


def _summary(metrics: dict[str, Any]) -> str:
    return "".join(f"<p>{html.escape(line)}</p>" for line in headline(metrics))


def _left_out(run: store.Run) -> str:
    missing = analysis.left_out(run)
    return f"<p>Left out, nothing to train on: {html.escape(', '.join(missing))}.</p>" if missing else ""


def headline(metrics: dict[str, Any]) -> list[str]:
    """The run in a few sentences, each computed from metrics.json."""
    frame = analysis.comparisons(metrics)
    table = analysis.results(metrics)
    base = table[table["key"] == "prompted.oracle"]
    if base.empty:
        return ["No setting was evaluated."]
    lines = [
        f"Out of {int(base['n'].iloc[0]):,} held-out questions the base model answers {base['Acc@t1'].iloc[0]:.1f} % at once, "
        f"and {base['Acc@t2'].iloc[0]:.1f} % after reflecting as it is prompted to."
    ]
    for row in frame.to_dict("records"):
        sure = "more" if row["low"] > 0 else "fewer" if row["high"] < 0 else None
        if sure:
            lines.append(
                f"{row['setting']}: {abs(row['difference']):.1f} points {sure} than prompted reflection "
                f"(95 % interval {row['low']:.1f} to {row['high']:.1f})."
            )
        else:
            lines.append(
                f"{row['setting']}: no clear difference from prompted reflection ({row['low']:.1f} to {row['high']:.1f})."
            )
    return lines


def _results(metrics: dict[str, Any], mode: str) -> str:
    frame = analysis.results(metrics, mode=mode)
    if frame.empty:
        return ""
    shown = frame.drop(columns="key").round(1).to_html(index=False, border=0)
    return (
        f"<h2>Results, {mode} mode</h2>{shown}<small>Percent; Δ low and Δ high: 95 % paired bootstrap interval.</small>"
    )


def _comparisons(metrics: dict[str, Any]) -> str:
    frame = analysis.comparisons(metrics)
    return (
        ""
        if frame.empty
        else "<h2>Against prompted reflection (points)</h2>" + frame.round(4).to_html(index=False, border=0)
    )


def _figures(run: store.Run) -> str:
    found = [(run.path("figures", f"{stem}.png"), caption) for stem, caption in FIGURES.items()]
    parts = [
        f'<figure><img alt="{html.escape(caption)}" src="data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"></figure>'
        for path, caption in found
        if path.exists()
    ]
    return "<h2>Figures</h2>" + "".join(parts) if parts else ""


def _transcripts(run: store.Run, n: int, seed: int) -> str:
    """Sampled questions of the best setting, in turn from each outcome."""
    files = {path.stem: path for path in run.path("evals").glob("*.oracle.jsonl")}
    name = next((s for s in ("reflector_only.oracle", "prompted.oracle") if s in files), None)
    if name is None:
        return ""
    problems = {p["id"]: p for p in run.read("data", "test.jsonl")}
    rows = evaluation.read_rows(run, name)
    random.Random(seed).shuffle(rows)
    groups = [
        [r for r in rows if (r["turn1_correct"], r["turn2_correct"]) == kind]
        for kind in ((False, True), (False, False), (True, True))
    ]
    picked = [g[i] for i in range(n) for g in groups if i < len(g)][:n]
    return f"<h2>Transcripts of {html.escape(name)}</h2>" + "".join(_transcript(r, problems[r["id"]]) for r in picked)


def _transcript(row: dict[str, Any], problem: dict[str, Any]) -> str:
    mark = "<span class=good>right</span>" if row["turn2_correct"] else "<span class=bad>wrong</span>"
    parts = {
        "Question": prompts.question_text(problem),
        "First answer": row["turn1"],
        "Reflection": row["reflection"],
        "Second answer": row["turn2"],
        "Gold": str(problem["answer"]),
    }
    shown = "".join(f"<b>{name}</b><pre>{html.escape(text)}</pre>" for name, text in parts.items() if text)
    return f"<details><summary>{html.escape(row['id'])}: {'right' if row['turn1_correct'] else 'wrong'} → {mark}</summary>{shown}</details>"


def _record(run: store.Run) -> str:
    env = json.loads(run.path("env.json").read_text()) if run.path("env.json").exists() else {}
    texts = {"Parameters": yaml.safe_dump(run.params()), "Environment": json.dumps(env, indent=1)}
    return "".join(f"<h2>{name}</h2><pre>{html.escape(text)}</pre>" for name, text in texts.items())
