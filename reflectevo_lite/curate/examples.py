"""Rows of a training set as the examples that TRL trains on: one function for each form, a row in, an example out.

The reflection prompt is the generic one of test time; `instruction` names the one a reflection was sampled under."""

from collections.abc import Callable, Iterable
from typing import Any

from .. import prompts
from ..rows import Message, PreferenceRow, RewardRow, Rollout, SFTRow
from .sets import PairRow, PlusRow


def examples(form: str, rows: Iterable[Any]) -> list[Any]:
    """Training examples of a form of `FORMS`, from the kind of row it takes. Raises ValueError for an unknown form."""
    if form not in FORMS:
        raise ValueError(f"unknown form of examples {form!r}; there are {', '.join(FORMS)}")
    return [example for row in rows if (example := FORMS[form](row))]


def reflector(row: PlusRow) -> SFTRow:
    """Question and attempt → reflection."""
    return _sft(row, _asks_for_reflection(row), row["reflection"]["text"])


def corrector(row: PlusRow) -> SFTRow:
    """Question, attempt and reflection → second attempt."""
    turn2 = row["reflection"]["turn2"]
    return _sft(row, turn2["prompt"], turn2["completion"])


def one_stage(row: PlusRow) -> SFTRow:
    """Question and attempt → reflection and second attempt."""
    reflection = row["reflection"]
    completion = prompts.join_one_stage(reflection["text"], reflection["turn2"]["completion"])
    return _sft(row, prompts.one_stage_prompt(row["problem"], row["turn1"]["completion"]), completion)


def star(row: PlusRow) -> SFTRow:
    """Question → corrected answer, without attempt or reflection (STaR, arXiv 2203.14465)."""
    return _sft(row, prompts.answer_prompt(row["problem"]), row["reflection"]["turn2"]["completion"])


def redo(row: PlusRow) -> SFTRow:
    """Question and attempt → corrected answer, without a reflection."""
    asked = prompts.retry_prompt(row["problem"], row["turn1"]["completion"], None)
    return _sft(row, asked, row["reflection"]["turn2"]["completion"])


def qa(rollout: Rollout) -> SFTRow:
    """Question → gold answer, right or wrong at turn 1: the paper's SFT baseline, without any reflection."""
    problem = rollout["problem"]
    return _example(rollout, "none", prompts.answer_prompt(problem), completion=_said(prompts.gold_completion(problem)))


def preference(row: PairRow) -> PreferenceRow:
    """Question and attempt → the chosen and the rejected reflection, for DPO."""
    chosen, rejected = row["chosen"], row["rejected"]
    sides = {"chosen": _said(chosen["text"]), "rejected": _said(rejected["text"])}
    return _example(row, chosen["instruction"], _asks_for_reflection(row), **sides)


def reward(rollout: Rollout) -> RewardRow | None:
    """Question and failed attempt, for GRPO; None if the attempt is correct."""
    if rollout["turn1"]["correct"]:
        return None
    problem, attempt = rollout["problem"], rollout["turn1"]["completion"]
    return _example(rollout, "generic", _asks_for_reflection(rollout), problem=problem, attempt=attempt)


FORMS: dict[str, Callable[[Any], Any]]
FORMS = {form.__name__: form for form in (reflector, corrector, one_stage, star, redo, qa, preference, reward)}


def _asks_for_reflection(row: Any) -> list[Message]:
    return prompts.reflection_prompt(row["problem"], row["turn1"]["completion"])


def _sft(row: PlusRow, prompt: list[Message], completion: str) -> SFTRow:
    return _example(row, row["reflection"]["instruction"], prompt, completion=_said(completion))


def _example(row: Any, instruction: str, prompt: list[Message], **more: Any) -> Any:
    return {"id": row["id"], "task": row["problem"]["task"], "instruction": instruction, "prompt": prompt, **more}


def _said(text: str) -> list[Message]:
    return [{"role": "assistant", "content": text}]
