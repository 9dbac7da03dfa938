"""The graders: each finds the answer in a completion, then compares it with `problem["answer"]`.

Limits: prose is read by patterns, not understood, so an answer that is only implied counts as none. `math` is as strict
as `math_worker.py` says. `text` is SQuAD's exact match, which knows no synonyms. No grader raises on what a model
wrote."""

import os
import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from ..rows import Problem
from .choice import read_choice
from .math_pool import same_math, scores_full
from .math_reply import read_math
from .program import read_code
from .replies import CUT, MAX_CHARS, Reading, own_reply, plain_form, read_exact, read_scored, read_text, same_exact

_FIRM = ("box", "tag", "call", "code block")  # rules that see where the answer ends
_NO_MARKS = str.maketrans("", "", string.punctuation)
_LAST = ("last line", "last value", "option text", "whole text", "broken code")  # rules that need the end of the reply


class Grade(NamedTuple):
    """The verdict, and the answer as the grader read it (None if it read none)."""

    correct: bool
    answer: str | None


def read(problem: Problem, completion: str, truncated: bool = False) -> Reading:
    """The answer in a completion and the rule that read it, or None and why nothing was read (`UNREAD`, "refused").
    Rules: those of `_FIRM` and `_LAST`, "cue", "verdict" ("C is correct"), "first line", "bare code". `truncated`: the
    completion ended at the token limit; an answer at its very end may be half of one and is not read. Raises ValueError
    for an unknown grader, but never for a completion: anything (nothing, megabytes, null bytes) is graded."""
    name = problem["grader"]
    if name not in _READ:
        raise ValueError(f"unknown grader {name!r} in problem {problem.get('id')!r}; there are: {', '.join(_READ)}")
    text = completion.replace("\0", "") if isinstance(completion, str) else ""
    reading = _READ[name](problem, text)
    if not truncated or reading.rule in _FIRM:
        return reading
    own = own_reply(text).split()
    if own and own[-1] != text.split()[-1] and name != "code":  # it was cut within the next question, not in the answer
        return reading
    at_end = reading.answer and name != "choice" and text.rstrip(" \n.*`\"'$").endswith(reading.answer[-20:])
    lost = reading.answer is None or reading.rule in _LAST or at_end
    return Reading(None, CUT) if lost else reading


def grade(problem: Problem, completion: str, truncated: bool = False) -> Grade:
    """Grades one completion by `problem["grader"]` on what `read` reads, and raises what it raises."""
    return _judged(problem, read(problem, completion, truncated))


def _judged(problem: Problem, reading: Reading) -> Grade:
    answer = reading.answer
    return Grade(answer is not None and _IS_RIGHT[problem["grader"]](problem, answer), answer)


def grade_many(problems: Sequence[Problem], completions: Sequence[str], **how: Any) -> list[Grade]:
    """Grades pairs in order; `how` as for `grade_readings`. Raises ValueError also if the lengths differ."""
    if len(problems) != len(completions):
        raise ValueError(f"{len(problems)} problems but {len(completions)} completions")
    return grade_readings(problems, list(map(read, problems, completions)), **how)


def grade_readings(
    problems: Sequence[Problem], readings: Sequence[Reading], *, workers: int | None = None, progress: bool = True
) -> list[Grade]:
    """Grades what `read` has read, in order. Math, code and scored are judged in `workers` threads (default: one per core) with
    a progress bar, each waiting for a process of its own; the other graders take microseconds and run here."""
    slow = [i for i, problem in enumerate(problems) if problem["grader"] in ("math", "code", "scored")]
    grades = {i: _judged(problems[i], readings[i]) for i in set(range(len(problems))).difference(slow)}
    if slow:
        from tqdm.auto import tqdm

        with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
            done = pool.map(lambda i: _judged(problems[i], readings[i]), slow)
            grades |= zip(slow, tqdm(done, total=len(slow), desc="grading", disable=not progress), strict=True)
    return [grades[i] for i in range(len(problems))]


def _passes(problem: Problem, code: str) -> bool:
    from ..sandbox import run_tests

    return run_tests(code, problem.get("tests") or [], setup=problem.get("setup") or "").passed


_READ: dict[str, Callable[[Problem, str], Reading]] = {
    "choice": lambda problem, reply: read_choice(reply, problem.get("choices") or []),
    "math": lambda problem, reply: read_math(reply),
    "text": lambda problem, reply: read_text(reply),
    "code": lambda problem, reply: read_code(reply, problem.get("tests") or []),
    "exact": lambda problem, reply: read_exact(reply, str(problem["answer"])),
    "scored": lambda problem, reply: read_scored(reply, str(problem["answer"])),
}
_IS_RIGHT: dict[str, Callable[[Problem, str], bool]] = {
    "choice": lambda problem, letter: letter == str(problem["answer"]).strip().upper(),
    "math": lambda problem, answer: same_math(str(problem["answer"]), answer),
    "text": lambda problem, answer: text_scores(problem["answer"], answer)[0] == 1.0,
    "code": _passes,
    "exact": lambda problem, answer: same_exact(str(problem["answer"]), answer),
    "scored": lambda problem, answer: answer == problem["answer"] or _scored(problem, answer),
}


def _scored(problem: Problem, answer: str) -> bool:
    meta, gold = problem["meta"], problem["answer"] or None
    return scores_full(meta["generator"], {**problem, "answer": gold, "metadata": meta["entry"]}, answer)


def text_scores(golds: str | Sequence[str], prediction: str) -> tuple[float, float]:
    """(exact match, F1) over words, each the best over `golds`, in [0, 1]; (0, 0) if there are no golds. As SQuAD's
    (https://rajpurkar.github.io/SQuAD-explorer/): lower case, no ASCII punctuation, no articles; before that, one
    Unicode form and straight quotes."""
    words = _squad_words(prediction)
    pairs = [(_squad_words(gold), words) for gold in ([golds] if isinstance(golds, str) else golds)]
    return max((float(a == b) for a, b in pairs), default=0.0), max((_f1(a, b) for a, b in pairs), default=0.0)


def _squad_words(text: str) -> list[str]:
    text = plain_form(text[-MAX_CHARS:]).lower().translate(_NO_MARKS)
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def _f1(gold: list[str], words: list[str]) -> float:
    if not gold or not words:
        return float(gold == words)
    return 2 * sum((Counter(gold) & Counter(words)).values()) / (len(gold) + len(words))
