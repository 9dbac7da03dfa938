"""Is a completion right? Graders for choice, math, free text, code and the synthetic tasks.

    grade(problem, completion)            -> Grade(correct, answer)
    grade_many(problems, completions)     -> list[Grade], in parallel where a grader is slow

Each grader first finds the answer in what a model wrote, then compares it with `problem["answer"]`. Answers
are looked for where the prompts ask for them (`Answer: ...`), and in the forms that models fall into anyway
(`\\boxed{}`, the paper's `Finish[...]`, "the answer is ..."). A run-on into a next question is cut off.

Limits: prose is read by patterns, not understood, so an answer that is only implied counts as none. `math` is
as strict as `_math_worker.py` says. `text` is the SQuAD exact match, which knows no synonyms. No grader
raises on what a model wrote, and only the last 50,000 characters of it are read.
"""

from __future__ import annotations

import os
import re
import string
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from ..rows import Problem
from . import choice, math_pool

MAX_CHARS = 50_000  # of a completion; the answer is at its end
SLOW = ("math", "code")  # graders that wait for another process


class Grade(NamedTuple):
    """The verdict, and the answer as the grader read it (None where none was found)."""

    correct: bool
    answer: str | None


def grade(problem: Problem, completion: str) -> Grade:
    """Grades one completion by `problem["grader"]`: choice, math, text, code or exact.

    Raises ValueError for an unknown grader. Whatever stands in `completion` (nothing, megabytes, null bytes)
    is graded.
    """
    name = problem["grader"]
    if name not in _GRADERS:
        known = ", ".join(_GRADERS)
        raise ValueError(f"unknown grader {name!r} in problem {problem.get('id')!r}; there are: {known}")
    return _GRADERS[name](problem, completion.replace("\0", "") if isinstance(completion, str) else "")


def grade_many(
    problems: Sequence[Problem], completions: Sequence[str], *, workers: int | None = None, progress: bool = True
) -> list[Grade]:
    """Grades pairs in order. Math and code run in `workers` threads (default: one per core), each waiting for
    a process of its own, with a progress bar; the other graders take microseconds and run here.

    Raises ValueError if the lengths differ or a grader is unknown.
    """
    if len(problems) != len(completions):
        raise ValueError(f"{len(problems)} problems but {len(completions)} completions")
    slow = [i for i, problem in enumerate(problems) if problem["grader"] in SLOW]
    grades = {i: grade(problems[i], completions[i]) for i in set(range(len(problems))).difference(slow)}
    if slow:
        from tqdm.auto import tqdm

        with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
            done = pool.map(lambda i: grade(problems[i], completions[i]), slow)
            grades |= zip(slow, tqdm(done, total=len(slow), desc="grading", disable=not progress), strict=True)
    return [grades[i] for i in range(len(problems))]


def _grade_choice(problem: Problem, completion: str) -> Grade:
    answer = extract_choice(completion, problem.get("choices") or [])
    return Grade(answer is not None and answer == str(problem["answer"]).strip().upper(), answer)


def _grade_math(problem: Problem, completion: str) -> Grade:
    answer = extract_math(completion)
    return Grade(answer is not None and same_math(str(problem["answer"]), answer), answer)


def _grade_text(problem: Problem, completion: str) -> Grade:
    gold, answer = problem["answer"], extract_text(completion)
    golds = [gold] if isinstance(gold, str) else gold
    return Grade(answer is not None and text_scores(golds, answer)[0] == 1.0, answer)


def _grade_exact(problem: Problem, completion: str) -> Grade:
    """The synthetic tasks teach a format, so nothing but case and spacing is forgiven."""
    _, found, rest = completion[-MAX_CHARS:].rpartition("Answer:")
    answer = " ".join(rest.split("\n")[0].split()) if found else ""
    gold = " ".join(str(problem["answer"]).split())
    return Grade(bool(answer) and answer.casefold() == gold.casefold(), answer or None)


def _grade_code(problem: Problem, completion: str) -> Grade:
    from ..sandbox import run_tests

    code = extract_code(completion)
    if code is None:
        return Grade(False, None)
    return Grade(run_tests(code, problem.get("tests") or [], setup=problem.get("setup") or "").passed, code)


_GRADERS = {
    "choice": _grade_choice,
    "math": _grade_math,
    "text": _grade_text,
    "code": _grade_code,
    "exact": _grade_exact,
}


# ------------------------------------------------------------------ what all graders of prose share
_ANSWERED = re.compile(r"(?i)answer\b|finish\s*\[|\\boxed|答案")
_NEXT_TURN = re.compile(r"^[ \t]*(?:\*\*|#+ )?(?:Question|Problem|Human|User|Q) ?\d{0,4} ?[:.]|<\|\w+\|>", re.I | re.M)
_ANSWER_LINE = re.compile(r"(?i)\banswers?\s*[:：][\s*_]{0,20}?([^\n]+)")
_ANSWER_IS = re.compile(r"(?i)\banswer(?:\s+\w+){0,5}?\s+is:?[ \t]*([^\n]+)")


def _reply(text: str) -> str:
    """The model's own reply: without its hidden thoughts, and ended where it starts to ask itself the next
    question."""
    text = text[-MAX_CHARS:] if isinstance(text, str) else ""
    text = text.rpartition("</think>")[2].replace("\0", "").replace("\r", "")
    answered = _ANSWERED.search(text)
    following = answered and _NEXT_TURN.search(text, answered.end())
    return text[: following.start() if following else None].strip()


def _boxed(text: str) -> str | None:
    r"""What the last `\boxed{...}` holds, braces balanced; an unclosed one (a cut completion) holds no
    answer."""
    for start in reversed([m.end() for m in re.finditer(r"\\f?boxed\s*\{", text)][-20:]):
        depth = 1
        for m in re.finditer(r"\\[{}]|[{}]", text[start : start + 4000]):
            depth += {"{": 1, "}": -1}.get(m[0], 0)
            if depth == 0:
                return text[start : start + m.start()].strip()
    return None


def _last(pattern: re.Pattern, text: str) -> str | None:
    """The first group of the last match, without markdown and quotes around it."""
    found = [m[1] for m in pattern.finditer(text)][-1:]
    return found[0].strip().strip('*`_"“”').strip() or None if found else None


def _marked(text: str) -> str | None:
    """What stands where prompts ask for the answer: `Answer: ...`, `<answer>...</answer>`, `Finish[...]`."""
    tagged = re.compile(r"(?is)<answer>(.{0,2000}?)</answer>")
    called = re.compile(r"(?i)\bfinish\s*\[([^\n]{0,2000})\]")
    return _last(tagged, text) or _last(_ANSWER_LINE, text) or _last(called, text)


# ------------------------------------------------------------------ free text
def extract_text(text: str) -> str | None:
    """The answer in a free-text reply: after the last `Answer:`, else "the answer is ...", else the last
    line."""
    text = _reply(text)
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    return _marked(text) or _last(_ANSWER_IS, text) or (lines[-1].strip('*`_"“”') if lines else None)


def text_scores(golds: Sequence[str], prediction: str) -> tuple[float, float]:
    """(exact match, F1) over words, each the best over `golds`, in [0, 1]; (0, 0) if there are no golds.

    Normalisation and formula are SQuAD's (https://rajpurkar.github.io/SQuAD-explorer/): lower case, no ASCII
    punctuation, no articles.
    """
    words = _squad_words(prediction)
    pairs = [(_squad_words(gold), words) for gold in ([golds] if isinstance(golds, str) else golds)]
    return (max((float(a == b) for a, b in pairs), default=0.0), max((_f1(a, b) for a, b in pairs), default=0.0))


def _squad_words(text: str) -> list[str]:
    text = text[-MAX_CHARS:].lower().translate(str.maketrans("", "", string.punctuation))
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def _f1(gold: list[str], words: list[str]) -> float:
    if not gold or not words:
        return float(gold == words)
    return 2 * sum((Counter(gold) & Counter(words)).values()) / (len(gold) + len(words))


# ------------------------------------------------------------------ code
_FENCE = re.compile(r"```[ \t]*([\w+-]*)[^\n]*\n(.*?)(?:\n[ \t]*```|\Z)", re.S)


def extract_code(text: str) -> str | None:
    """The program in a reply: the longest fenced Python block (the last of equals), else the whole text.

    Longest, because models append short usage examples. An unclosed fence, as a cut completion leaves it,
    counts.
    """
    text = text[-20 * MAX_CHARS :].rpartition("</think>")[2].replace("\r\n", "\n").replace("\0", "")
    blocks = [(m[2], m[1].lower()) for m in _FENCE.finditer(text)]
    python = [code for code, language in blocks if language in ("python", "python3", "py")]
    code = max(reversed(python or [code for code, _ in blocks] or [text]), key=len)
    return code.strip("\n") if code.strip() else None


# ------------------------------------------------------------------ math
_FORMULA = re.compile(r"(?<!\\)\$\$?([^$\n]{1,500})\$|\\[(\[](.{1,500}?)\\[)\]]", re.S)
_VALUE = re.compile(
    r"[-+]?\\[dt]?frac\s*\{[^{}]{1,50}\}\s*\{[^{}]{1,50}\}"
    r"|[-+]?\\?\$?\d(?:[\d,]*\d)?(?:\.\d+)?(?:/\d+)?%?|[-+]?\.\d+"
)


def extract_math(text: str) -> str | None:
    r"""The answer in a reply to a math question, as LaTeX or plain text.

    The last `\boxed{...}` (also an opened box that never closes is passed over), else what follows the last
    `Answer:` (or `####`, as GSM8K writes), else "the answer is ...", else the last formula or number.
    """
    text = _reply(text)
    line = _marked(text) or _last(re.compile(r"####\s*([^\n]+)"), text)
    if line is None and (line := _last(_ANSWER_IS, text)):
        line = re.split(r"\.(?=\s|$)|,?\s(?:since|because)\b", line)[0].strip(" :*")
    return _boxed(text) or (_value(line) if line else None) or _value(text, whole=False)


def _value(text: str, whole: bool = True) -> str | None:
    """`text` itself if it is an answer; the last formula or number in it if it is a sentence."""
    words = re.findall(r"[A-Za-z]{2,}", re.sub(r"\\text\s*\{[^{}]*\}|\\[A-Za-z]+", "", text))
    if whole and (len(words) < 3 or not re.search(r"\d|\$|\\\(", text) or re.match(r"[\W_]*\d", text)):
        return text
    formulas, values = list(_FORMULA.finditer(text)), list(_VALUE.finditer(text))
    if formulas and not (values and values[-1].start() > formulas[-1].end()):
        return (formulas[-1][1] or formulas[-1][2]).strip()
    return values[-1][0] if values else (text if whole else None)


def same_math(gold: str, candidate: str) -> bool:
    r"""True if two short answers (LaTeX or plain) are the same mathematically; gold first, its form counts.

    Works from any thread, from notebooks and without an importable `__main__`. Takes about 1 ms, and at most
    4 s (then False); the first call starts the worker, about 2 s more. Raises RuntimeError only if
    math-verify cannot be imported.
    """
    gold, candidate = str(gold).strip(), str(candidate).strip()
    if not gold or not candidate or max(len(gold), len(candidate)) > math_pool.MAX_CHARS:
        return False
    return gold == candidate or math_pool.same(gold, candidate)


# ------------------------------------------------------------------ choice
def extract_choice(text: str, choices: Sequence[str]) -> str | None:
    """The letter ("A" is the first of `choices`) that a reply decides for, or None where it decides for none.

    The last clear statement counts ("the answer is ...", `Finish[...]`, `\\boxed{}`), then "C is correct", "I
    choose C", then a line that is a letter, then the wording of exactly one option. Two letters, a letter
    that is no option, a refusal and an echo of the options give None: a letter is never invented.
    """
    return choice.read(_reply(text), choices)
