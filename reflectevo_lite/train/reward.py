"""GRPO's reward: a reflection is good if it leads the untouched Generator to a right second turn.

The idea is that of "Reflect, Retry, Reward" (arXiv 2505.24726), the optimiser TRL's GRPO (arXiv 2402.03300). A group of
reflections is sampled on a failed attempt of a training question; for each the base model, adapter off, answers again
greedily. Only the reflection's tokens are trained on. Nothing here sees a test question."""

from collections.abc import Sequence
from typing import Any

from .. import prompts
from ..generate import Engine, answer
from ..grading import grade_many
from ..rows import RewardRow


class SecondTurnReward:
    """1.0 for a reflection that leads the base model to a right answer, but 0.0 for one that states the gold answer."""

    __name__ = "second_turn"  # TRL's name for it in the history

    def __init__(self, engine: Engine, rows: Sequence[RewardRow], max_new_tokens: int) -> None:
        self.engine, self.rows, self.max_new_tokens = engine, rows, max_new_tokens
        self.policy: Any = None  # the PeftModel around the engine's model; None if the engine has a model of its own

    def __call__(self, prompts: Any, completions: Sequence[Any], row: Sequence[int], **_: Any) -> list[float]:
        """Rewards of `completions` (one assistant message each) on the rows with these numbers."""
        return self.rewards([self.rows[i] for i in row], [said[0]["content"].strip() for said in completions])

    def rewards(self, asked: Sequence[RewardRow], texts: Sequence[str]) -> list[float]:
        """One reward for each reflection on each row."""
        problems = [row["problem"] for row in asked]
        retries = [prompts.retry_prompt(r["problem"], r["attempt"], text) for r, text in zip(asked, texts, strict=True)]
        second = self._base_answers(problems, retries)
        stated = grade_many(problems, texts)
        return [float(a["correct"] and not s.correct) for a, s in zip(second, stated, strict=True)]

    def _base_answers(self, problems: list[Any], retries: list[Any]) -> list[Any]:
        import torch

        with torch.random.fork_rng():  # the engine seeds torch; the policy's sampling must not notice
            if self.policy is None:
                return answer(self.engine, problems, retries, max_new_tokens=self.max_new_tokens)
            was_training = self.policy.training
            self.policy.eval()
            with self.policy.disable_adapter():
                found = answer(self.engine, problems, retries, max_new_tokens=self.max_new_tokens)
            self.policy.train(was_training)
            return found
