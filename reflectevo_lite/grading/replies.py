r"""Finds the final answer in a model's reply: free text, mathematics, a program (`choice.py` reads letters).

Answers are looked for where the prompts ask for them (`Answer: ...`), and in the forms that models fall into anyway
(`\boxed{}`, the paper's `Finish[...]`, "the answer is ...").
"""

from __future__ import annotations

import re

MAX_CHARS = 50_000  # of a completion are read; the answer is at its end

_ANSWERED = re.compile(r"(?i)answer\b|finish\s*\[|\\boxed|答案")
_NEXT_TURN = re.compile(r"^[ \t]*(?:\*\*|#+ )?(?:Question|Problem|Human|User|Q) ?\d{0,4} ?[:.]|<\|\w+\|>", re.I | re.M)
_MARKED = (  # where prompts ask for the answer: `<answer>...</answer>`, `Answer: ...`, `Finish[...]`
    re.compile(r"(?is)<answer>(.{0,2000}?)</answer>"),
    re.compile(r"(?i)\banswers?\s*[:：][\s*_]{0,20}?([^\n]+)"),
    re.compile(r"(?i)\bfinish\s*\[([^\n]{0,2000})\]"),
)
_GSM8K = re.compile(r"####\s*([^\n]+)")
_ANSWER_IS = re.compile(r"(?i)\banswer(?:\s+\w+){0,5}?\s+is:?[ \t]*([^\n]+)")
_FENCE = re.compile(r"```[ \t]*([\w+-]*)[^\n]*\n(.*?)(?:\n[ \t]*```|\Z)", re.S)
_FORMULA = re.compile(r"(?<!\\)\$\$?([^$\n]{1,500})\$|\\[(\[](.{1,500}?)\\[)\]]", re.S)
_VALUE = re.compile(
    r"[-+]?\\[dt]?frac\s*\{[^{}]{1,50}\}\s*\{[^{}]{1,50}\}"
    r"|[-+]?\\?\$?\d(?:[\d,]*\d)?(?:\.\d+)?(?:/\d+)?%?|[-+]?\.\d+"
)


def own_reply(text: str) -> str:
    """The model's own reply: without its hidden thoughts, and cut where it begins to ask itself the next question."""
    text = text[-MAX_CHARS:] if isinstance(text, str) else ""
    text = text.rpartition("</think>")[2].replace("\0", "").replace("\r", "")
    answered = _ANSWERED.search(text)
    following = answered and _NEXT_TURN.search(text, answered.end())
    return text[: following.start() if following else None].strip()


def extract_text(text: str) -> str | None:
    """The answer in a free-text reply: the marked one, else "the answer is ...", else the last line."""
    text = own_reply(text)
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    return _last(text, *_MARKED, _ANSWER_IS) or (lines[-1].strip('*`_"“”') if lines else None)


def extract_math(text: str) -> str | None:
    r"""The answer in a reply to a math question, as LaTeX or plain text.

    The last `\boxed{...}` that closes, else the marked answer (also after `####`, as GSM8K writes), else "the answer
    is ...", else the last formula or number.
    """
    text = own_reply(text)
    line = _last(text, *_MARKED, _GSM8K)
    if line is None and (line := _last(text, _ANSWER_IS)):
        line = re.split(r"\.(?=\s|$)|,?\s(?:since|because)\b", line)[0].strip(" :*")
    return _boxed(text) or (_value(line) if line else None) or _value(text, whole=False)


def extract_code(text: str) -> str | None:
    """The program in a reply: the longest fenced Python block (the last of equals), else the whole text.

    Longest, because models append short usage examples. An unclosed fence, as a cut completion leaves it, counts.
    """
    text = text[-20 * MAX_CHARS :].rpartition("</think>")[2].replace("\r\n", "\n").replace("\0", "")
    blocks = [(m[2], m[1].lower()) for m in _FENCE.finditer(text)]
    python = [code for code, language in blocks if language in ("python", "python3", "py")]
    code = max(reversed(python or [code for code, _ in blocks] or [text]), key=len)
    return code.strip("\n") if code.strip() else None


def _last(text: str, *patterns: re.Pattern) -> str | None:
    """The first group of the last match, of the first pattern that has one, without markdown and quotes around it."""
    for pattern in patterns:
        found = [m[1] for m in pattern.finditer(text)]
        if found and (answer := found[-1].strip().strip('*`_"“”').strip()):
            return answer
    return None


def _boxed(text: str) -> str | None:
    r"""What the last `\boxed{...}` holds, braces balanced; a box that never closes (a cut completion) holds none."""
    for start in reversed([m.end() for m in re.finditer(r"\\f?boxed\s*\{", text)][-20:]):
        depth = 1
        for m in re.finditer(r"\\[{}]|[{}]", text[start : start + 4000]):
            depth += {"{": 1, "}": -1}.get(m[0], 0)
            if depth == 0:
                return text[start : start + m.start()].strip()
    return None


def _value(text: str, whole: bool = True) -> str | None:
    """`text` itself if it is an answer; the last formula or number in it if it is a sentence."""
    words = re.findall(r"[A-Za-z]{2,}", re.sub(r"\\text\s*\{[^{}]*\}|\\[A-Za-z]+", "", text))
    if whole and (len(words) < 3 or not re.search(r"\d|\$|\\\(", text) or re.match(r"[\W_]*\d", text)):
        return text
    formulas, values = list(_FORMULA.finditer(text)), list(_VALUE.finditer(text))
    if formulas and not (values and values[-1].start() > formulas[-1].end()):
        return (formulas[-1][1] or formulas[-1][2]).strip()
    return values[-1][0] if values else (text if whole else None)
