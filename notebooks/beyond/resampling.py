"""The control that spends a setting's own tokens on fresh answers (resampling.ipynb).

Answers to the bare question are sampled until the tokens of the setting's reflection and second turn are used up: at
least one, and the last may overshoot, so the control never has less than the setting.

`resample`       the verifier picks: right if any sample is (pass@k under the budget); oracle mode only
`resample_vote`  the earliest of the most frequent answers wins (self-consistency, Wang et al. 2022).
                 In oracle mode the answer known to be wrong has no vote; in intrinsic mode the first answer votes too.
                 No two pieces of code are alike, so there the earliest sample wins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reflectevo_lite import prompts, store
from reflectevo_lite.evaluate import Asked, Evaluation, how_read, row_of
from reflectevo_lite.generate import Engine, answer, chunk_seed, scores_options
from reflectevo_lite.grading import same_math
from reflectevo_lite.prompts import Mode
from reflectevo_lite.rows import Attempt, EvalRow, Problem


def resample(
    engine: Engine, asked: Asked, evaluation: Evaluation, *, temperature: float = 1.0
) -> dict[str, list[EvalRow]]:
    """Both controls of an evaluation, by control name; finished files are read back. Raises ValueError for an engine that
    answers by likelihood, FileNotFoundError unless the setting itself was evaluated: its tokens are the budget, question
    by question."""
    if any(scores_options(engine, p) for p in asked.problems):
        raise ValueError("answers by likelihood are not sampled, all fresh ones would be alike: set answer_by to text")
    base = asked.directory / evaluation.file
    if not base.exists():
        raise FileNotFoundError(f"{base} is missing: evaluate {evaluation.setting} first, its tokens are the budget")
    budgets = [r["tokens"] for r in store.read_jsonl(base)]

    def make(part: Asked, i: int) -> list[EvalRow]:
        part = part._replace(seed=chunk_seed(asked.seed, f"resample/{evaluation.setting}/{evaluation.mode}", i))
        some = budgets[i * asked.chunk_size : (i + 1) * asked.chunk_size]
        return _resampled(engine, part, some, evaluation.mode, temperature)

    found = {"resample_vote": asked.keep(evaluation._replace(control="resample_vote").file, make)}
    if evaluation.mode == "oracle":
        found["resample"] = [_verified(row) for row in found["resample_vote"]]
        store.write_jsonl(asked.directory / evaluation._replace(control="resample").file, found["resample"])
    return found


def repeated(rows: Sequence[EvalRow], first: Sequence[Attempt]) -> float | None:
    """Share of the fresh answers that repeat the first one; None if none was drawn. Near 1, sampling mends nothing."""
    samples = [(said, a["answer"]) for row, a in zip(rows, first, strict=True) for said, *_ in row.get("samples", [])]
    return sum(said == before for said, before in samples) / len(samples) if samples else None


def _resampled(engine: Engine, part: Asked, budgets: Sequence[int], mode: Mode, temperature: float) -> list[EvalRow]:
    rows = [row_of(*pair) for pair in part.pairs()]
    going = [i for i, a in enumerate(part.first) if mode == "intrinsic" or not a["correct"]]
    drawn = _spend(engine, part.at(going), [budgets[i] for i in going], temperature)
    for i, samples in zip(going, drawn, strict=True):
        winner = _vote(part.problems[i], part.first[i], samples, mode)
        rows[i] = row_of(part.problems[i], part.first[i], winner | {"tokens": sum(a["tokens"] for a in samples)})
        rows[i] |= {"turn2": None, **how_read(samples)}
        rows[i]["samples"] = [[a["answer"], a["correct"], a["tokens"]] for a in samples]
    return rows


def _spend(engine: Engine, part: Asked, budgets: Sequence[int], temperature: float) -> list[list[Attempt]]:
    """Fresh answers to each problem until its budget of tokens is used up, one draw for all problems at a time."""
    drawn: list[list[Attempt]] = [[] for _ in part.problems]
    left, going, draw = list(budgets), list(range(len(drawn))), 0
    while going:
        some = [part.problems[i] for i in going]
        asked = [prompts.answer_prompt(p) for p in some]
        how: dict[str, Any] = {"temperature": temperature, "seed": chunk_seed(part.seed, "draw", draw)}
        found = answer(engine, some, asked, max_new_tokens=part.max_new_tokens, **how)
        for i, a in zip(going, found, strict=True):
            drawn[i].append(a)
            left[i] -= max(1, a["tokens"])
        going, draw = [i for i in going if left[i] > 0], draw + 1
    return drawn


def _vote(problem: Problem, first: Attempt, samples: Sequence[Attempt], mode: Mode) -> Attempt:
    voters = [a for a in ([first, *samples] if mode == "intrinsic" else samples) if a["answer"] is not None]
    if mode == "oracle":
        voters = [a for a in voters if not _same(problem, a["answer"], first["answer"])]
    parties: list[list[Attempt]] = []
    for a in voters:
        party = next((p for p in parties if _same(problem, p[0]["answer"], a["answer"])), None)
        parties.append([a]) if party is None else party.append(a)
    return max(parties, key=len)[0] if parties else samples[0]


def _same(problem: Problem, a: str | None, b: str | None) -> bool:
    if a is None or b is None:
        return a is b
    plain = " ".join(a.casefold().split()) == " ".join(b.casefold().split())
    return plain or (problem["grader"] == "math" and same_math(a, b))


def _verified(row: dict[str, Any]) -> dict[str, Any]:
    """The row of `resample` from that of `resample_vote`: right if any sample is. How samples were read stays there."""
    right = row["turn1_correct"] or any(correct for _, correct, _ in row.get("samples", []))
    return {k: v for k, v in row.items() if k not in ("samples", "read", "truncated")} | {"turn2_correct": right}
