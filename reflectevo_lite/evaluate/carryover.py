"""Does what was learned carry over? To tasks that were not trained on, and to another Generator (beyond the paper).

*Transfer*: a Reflector trained on the D+ of one task alone, tested on every task. *Swap*: the reflections of one
Reflector, handed to a Generator that they were not written for. Both keep their eval rows in folders of their own,
`evals/transfer/` and `evals/swap/`: they are read beside the results table, not in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from .. import curate, prompts, read, store
from ..generate import Engine, answer
from ..prompts import Mode
from ..rows import Attempt, EvalRow, Problem
from ..train import TrainParams, train_sft
from . import evaluation, stats

ALL = "all tasks"


def transfer(
    engine: Engine,
    run: store.Run,
    plus: Sequence[curate.PlusRow],
    test: Sequence[Problem],
    first: Sequence[Attempt],
    *,
    model: str,
    params: TrainParams,
    max_new_tokens: int,
) -> dict[str, list[EvalRow]]:
    """Train one Reflector on each task's rows of D+ (as many for each task: the fewest) and evaluate it on `test`.

    Returns the rows by the task trained on; they lie in `evals/transfer/<task>.oracle.jsonl`, the adapters in
    `adapters/task_<task>`. Raises ValueError where D+ has fewer than two tasks. Resumable.
    """
    rows = balanced(plus)
    if len(rows) < 2:
        raise ValueError(f"transfer needs D+ rows of two tasks or more; there is {', '.join(rows) or 'none'}")
    found = {}
    for task, kept in rows.items():
        adapter = run.path("adapters", f"task_{safe(task)}")
        train_sft(curate.sft_rows("reflector", kept), adapter, model=model, params=params)
        setting = evaluation.Setting(safe(task), reflector=adapter)
        folder = run.path("evals", "transfer")
        found[task] = evaluation.evaluate(engine, test, first, setting, folder, max_new_tokens=max_new_tokens)
    return found


def balanced(plus: Sequence[curate.PlusRow]) -> dict[str, list[curate.PlusRow]]:
    """Rows of D+ by task, the first of each, as many for each: what differs is the task, not the amount."""
    rows: dict[str, list[curate.PlusRow]] = {}
    for row in plus:
        rows.setdefault(row["problem"]["task"], []).append(row)
    fewest = min(map(len, rows.values()), default=0)
    return {task: rows[task][:fewest] for task in sorted(rows)}


def safe(task: str) -> str:
    """A task's name as a part of a file name: eval files are split at dots."""
    return "".join(c if c.isalnum() or c in "_-" else "_" for c in task)


def some_of_each(problems: Sequence[Problem], n: int) -> list[int]:
    """Places of about `n` problems, the first ones of each task, as many for each."""
    tasks = {p["task"] for p in problems}
    seen: Counter[str] = Counter()
    places = []
    for i, p in enumerate(problems):
        seen[p["task"]] += 1
        if seen[p["task"]] <= max(1, n // len(tasks)):
            places.append(i)
    return places


def transfer_table(run: store.Run, *, seed: int = 0) -> pd.DataFrame:
    """`table` of the rows that `transfer` left in a run, against prompted reflection; the Reflector trained on all tasks
    (`reflector_only`) comes last. Empty where there are none."""
    trained = {p.name.split(".")[0]: store.read_jsonl(p) for p in sorted(run.path("evals", "transfer").glob("*.jsonl"))}
    if not trained:
        return pd.DataFrame()
    asked = {r["id"] for rows in trained.values() for r in rows}
    trained[ALL] = [r for r in run.read("evals", "reflector_only.oracle.jsonl") if r["id"] in asked]
    return table(trained, run.read("evals", "prompted.oracle.jsonl"), seed=seed)


def table(trained: dict[str, Sequence[EvalRow]], baseline: Sequence[EvalRow], *, seed: int = 0) -> pd.DataFrame:
    """One row for each task trained on and each task tested on: the gain over `baseline` on the same questions.

    `trained`: eval rows by what was trained on. Columns: trained on, tested on, n, acc_t2 with its Wilson interval, and
    the paired difference with its bootstrap interval and McNemar's p; fractions.
    """
    rows = []
    for name, found in trained.items():
        for task in sorted({r["task"] for r in found}):
            some = [r for r in found if r["task"] == task]
            c = evaluation.compare(name, some, "baseline", baseline, seed)
            right = sum(r["turn2_correct"] for r in some)
            low, high = stats.wilson(right, len(some))
            rows.append(
                {
                    "trained on": name,
                    "tested on": task,
                    "n": len(some),
                    "acc_t2": right / len(some),
                    "acc low": low,
                    "acc high": high,
                    "difference": c["diff"],
                    "low": c["ci"][0],
                    "high": c["ci"][1],
                    "p": c["p_mcnemar"],
                }
            )
    return pd.DataFrame(rows)


def swap(
    engine: Engine,
    problems: Sequence[Problem],
    first: Sequence[Attempt],
    reflections: Sequence[EvalRow],
    generator: evaluation.Setting,
    out: str | Path,
    *,
    mode: Mode = "oracle",
    max_new_tokens: int = 512,
    chunk_size: int = 500,
) -> list[EvalRow]:
    """Second turns by Generator B (`engine` with `generator.corrector`) with the reflections of model A.

    `first` and `reflections` are A's first attempts and an eval file's rows of A, perhaps of another run: a reflection
    speaks of the attempt it was written on, so B is shown A's attempt too. `tokens` counts B's answers alone. Written to
    `out`; a finished file is read back. Raises ValueError where the rows are not about these problems.
    """
    if [r["id"] for r in reflections] != [p["id"] for p in problems]:
        raise ValueError("the reflections are not about these problems, in this order: take both from one run")

    def make(i: int) -> list[dict[str, Any]]:
        at = slice(i * chunk_size, (i + 1) * chunk_size)
        return _swapped(engine, problems[at], first[at], reflections[at], generator, mode, max_new_tokens)

    store.append_chunks(out, -(-len(problems) // chunk_size), make, chunk_size)
    return store.read_jsonl(out)


def _swapped(
    engine: Engine,
    problems: Sequence[Problem],
    first: Sequence[Attempt],
    reflections: Sequence[EvalRow],
    generator: evaluation.Setting,
    mode: Mode,
    max_new_tokens: int,
) -> list[dict[str, Any]]:
    going = [i for i, r in enumerate(reflections) if r["reflection"] is not None]
    asked = [
        prompts.retry_prompt(problems[i], first[i]["completion"], reflections[i]["reflection"], mode) for i in going
    ]
    found = answer(
        engine, [problems[i] for i in going], asked, max_new_tokens=max_new_tokens, adapter=generator.corrector
    )
    second = dict(zip(going, found, strict=True))
    return [evaluation.row_of(p, first[i], second.get(i), reflections[i]["reflection"]) for i, p in enumerate(problems)]


def swaps_of(run: store.Run) -> pd.DataFrame:
    """`swap_table` of the files that a run keeps in `evals/swap/<reflector>.<generator>.jsonl`; beside each its own
    Generator, the base model. Empty where there are none."""
    found: dict[tuple[str, str], list[EvalRow]] = {}
    for path in sorted(run.path("evals", "swap").glob("*.jsonl")):
        reflector, generator = path.name.split(".")[:2]
        name = read.label(reflector)
        found[name, "base model"] = run.read("evals", f"{reflector}.oracle.jsonl")
        found[name, read.label(generator)] = store.read_jsonl(path)
    return swap_table(found)


def swap_table(found: dict[tuple[str, str], Sequence[EvalRow]]) -> pd.DataFrame:
    """One row for each Reflector and Generator. `found`: eval rows by (reflector, generator), on the same questions.

    Columns: reflections of, used by, n, acc_t2, low, high (Wilson); fractions.
    """
    rows = []
    for (reflector, generator), some in found.items():
        right = sum(r["turn2_correct"] for r in some)
        low, high = stats.wilson(right, len(some))
        acc = right / max(1, len(some))
        rows.append(
            {"reflections of": reflector, "used by": generator, "n": len(some), "acc_t2": acc, "low": low, "high": high}
        )
    return pd.DataFrame(rows)
