"""The rows that pass between the stages: plain dicts in JSON Lines, documented here and nowhere else.

Every file of a run holds one kind of row. Prompts are chat messages, built before generation and stored with what they
produced: what was sent is what is trained on.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict


class Message(TypedDict):
    """One chat message."""

    role: Literal["user", "assistant"]
    content: str


class Problem(TypedDict):
    """A question with a verifiable answer."""

    id: str  # unique within the run, e.g. "logiqa-test-17"
    task: str  # the source or task family; tables are split by it
    question: str  # without the choices; prompts.py lays both out
    # The gold answer as its grader expects it: a letter (choice), LaTeX or a number (math), a string or a list of
    # accepted strings (text), reference code (code), a string (exact).
    answer: str | list[str]
    grader: Literal["choice", "math", "text", "code", "exact", "scored"]  # scored: by reasoning-gym, of meta.entry
    choices: NotRequired[list[str]]  # option texts; the first is A
    tests: NotRequired[list[str]]  # code: assert statements that grade
    shown_tests: NotRequired[list[str]]  # code: the asserts that the prompt may show
    setup: NotRequired[str]  # code: runs after the candidate, before the tests
    context: NotRequired[str]  # passage or dialogue that the question is about
    shots: NotRequired[list[Message]]  # worked examples, said before the question
    reflection_shots: NotRequired[list[dict[str, str]]]  # before turn 2: question, attempt, reflection, second
    meta: dict[str, Any]  # source, url, licence, split, and what a source adds


class Attempt(TypedDict):
    """One answer of the Generator to one prompt."""

    prompt: list[Message]
    completion: str
    answer: str | None  # as the grader read it; None if none was found
    correct: bool
    tokens: int  # generated tokens; 0 if an option was chosen by likelihood
    truncated: bool  # the length limit cut it
    # The rule that read the answer ("likelihood" or "likelihood_norm" if an option was chosen by it, `answer_by`), or why
    # none was (`grading.read`); not in old rows.
    read: NotRequired[str]
    options: NotRequired[list[float]]  # chosen by likelihood: log p of each option in nats, A first
    trouble: NotRequired[str]  # what a server refused or left out of its reply (`generate.Completion`)


class Reflection(TypedDict):
    """One self-reflection of the Reflector on a turn-1 attempt, and what it led to."""

    instruction: str  # "v-l-p" of the 2 × 8 × 2 pool (prompts.INSTRUCTIONS), or "generic"
    prompt: list[Message]
    text: str
    tokens: int
    trouble: NotRequired[str]  # as an Attempt's
    turn2: Attempt


class Rollout(TypedDict):
    """Everything that was generated for one problem. `reflections` is empty if turn 1 was right (oracle mode)."""

    id: str
    problem: Problem
    turn1: Attempt
    reflections: list[Reflection]
    model: str  # model name or path
    dtype: NotRequired[str | None]  # of its weights; None if a server alone knows
    adapter: str | None  # the Reflector's adapter; None for the base model
    seed: int


class SFTRow(TypedDict):
    """A training example in TRL's conversational prompt/completion form; loss falls on the completion only."""

    id: str
    task: str
    prompt: list[Message]
    completion: list[Message]
    instruction: str


class PreferenceRow(TypedDict):
    """A DPO pair in TRL's explicit-prompt conversational form: two reflections on the same failed attempt."""

    id: str
    task: str
    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]
    instruction: str


class RewardRow(TypedDict):
    """A failed attempt for GRPO: reflections on it are sampled, and rewarded by the second turn that they lead to."""

    id: str
    task: str
    prompt: list[Message]
    problem: Problem
    attempt: str  # the completion of turn 1
    instruction: str


class EvalRow(TypedDict):
    """One held-out question in `evals/<setting>.<mode>[.<control>].jsonl`. The first answer, the same for all settings,
    is stored once, in `evals/turn1.jsonl` (`evaluate.read_rows` joins)."""

    id: str
    task: str
    turn1_correct: bool
    turn2_correct: bool
    reflection: str | None
    turn2: str | None  # None if the first answer was kept without a second turn, or if `samples` are kept
    tokens: int  # generated in turn 2 and its reflection; turn 1 is shared by all settings
    correct: NotRequired[list[bool]]  # by turn, from turn 1 on; only if more than two turns were run
    turn_tokens: NotRequired[list[int]]  # by turn, from turn 2 on, shorter if the question was settled earlier
    options: NotRequired[list[float]]  # as an Attempt's, of turn 2
    read: NotRequired[list[str]]  # as an Attempt's: by turn, from turn 2 on, or of each sample; not in old rows
    truncated: NotRequired[list[bool]]  # likewise
    trouble: NotRequired[str]  # of its reflections and attempts; a refused turn keeps the answer before it, for good
    samples: NotRequired[list[list[Any]]]  # control resample_vote: [answer, correct, tokens] of each fresh answer
