"""Every prompt of the pipeline, as chat messages.

A prompt holds the question, at most one attempt, and what is asked now; a verdict ("not correct") is said only in
*oracle* mode, as in the paper, and never in *intrinsic* mode. No prompt holds a gold answer or an earlier retry.
The pool of reflection instructions follows the paper's scheme (section 3.2 of arXiv 2505.16475): 2 ways to verify
× 8 places to look × 2 kinds of plan, identified as `v-l-p` from `1-1-1` to `2-8-2`. The wording is this project's.
"""

from __future__ import annotations

import fnmatch
import random
from collections.abc import Sequence
from string import ascii_uppercase
from typing import Literal

from .rows import Message, Problem

# What options are called: A to Z, then AA to ZZ.
LABELS = (*ascii_uppercase, *(a + b for a in ascii_uppercase for b in ascii_uppercase))
Mode = Literal["oracle", "intrinsic"]

VERIFY = {
    1: "Go through your solution step by step and check each step.",
    2: "Read over your solution as a whole, without checking every step.",
}
LOCATE = {
    1: ("calculation", "Look for a slip in a calculation and say what caused it."),
    2: ("method", "Look for a wrong method or a wrong order of steps and say what caused it."),
    3: ("coherence", "Look for a step that does not follow from the ones before it and say what caused it."),
    4: (
        "consistency",
        "Look for statements or an answer at odds with the rest of the solution and say what caused it.",
    ),
    5: ("context", "Look for something in the question that was misread or passed over and say what caused it."),
    6: ("completeness", "Look for missing or needless parts of the solution and say what caused it."),
    7: ("format", "Look for a breach of the form in which the answer was asked for and say what caused it."),
    8: ("facts", "Look for a claim that is untrue and say what caused it."),
}
PLAN = {
    1: "Then plan in general terms how to avoid such a mistake.",
    2: "Then plan the specific corrections, one by one.",
}
GENERIC = "Work out the most likely cause of a mistake, then devise a short, high-level plan to do better."
LIMITS = "Use at most 100 words and do not state the answer."

VERDICT = {"oracle": "Your answer is not correct.", "intrinsic": "Your answer may be right or wrong."}
NOTHING_WRONG = "If you find no mistake, say so."

ANSWER_FORMAT = {
    "choice": "Think step by step. End with a line that says 'Answer: ' and the letter of the right option.",
    "math": "Think step by step. End with a line that says 'Answer: ' and the final result in \\boxed{}.",
    "text": "Think step by step. End with a line that says 'Answer: ' and the answer in as few words as possible.",
    "exact": "Think step by step. End with a line that says 'Answer: ' and the result alone.",
    "scored": "Think step by step. End with 'Answer: ' and the answer alone, in the form that was asked for.",
    "code": "Think first, then write the complete function in one Python code block.",
}
ANSWER_ONLY = "Give only the final answer, without any steps, as a line that says 'Answer: ' and the answer."

ANSWER_CUE = "Answer:"  # what an option's likelihood is taken after

REFLECTION_FOLLOWS = "Here is a reflection on it:"
RETRY_WITH_REFLECTION = "Use the reflection to answer the question again."
RETRY = "Answer the question again."
ONE_STAGE = "Reflect on it first, then answer the question again."
ONE_STAGE_LAYOUT = "Start the first part with 'Reflection: ' and the second part with 'Second attempt: '."
REFLECTION_HEAD, SECOND_ATTEMPT_HEAD = "Reflection: ", "\n\nSecond attempt: "

INSTRUCTIONS: dict[str, str] = {
    f"{v}-{where}-{p}": f"{VERIFY[v]} {LOCATE[where][1]} {PLAN[p]}" for v in VERIFY for where in LOCATE for p in PLAN
} | {"generic": GENERIC}
POOL: tuple[str, ...] = tuple(name for name in INSTRUCTIONS if name != "generic")
KNOWN_INSTRUCTIONS = "there are 1-1-1 to 2-8-2, patterns of these such as 1-*-*, all, and generic"


def aspect(instruction: str) -> str | None:
    """The error class that an instruction asks to look for ("calculation", …); None for "generic"."""
    return None if instruction == "generic" else LOCATE[int(instruction.split("-")[1])][0]


def parts(instruction: str) -> tuple[str, str | None, str]:
    """What an instruction of the pool says: how to verify, the error class to look for, how fine the plan is."""
    verify, _, plan = instruction.split("-")
    return {"1": "trace", "2": "skim"}[verify], aspect(instruction), {"1": "high-level", "2": "low-level"}[plan]


def instruction_pool(chosen: str | Sequence[str] = "all") -> list[str]:
    """The instructions that `chosen` names, in the pool's order: "all" (the 32), identifiers, patterns such as "1-*-*"
    (verify 1 only) or "*-1-*" (look for calculation only), or a list of these. Raises ValueError for an unknown one."""
    names = ["*-*-*" if name == "all" else name for name in ([chosen] if isinstance(chosen, str) else chosen)]
    found = {name: fnmatch.filter(INSTRUCTIONS, str(name)) for name in names}
    if unknown := [name for name, fits in found.items() if not fits]:
        raise ValueError(f"unknown reflection instruction {', '.join(map(str, unknown))}: {KNOWN_INSTRUCTIONS}")
    if not names:
        raise ValueError(f"no reflection instruction is chosen: {KNOWN_INSTRUCTIONS}")
    return [name for name in INSTRUCTIONS if any(name in fits for fits in found.values())]


def draw_instructions(n: int, seed: int, pool: Sequence[str] = POOL, *, k: int = 1) -> list[str]:
    """`n` instructions out of `pool`, seeded and balanced: counts differ by at most one.

    Each `k` in a row are one wrong answer's: none of them comes twice as long as the pool has k. Raises ValueError for
    an unknown name.
    """
    cards, drawn, rng = instruction_pool(pool), list[str](), random.Random(f"instructions/{seed}")
    while len(drawn) < n:
        hand = drawn[len(drawn) - len(drawn) % k :]
        drawn += sorted(rng.sample(cards, len(cards)), key=hand.count)  # what the answer has not yet had comes first
    return drawn[:n]


def answer_prompt(problem: Problem) -> list[Message]:
    """Turn 1: the worked examples, if the problem has any, then the question and the form of the answer."""
    return [*problem.get("shots", []), _ask(problem)]


def worked(problem: Problem) -> list[Message]:
    """A question and its answer as a worked example: `meta.worked` if it has that, else the gold answer."""
    return [_ask(problem), _said(problem["meta"].get("worked") or gold_completion(problem))]


def gold_completion(problem: Problem) -> str:
    """The gold answer in the form that the answer prompt asks for, without steps."""
    answer = gold_answer(problem)
    if problem["grader"] == "code":
        return f"```python\n{answer.strip()}\n```"
    return f"Answer: \\boxed{{{answer}}}" if problem["grader"] == "math" else f"Answer: {answer}"


def gold_answer(problem: Problem) -> str:
    """The gold answer as a model would state it (the first if several are accepted)."""
    answer = problem["answer"]
    return answer if isinstance(answer, str) else answer[0]


def reflection_prompt(
    problem: Problem, attempt: str, instruction: str = "generic", mode: Mode = "oracle"
) -> list[Message]:
    """Ask for a reflection on `attempt`; `instruction` is a key of `INSTRUCTIONS`. Its examples are reflections."""
    doubt = [NOTHING_WRONG] if mode == "intrinsic" else []
    asked, generic = (" ".join([VERDICT[mode], INSTRUCTIONS[i], *doubt, LIMITS]) for i in (instruction, "generic"))
    shown = list[Message]()
    for shot in problem.get("reflection_shots", []):
        shown += [_user(shot["question"]), _said(shot["attempt"]), _user(generic), _said(shot["reflection"])]
    return [*shown, _ask(problem), _said(attempt), _user(asked)]


def retry_prompt(problem: Problem, attempt: str, reflection: str | None, mode: Mode = "oracle") -> list[Message]:
    """Turn 2: answer again with `reflection` at hand, or plainly if it is None (the retry control)."""
    form, shown = ANSWER_FORMAT[problem["grader"]], list[Message]()
    for shot in problem.get("reflection_shots", []):
        asked = _retry(shot["reflection"] if reflection is not None else None, mode)
        shown += [*_tried(shot, form), _user(f"{asked} {form}"), _said(shot["second"])]
    return _after(problem, attempt, f"{_retry(reflection, mode)} {form}", shown)


def one_stage_prompt(problem: Problem, attempt: str, mode: Mode = "oracle") -> list[Message]:
    """One-stage setting: reflection and second attempt in a single completion (`join_one_stage`)."""
    form = ANSWER_FORMAT[problem["grader"]]
    asked, shown = f"{VERDICT[mode]} {ONE_STAGE} {GENERIC} {ONE_STAGE_LAYOUT} {form}", list[Message]()
    for shot in problem.get("reflection_shots", []):
        shown += [*_tried(shot, form), _user(asked), _said(join_one_stage(shot["reflection"], shot["second"]))]
    return _after(problem, attempt, asked, shown)


def asking(problem: Problem, attempt: str, words: str) -> list[Message]:
    """Any request about an attempt, in the place of the reflection prompt's."""
    return _after(problem, attempt, words)


def answer_only_prompt(problem: Problem, attempt: str, reflection: str | None, mode: Mode = "oracle") -> list[Message]:
    """The retry prompt, asking for the bare answer: what the *gain* of a reflection is measured on."""
    return _after(problem, attempt, f"{_retry(reflection, mode)} {ANSWER_ONLY}")


def join_one_stage(reflection: str, attempt: str) -> str:
    """The completion of the one-stage setting."""
    return f"{REFLECTION_HEAD}{reflection.strip()}{SECOND_ATTEMPT_HEAD}{attempt.strip()}"


def split_one_stage(completion: str) -> tuple[str, str]:
    """Reflection and second attempt of a one-stage completion; the whole text is both if the layout is missing."""
    head, mark, tail = completion.partition(SECOND_ATTEMPT_HEAD.strip())
    reflection = head.strip().removeprefix(REFLECTION_HEAD.strip()).strip()
    return (reflection, tail.strip()) if mark else (completion.strip(), completion.strip())


def question_text(problem: Problem) -> str:
    """Context, question, options and the example tests that may be shown, as one text."""
    options = zip(LABELS, problem.get("choices", []), strict=False)
    parts = [problem.get("context", ""), problem["question"], "\n".join(f"({name}) {text}" for name, text in options)]
    if shown := problem.get("shown_tests"):
        parts.append("Your code should pass tests such as:\n" + "\n".join(shown))
    return "\n".join(part for part in parts if part)


def _retry(reflection: str | None, mode: Mode) -> str:
    asked = RETRY if reflection is None else f"{REFLECTION_FOLLOWS}\n\n{reflection}\n\n{RETRY_WITH_REFLECTION}"
    return f"{VERDICT[mode]} {asked}"


def _tried(shot: dict[str, str], form: str) -> list[Message]:
    return [_user(f"{shot['question']}\n\n{form}"), _said(shot["attempt"])]


def _after(problem: Problem, attempt: str, asked: str, shown: list[Message] | None = None) -> list[Message]:
    """A request about an attempt; before it, `shown`, or without that the worked answers."""
    return [*(shown or problem.get("shots", [])), _ask(problem), _said(attempt), _user(asked)]


def _ask(problem: Problem) -> Message:
    return _user(f"{question_text(problem)}\n\n{ANSWER_FORMAT[problem['grader']]}")


def _said(content: str) -> Message:
    return {"role": "assistant", "content": content}


def _user(content: str) -> Message:
    return {"role": "user", "content": content}


JUDGE_HEAD = "A student answered the question below, and the answer was wrong. Two reflections on that answer follow."
JUDGE_ASK = (
    "Which reflection would help the student more to answer the question rightly? The better one names the mistake "
    "that was truly made, explains its cause soundly, and gives a plan that can be acted upon. Neither length, nor "
    "style, nor the order in which the two stand here should count."
)
JUDGE_LETTER = "Reply with one letter: A or B."
JUDGE_REASONED = "Compare them in a few sentences. End with a line that says 'Verdict: ' and A, B or tie."


def judge_prompt(problem: Problem, attempt: str, a: str, b: str, *, letter_only: bool = False) -> list[Message]:
    """Ask the judge of D^pref which of two reflections on a failed attempt is the better one: the bare verdict, or a
    short comparison that ends with it. It holds neither the gold answer nor what the reflections led to."""
    shown = {"Question": question_text(problem), "Wrong answer": attempt, "Reflection A": a, "Reflection B": b}
    asked = f"{JUDGE_ASK} {JUDGE_LETTER if letter_only else JUDGE_REASONED}"
    return [_user("\n\n".join([JUDGE_HEAD, *(f"[{head}]\n{text}" for head, text in shown.items()), asked]))]
