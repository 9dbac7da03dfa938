"""Transcripts as HTML, for the explorer and the report: two attempts side by side with their differences marked.

What comes from a model or a data set may hold tags or scripts: HTML is made by Jinja2 templates alone, which escape it.
"""

import difflib
import functools
import re
from collections.abc import Sequence
from typing import Any

from .. import embedded

# outcome → (first answer right, second answer right)
OUTCOMES = {"fixed": (False, True), "still wrong": (False, False), "broken": (True, False), "right": (True, True)}
SIGNS = {"fixed": "✗→✓", "still wrong": "✗→✗", "broken": "✓→✗", "right": "✓→✓"}
Pieces = list[tuple[str, str]]  # a text as (mark, piece); the mark is "", "del" or "ins"


def outcome_of(first: bool, second: bool) -> str:
    """The name of an outcome (a key of `OUTCOMES`)."""
    return next(name for name, pair in OUTCOMES.items() if pair == (bool(first), bool(second)))


@functools.cache
def _templates() -> Any:
    import jinja2

    loader, strict = jinja2.PackageLoader(__package__), jinja2.StrictUndefined
    found = jinja2.Environment(loader=loader, autoescape=True, undefined=strict, trim_blocks=True, lstrip_blocks=True)
    found.globals |= {"OUTCOMES": OUTCOMES, "SIGNS": SIGNS}
    return found


def render(template: str, **values: Any) -> str:
    """A file of `templates/` filled in. Values are escaped; what this returns is not escaped again."""
    from markupsafe import Markup

    return Markup(_templates().get_template(template).render(**values))


def differences(first: str, second: str) -> tuple[Pieces, Pieces]:
    """Both texts in pieces: words that only the first has are marked "del", those that only the second has "ins". Lines
    are matched first, and words within lines that changed: line by line if as many came as went, so that a changed step
    is compared with the same step."""
    a, b = first.splitlines(keepends=True), second.splitlines(keepends=True)
    old, new = Pieces(), Pieces()
    for kind, a1, a2, b1, b2 in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        aligned = kind != "equal" and a2 - a1 == b2 - b1
        pairs = zip(a[a1:a2], b[b1:b2], strict=True) if aligned else [("".join(a[a1:a2]), "".join(b[b1:b2]))]
        for left, right in pairs:
            _compare_words(left, right, old, new)
    return old, new


def _compare_words(left: str, right: str, old: Pieces, new: Pieces) -> None:
    a, b = re.findall(r"\s+|\w+|[^\w\s]", left), re.findall(r"\s+|\w+|[^\w\s]", right)
    if left == right:
        codes = [("equal", 0, len(a), 0, len(b))]
    elif len(a) * len(b) > 4_000_000:  # no use in word marks between pages that share nothing, and quadratic time
        codes = [("replace", 0, len(a), 0, len(b))]
    else:
        codes = difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes()
    for kind, a1, a2, b1, b2 in codes:
        for pieces, words, tag in ((old, a[a1:a2], "del"), (new, b[b1:b2], "ins")):
            # a mark never spans a line's end
            parts = ["".join(words)] if kind == "equal" else re.split(r"(\n)", "".join(words))
            pieces += [(tag if kind != "equal" and part.strip() else "", part) for part in parts if part]


def page(items: Sequence[dict[str, Any]], chips: Sequence[str] = ()) -> str:
    """One question as an HTML page: question, first attempt, and for each setting its reflection and second attempt.
    `items`: the question under each setting, each with id, name (of the setting), outcome, problem (or None), question,
    turn1, and reflection and turn2 (None if there was none). `chips`: small labels beside the id."""
    return render("transcript.html", columns=[_column(item) for item in items], chips=chips)


def _column(item: dict[str, Any]) -> dict[str, Any]:
    first_right, second_right = OUTCOMES[item["outcome"]]
    problem = item["problem"]
    wrong_step = embedded.synthetic(problem) and not first_right
    errors = embedded.diagnose(problem, item["turn1"]) or [] if wrong_step else []
    old, new = differences(item["turn1"], item["turn2"]) if item["turn2"] else ([("", item["turn1"])], [])
    gold = problem["answer"] if problem else "not kept in this run"
    named = ", ".join(f"{_place(place)} ({name})" for place, name in errors)
    wrong = f"✗ wrong: {named}" if named else "✗ wrong"
    blame, blamed = embedded.blamed(item["reflection"] or ""), None
    if errors and blame is not None:
        hit = blame in [place for place, _ in errors]
        blamed = {"good": hit, "text": f"blames {_place(blame)}: {'a true mistake' if hit else 'not a mistake'}"}
    return {
        **item, "first_right": first_right, "second_right": second_right, "old": old, "new": new, "blame": blamed,
        "gold": " | ".join(gold) if isinstance(gold, list) else gold,
        "verdict": {"good": first_right, "text": "✓ right" if first_right else wrong},
        "why_none": "The first attempt was kept: no second turn." if first_right else "Its text was not kept.",
    }  # fmt: skip


def _place(place: Any) -> str:
    return "the answer" if place == embedded.ANSWER else f"step {place}"
