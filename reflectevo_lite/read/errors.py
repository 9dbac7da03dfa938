"""Error classes of wrong first answers, in the paper's taxonomy (section 3.2): by rule, by a judge, by hand.

A rule says what it can be sure of: the known steps of the embedded tasks, an answer that was cut off or has no readable
form, an equation that is false. Everything else waits for a judge (`judge`) or for a reader (`explorer`). The strongest
label wins: a reader's, then a judge's, then a rule's.
"""

from __future__ import annotations

import errno
import json
import os
import re
import time
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import embedded, prompts

if TYPE_CHECKING:
    from ..generate import Engine
    from ..rows import Problem

CLASSES: tuple[str, ...] = (*(name for name, _ in prompts.LOCATE.values()), "no error")
UNLABELLED = "unlabelled"
GROUPS = {
    "calculation": "mathematical",
    "method": "mathematical",
    "coherence": "logic",
    "consistency": "logic",
    "context": "instruction",
    "completeness": "instruction",
    "format": "instruction",
    "facts": "factual",
    "no error": "none",
}
PAPER = {  # share of each class among the paper's failures (its error analysis), in percent
    "calculation": 6.1,
    "method": 1.2,
    "coherence": 43.1,
    "consistency": 12.2,
    "context": 22.1,
    "completeness": 13.1,
    "format": 0.5,
    "facts": 1.1,
    "no error": 0.5,
}
_NUMBER = r"-?\d[\d,]*(?:\.\d+)?"
_EQUATION = re.compile(
    rf"(?<![\w.,)^%/*+×÷-])(?<![+*/×÷-] )(?<!of )({_NUMBER}(?: ?[-+*/×÷] ?{_NUMBER})+) ?= ?({_NUMBER})(?![\w.%^]| ?[-+*/×÷(])"
)


# -- by rule ---------------------------------------------------------------------------------------------------------------
def by_rule(problem: Problem | None, attempt: str, answer: str | None = "", *, truncated: bool = False) -> str | None:
    """The class of a wrong attempt's first error as far as a rule can tell, else None.

    `answer` is what the grader read (None: nothing), `truncated` whether the length limit cut the attempt. Without the
    problem (None) only the rules that need no gold steps apply.
    """
    if truncated:
        return "completeness"
    if problem and problem.get("meta", {}).get("source") == "synthetic":
        found = embedded.diagnose(problem, attempt)
        return found[0][1] if found else "format" if found is None else None
    if answer is None:
        return "format"
    return "calculation" if false_equations(attempt) else None


def false_equations(text: str) -> list[str]:
    """Equations between plain numbers (+ − × ÷, no brackets) in a text whose two sides differ.

    A rounded right side counts as equal. What cannot be read as such an equation is passed over.
    """
    wrong = []
    for found in _EQUATION.finditer(
        text.replace("−", "-").replace("\\times", "×").replace("\\div", "÷").replace("$", "")
    ):
        value, places = _value(found[1]), len(found[2].partition(".")[2])
        if value is None:
            continue
        rounding = Fraction(1, 2 * 10**places) if places or value.denominator > 1 else 0
        if abs(value - Fraction(found[2].replace(",", ""))) > rounding:
            wrong.append(found[0])
    return wrong


def _value(expression: str) -> Fraction | None:
    """The value of a chain of operations, products first; None for a division by zero."""
    parts = re.findall(
        rf"((?<=[\d ])[-+*/×÷])? ?({_NUMBER})", re.sub(r"(?<=\d)([-+*/×÷])(?=[\d-])", r" \1 ", expression)
    )
    terms = [Fraction(parts[0][1].replace(",", ""))]
    for sign, number in parts[1:]:
        value = Fraction(number.replace(",", ""))
        if sign in ("/", "÷") and not value:
            return None
        if sign in ("*", "×"):
            terms[-1] *= value
        elif sign in ("/", "÷"):
            terms[-1] /= value
        else:
            terms.append(-value if sign == "-" else value)
    return sum(terms, Fraction(0))


# -- by a judge ------------------------------------------------------------------------------------------------------------
def judge_prompt(problem: Problem, attempt: str) -> list[dict[str, str]]:
    """Ask a judge for the class of the first error of a wrong attempt; the gold answer is shown to the judge."""
    asked = "\n".join(f"- {name}: {text.split(' and say')[0]}." for name, text in prompts.LOCATE.values())
    content = (
        f"Question:\n{prompts.question_text(problem)}\n\nRight answer: {problem['answer']}\n\nA wrong attempt:\n{attempt}\n\n"
        f"Which kind of mistake came first?\n{asked}\n- no error: the attempt is right after all.\n\n"
        "Reply with a line that says 'Class: ' and one of these names."
    )
    return [{"role": "user", "content": content}]


def read_class(reply: str) -> str | None:
    """The class that a judge's reply names last; None where it names none."""
    names = "|".join(re.escape(name) for name in CLASSES)
    found = re.findall(rf"class:\s*[*_`'\"]*({names})\b", reply, re.IGNORECASE)
    return found[-1].lower() if found else None


def judge(
    engine: Engine, run_dir: str | Path, items: Sequence[tuple[Problem, str]], *, max_new_tokens: int = 256
) -> int:
    """Have `engine` label (problem, wrong attempt) items and append the labels to `<run_dir>/error_labels.jsonl`.

    Questions that have a judge's label already are not asked again. Returns how many labels were added.
    """
    path = Path(run_dir) / "error_labels.jsonl"
    known = {row["id"] for row in read_labels(path)}
    asked = [(p, attempt) for p, attempt in items if p["id"] not in known]
    if not asked:
        return 0
    replies = engine.generate([judge_prompt(p, a) for p, a in asked], max_new_tokens=max_new_tokens)
    found = [(p["id"], read_class(reply[0].text)) for (p, _), reply in zip(asked, replies, strict=True)]
    for id, name in found:
        if name:
            append_label(path, {"id": id, "class": name, "by": "judge"})
    return sum(name is not None for _, name in found)


# -- label files -----------------------------------------------------------------------------------------------------------
def append_label(path: str | Path, row: dict[str, Any]) -> dict[str, Any]:
    """Append one label with the time, as one write that reaches the disk before this returns. Raises OSError.

    A last line that a killed writer left unfinished is closed first, so that it cannot swallow the new one.
    """
    row = row | {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
    with open(path, "a+b", buffering=0) as handle:
        size = handle.seek(0, os.SEEK_END)
        handle.seek(max(0, size - 1))
        line = b"\n" * (handle.read(1) not in (b"", b"\n")) + json.dumps(row, ensure_ascii=False).encode() + b"\n"
        if handle.write(line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        os.fsync(handle.fileno())
    return row


def read_labels(path: str | Path) -> list[dict[str, Any]]:
    """All labels of a file in order; unfinished lines are passed over. Empty where there is no file."""
    path = Path(path)
    return [row for line in path.read_bytes().split(b"\n") if (row := _row(line))] if path.exists() else []


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and "id" in row else None


def latest(labels: Iterable[dict[str, Any]]) -> dict[str, str | None]:
    """The last class given to each question; None where the last one took it back."""
    return {row["id"]: row.get("class") for row in labels}
