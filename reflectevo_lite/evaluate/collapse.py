"""Does the Reflector learn, or does it collapse? What a round's rollouts show (notebook 05)."""

import itertools
import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pandas as pd

from .. import embedded, prompts


def watch(by_round: dict[int, Sequence[Any]]) -> pd.DataFrame:
    """What tells a Reflector that learns from one that collapses, for each round's rollouts. All on as many reflections
    for every round (the fewest of any), evenly spaced so that every task keeps its share: round, reflections; corrected
    (share that led to a right answer); distinct (share of different texts); distinct_2 (share of different word pairs,
    Li et al. 2016); same_place (share that blames the place blamed most often); copied (share of a reflection's word
    triples that stand in the question or the attempt); words (mean length); true (share that is true in every
    part, where that is known)."""
    pooled = {r: [(row, x) for row in found for x in row["reflections"]] for r, found in by_round.items()}
    n = min(map(len, pooled.values()), default=0)
    spaced = {r: [pairs[i * len(pairs) // n] for i in range(n)] for r, pairs in pooled.items()}
    return pd.DataFrame([{"round": r, **_habits(pairs)} for r, pairs in spaced.items()])


def _habits(pairs: Sequence[tuple[Any, Any]]) -> dict[str, float]:
    texts = [x["text"] for _, x in pairs]
    n, words = max(1, len(texts)), [t.split() for t in texts]
    bigrams = [pair for w in words for pair in itertools.pairwise(w)]
    blamed = Counter(place for t in texts if (place := _place(t)) is not None)
    return {
        "reflections": len(texts),
        "corrected": sum(x["turn2"]["correct"] for _, x in pairs) / n,
        "distinct": len(set(texts)) / n,
        "distinct_2": len(set(bigrams)) / max(1, len(bigrams)),
        "same_place": max(blamed.values(), default=0) / n,
        "copied": sum(_copied(row, x["text"]) for row, x in pairs) / n,
        "words": sum(map(len, words)) / n,
        "true": _true(pairs),
    }


def _true(pairs: Sequence[tuple[Any, Any]]) -> float:
    found = [embedded.truth(r["problem"], r["turn1"]["completion"], x["text"]) for r, x in pairs]
    known = [t.whole for t in found if t]
    return sum(known) / len(known) if known else math.nan


def _copied(row: Any, text: str) -> float:
    own, known = triples(text), set(triples(f"{prompts.question_text(row['problem'])}\n{row['turn1']['completion']}"))
    return sum(t in known for t in own) / max(1, len(own))


def triples(text: str) -> list[tuple[str, ...]]:
    """Every three words in a row."""
    words = text.split()
    return list(zip(words, words[1:], words[2:], strict=False))


def _place(text: str) -> str | None:
    """The place that a reflection blames: as the embedded tasks put it, else the first step that it mentions."""
    found, place = re.search(r"\b[Ss]tep (\d+)", text), embedded.blamed(text)
    return str(place) if place is not None else found[1] if found else None


HARVEST = ("reflections", "corrected", "distinct", "words")
SIGNS = {  # column of `watch` → (what a collapse does to it, in words; how far it may move against round 1)
    "distinct": ("fewer different reflections", 0.5),
    "distinct_2": ("fewer different word pairs", 0.5),
    "words": ("shorter reflections", 0.5),
    "same_place": ("more reflections that blame one and the same place", 1.5),
    "copied": ("more text copied from the question or the attempt", 1.5),
    "true": ("fewer true reflections", 0.9),
}


def collapse_warnings(frame: pd.DataFrame) -> list[str]:
    """Plain words for every sign of collapse that a round of `watch` shows against the first, or, in truth, against the
    best before it. Rule of thumb: a share may halve (diversity, length), fall by a tenth (truth) or grow by half (one
    place, copied text); growing shares under 0.1 pass."""
    warnings, rows = [], frame.to_dict("records")
    for i, row in enumerate(rows[1:], 1):
        for column, (words, limit) in SIGNS.items():
            start = max(rows[:i], key=lambda r: r["true"]) if column == "true" else rows[0]
            ratio = row[column] / start[column] if start[column] else float(row[column] > 0) * limit
            if ratio < limit if limit < 1 else ratio >= limit and row[column] > 0.1:
                yields = "rose" if row["corrected"] > start["corrected"] else "did not rise"
                shown = f"Round {row['round']:.0f} shows {words} than round {start['round']:.0f}"
                moved = f"{column} {start[column]:.2f} → {row[column]:.2f}"
                helps = f"the share that helps {yields} ({start['corrected']:.0%} → {row['corrected']:.0%})"
                warnings.append(f"{shown}: {moved}, while {helps}. Read some before you go on.")
    return warnings


def harvest(found: Sequence[Any]) -> dict[str, float]:
    """What a round's rollouts yielded: reflections, the share that led to a right answer, how varied and how long."""
    habits = _habits([(row, x) for row in found for x in row["reflections"]])
    return {name: habits[name] for name in HARVEST}
