"""From rollouts to training data: D+, D± and D^pref (paper, section 3.3), and the rows TRL trains on.

    D+      reflections whose second turn is correct
    D±      pairs on one failed attempt: the chosen one led to a correct second turn, the rejected one did not
    D^pref  pairs that both led to a correct second turn; a judge (`judges`) says which is preferred

A curated row carries its problem and turn 1 whole. The reflection is trained on from the generic prompt, the one used
at test time; the instruction under which it was sampled stays in the row (`reflect_prompt="sent"` trains on that).
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from typing import Any, Literal, TypedDict

from . import prompts
from .judges import Judge, Pair, gold_answer
from .rows import Attempt, PreferenceRow, Problem, Reflection, Rollout, SFTRow

SFTKind = Literal["reflector", "corrector", "one_stage", "qa"]


class PlusRow(TypedDict):
    """A row of D+ (or of the unfiltered control)."""

    id: str
    problem: Problem
    turn1: Attempt
    reflection: Reflection


class PairRow(TypedDict):
    """A row of D± or D^pref. `margin` is the judge's preference, None in D±."""

    id: str
    problem: Problem
    turn1: Attempt
    chosen: Reflection
    rejected: Reflection
    margin: float | None


def d_plus(rollouts: Sequence[Rollout]) -> list[PlusRow]:
    """Reflections whose second turn is correct; the same text on the same attempt counts once."""
    return [_plus(r, reflection) for r in rollouts for reflection in _distinct(r, correct=True)]


def unfiltered(rollouts: Sequence[Rollout], n: int, seed: int = 0) -> list[PlusRow]:
    """The control to D+: `n` reflections drawn at random, whatever their second turn. Fewer where there are fewer."""
    rows = [_plus(r, reflection) for r in rollouts for reflection in _distinct(r)]
    return random.Random(f"unfiltered/{seed}").sample(rows, min(n, len(rows)))


def d_pm(rollouts: Sequence[Rollout], *, pairs_per_problem: int = 4, seed: int = 0) -> list[PairRow]:
    """Correct over incorrect, at most `pairs_per_problem` for each failed attempt."""
    rng, rows = random.Random(f"d_pm/{seed}"), []
    for r in rollouts:
        pairs = list(itertools.product(_distinct(r, correct=True), _distinct(r, correct=False)))
        rng.shuffle(pairs)
        rows += [_pair(r, good, bad, None) for good, bad in pairs[:pairs_per_problem]]
    return rows


def both_helped(rollouts: Sequence[Rollout], *, pairs_per_problem: int = 2, seed: int = 0) -> list[Pair]:
    """Pairs of reflections that both led to a correct second turn: what a judge is asked about for D^pref."""
    rng, found = random.Random(f"d_pref/{seed}"), []
    for r in rollouts:
        pairs = list(itertools.combinations(_distinct(r, correct=True), 2))
        rng.shuffle(pairs)
        found += [Pair(r, a, b) for a, b in pairs[:pairs_per_problem]]
    return found


def d_pref(rollouts: Sequence[Rollout], judge: Judge, *, pairs_per_problem: int = 2, seed: int = 0) -> list[PairRow]:
    """Pairs that both led to a correct second turn; the one that `judge` prefers is chosen, ties are dropped."""
    pairs = both_helped(rollouts, pairs_per_problem=pairs_per_problem, seed=seed)
    return [
        _pair(p.rollout, *((p.a, p.b) if preference > 0 else (p.b, p.a)), abs(preference))
        for p, preference in zip(pairs, judge(pairs), strict=True)
        if preference
    ]


def top_gain(rows: Sequence[PlusRow], gains: Sequence[float], share: float = 0.5) -> list[PlusRow]:
    """The `share` of rows with the largest gain (`judges.gain`), in their order: gain as a filter.

    At least one row where there is any; of equal gains the earlier one. Raises ValueError for a share outside (0, 1].
    """
    best = sorted(range(len(rows)), key=lambda i: (-gains[i], i))[: _size(rows, share)]
    return [rows[i] for i in sorted(best)]


def random_share(rows: Sequence[PlusRow], share: float = 0.5, seed: int = 0) -> list[PlusRow]:
    """The control to `top_gain`: as many rows, drawn at random, in their order."""
    drawn = random.Random(f"random_share/{seed}").sample(range(len(rows)), _size(rows, share))
    return [rows[i] for i in sorted(drawn)]


def _size(rows: Sequence[PlusRow], share: float) -> int:
    if not 0 < share <= 1:
        raise ValueError(f"share must lie above 0 and at most at 1, not at {share}")
    return min(len(rows), max(1, int(share * len(rows))))


# -- What TRL trains on --------------------------------------------------------------------------------------------------
def sft_rows(
    kind: SFTKind, rows: Sequence[PlusRow], *, reflect_prompt: Literal["generic", "sent"] = "generic"
) -> list[SFTRow]:
    """Conversational prompt/completion rows.

    `reflector`: q, attempt → r · `corrector`: q, attempt, r → second attempt · `one_stage`: q, attempt → r and second
    attempt · `qa`: q → gold answer (the paper's SFT baseline, no reflection).
    """
    return [
        {
            "id": row["id"],
            "task": row["problem"]["task"],
            "instruction": row["reflection"]["instruction"],
            "prompt": prompt,
            "completion": [{"role": "assistant", "content": completion}],
        }
        for row in rows
        for prompt, completion in [_sft_example(kind, row, reflect_prompt)]
    ]


def _sft_example(kind: SFTKind, row: PlusRow, reflect_prompt: str) -> tuple[list, str]:
    problem, attempt, reflection = row["problem"], row["turn1"]["completion"], row["reflection"]
    if kind == "reflector":
        sent = reflect_prompt == "sent"
        return reflection["prompt"] if sent else prompts.reflection_prompt(problem, attempt), reflection["text"]
    if kind == "corrector":
        return reflection["turn2"]["prompt"], reflection["turn2"]["completion"]
    if kind == "one_stage":
        return prompts.one_stage_prompt(problem, attempt), prompts.join_one_stage(
            reflection["text"], reflection["turn2"]["completion"]
        )
    if kind == "qa":
        return prompts.answer_prompt(problem), f"Answer: {gold_answer(problem)}"
    raise ValueError(f"unknown kind of SFT {kind!r}; there are reflector, corrector, one_stage, qa")


def preference_rows(rows: Sequence[PairRow]) -> list[PreferenceRow]:
    """DPO rows: generic reflection prompt, chosen and rejected reflection."""
    return [
        {
            "id": row["id"],
            "task": row["problem"]["task"],
            "instruction": row["chosen"]["instruction"],
            "prompt": prompts.reflection_prompt(row["problem"], row["turn1"]["completion"]),
            "chosen": [{"role": "assistant", "content": row["chosen"]["text"]}],
            "rejected": [{"role": "assistant", "content": row["rejected"]["text"]}],
        }
        for row in rows
    ]


# -- Small helpers -------------------------------------------------------------------------------------------------------
def _distinct(rollout: Rollout, correct: bool | None = None) -> list[Reflection]:
    """Reflections with different, non-empty texts that were not cut off; only (in)correct ones where asked."""
    found: dict[str, Reflection] = {}
    for reflection in rollout["reflections"]:
        if reflection["text"] and correct in (None, reflection["turn2"]["correct"]):
            found.setdefault(reflection["text"], reflection)
    return list(found.values())


def _plus(rollout: Rollout, reflection: Reflection) -> PlusRow:
    return {"id": rollout["id"], "problem": rollout["problem"], "turn1": rollout["turn1"], "reflection": reflection}


def _pair(rollout: Rollout, chosen: Reflection, rejected: Reflection, margin: float | None) -> PairRow:
    head: dict[str, Any] = {"id": rollout["id"], "problem": rollout["problem"], "turn1": rollout["turn1"]}
    return head | {"chosen": chosen, "rejected": rejected, "margin": margin}
