"""Every figure of a run from its eval rows, as metrics.json holds them; `tests/recompute.py` recomputes them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import store
from ..rows import EvalRow
from .settings import BASELINE, UNFILTERED_CONTROL, Evaluation, setting
from .stats import bootstrap_ci, holm, mcnemar, smallest_detectable, wilson

SHARE, PAIRED = ("n", "acc_t2", "low", "high"), ("difference", "diff low", "diff high", "p")  # columns of tables


def metrics(
    directory: str | Path, *, seed: int = 0, extra: Sequence[tuple[Evaluation, Evaluation]] = ()
) -> dict[str, list[dict[str, Any]]]:
    """All figures of a directory of eval files, in the form of metrics.json (README, "What the numbers mean"). `rows`:
    one per file and task (and "all"); fractions. `comparisons`: paired differences of Acc@t2 (`compared` says which;
    `extra` names further pairs), with Holm's correction over all of them."""
    files = {Evaluation.parse(p.name): store.read_jsonl(p) for p in sorted(Path(directory).glob("*.*.jsonl"))}
    rows = [
        describe(name, task, [r for r in found if task in ("all", r["task"])], seed)
        for name, found in files.items()
        for task in ["all", *sorted({r["task"] for r in found})]
    ]
    pairs = compared(files)
    pairs += [(a, b) for a, b in extra if {a, b} <= set(files) and not {(a, b), (b, a)} & set(pairs)]
    comparisons = [compare(a.stem, files[a], b.stem, files[b], seed) for a, b in pairs]
    return {"rows": rows, "comparisons": correct_for_many(comparisons)}


def compared(names: Iterable[Evaluation]) -> list[tuple[Evaluation, Evaluation]]:
    """Which evaluations are compared, each pair once, within a mode: all with the prompted baseline; every setting with
    the baseline's controls, its own, and the one trained on unfiltered reflections; every round with the one before."""
    pairs = dict[tuple[Evaluation, Evaluation], None]()
    for a, b in itertools.permutations(names, 2):
        if b.control is None:
            trained = a.control is None and a.setting != BASELINE
            others = (UNFILTERED_CONTROL, setting(a.setting).before)
            wanted = b.setting == BASELINE or (trained and b.setting in others)
        else:
            wanted = a.control is None and b.setting in (a.setting, BASELINE)
        if wanted and a.mode == b.mode and (b, a) not in pairs:
            pairs[a, b] = None
    return list(pairs)


def correct_for_many(comparisons: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The comparisons with Holm's p over all of them and what follows: `significant` at a family-wise 5 %."""
    adjusted = holm([c["p_mcnemar"] for c in comparisons])
    return [c | {"p_holm": p, "significant": p < 0.05} for c, p in zip(comparisons, adjusted, strict=True)]


def describe(name: Evaluation, task: str, rows: Sequence[EvalRow], seed: int) -> dict[str, Any]:
    """One row of metrics.json from the rows of one evaluation (of one task, or "all")."""
    first = np.array([r["turn1_correct"] for r in rows], bool)
    second = np.array([r["turn2_correct"] for r in rows], bool)
    flips = {"cc": first & second, "ci": first & ~second, "ic": ~first & second, "ii": ~first & ~second}
    return {
        **name._asdict(),
        "task": task,
        "n": len(rows),
        "acc_t1": _mean(first),
        "acc_t1_ci": wilson(first.sum(), len(rows)),
        "acc_t2": _mean(second),
        "acc_t2_ci": wilson(second.sum(), len(rows)),
        "delta": _mean(second) - _mean(first),
        "delta_ci": bootstrap_ci(second.astype(int) - first.astype(int), seed),
        "flips": {k: int(v.sum()) for k, v in flips.items()},
        "tokens": int(sum(r["tokens"] for r in rows)),
        "turns": by_turn(rows),
    }


def by_turn(rows: Sequence[EvalRow]) -> list[dict[str, Any]]:
    """Acc@t of each turn that was run, its Wilson interval, and its tokens on all questions (0 for turn 1)."""
    found, n = list[dict[str, Any]](), len(rows)
    tokens = [[0, *r.get("turn_tokens", [r["tokens"]])] for r in rows]
    correct = zip(*(r.get("correct") or [r["turn1_correct"], r["turn2_correct"]] for r in rows), strict=True)
    for t, right in enumerate(map(sum, correct)):
        spent = sum(own[t] for own in tokens if t < len(own))
        found.append({"turn": t + 1, "acc": right / n, "ci": wilson(right, n), "tokens": spent})
    return found


def compare(name_a: str, a: Sequence[EvalRow], name_b: str, b: Sequence[EvalRow], seed: int = 0) -> dict[str, Any]:
    """Paired difference of Acc@t2 on the questions that two files share: a − b. `wins`: those that only a gets right,
    `losses`: that only b does; `mde`: the smallest difference that they would show (`smallest_detectable`)."""
    second = {r["id"]: r["turn2_correct"] for r in b}
    pairs = [(r["turn2_correct"], second[r["id"]]) for r in a if r["id"] in second]
    x, y = np.array(pairs, bool).reshape(-1, 2).T
    wins, losses = int((x & ~y).sum()), int((~x & y).sum())
    found = {"a": name_a, "b": name_b, "diff": _mean(x) - _mean(y), "ci": bootstrap_ci(x.astype(int) - y, seed)}
    mde = smallest_detectable((wins + losses) / max(1, len(pairs)), len(pairs))
    return found | {"p_mcnemar": mcnemar(wins, losses), "mde": mde, "n": len(pairs), "wins": wins, "losses": losses}


def share(rows: Sequence[EvalRow]) -> tuple[float, ...]:
    """n, Acc@t2, and the bounds of its Wilson interval (`SHARE`)."""
    n, right = len(rows), sum(r["turn2_correct"] for r in rows)
    return (n, right / max(1, n), *wilson(right, n))


def paired(a: Sequence[EvalRow], b: Sequence[EvalRow], seed: int) -> tuple[float, ...]:
    """What `compare` finds, as the columns `PAIRED` of a table."""
    found = compare("a", a, "b", b, seed)
    return (found["diff"], *found["ci"], found["p_mcnemar"])


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else 0.0
