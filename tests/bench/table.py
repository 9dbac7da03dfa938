"""Comparisons in rounds, and the one writer of tables: figures as JSON, and as Markdown with the machine beneath."""

import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from reflectevo_lite import store

Work = Callable[[int], float]  # does the work of a round, and returns how much it was
Pair = tuple[float, float]  # our rate and the other one
COMPARISON = " | rate | against | rate | ratio (lowest to highest round)"


def paired(ours: Work, theirs: Work, rounds: int) -> Iterator[Pair]:
    """Work done a second, round by round after a warm-up, in swapped order: what else the machine does hits both."""
    for i in range(-1, rounds):
        found = {}
        for work in (theirs, ours) if i % 2 else (ours, theirs):
            began = time.perf_counter()
            found[work] = work(max(i, 0)) / (time.perf_counter() - began)
        if i >= 0:
            yield found[ours], found[theirs]


def comparison(measure: str, unit: str, against: str, pairs: Iterable[Pair]) -> dict[str, Any]:
    """A row: medians of both rates over the rounds, and the median, lowest and highest ratio of a round."""
    ours, theirs = zip(*pairs, strict=True)
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    rates = {"rate": statistics.median(ours), "against": against, "baseline": statistics.median(theirs)}
    spread = {"ratio": statistics.median(ratios), "low": min(ratios), "high": max(ratios), "rounds": len(ratios)}
    return {"measure": measure, "unit": unit} | rates | spread


def lines(rows: Iterable[dict[str, Any]]) -> list[str]:
    """Comparisons as lines of a table headed by `COMPARISON`."""
    form = "{measure} | {rate:,.1f} {unit} | {against} | {baseline:,.1f} | **{ratio:.3g}×** ({low:.3g} to {high:.3g})"
    return [form.format(**row) for row in rows]


def write(path: Path, head: str, body: Iterable[str], note: str, found: dict[str, Any]) -> str:
    """Write `<path>.json` (`found` and the machine) and `<path>.md` (table, `note`, machine); returns the Markdown."""
    env = store.environment()
    versions = ", ".join(f"{name} {version}" for name, version in env["versions"].items())
    rule = " | ".join(["---"] * len(head.split("|")))
    table = [f"| {line} |" for line in (head, rule, *body)]
    text = "\n".join([*table, "", f"{note} {env['gpu'] or 'No GPU'}, {env['cpus']} CPUs; {versions}.", ""])
    store.write_json(path.with_suffix(".json"), {"environment": env} | found)
    store.write_text(path.with_suffix(".md"), text)
    return text
