"""How a run's answers were read: which shares are unreadable or cut off, where that is too much, and what to do.

An answer that no grader can read counts as wrong, so a share of them moves every figure of a run.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from .. import store
from ..grading import UNREAD, read
from ..rows import Attempt
from .settings import files, rollout_files

Row = dict[str, Any]
TOO_MUCH, FEWEST = 0.10, 10
ADVICE = {
    "unreadable": "Answers that could not be read: {}, mostly for: {}. They count as wrong: read some (`read.unread`), "
    "then try worked examples in the prompt, another grader, or for choices an answer by likelihood.",
    "cut_off": "Answers that were cut off: {}. Raise max_new_tokens; if it never stops by itself, look at its "
    "end token and chat template.",
}


def how_read(attempts: Sequence[Attempt]) -> dict[str, list[Any]]:
    """How the answers of attempts were read and which were cut, as an EvalRow keeps it."""
    return {"read": [a.get("read", "") for a in attempts], "truncated": [a["truncated"] for a in attempts]}


def _answers(rows: Iterable[Row]) -> Iterator[tuple[Row, int, str, bool, str | None]]:
    """(problem or row, turn, how it was read, whether it was cut, its text if kept) of every answer in rows of rollouts,
    evaluations or, beside their `problem`, first attempts. Old attempts are read again; old evaluations give none."""
    for row in rows:
        problem, first = row.get("problem", row), row.get("turn1", row)
        made = [(1, first), *((2, r["turn2"]) for r in row.get("reflections", ()))] if "problem" in row else ()
        for turn, a in made:
            how = a.get("read") or read(problem, a["completion"], a["truncated"]).rule
            yield problem, turn, how, a["truncated"], a["completion"]
        told = () if made else zip(row.get("read", ()), row.get("truncated", ()), strict=True)
        for i, (how, cut) in enumerate(told):  # fresh answers of the control `resample_vote` are all second turns
            yield problem, 2 if "samples" in row else 2 + i, how, cut, None if i else row["turn2"]


def reading(setting: str, rows: Iterable[Row]) -> list[Row]:
    """The shares of one file's answers, by task (and "all") and turn, in the form of metrics.json's `reading`: setting,
    task, turn, n, `unreadable` and `cut_off` (fractions; an answer that was cut but read counts for the latter alone),
    `how` (numbers by rule or reason)."""
    found: dict[tuple[str, int], list[Counter]] = defaultdict(lambda: [Counter(), Counter()])
    for problem, turn, how, cut, _ in _answers(rows):
        for task in ("all", problem["task"]):
            ways, cuts = found[task, turn]
            ways[how] += 1
            cuts[bool(cut)] += 1
    shares = []
    for (task, turn), (ways, cuts) in sorted(found.items(), key=lambda each: (each[0][0] != "all", each[0])):
        n, lost = cuts.total(), sum(ways[why] for why in UNREAD)
        row = {"setting": setting, "task": task, "turn": turn, "n": n, "unreadable": lost / n}
        shares.append(row | {"cut_off": cuts[True] / n, "how": dict(ways.most_common())})
    return shares


def _kept(run: store.Run) -> dict[str, Iterable[Row]]:
    """Everything that a run keeps answers in, by setting: rollouts, those of later rounds, first answers, evaluations."""
    found: dict[str, Iterable[Row]] = {name: store.iter_jsonl(path) for name, path in rollout_files(run).items()}
    first, test = run.path("evals", "turn1.jsonl"), run.path("data", "test.jsonl")
    if first.exists() and test.exists():
        both = zip(store.iter_jsonl(test), store.iter_jsonl(first), strict=False)
        found["first answers"] = (a | {"problem": problem} for problem, a in both)
    return found | {e.stem: store.iter_jsonl(path) for e, path in files(run).items()}


def reading_of(run: store.Run) -> list[Row]:
    """`reading` of all that a run has so far."""
    return [row for setting, rows in _kept(run).items() for row in reading(setting, rows)]


def unread(run: store.Run) -> Iterator[tuple[str, Row, int, str, str]]:
    """(setting, problem or eval row, turn, why, text) of every answer that was not read and whose text was kept."""
    for setting, rows in _kept(run).items():
        for problem, turn, how, _, text in _answers(rows):
            if how in UNREAD and text is not None:
                yield setting, problem, turn, how, text


def reading_summary(shares: Sequence[Row]) -> str:
    """Both shares over all answers, in a sentence."""
    every = [r for r in shares if r["task"] == "all"]
    n = sum(r["n"] for r in every)
    lost, cut = (sum(r[what] * r["n"] for r in every) / max(1, n) for what in ADVICE)
    return f"Of {n:,} answers {lost:.1%} could not be read, {cut:.1%} were cut off by max_new_tokens."


def too_many(share: Row, what: str) -> bool:
    """Whether a share (`what`: unreadable or cut_off) deserves a warning: above 10 %, of 10 answers or more."""
    return share[what] > TOO_MUCH and share["n"] >= FEWEST


def reading_warnings(shares: Sequence[Row]) -> list[str]:
    """A warning each about unreadable and cut-off answers if some task's share at a turn is above 10 %: where it is
    worst, and the remedy."""
    said = []
    for what, advice in ADVICE.items():
        worst = sorted((r for r in shares if r["task"] != "all" and too_many(r, what)), key=lambda r: -r[what])
        places = [f"{r[what]:.0%} of {r['n']:,} ({r['setting']}, {r['task']}, turn {r['turn']})" for r in worst[:3]]
        if worst:
            more = f", and more than 10 % in {len(worst) - 3} other places" * (len(worst) > 3)
            why = next((how for how in worst[0]["how"] if how in UNREAD), "")
            said.append(advice.format(", ".join(places) + more, why))
    return said
