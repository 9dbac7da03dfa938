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
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict

from .. import prompts, store
from ..rows import Attempt, PreferenceRow, Problem, Reflection, RewardRow, Rollout, SFTRow
from .judges import Judge, Pair, gold_answer

SFTKind = Literal["reflector", "corrector", "one_stage"]


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


def write_curated(
    rollouts: Iterable[Rollout], directory: str | Path, judge: Judge, *, seed: int = 0, judge_batch: int = 256
) -> dict[str, int]:
    """Write d_plus, d_pm, d_pref and unfiltered.jsonl to `directory`, and return how many rows each holds.

    `rollouts` is gone through several times (a list, or `store.Rows`), one row in memory at a time; the judge gets
    `judge_batch` pairs at a time. The unfiltered control has as many rows as D+.
    """

    def write(name: str, rows: Iterable[Any]) -> int:
        return store.write_jsonl(Path(directory) / f"{name}.jsonl", rows)

    counts = {
        "d_plus": write("d_plus", iter_d_plus(rollouts)),
        "d_pm": write("d_pm", iter_d_pm(rollouts, seed=seed)),
        "d_pref": write("d_pref", iter_d_pref(rollouts, judge, seed=seed, judge_batch=judge_batch)),
    }
    return counts | {"unfiltered": write("unfiltered", iter_unfiltered(rollouts, counts["d_plus"], seed))}


def d_plus(rollouts: Iterable[Rollout]) -> list[PlusRow]:
    """Reflections whose second turn is correct; the same text on the same attempt counts once."""
    return list(iter_d_plus(rollouts))


def iter_d_plus(rollouts: Iterable[Rollout]) -> Iterator[PlusRow]:
    """`d_plus`, one row at a time."""
    return (_plus(r, reflection) for r in rollouts for reflection in _distinct(r, correct=True))


def unfiltered(rollouts: Iterable[Rollout], n: int, seed: int = 0) -> list[PlusRow]:
    """The control to D+: `n` reflections drawn at random, whatever their second turn, in the file's order. Fewer where
    there are fewer. `rollouts` is gone through twice."""
    return list(iter_unfiltered(rollouts, n, seed))


def iter_unfiltered(rollouts: Iterable[Rollout], n: int, seed: int = 0) -> Iterator[PlusRow]:
    """`unfiltered`, one row at a time (selection sampling: Knuth, The Art of Computer Programming 2, 3.4.2, algorithm S)."""
    rng, left = random.Random(f"unfiltered/{seed}"), sum(len(_distinct(r)) for r in rollouts)
    for r in rollouts:
        for reflection in _distinct(r):
            if rng.random() * left < n:
                yield _plus(r, reflection)
                n -= 1
            left -= 1


def d_pm(rollouts: Iterable[Rollout], *, pairs_per_problem: int = 4, seed: int = 0) -> list[PairRow]:
    """Correct over incorrect, at most `pairs_per_problem` for each failed attempt."""
    return list(iter_d_pm(rollouts, pairs_per_problem=pairs_per_problem, seed=seed))


def iter_d_pm(rollouts: Iterable[Rollout], *, pairs_per_problem: int = 4, seed: int = 0) -> Iterator[PairRow]:
    """`d_pm`, one row at a time."""
    rng = random.Random(f"d_pm/{seed}")
    for r in rollouts:
        pairs = list(itertools.product(_distinct(r, correct=True), _distinct(r, correct=False)))
        rng.shuffle(pairs)
        yield from (_pair(r, good, bad, None) for good, bad in pairs[:pairs_per_problem])


def d_pref(rollouts: Iterable[Rollout], judge: Judge, *, pairs_per_problem: int = 2, seed: int = 0) -> list[PairRow]:
    """Pairs that both led to a correct second turn; the one that `judge` prefers is chosen, ties are dropped."""
    return list(iter_d_pref(rollouts, judge, pairs_per_problem=pairs_per_problem, seed=seed))


def iter_d_pref(
    rollouts: Iterable[Rollout], judge: Judge, *, pairs_per_problem: int = 2, seed: int = 0, judge_batch: int = 256
) -> Iterator[PairRow]:
    """`d_pref`, one row at a time; the judge gets `judge_batch` pairs at a time."""
    candidates = both_helped(rollouts, pairs_per_problem=pairs_per_problem, seed=seed)
    while batch := list(itertools.islice(candidates, judge_batch)):
        for p, preference in zip(batch, judge(batch), strict=True):
            if preference:
                yield _pair(p.rollout, *((p.a, p.b) if preference > 0 else (p.b, p.a)), abs(preference))


def both_helped(rollouts: Iterable[Rollout], *, pairs_per_problem: int = 2, seed: int = 0) -> Iterator[Pair]:
    """Pairs of reflections that both led to a correct second turn: what a judge is asked about for D^pref."""
    rng = random.Random(f"d_pref/{seed}")
    for r in rollouts:
        pairs = list(itertools.combinations(_distinct(r, correct=True), 2))
        rng.shuffle(pairs)
        yield from (Pair(r, a, b) for a, b in pairs[:pairs_per_problem])


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
    attempt.
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
    raise ValueError(f"unknown kind of SFT {kind!r}; there are reflector, corrector, one_stage")


def qa_rows(problems: Sequence[Problem]) -> list[SFTRow]:
    """q → gold answer, for every question, right or wrong at turn 1: the paper's SFT baseline, without any reflection."""
    return [
        {
            "id": p["id"],
            "task": p["task"],
            "instruction": "none",
            "prompt": prompts.answer_prompt(p),
            "completion": [{"role": "assistant", "content": gold_completion(p)}],
        }
        for p in problems
    ]


def gold_completion(problem: Problem) -> str:
    """The gold answer in the form that the answer prompt asks for, without steps."""
    answer = gold_answer(problem)
    if problem["grader"] == "code":
        return f"```python\n{answer.strip()}\n```"
    return f"Answer: \\boxed{{{answer}}}" if problem["grader"] == "math" else f"Answer: {answer}"


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


def reward_rows(rollouts: Sequence[Rollout]) -> list[RewardRow]:
    """One row for each question whose first answer was wrong: the generic reflection prompt on that attempt."""
    return [
        {
            "id": r["id"],
            "task": r["problem"]["task"],
            "instruction": "generic",
            "prompt": prompts.reflection_prompt(r["problem"], r["turn1"]["completion"]),
            "problem": r["problem"],
            "attempt": r["turn1"]["completion"],
        }
        for r in rollouts
        if not r["turn1"]["correct"]
    ]


def with_rows(sets: dict[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
    """The sets that hold rows; a printed line names each empty one, whose setting is left out of the run.

    A model that is never right after reflecting leaves nothing to train on. That is a finding, not a failure: the run
    goes on with what there is.
    """
    for name in [name for name, rows in sets.items() if not rows]:
        print(
            f"{name}: nothing to train on, this setting is left out (more questions, a higher k or another model may help)"
        )
    return {name: rows for name, rows in sets.items() if rows}


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
