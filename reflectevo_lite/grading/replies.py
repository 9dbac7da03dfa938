r"""Where in a model's reply does it say its answer? What all readers share, and the readers of text and exact answers.

A reply is cut down to the model's own words, then searched for *statements*: places that announce an answer, by a cue
("Answer: …", "the answer is …", 答案), a box (`\boxed{}`), a tag (`<answer>`) or a call (the paper's `Finish[…]`).
The last statement that says something counts. `choice.py` and `math_reply.py` read what is said in their own way."""

import re
import unicodedata
from collections.abc import Callable
from typing import NamedTuple

from . import cues

MAX_CHARS = 50_000  # of a completion are read; the answer is at its end
NO_CUE, TWO, NO_OPTION, EMPTY, CUT = UNREAD = ("no cue", "two answers", "no option", "empty", "cut off")
REFUSED = "refused"  # it was read, and says "none of them": no answer, but no failure of reading


class Reading(NamedTuple):
    """The answer as it was read and the rule that read it; or None and why nothing was read."""

    answer: str | None
    rule: str


class Statement(NamedTuple):
    """A place that announces an answer: what kind, where it starts and where its answer starts, and what it says."""

    rule: str
    start: int
    end: int
    said: str


# ------------------------------------------------------------------ the model's own words
_THOUGHT = re.compile(r"(?i)</(?:think|thinking|thought|thoughts|reasoning)>|<\|channel\|>final<\|message\|>|◁/think▷")
_OPENED = re.compile(r"(?i)^\s*<(?:think|thinking)>")
_END_TOKEN = re.compile(r"</?s>|<\|\w+\|>|<｜[^｜\n]{1,40}｜>|<(?:bos|eos|pad|end_of_turn|start_of_turn)>|\[/?INST\]")
_ANSWERED = re.compile(r"(?i)\b(?:answer|ans)\b|finish\s*[\[(]|\\boxed|答案|####")
_ASKS = "Question|Problem|Human|User|Q|Input|Instruction|Exercise|Passage"
_NEXT_TURN = re.compile(rf"(?im)^[ \t]*(?:\*\*|#+ )?(?:{_ASKS})(?: ?\d{{0,4}} ?[:.]|(?: \d{{1,4}})?[ \t]*$)")


def own_reply(text: str) -> str:
    """The model's own reply: without hidden thoughts and end tokens, and cut where it asks itself the next question."""
    text = text[-MAX_CHARS:] if isinstance(text, str) else ""
    text = text.replace("\0", "").replace("\r", "").replace("\ufeff", "")
    if "<" in text or "INST]" in text or "◁" in text:
        text = _THOUGHT.split(text)[-1]
        if _OPENED.match(text):  # thoughts without an end are no answer
            return ""
        text = next((part for part in _END_TOKEN.split(text) if part.strip()), "")
    text = text.strip()
    if not _NEXT_TURN.search(text):
        return text
    answered = _ANSWERED.search(text)
    head, _, rest = text.partition("\n")
    if rest and len(head) <= 60 and not head.rstrip().endswith(":") and not _NEXT_TURN.match(head):
        following = _NEXT_TURN.search(text, len(head))  # a base model answers in one line and goes on
    else:
        following = answered and _NEXT_TURN.search(text, answered.end())
    return text[: following.start() if following else None].strip()


# ------------------------------------------------------------------ statements
_CALL = re.compile(r"(?i)\bfinish\s*[\[(]([^\n]{0,2000}?)(?:[\])](?!\s*[\])}>])|$)", re.M)
_TAG = re.compile(r"(?is)<(?:final_?)?answer>(.{0,2000}?)(?:</(?:final_?)?answer>|\Z)")
_GSM8K = re.compile(r"####[ \t]*([-+$€£\\(]*\d[^\s]*|\(?[A-Z]\)?)[ \t.]*$", re.M)
_BOX = re.compile(r"\\f?boxed\s*\{")
_DISPLAY = re.compile(r"[\s*_]*(?:\\\[|\$\$)(.{1,2000}?)(?:\\\]|\$\$)", re.S)
_LINE = re.compile(r"(?:\s|`{3,}[^\n`]*\n|(?:\*\*|__)(?=\s))*([^\n]{0,2000})")


def statements(text: str, announced: re.Pattern = cues.ANSWERS) -> list[Statement]:
    """Every announcement of an answer, in order; of the same place the innermost comes last."""
    head, cue, said = text.rpartition("\nAnswer: ")
    if cue and "\n" not in said and not any(map((head + said).lower().__contains__, cues.HINTS)):
        return [Statement("cue", len(head) + 1, len(text) - len(said), said.strip())]  # as prompts ask: soon found
    found, lower = [], text.lower()
    for m in announced.finditer(text):
        said = _DISPLAY.match(text, m.end()) or _LINE.match(text, m.end())
        found.append(Statement("cue", m.start(), m.end(), said[1].strip()))
    for rule, hint, pattern in (("call", "finish", _CALL), ("tag", "answer>", _TAG), ("cue", "####", _GSM8K)):
        if hint in lower:
            found += [Statement(rule, m.start(), m.start(1), m[1].strip()) for m in pattern.finditer(text)]
    for m in list(_BOX.finditer(text))[-20:] if "boxed" in lower else ():
        if (inside := _balanced(text, m.end())) is not None:
            found.append(Statement("box", m.start(), m.end() + len(inside) + 1, inside.strip()))
    return sorted(found, key=lambda s: s.start)[-50:]


def _balanced(text: str, start: int) -> str | None:
    """From `start` to the brace that closes; None if it never does, as in a completion that was cut."""
    depth = 1
    for m in re.finditer(r"\\[{}]|[{}]", text[start : start + 4000]):
        depth += {"{": 1, "}": -1}.get(m[0], 0)
        if depth == 0:
            return text[start : start + m.start()]
    return None


def last_said(text: str, found: list[Statement], read: Callable[[Statement], str | None]) -> Reading:
    """The last statement that `read` makes something of; two that follow each other and differ are no answer."""
    readable = ((s, said) for s in reversed(found) if (said := read(s)) is not None)
    for last, answer in readable:
        before = next(((s, other) for s, other in readable if s.rule == last.rule != "box"), None)
        if before and before[1] != answer and "final" not in text[last.start : last.end].lower():
            between = text[before[0].end : last.start].replace(before[1], "", 1)
            if len(between.split()) < 8 and not cues.TURN.search(between):
                return Reading(None, TWO)
        return Reading(answer, last.rule)
    return Reading(None, NO_CUE if text else EMPTY)


# ------------------------------------------------------------------ text and exact answers
_SHORT = r"(?<!\bMr)(?<!\bDr)(?<!\bSt)(?<!\bvs)(?<!Mrs)"
_SENTENCE_END = re.compile(rf"(?<=[^\s.A-Z][^\s.]){_SHORT}[.!?][*\"”]*\s+(?=[A-Z(*\"“])")
_REASON = re.compile(r"(?i)\s*[,;(–—-]?\s*\b(?:because|since)\b")
_FONT = re.compile(r"\\(?:text|mathrm|textbf|mathbf)\s*\{([^{}]{0,500})\}")
_SIMPLE = re.compile(r"(?!.*\b(?:because|since)\b)([A-Za-z\d]+(?: [a-z\d]+){0,20})\.?")
_QUOTES = str.maketrans("‘’‚“”„（）．", "'''\"\"\"().")
_WRAPPED = [pair.split() for pair in ("** **", "__ __", "* *", "` `", '" "', "' '", "“ ”", "$ $", r"\( \)")]
_OPENING = {left[0] for left, _ in _WRAPPED}


def plain_form(text: str) -> str:
    """One Unicode form and straight quotes."""
    return text if text.isascii() else unicodedata.normalize("NFC", text).translate(_QUOTES)


def bare(said: str) -> str | None:
    """What is said without what does not belong to the answer: explanation, full stop, emphasis, quotes."""
    if simple := _SIMPLE.fullmatch(said):
        return simple[1]
    said = _FONT.sub(r"\1", said[:2000])
    for end in (_REASON.search(said, 1), _SENTENCE_END.search(said)):
        said = said[: end.start()] if end else said
    return " ".join(unwrap(said).split()) or None


def unwrap(said: str) -> str:
    """Without the full stop, emphasis, quotes and delimiters around it."""
    before = None
    while said != before:
        before, said = said, said.strip()
        said = said if said.endswith("..") else said.removesuffix(".").removesuffix("。").rstrip()
        for left, right in _WRAPPED if said[:1] in _OPENING else ():
            if len(said) > len(left + right) and said.startswith(left) and said.endswith(right):
                said = said[len(left) : -len(right)].strip()
        if said.count("**") + said.count("__") == 1:  # its partner stands before the cue
            said = re.sub(r"^(?:\*\*|__)\s*|\s*(?:\*\*|__)$", "", said)
    return said


def read_text(text: str) -> Reading:
    """A free-text reply: what is announced last, else the last line."""
    text = own_reply(text)
    reading = last_said(text, statements(text), lambda s: bare(s.said))
    if reading.answer is None and reading.rule == NO_CUE and (line := bare(text.rpartition("\n")[2])):
        return Reading(line, "last line")
    return reading


def read_exact(text: str, gold: str) -> Reading:
    """An answer that must match: what is announced last, else a last line that alone has the form of the answer."""
    text = own_reply(text)
    reading = last_said(text, statements(text, cues.RESULTS), lambda s: bare(s.said))
    line = bare(text.rpartition("\n")[2]) if reading.rule == NO_CUE else None
    alike = line and _form(line) == _form(gold) and len(line.split()) <= len(gold.split())
    return Reading(line, "last line") if alike else reading


def read_scored(text: str, gold: str) -> Reading:
    """What is announced last, as it stands (all the rest, if the gold answer has several lines), else the last line."""
    text = own_reply(text)
    if not (found := statements(text)):
        return read_text(text)
    said = text[found[-1].end :] if "\n" in gold else found[-1].said
    said = said.strip().removeprefix("```").removesuffix("```").strip()
    said = said if gold.endswith(said[-1:]) else unwrap(said)
    return Reading(said or None, found[-1].rule if said else EMPTY)


def _form(text: str) -> str:
    """Numbers as 9, words as a, the rest as it is: `3 and 4` as `9 a 9`."""
    text = re.sub(r"[^\W\d_]+(?:['-][^\W\d_]+)*", "a", re.sub(r"-?\d+(?:[.,]\d+)*", "9", plain_form(text)))
    return re.sub(r"[\[\](){}<>\s]+", "(", re.sub(r"\ba(?: a)+\b", "a", text)).strip("(") or "()"


def same_exact(gold: str, answer: str) -> bool:
    """Equal but for case, spaces, a full stop, and brackets around a word; spaces between brackets are free."""
    gold, answer = (" ".join(plain_form(text).split()).casefold().rstrip(".!") for text in (gold, answer))
    if re.match(r"\w", gold) and (m := re.fullmatch(r"\((.*)\)|\[(.*)\]", answer)):
        answer = m[1] or m[2]
    return gold == answer or (not re.search(r"\w", gold) and gold.replace(" ", "") == answer.replace(" ", ""))
