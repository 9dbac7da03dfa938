"""Transcripts as HTML, for the explorer and the report: two attempts side by side with their differences marked.

Everything that comes from a model or a data set is escaped here: it may hold tags, scripts or worse, and must be shown
as the text that it is. Differences are marked by colour and by underlining, so they survive grey print.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from html import escape
from typing import Any

from .. import embedded, prompts

OUTCOMES = {  # outcome → (first answer right, second answer right)
    "fixed": (False, True),
    "still wrong": (False, False),
    "broken": (True, False),
    "right": (True, True),
}
SIGNS = {"fixed": "✗→✓", "still wrong": "✗→✗", "broken": "✓→✗", "right": "✓→✓"}

STYLE = """
.rl-page,.rl-chip{--rl-good:#02735a;--rl-bad:#a83e00;--rl-line:#dcdad4}
.rl-page{background:#fff;color:#1c1c1a;border:1px solid var(--rl-line);border-radius:8px;
 padding:14px 18px 16px;font:14px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;overflow-wrap:anywhere}
.rl-page header{display:flex;flex-wrap:wrap;gap:6px 8px;align-items:center;margin-bottom:10px}
.rl-page header b{font-size:15px;margin-right:4px}
.rl-chip{border:1px solid var(--rl-line);border-radius:99px;padding:0 9px;font-size:12px;line-height:20px;color:#55534d;background:#faf9f6}
.rl-chip.good{color:var(--rl-good);border-color:currentColor;font-weight:600}.rl-chip.bad{color:var(--rl-bad);border-color:currentColor;font-weight:600}
.rl-grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(11rem,1fr));gap:12px 14px;margin-top:12px}
.rl-page h3{margin:0 0 7px;padding-bottom:4px;border-bottom:2px solid var(--rl-line);font-size:14px;font-weight:600}
.rl-part h4{margin:0 0 4px;font-size:11.5px;letter-spacing:.06em;text-transform:uppercase;color:#6b6962;font-weight:600}
.rl-part h4 span{letter-spacing:0;text-transform:none;font-weight:400}
.rl-part h4 .good{color:var(--rl-good)}.rl-part h4 .bad{color:var(--rl-bad)}
.rl-part + .rl-part{margin-top:10px}.rl-grid .rl-part + .rl-part{margin-top:12px}
.rl-text{white-space:pre-wrap;background:#f7f6f2;border-left:3px solid #cfccc3;border-radius:0 5px 5px 0;padding:7px 11px;
 font:12.5px/1.6 ui-monospace,"SFMono-Regular",Menlo,Consolas,"DejaVu Sans Mono",monospace;max-height:26rem;overflow:auto}
.rl-text.plain{font:inherit;max-height:16rem}.rl-text.reflection{border-left-color:#de8f05;background:#fdf6e9;font:inherit}
.rl-text.good{border-left-color:#029e73}.rl-text.bad{border-left-color:#d55e00}
.rl-page del{background:#fbdcc6;text-decoration:underline dotted #a83e00 2px;text-underline-offset:3px;border-radius:2px}
.rl-page ins{background:#cfe6f5;text-decoration:underline solid #0173b2 2px;text-underline-offset:3px;border-radius:2px}
.rl-page .none{color:#77756e;font-style:italic}
"""


# -- differences -----------------------------------------------------------------------------------------------------------
def diff_html(first: str, second: str) -> tuple[str, str]:
    """Both texts escaped, with words that only the first has in <del> and those that only the second has in <ins>.

    Lines are matched first, and words within lines that changed: line by line where as many came as went, so that a
    changed step is compared with the same step.
    """
    a, b = first.splitlines(keepends=True), second.splitlines(keepends=True)
    pairs: list[tuple[str, str]] = []
    for kind, a1, a2, b1, b2 in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if kind == "equal":
            pairs.append((escape("".join(a[a1:a2])), escape("".join(b[b1:b2]))))
        elif a2 - a1 == b2 - b1:
            pairs += [_words(old, new) for old, new in zip(a[a1:a2], b[b1:b2], strict=True)]
        else:
            pairs.append(_words("".join(a[a1:a2]), "".join(b[b1:b2])))
    return "".join(left for left, _ in pairs), "".join(right for _, right in pairs)


def _words(old: str, new: str, limit: int = 4_000_000) -> tuple[str, str]:
    a, b = re.findall(r"\s+|\w+|[^\w\s]", old), re.findall(r"\s+|\w+|[^\w\s]", new)
    if len(a) * len(b) > limit:  # no use in word marks between pages that share nothing, and quadratic time
        return _mark(old, "del"), _mark(new, "ins")
    left, right = [], []
    for kind, a1, a2, b1, b2 in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        old, new = "".join(a[a1:a2]), "".join(b[b1:b2])
        left.append(escape(old) if kind == "equal" else _mark(old, "del"))
        right.append(escape(new) if kind == "equal" else _mark(new, "ins"))
    return "".join(left), "".join(right)


def _mark(text: str, tag: str) -> str:
    """Escaped text in a tag, line by line, so that a mark never spans a line's end."""
    return "".join(
        f"<{tag}>{escape(part)}</{tag}>" if part.strip() else escape(part) for part in re.split(r"(\n)", text)
    )


# -- a page ----------------------------------------------------------------------------------------------------------------
def outcome_of(first: bool, second: bool) -> str:
    """The name of an outcome (a key of `OUTCOMES`)."""
    return next(name for name, pair in OUTCOMES.items() if pair == (bool(first), bool(second)))


def page(item: dict[str, Any], others: Sequence[dict[str, Any]] = (), *, chips: Sequence[str] = ()) -> str:
    """One question as an HTML page: question, first attempt, and for each setting its reflection and second attempt.

    `item` and `others` hold id, name (of the setting), outcome, problem (or None), question, turn1, reflection and turn2 (None where
    there was none); `others` are the same question under other settings. Differences are marked between the first
    attempt and each second one; the marks in the first attempt belong to `item`.
    """
    marked, _ = diff_html(item["turn1"], item["turn2"]) if item["turn2"] else (escape(item["turn1"]), "")
    gold = item["problem"]["answer"] if item["problem"] else None
    gold_text = "not kept in this run" if gold is None else " | ".join(gold) if isinstance(gold, list) else str(gold)
    columns = [
        f"<div>{'<h3>untouched Generator</h3>' if others else ''}{_part('First attempt', marked, _kind(item, 0), _places(item))}"
        f"{_part('Gold answer', escape(gold_text), 'plain')}</div>"
    ]
    columns += [_column(each, bool(others)) for each in (item, *others)]
    head = f"<header><b>{escape(item['id'])}</b>{''.join(chips)}</header>"
    question = _part("Question", escape(item["question"]), "plain")
    return f'<div class="rl-page">{head}{question}<div class="rl-grid">{"".join(columns)}</div></div>'


def chip(text: str, kind: str = "") -> str:
    """A small label; `kind` is "", "good" or "bad"."""
    return f'<span class="rl-chip {kind}">{escape(text)}</span>'


def outcome_chip(outcome: str) -> str:
    """The label of an outcome."""
    return chip(f"{SIGNS[outcome]} {outcome}", "good" if OUTCOMES[outcome][1] else "bad")


def _column(item: dict[str, Any], named: bool) -> str:
    reflection = '<span class="none">none</span>' if not item["reflection"] else escape(item["reflection"])
    why = "The first attempt was kept: no second turn." if OUTCOMES[item["outcome"]][0] else "Its text was not kept."
    kept = f'<span class="none">{why}</span>'
    second = diff_html(item["turn1"], item["turn2"])[1] if item["turn2"] else kept
    title = f"<h3>{escape(item['name'])}</h3>" if named else ""
    return (
        f"<div>{title}{_part('Reflection', reflection, 'reflection', _blame(item))}"
        f"{_part('Second attempt', second, _kind(item, 1), _verdict(item))}</div>"
    )


def _part(title: str, html: str, kind: str = "", note: str = "") -> str:
    return f'<div class="rl-part"><h4>{escape(title)} {note}</h4><div class="rl-text {kind}">{html}</div></div>'


def _kind(item: dict[str, Any], turn: int) -> str:
    return "good" if OUTCOMES[item["outcome"]][turn] else "bad"


def _verdict(item: dict[str, Any]) -> str:
    right = OUTCOMES[item["outcome"]][1]
    return f'<span class="{"good" if right else "bad"}">{"✓ right" if right else "✗ wrong"}</span>'


def _errors(item: dict[str, Any]) -> list[tuple[Any, str]]:
    problem = item["problem"]
    known = problem and problem.get("meta", {}).get("source") == "synthetic" and not OUTCOMES[item["outcome"]][0]
    return (embedded.diagnose(problem, item["turn1"]) or []) if known else []


def _places(item: dict[str, Any]) -> str:
    """The known wrong places of a synthetic attempt."""
    if OUTCOMES[item["outcome"]][0]:
        return '<span class="good">✓ right</span>'
    named = ", ".join(f"{_place(place)} ({name})" for place, name in _errors(item))
    return f'<span class="bad">✗ wrong{escape(": " + named) if named else ""}</span>'


def _blame(item: dict[str, Any]) -> str:
    """Whether a reflection on a synthetic attempt names a place that is truly wrong."""
    errors, blame = _errors(item), embedded.blamed(item["reflection"] or "")
    if not errors or blame is None:
        return ""
    hit = blame in [place for place, _ in errors]
    return f'<span class="{"good" if hit else "bad"}">blames {escape(_place(blame))}: {"a true mistake" if hit else "not a mistake"}</span>'


def _place(place: Any) -> str:
    return "the answer" if place == embedded.ANSWER else f"step {place}"


def question_of(problem: dict[str, Any] | None, prompt: Sequence[dict[str, str]] = ()) -> str:
    """The question as the model saw it; from the stored prompt where the problem is not at hand."""
    return prompts.question_text(problem) if problem else (prompt[0]["content"] if prompt else "")
