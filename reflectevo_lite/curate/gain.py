"""The gain of a reflection: how much likelier it makes the gold answer. Does that foretell whether it helps? See
notebooks/beyond/gain.ipynb."""

from collections.abc import Sequence

from .. import prompts
from ..generate import TransformersEngine
from ..rows import Reflection, Rollout
from .cache import Cache, scores

Item = tuple[Rollout, Reflection]


def gain(engine: TransformersEngine, items: Sequence[Item], cache: Cache | None = None) -> list[float]:
    """The gain of each reflection: log p(gold answer | q, attempt, r) − log p(gold answer | q, attempt), in nats. It is
    as good as the model's answers without written steps, which are scored."""
    asked = [(row, reflection["text"]) for row, reflection in items] + [(row, None) for row, _ in items]
    found = score_gold(engine, asked, cache)
    return [after - before for after, before in zip(found[: len(items)], found[len(items) :], strict=True)]


def score_gold(
    engine: TransformersEngine, asked: Sequence[tuple[Rollout, str | None]], cache: Cache | None
) -> list[float]:
    """log p(gold answer) in nats after each attempt and the text of a reflection on it (None: no reflection)."""
    conversations = [prompts.answer_only_prompt(r["problem"], r["turn1"]["completion"], text) for r, text in asked]
    return scores(engine, conversations, [f"Answer: {prompts.gold_answer(r['problem'])}" for r, _ in asked], cache)


def gain_items(rollouts: Sequence[Rollout]) -> list[Item]:
    """Every reflection with its rollout, in order: what `gain` takes."""
    return [(row, reflection) for row in rollouts for reflection in row["reflections"]]
