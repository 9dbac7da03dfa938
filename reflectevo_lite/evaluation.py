"""Acc@t1, Acc@t2 and what they are worth: settings, controls, intervals (paper, section 4; statistics beyond it).

Turn 1 is the untouched Generator's, greedy, and shared by all settings. In *oracle* mode only wrong first answers go
on to a second turn (the paper's way, so Acc@t2 cannot fall below Acc@t1); in *intrinsic* mode every answer does and no
verdict is given. Rows are kept one per question; every figure is computed from the rows and can be recomputed.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from . import prompts, store
from .engines import Adapter, Engine
from .prompts import Mode
from .rollouts import answer, graded
from .rows import Attempt, EvalRow, Problem

CONTROLS = (None, "retry", "shuffled")


class Setting(NamedTuple):
    """Which weights write what. None stands for the untouched base model."""

    name: str
    reflector: Adapter = None
    corrector: Adapter = None
    one_stage: bool = False  # reflection and second attempt in one completion, by `reflector`


def first_turns(
    engine: Engine, problems: Sequence[Problem], out: str | Path, *, max_new_tokens: int, chunk_size: int = 500
) -> list[Attempt]:
    """Greedy first attempts, one per problem, kept in `out`; a finished file is read back."""

    def make(i: int) -> list[Attempt]:
        part = problems[i * chunk_size : (i + 1) * chunk_size]
        return answer(engine, part, [prompts.answer_prompt(p) for p in part], max_new_tokens=max_new_tokens)

    store.append_chunks(out, -(-len(problems) // chunk_size), make, chunk_size)
    return store.read_jsonl(out)


def evaluate(
    engine: Engine,
    problems: Sequence[Problem],
    first: Sequence[Attempt],
    setting: Setting,
    directory: str | Path,
    *,
    mode: Mode = "oracle",
    control: str | None = None,
    turns: int = 2,
    max_new_tokens: int = 512,
    seed: int = 0,
    chunk_size: int = 500,
) -> list[EvalRow]:
    """Second (and further) turns of a setting, written to `<directory>/<setting>.<mode>[.<control>].jsonl`.

    `control`: None, "retry" (answer again without a reflection) or "shuffled" (with the reflection on another problem).
    From turn 3 on, the latest attempt takes the first one's place. A finished file is read back.
    """
    if control not in CONTROLS:
        raise ValueError(f"unknown control {control!r}; there are retry and shuffled")
    name = ".".join([setting.name, mode, *([control] if control else [])])

    def make(i: int) -> list[EvalRow]:
        part = slice(i * chunk_size, (i + 1) * chunk_size)
        return _chunk(engine, problems[part], first[part], setting, mode, control, turns, max_new_tokens, seed)

    out = Path(directory) / f"{name}.jsonl"
    store.append_chunks(out, -(-len(problems) // chunk_size), make, chunk_size)
    return store.read_jsonl(out)


def evaluate_answers(
    engine: Engine,
    problems: Sequence[Problem],
    first: Sequence[Attempt],
    name: str,
    adapter: Adapter,
    directory: str | Path,
    *,
    max_new_tokens: int = 512,
    chunk_size: int = 500,
) -> list[EvalRow]:
    """A model that was tuned to answer, not to reflect: its own first turn, as `<directory>/<name>.oracle.jsonl`.

    It answers every question anew from the question alone, so in metrics.json `acc_t1` is the untouched model's accuracy
    (as in every row), `acc_t2` the tuned model's own ("t1 only" in the paper), `delta` the difference, and the flip c→i
    counts what tuning broke. Nothing is told to it; "oracle" merely places the row in the paper's table.
    """

    def make(i: int) -> list[EvalRow]:
        part = slice(i * chunk_size, (i + 1) * chunk_size)
        asked = [prompts.answer_prompt(p) for p in problems[part]]
        found = answer(engine, problems[part], asked, max_new_tokens=max_new_tokens, adapter=adapter)
        return [_answered(p, a, b) for p, a, b in zip(problems[part], first[part], found, strict=True)]

    out = Path(directory) / f"{name}.oracle.jsonl"
    store.append_chunks(out, -(-len(problems) // chunk_size), make, chunk_size)
    return store.read_jsonl(out)


def _answered(problem: Problem, before: Attempt, after: Attempt) -> EvalRow:
    return {
        "id": problem["id"],
        "task": problem["task"],
        "turn1_correct": before["correct"],
        "turn2_correct": after["correct"],
        "correct": [before["correct"], after["correct"]],
        "turn1": before["completion"],
        "reflection": None,
        "turn2": after["completion"],
        "tokens": after["tokens"],
        "turn_tokens": [after["tokens"]],
    }


def _chunk(
    engine: Engine,
    problems: Sequence[Problem],
    first: Sequence[Attempt],
    setting: Setting,
    mode: Mode,
    control: str | None,
    turns: int,
    max_new_tokens: int,
    seed: int,
) -> list[EvalRow]:
    rows: list[dict[str, Any]] = [
        {
            "id": p["id"],
            "task": p["task"],
            "turn1_correct": a["correct"],
            "turn2_correct": a["correct"],
            "correct": [a["correct"]],
            "turn1": a["completion"],
            "reflection": None,
            "turn2": None,
            "tokens": 0,
            "turn_tokens": [],
        }
        for p, a in zip(problems, first, strict=True)
    ]
    latest = list(first)
    for turn in range(2, turns + 1):
        going = [i for i, attempt in enumerate(latest) if mode == "intrinsic" or not attempt["correct"]]
        found = _turn(
            engine,
            [problems[i] for i in going],
            [latest[i] for i in going],
            setting,
            mode,
            control,
            max_new_tokens,
            seed,
        )
        for i, (reflection, attempt, tokens) in zip(going, found, strict=True):
            latest[i] = attempt
            rows[i]["turn_tokens"].append(tokens)
            if turn == 2:
                rows[i] |= {
                    "turn2_correct": attempt["correct"],
                    "reflection": reflection,
                    "turn2": attempt["completion"],
                    "tokens": tokens,
                }
        for row, attempt in zip(rows, latest, strict=True):
            row["correct"] = [*row["correct"], attempt["correct"]]
    return rows


def _turn(
    engine: Engine,
    problems: list[Problem],
    attempts: list[Attempt],
    setting: Setting,
    mode: Mode,
    control: str | None,
    max_new_tokens: int,
    seed: int,
) -> list[tuple[str | None, Attempt, int]]:
    """(reflection, next attempt, tokens spent) for each."""
    texts = [a["completion"] for a in attempts]
    if setting.one_stage and control is None:
        return _one_stage_turn(engine, problems, texts, setting, mode, max_new_tokens)
    reflections: list[str | None] = [None] * len(problems)
    spent = [0] * len(problems)
    if control != "retry":
        asked = [prompts.reflection_prompt(p, t, mode=mode) for p, t in zip(problems, texts, strict=True)]
        found = [c[0] for c in engine.generate(asked, max_new_tokens=max_new_tokens, adapter=setting.reflector)]
        reflections, spent = [c.text for c in found], [c.tokens for c in found]
    if control == "shuffled":
        reflections = shuffled(reflections, seed)
    asked = [prompts.retry_prompt(p, t, r, mode) for p, t, r in zip(problems, texts, reflections, strict=True)]
    found = answer(engine, problems, asked, max_new_tokens=max_new_tokens, adapter=setting.corrector)
    return [(r, a, s + a["tokens"]) for r, a, s in zip(reflections, found, spent, strict=True)]


def _one_stage_turn(
    engine: Engine,
    problems: list[Problem],
    texts: list[str],
    setting: Setting,
    mode: Mode,
    max_new_tokens: int,
) -> list[tuple[str | None, Attempt, int]]:
    asked = [prompts.one_stage_prompt(p, t, mode) for p, t in zip(problems, texts, strict=True)]
    found = [c[0] for c in engine.generate(asked, max_new_tokens=2 * max_new_tokens, adapter=setting.reflector)]
    parts = [prompts.split_one_stage(c.text) for c in found]
    attempts = graded(problems, asked, [c._replace(text=second) for c, (_, second) in zip(found, parts, strict=True)])
    return [(reflection, a, a["tokens"]) for (reflection, _), a in zip(parts, attempts, strict=True)]


def shuffled(items: Sequence[Any], seed: int) -> list[Any]:
    """A seeded derangement by rotation of a random order: nothing stays in its place (where there are two or more)."""
    order = list(range(len(items)))
    random.Random(f"shuffled/{seed}").shuffle(order)
    moved = list(items)
    for a, b in zip(order, order[1:] + order[:1], strict=True):
        moved[a] = items[b]
    return moved


# -- Figures from rows ---------------------------------------------------------------------------------------------------
def metrics(
    directory: str | Path, *, seed: int = 0, baseline: str = "prompted.oracle"
) -> dict[str, list[dict[str, Any]]]:
    """All figures of a directory of eval files, as metrics.json holds them (see README, "The numbers").

    `rows`: one per file and task (and "all"); fractions in 0..1. `comparisons`: every file against every control of its
    mode and against `baseline`, on the same questions.
    """
    files = {path.stem: store.read_jsonl(path) for path in sorted(Path(directory).glob("*.*.jsonl"))}
    rows = [
        describe(name, task, [r for r in found if task in ("all", r["task"])], seed)
        for name, found in files.items()
        for task in ["all", *sorted({r["task"] for r in found})]
    ]
    comparisons = [
        compare(a, files[a], b, files[b], seed)
        for a in files
        for b in files
        if a != b and a.split(".")[1] == b.split(".")[1] and (b == baseline or _is_own_control(a, b))
    ]
    return {"rows": rows, "comparisons": comparisons}


def _is_own_control(a: str, b: str) -> bool:
    return (
        len(b.split(".")) == 3
        and len(a.split(".")) == 2
        and b.split(".")[0] in (a.split(".")[0], "prompted", "unfiltered")
    )


def describe(name: str, task: str, rows: Sequence[EvalRow], seed: int) -> dict[str, Any]:
    """One row of metrics.json from the rows of one eval file (of one task, or "all")."""
    setting, mode, control = [*name.split("."), None][:3]
    first = np.array([r["turn1_correct"] for r in rows], bool)
    second = np.array([r["turn2_correct"] for r in rows], bool)
    flips = {"cc": first & second, "ci": first & ~second, "ic": ~first & second, "ii": ~first & ~second}
    return {
        "setting": setting,
        "mode": mode,
        "control": control,
        "task": task,
        "n": len(rows),
        "acc_t1": _mean(first),
        "acc_t2": _mean(second),
        "delta": _mean(second) - _mean(first),
        "delta_ci": bootstrap_ci(second.astype(int) - first.astype(int), seed),
        "flips": {k: int(v.sum()) for k, v in flips.items()},
        "tokens": int(sum(r["tokens"] for r in rows)),
    }


def compare(name_a: str, a: Sequence[EvalRow], name_b: str, b: Sequence[EvalRow], seed: int = 0) -> dict[str, Any]:
    """Paired difference of Acc@t2 on the questions that two files share: a − b."""
    second = {r["id"]: r["turn2_correct"] for r in b}
    pairs = [(r["turn2_correct"], second[r["id"]]) for r in a if r["id"] in second]
    x, y = np.array(pairs, bool).reshape(-1, 2).T
    wins, losses = int((x & ~y).sum()), int((~x & y).sum())
    return {
        "a": name_a,
        "b": name_b,
        "diff": _mean(x) - _mean(y),
        "ci": bootstrap_ci(x.astype(int) - y.astype(int), seed),
        "p_mcnemar": mcnemar(wins, losses),
        "mde": smallest_detectable((wins + losses) / max(1, len(pairs)), len(pairs)),
        "n": len(pairs),
    }


def bootstrap_ci(differences: np.ndarray, seed: int = 0, resamples: int = 10_000) -> list[float]:
    """95 % percentile interval of the mean of paired differences in {−1, 0, 1}, resampling problems.

    Resampling n values out of three kinds is one multinomial draw per resample (Efron & Tibshirani 1993, ch. 13).
    [0, 0] where there is no problem.
    """
    n = len(differences)
    if n == 0:
        return [0.0, 0.0]
    shares = np.array([(differences == v).sum() for v in (-1, 0, 1)]) / n
    draws = np.random.default_rng(seed).multinomial(n, shares, size=resamples)
    low, high = np.percentile((draws[:, 2] - draws[:, 0]) / n, [2.5, 97.5])
    return [float(low), float(high)]


def mcnemar(wins: int, losses: int) -> float:
    """Exact two-sided p of McNemar's test (McNemar 1947): discordant pairs under a fair coin; 1 where there are none."""
    from scipy.stats import binomtest

    return float(binomtest(wins, wins + losses, 0.5).pvalue) if wins + losses else 1.0


def smallest_detectable(discordant: float, n: int, alpha: float = 0.05, power: float = 0.8) -> float | None:
    """The smallest difference of two paired rates that n problems show with this power.

    Normal approximation: (z_{1−α/2} + z_{power}) · sqrt(share of discordant pairs / n) (Connor 1987). None for n = 0.
    """
    from scipy.stats import norm

    if n == 0:
        return None
    return float((norm.ppf(1 - alpha / 2) + norm.ppf(power)) * math.sqrt(max(discordant, 1 / n) / n))


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else 0.0
