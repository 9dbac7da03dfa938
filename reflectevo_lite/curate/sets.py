"""Rollouts sorted into training sets (paper, section 3.3), row by row, in order, with problem and turn 1 in each row.

D+          reflections whose second turn is correct
D±          pairs on one failed attempt: the chosen one led to a correct second turn, the rejected one did not
D^pref      pairs that both led to a correct second turn; a judge (`judges`) says which is preferred
unfiltered  the control to D+: as many reflections, drawn at random"""

import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from .. import store
from ..rows import Attempt, Problem, Reflection, Rollout


class PlusRow(TypedDict):
    """A row of D+ or of the unfiltered control."""

    id: str
    problem: Problem
    turn1: Attempt
    reflection: Reflection


class PairRow(TypedDict):
    """A row of D± or D^pref. `margin` is how strongly the judge prefers; None in D±."""

    id: str
    problem: Problem
    turn1: Attempt
    chosen: Reflection
    rejected: Reflection
    margin: float | None


class Pair(NamedTuple):
    """Two reflections on the same failed attempt: what a judge compares."""

    rollout: Rollout
    a: Reflection
    b: Reflection


Judge = Callable[[Sequence[Pair]], list[float]]  # one preference per pair: above 0 for a, below 0 for b, 0 for a tie


def write_curated(rollouts: Iterable[Rollout], directory: str | Path, judge: Judge, *, seed: int = 0) -> dict[str, int]:
    """Write d_plus, d_pm, d_pref and unfiltered.jsonl to `directory`; returns how many rows each holds. Goes through
    `rollouts` several times (a list, or `store.Rows`) with one row in memory at a time."""
    sets = {"d_plus": d_plus(rollouts), "d_pm": d_pm(rollouts, seed=seed), "d_pref": d_pref(rollouts, judge, seed=seed)}
    counts = {name: store.write_jsonl(Path(directory) / f"{name}.jsonl", rows) for name, rows in sets.items()}
    control = unfiltered(rollouts, counts["d_plus"], seed)
    return counts | {"unfiltered": store.write_jsonl(Path(directory) / "unfiltered.jsonl", control)}


def d_plus(rollouts: Iterable[Rollout]) -> Iterator[PlusRow]:
    """Reflections whose second turn is correct; the same text on the same attempt counts once."""
    return (_row(r, reflection=reflection) for r in rollouts for reflection in _distinct(r, correct=True))


def d_pm(rollouts: Iterable[Rollout], *, pairs_per_problem: int = 4, seed: int = 0) -> Iterator[PairRow]:
    """Correct over incorrect, at most `pairs_per_problem` for each failed attempt."""
    rng = random.Random(f"d_pm/{seed}")
    for r in rollouts:
        pairs = list(itertools.product(_distinct(r, correct=True), _distinct(r, correct=False)))
        rng.shuffle(pairs)
        yield from (_row(r, chosen=good, rejected=bad, margin=None) for good, bad in pairs[:pairs_per_problem])


def d_pref(rollouts: Iterable[Rollout], judge: Judge, *, seed: int = 0, batch: int = 256) -> Iterator[PairRow]:
    """The pairs of `both_helped`, as the judge prefers, which gets `batch` of them at a time; ties are dropped."""
    candidates = both_helped(rollouts, seed=seed)
    while pairs := list(itertools.islice(candidates, batch)):
        for p, preference in zip(pairs, judge(pairs), strict=True):
            if preference:
                chosen, rejected = (p.a, p.b) if preference > 0 else (p.b, p.a)
                yield _row(p.rollout, chosen=chosen, rejected=rejected, margin=abs(preference))


def both_helped(rollouts: Iterable[Rollout], *, seed: int = 0) -> Iterator[Pair]:
    """Pairs of reflections that both led to a correct second turn, at most two on an attempt: what a judge is asked."""
    rng = random.Random(f"d_pref/{seed}")
    for r in rollouts:
        pairs = list(itertools.combinations(_distinct(r, correct=True), 2))
        rng.shuffle(pairs)
        yield from (Pair(r, a, b) for a, b in pairs[:2])


def unfiltered(rollouts: Iterable[Rollout], n: int, seed: int = 0) -> Iterator[PlusRow]:
    """`n` reflections (or all, if fewer) drawn at random, whatever their second turn. Goes through `rollouts` twice, to
    count and to draw (selection sampling; Knuth, TAOCP 2, 3.4.2, algorithm S)."""
    rng, left = random.Random(f"unfiltered/{seed}"), sum(len(_distinct(r)) for r in rollouts)
    for r in rollouts:
        for reflection in _distinct(r):
            if rng.random() * left < n:
                yield _row(r, reflection=reflection)
                n -= 1
            left -= 1


def with_rows(sets: Mapping[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
    """The sets that hold rows; prints a line for each empty one, which is a finding, not a failure."""
    for name in (name for name, rows in sets.items() if not rows):
        print(f"{name}: nothing to train on, so it is left out (try more questions, a higher k or another model)")
    return {name: rows for name, rows in sets.items() if rows}


def _distinct(rollout: Rollout, correct: bool | None = None) -> list[Reflection]:
    """Reflections with different, non-empty texts; only those whose second turn is (in)correct, if asked."""
    found: dict[str, Reflection] = {}
    for reflection in rollout["reflections"]:
        if reflection["text"] and correct in (None, reflection["turn2"]["correct"]):
            found.setdefault(reflection["text"], reflection)
    return list(found.values())


def _row(rollout: Rollout, **columns: Any) -> Any:
    return {"id": rollout["id"], "problem": rollout["problem"], "turn1": rollout["turn1"], **columns}
