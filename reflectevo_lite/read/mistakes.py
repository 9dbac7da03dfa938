"""What went wrong in a first answer, in the taxonomy of the paper's error analysis (section 3.2).

Rules say only what they can be sure of. Everything else waits for a reader, whose label in the explorer always wins."""

import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd

from .. import embedded, evaluate
from ..rows import Problem

# by error class: its group, and its share of the paper's failures in percent
PAPER = pd.read_csv(Path(__file__).with_name("taxonomy.csv"), index_col="class")
CLASSES, UNLABELLED = tuple(PAPER.index), "unlabelled"
_NUMBER = r"-?\d[\d,]*(?:\.\d+)?"
_EQUATION = re.compile(
    rf"(?<![\w.,)^%/*+×÷-])(?<![+*/×÷-] )(?<!of )({_NUMBER}(?: ?[-+*/×÷] ?{_NUMBER})+)"
    rf" ?= ?({_NUMBER})(?![\w.%^]| ?[-+*/×÷(])"
)


def by_rule(problem: Problem | None, attempt: str, answer: str | None = "", *, truncated: bool = False) -> str | None:
    """The class of a wrong attempt's first error, None if no rule can tell. `answer` is what the grader read (None:
    nothing), `truncated` whether the length limit cut the attempt. Without the problem only the rules that need no gold
    steps apply."""
    if truncated:
        return "completeness"
    if embedded.synthetic(problem):
        found = embedded.diagnose(problem, attempt)
        return found[0][1] if found else "format" if found is None else None
    if answer is None:
        return "format"
    return "calculation" if false_equations(attempt) else None


def false_equations(text: str) -> list[str]:
    """Equations between plain numbers (+ − × ÷, no brackets) in a text whose two sides differ. A rounded right side
    counts as equal. What cannot be read as such an equation is passed over."""
    wrong = []
    plain = text.replace("−", "-").replace("\\times", "×").replace("\\div", "÷").replace("$", "")
    for found in _EQUATION.finditer(plain):
        if (value := _value(found[1])) is not None:
            places = len(found[2].partition(".")[2])
            rounding = Fraction(1, 2 * 10**places) if places or value.denominator > 1 else 0
            wrong += [found[0]] * (abs(value - Fraction(found[2].replace(",", ""))) > rounding)
    return wrong


def _value(expression: str) -> Fraction | None:
    """The value of a chain of operations, products first; None for a division by zero."""
    spaced = re.sub(r"(?<=\d)([-+*/×÷])(?=[\d-])", r" \1 ", expression)
    parts = re.findall(rf"((?<=[\d ])[-+*/×÷])? ?({_NUMBER})", spaced)
    terms: list[Fraction] = []
    for sign, number in parts:
        value = Fraction(number.replace(",", ""))
        if sign in ("/", "÷") and not value:
            return None
        if sign in ("*", "×", "/", "÷"):
            terms[-1] *= value if sign in "*×" else 1 / value
        else:
            terms.append(-value if sign == "-" else value)
    return sum(terms, Fraction(0))


def taxonomy_shares(frame: pd.DataFrame) -> pd.DataFrame:
    """Wrong first attempts by class of their first error, one per question; from a frame with id, outcome and class.
    Columns: class, n, share and its Wilson interval (fractions of all wrong first attempts), total, paper (the share
    among the paper's failures). What nobody labelled is a class of its own."""
    wrong = frame[frame["outcome"].isin(["fixed", "still wrong"])].drop_duplicates("id")
    counts = wrong["class"].astype(str).value_counts()
    names = [*CLASSES, *([UNLABELLED] if counts.get(UNLABELLED) else [])]
    n = counts.reindex(names, fill_value=0).to_numpy()
    low, high = np.transpose([evaluate.wilson(k, len(wrong)) for k in n])
    columns = {"class": names, "n": n, "share": n / max(1, len(wrong)), "low": low, "high": high}
    return pd.DataFrame(columns | {"total": len(wrong), "paper": PAPER["share"].reindex(names).to_numpy() / 100})
