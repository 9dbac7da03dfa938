"""Reflections that give the answer away, in spite of the instruction: a second answer then needs no insight.

Training on them teaches to state answers. The same patterns mask mentions: what a reflection helps beyond them."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from ..rows import Problem, Rollout
from .sets import both_helped, d_plus, d_pm

_STEP = re.compile(r"\b[Ss]teps?\s+\d+")  # "step 4" is no answer of 4


def leaks(problem: Problem, attempt: Any, text: str) -> bool:
    """Whether a reflection states the gold answer or names an option that the attempt did not choose. What the question
    or the attempt says already gives nothing away, but the letter of an option does. Texts on embedded questions state no
    result by construction; the digits and names in them are operands."""
    if problem["meta"].get("source") == "synthetic":
        return False
    known, said = f"{problem.get('context', '')}\n{problem['question']}\n{attempt['completion']}", _STEP.sub("", text)
    for label, mention in _answers(problem):
        if label is None or label != attempt["answer"]:
            if mention.search(said) and not mention.search(known):
                return True
            if label is not None and _letter(label).search(said):
                return True
    return False


def masked(problem: Problem, text: str) -> str:
    """The text with every mention of the gold answer, or of any option by letter or text, replaced by "…"."""
    parts = re.split(rf"({_STEP.pattern})", text)
    for label, mention in _answers(problem):
        for pattern in [mention, *([_letter(label)] if label else [])]:
            parts[::2] = [pattern.sub("…", part) for part in parts[::2]]
    return "".join(parts)


def leak_shares(rollouts: Iterable[Rollout]) -> dict[str, float]:
    """Share of the rows of D+, of the pairs of D± and of the candidates for D^pref in which a reflection leaks."""
    rows: dict[str, Iterator[tuple[Any, list[Any]]]] = {"d_plus": ((r, [r["reflection"]]) for r in d_plus(rollouts))}
    rows["d_pm"] = ((r, [r["chosen"], r["rejected"]]) for r in d_pm(rollouts))
    rows["d_pref"] = ((p.rollout, [p.a, p.b]) for p in both_helped(rollouts))
    leak = lambda r, some: any(leaks(r["problem"], r["turn1"], x["text"]) for x in some)
    found = {name: [leak(*pair) for pair in pairs] for name, pairs in rows.items()}
    return {name: sum(each) / max(1, len(each)) for name, each in found.items()}


class Clean:
    """Rollouts without the reflections that leak; to be gone through as often as what they are made from."""

    def __init__(self, rollouts: Iterable[Rollout]) -> None:
        self.rollouts = rollouts

    def __iter__(self) -> Iterator[Any]:
        for r in self.rollouts:
            yield r | {"reflections": [x for x in r["reflections"] if not leaks(r["problem"], r["turn1"], x["text"])]}


def _answers(problem: Problem) -> list[tuple[str | None, re.Pattern[str]]]:
    """What may not be said, the longest first: (letter, pattern) of each option, or (None, pattern) of each gold."""
    said: list[tuple[str | None, str]]
    if problem["grader"] == "choice":
        said = list(zip(map(chr, range(65, 91)), problem["choices"], strict=False))
    else:
        golds = problem["answer"] if isinstance(problem["answer"], list) else [problem["answer"]]
        said = [(None, gold) for gold in golds]
    mention = lambda text: re.compile(rf"(?i)(?<![\w.]){re.escape(text.strip())}(?![\w]|\.\d)")
    return [(label, mention(text)) for label, text in sorted(said, key=lambda pair: -len(pair[1])) if text.strip()]


def _letter(label: str) -> re.Pattern[str]:
    return re.compile(rf"\({label}\)|(?i:\b(?:option|choice|answer(?: is| should be)?)) \(?{label}\b\)?")
