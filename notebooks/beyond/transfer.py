"""Does what was learned carry over? To tasks that were not trained on, and to another Generator (beyond the paper).

*Transfer*: a Reflector trained on the D+ of one task alone, tested on every task. *Swap*: the reflections of one
Reflector, handed to a Generator that they were not written for. Both are read beside the results table, not in it."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from reflectevo_lite import curate, prompts, store
from reflectevo_lite.evaluate import (
    BASELINE, SHARE, Asked, Evaluation, Setting, evaluate, label, paired, round_setting, row_of, share,
)  # fmt: skip
from reflectevo_lite.generate import Adapter, Engine, answer
from reflectevo_lite.rows import EvalRow
from reflectevo_lite.train import TrainParams, train_sft

from .pictures import heat


def transfer(
    engine: Engine, run: store.Run, plus: Sequence[curate.PlusRow], asked: Asked, p: Any
) -> dict[str, list[EvalRow]]:
    """Train one Reflector on each task's `balanced` rows of D+ and evaluate it on `asked`. Resumable. Returns the rows
    by the task trained on, kept in `evals/transfer/`; the adapters lie in `adapters/task_<task>`. Raises ValueError if
    D+ has fewer than two tasks. `p`: the run's parameters."""
    by_task, found = balanced(plus), {}
    if len(by_task) < 2:
        raise ValueError(f"transfer needs D+ rows of two tasks or more; there is {', '.join(by_task) or 'none'}")
    asked = asked._replace(directory=run.path("evals", "transfer"))
    for task, kept in by_task.items():
        adapter, rows = run.path("adapters", f"task_{safe(task)}"), curate.examples("reflector", kept)
        train_sft(rows, adapter, model=p.model, params=TrainParams.of("sft", p))
        found[task] = evaluate(engine, asked, Setting(safe(task), reflector=adapter))
    return found


def balanced(plus: Sequence[curate.PlusRow]) -> dict[str, list[curate.PlusRow]]:
    """The first rows of D+ of each task, as many for each: what differs is the task, not the amount."""
    rows: dict[str, list[curate.PlusRow]] = {}
    for row in plus:
        rows.setdefault(row["problem"]["task"], []).append(row)
    return {task: rows[task][: min(map(len, rows.values()))] for task in sorted(rows)}


def safe(task: str) -> str:
    """A task's name as a part of a file name: eval files are split at dots."""
    return "".join(c if c.isalnum() or c in "_-" else "_" for c in task)


def some_of_each(asked: Asked, n: int) -> Asked:
    """About `n` of the questions: the first ones of each task, as many for each."""
    tasks = pd.Series([p["task"] for p in asked.problems])
    first_ones = tasks.groupby(tasks).cumcount() < max(1, n // tasks.nunique())
    return asked.at([int(i) for i in first_ones.to_numpy().nonzero()[0]])


def transfer_table(run: store.Run, *, seed: int = 0) -> pd.DataFrame:
    """`table` of the rows that `transfer` left in a run, against prompted reflection; `reflector_only`, trained on all
    tasks, comes last. Empty if there are none."""
    files = sorted(run.path("evals", "transfer").glob("*.jsonl"))
    trained = {Evaluation.parse(p.name).setting: store.read_jsonl(p) for p in files}
    if not trained:
        return pd.DataFrame()
    asked = {r["id"] for rows in trained.values() for r in rows}
    trained["all tasks"] = [r for r in run.read("evals", Evaluation(round_setting(1).name).file) if r["id"] in asked]
    return table(trained, run.read("evals", Evaluation(BASELINE).file), seed=seed)


def table(trained: Mapping[str, Sequence[EvalRow]], baseline: Sequence[EvalRow], *, seed: int = 0) -> pd.DataFrame:
    """For each task trained on (the keys of `trained`) and tested on: acc_t2 with its Wilson interval, and its paired
    difference from `baseline` on the same questions with the bootstrap interval and McNemar's p; fractions."""
    columns = ["trained on", "tested on", "n", "acc_t2", "acc low", "acc high", "difference", "low", "high", "p"]
    rows = []
    for name, found in trained.items():
        for task in sorted({r["task"] for r in found}):
            some = [r for r in found if r["task"] == task]
            rows.append((name, task, *share(some), *paired(some, baseline, seed)))
    return pd.DataFrame(rows, columns=columns)


def swap(engine: Engine, asked: Asked, reflections: Sequence[EvalRow], corrector: Adapter, file: str) -> list[EvalRow]:
    """Second turns by Generator B (`engine` with the adapter `corrector`) with the reflections of model A. `asked` and
    `reflections` are A's questions, first attempts and eval rows, perhaps of another run: B is shown A's attempt too,
    which the reflection speaks of. `tokens` counts B's answers alone. Kept in `file` of `asked.directory`. Raises
    ValueError if the rows are not about these problems."""
    if [r["id"] for r in reflections] != [p["id"] for p in asked.problems]:
        raise ValueError("the reflections are not about these problems, in this order: take both from one run")
    known = {r["id"]: r["reflection"] for r in reflections}

    def make(part: Asked, _: int) -> list[Any]:
        now = part.at([i for i, p in enumerate(part.problems) if known[p["id"]] is not None])
        said = [prompts.retry_prompt(p, a["completion"], known[p["id"]]) for p, a in now.pairs()]
        found = answer(engine, now.problems, said, max_new_tokens=part.max_new_tokens, adapter=corrector)
        second = {p["id"]: a for p, a in zip(now.problems, found, strict=True)}
        return [row_of(p, a, second.get(p["id"]), known[p["id"]]) for p, a in part.pairs()]

    return asked.keep(file, make)


def swaps_of(run: store.Run) -> pd.DataFrame:
    """`swap_table` of a run's `evals/swap/<reflector>.<corrector>.jsonl`, beside each the base model; perhaps empty."""
    found: dict[tuple[str, str], list[EvalRow]] = {}
    for path in sorted(run.path("evals", "swap").glob("*.jsonl")):
        reflector, generator = path.stem.rsplit(".", 1)
        found[label(reflector), "base model"] = run.read("evals", Evaluation(reflector).file)
        found[label(reflector), label(generator)] = store.read_jsonl(path)
    return swap_table(found)


def swap_table(found: Mapping[tuple[str, str], Sequence[EvalRow]]) -> pd.DataFrame:
    """Acc@t2 with its Wilson interval (fractions) by (reflector, generator), from eval rows on the same questions."""
    rows = [(*pair, *share(rows)) for pair, rows in found.items()]
    return pd.DataFrame(rows, columns=["reflections of", "used by", *SHARE])


def transfer_map(frame: pd.DataFrame, baseline: str) -> Figure:
    """Heat map of `transfer_table`: points gained over the baseline, trained on × tested on."""
    bound = 100 * frame["difference"].abs().max() or 1.0
    style = {"cmap": "RdBu", "vmin": -bound, "vmax": bound, "cbar_kws": {"label": "gain (points)"}}
    return heat(frame, ("trained on", "tested on", "difference"), f"Gain over {baseline}", "+", **style)


def swap_map(frame: pd.DataFrame) -> Figure:
    """Heat map of `swaps_of`: Acc@t2 by whose reflections (rows) and by which Generator (columns)."""
    style = {"cmap": "viridis", "cbar_kws": {"label": "Acc@t2 (%)"}}
    return heat(frame, ("reflections of", "used by", "acc_t2"), "Acc@t2 (%)", "", **style)
