"""Does a reflection find a mistake whose place is known, whatever the model (injected.ipynb)?

One mistake is put, by rule, into a first answer that was right: a number after an equation, or a word turned into its
opposite. The model is told that the answer is wrong, as always, and reflects. So the place is known without gold steps.
"""

from __future__ import annotations

import random
import re
from typing import Any, NamedTuple

import pandas as pd

from reflectevo_lite import store
from reflectevo_lite.evaluate import Asked, Evaluation, evaluate, label, reflecting, setting, share, wilson

FOLDER, KINDS = "injected", ("number", "opposite")
_NUMBER = r"-?\d+(?:\.\d+)?"
_EQUATION = re.compile(
    rf"(?<![\w.])({_NUMBER}(?: ?[-+*/x×÷] ?{_NUMBER})+) ?(?:=|gives|is|equals) ?({_NUMBER})(?![\w%])"
)
_OPPOSITE = {
    "before": "after", "more": "fewer", "older": "younger", "left": "right", "greater": "less", "first": "last",
    "above": "below", "always": "never", "all": "none", "true": "false", "yes": "no", "can": "cannot",
}  # fmt: skip
_WORD = re.compile(rf"(?i)\b({'|'.join([*_OPPOSITE, *_OPPOSITE.values()])})\b")
_RIGHT = re.compile(r"(?i)\b(?:right|correct|fine|no mistake)\b")
_WRONG = re.compile(r"(?i)\b(?:wrong|not|incorrect|mistake|error|should)\b")


class Injected(NamedTuple):
    """An answer with one mistake: its text, the kind, the line that holds it (from 0), and what stood there."""

    text: str
    kind: str  # of `KINDS`
    line: int
    was: str


def inject(text: str, rng: random.Random) -> Injected | None:
    """Put one mistake into an answer, never into its last line, which states the result; None if no rule applies."""
    lines = text.splitlines()
    numbers = [(i, m.span(2)) for i, line in enumerate(lines[:-1]) for m in _EQUATION.finditer(line)]
    words = [(i, m.span(1)) for i, line in enumerate(lines[:-1]) for m in _WORD.finditer(line)]
    if not (numbers or words):
        return None
    line, (a, b) = rng.choice(numbers or words)
    was = lines[line][a:b]
    wrong = {**_OPPOSITE, **{v: k for k, v in _OPPOSITE.items()}}.get(was.lower(), "")
    if numbers:
        number = float(was) + rng.choice([-3, -2, -1, 1, 2, 3]) * (10 if abs(float(was)) >= 100 else 1)
        wrong = f"{number:g}" if number >= 0 or was.startswith("-") else f"{float(was) + 1:g}"
    lines[line] = lines[line][:a] + wrong + lines[line][b:]
    return Injected("\n".join(lines), KINDS[not numbers], line, was)


def named(attempt: str, reflection: str) -> int | None:
    """The line of an attempt (from 0) that a reflection calls wrong: the first that it cites, by "step k" or by words of
    the line, in a sentence that does not call it right. None if it cites none."""
    lines = attempt.splitlines()
    steps = {m[1]: i for i, line in enumerate(lines) if (m := re.match(r"\W*(?:step )?(\d+)[.:)]", line, re.I))}
    cited = {i: [m[1] for m in _EQUATION.finditer(line)] for i, line in enumerate(lines)}
    for sentence in re.split(r"(?<=[.!?:])\s+|\n", reflection):
        if _RIGHT.search(sentence) and not _WRONG.search(sentence):
            continue
        if step := next((m[1] for m in re.finditer(r"(?i)\bstep (\d+)", sentence) if m[1] in steps), None):
            return steps[step]
        for i, line in enumerate(lines):
            if any(part in sentence for part in cited[i]) or (len(line) > 12 and line.strip(" .") in sentence):
                return i
    return None


def reflect(engine: Any, run: store.Run, asked: Asked) -> None:
    """Reflections and second answers of every reflecting setting on the right first answers of `asked` into which a
    mistake can be put; kept in `evals/injected/`. Resumable."""
    rng, chosen = random.Random(f"injected/{asked.seed}"), []
    for i, a in enumerate(asked.first):
        if a["correct"] and (found := inject(a["completion"], rng)):
            chosen.append((i, a | {"completion": found.text, "correct": False} | found._asdict()))
    own = run.path("evals", FOLDER)
    first: list[Any] = [a for _, a in chosen]
    changed = asked.at([i for i, _ in chosen])._replace(first=first, directory=own)
    store.write_jsonl(own / "turn1.jsonl", first)
    for name in reflecting(run) if chosen else ():
        evaluate(engine, changed, setting(name).at(run))


def injected_table(run: store.Run) -> pd.DataFrame:
    """Each setting: n answers with a mistake put in, the share of its reflections that name the line (`named`, with its
    Wilson interval; by kind: `number`, `opposite`), that name none, a line at random (`chance`), and the share of second
    answers that are right (`mended`). Fractions; perhaps empty."""
    rows: list[Any] = []
    first = run.read("evals", FOLDER, "turn1.jsonl") if run.path("evals", FOLDER, "turn1.jsonl").exists() else []
    chance = sum(1 / max(1, len(a["text"].splitlines()) - 1) for a in first) / max(1, len(first))
    for name in reflecting(run):
        if first and run.path("evals", FOLDER, Evaluation(name).file).exists():
            found = run.read("evals", FOLDER, Evaluation(name).file)
            told = [(a, named(a["text"], r["reflection"] or "")) for a, r in zip(first, found, strict=True)]
            hits = pd.Series([at == a["line"] for a, at in told], [a["kind"] for a, _ in told], dtype=float)
            kinds = [hits[hits.index == kind].mean() for kind in KINDS]
            none = sum(at is None for _, at in told) / len(told)
            rows.append((label(name), len(told), hits.mean(), *wilson(int(hits.sum()), len(told)), *kinds, none))
            rows[-1] += (chance, share(found)[1])
    columns = ["setting", "n", "named", "low", "high", *KINDS, "names none", "chance", "mended"]
    return pd.DataFrame(rows, columns=columns)
