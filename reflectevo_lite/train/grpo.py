"""GRPO: the Reflector is rewarded when its reflection leads the untouched Generator to a right second turn.

The idea is that of "Reflect, Retry, Reward" (arXiv 2505.24726), the optimiser GRPO (arXiv 2402.03300) as TRL has it. A
prompt is the generic reflection prompt on a failed attempt of a training question. The policy samples a group of
reflections; for each the base model, adapter off, answers again greedily; the reward is 1 where that answer is right.
Only the reflection's tokens are trained on. Nothing here sees a test question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import generate, prompts
from ..generate import Engine, TransformersEngine, answer
from ..grading import grade_many
from ..rows import RewardRow
from . import training

if TYPE_CHECKING:
    from trl import GRPOConfig, GRPOTrainer


@dataclass(frozen=True)
class GRPOParams(training.TrainParams):
    """`TrainParams` for GRPO: `batch_size` counts reflections, `steps` optimiser steps; `epochs` and `beta` are not used.

    Raises ValueError for values that contradict each other.
    """

    epochs: float = 1.0
    steps: int = 25
    generations: int = 8  # reflections of a group, all on one failed attempt
    temperature: float = 1.0
    max_new_tokens: int = 96
    kl: float = 0.0  # pull towards what training starts from; 0: none, as is usual for rewards that can be checked

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size * self.grad_accum % self.generations or self.generations < 2:
            raise ValueError(
                f"batch_size {self.batch_size} × grad_accum {self.grad_accum} must hold whole groups of "
                f"{self.generations} (two or more) generations"
            )
        if self.validation_share or self.packing:
            raise ValueError("validation_share and packing are for SFT and DPO: leave them out for GRPO")


def train_grpo(
    rows: Sequence[RewardRow], out: str | Path, *, model: str, params: GRPOParams, start: str | Path | None = None
) -> dict[str, Any]:
    """Train a Reflector by its reward and save its LoRA adapter to `out`.

    `start`: an adapter to go on from (e.g. of SFT); None for a fresh one. Returns and raises as `training.train_sft`; the
    history also holds `reward`, the share of sampled reflections that led to a right second turn.
    """
    return training.train(training._job("grpo", rows, out, model, params, start))


class SecondTurnReward:
    """1.0 where a reflection leads the untouched base model to a right second turn, 0.0 where not.

    A reflection that states the gold answer earns nothing: its prompt forbids that, and else it would be the easiest
    thing to learn. Base and policy share their weights: the policy's adapter is off while the base answers.
    """

    __name__ = "second_turn"  # TRL's name for it in the history

    def __init__(self, engine: Engine, rows: Sequence[RewardRow], max_new_tokens: int) -> None:
        self.engine, self.rows, self.max_new_tokens = engine, rows, max_new_tokens
        self.policy: Any = None  # the PeftModel around the engine's model; None where the engine has a model of its own

    def __call__(self, prompts: Any, completions: Sequence[Any], row: Sequence[int], **_: Any) -> list[float]:
        """Rewards of `completions` (one assistant message each) on the rows with these numbers."""
        asked = [self.rows[i] for i in row]
        return self.rewards(asked, [messages[0]["content"].strip() for messages in completions])

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


def trainer_of(
    job: training.Job, loaded: generate.Loaded, rows: Sequence[RewardRow], model: Any, common: dict[str, Any]
) -> GRPOTrainer:
    """TRL's trainer with the reward on `rows`."""
    from trl import GRPOTrainer

    whole = job.params.full_finetuning  # then there is no adapter to switch off, and the base needs its own copy
    shared = "generate" if generate.is_unsloth(loaded) else "auto"  # the one way of batching that Unsloth's models know
    engine = TransformersEngine(generate.load(job.model) if whole else loaded, batching="auto" if whole else shared)
    reward = SecondTurnReward(engine, rows, job.params.max_new_tokens)
    trainer = GRPOTrainer(model, reward_funcs=reward, **common)
    reward.policy = None if whole else trainer.model
    return trainer


def config_of(params: GRPOParams, common: dict[str, Any]) -> GRPOConfig:
    """The complete arguments of TRL's trainer."""
    from trl import GRPOConfig

    own = {
        "max_steps": params.steps,
        "num_train_epochs": 1.0,
        "remove_unused_columns": False,
        "eval_strategy": "no",
        "num_generations": params.generations,
        "max_completion_length": params.max_new_tokens,
        "chat_template_kwargs": generate.TEMPLATE,
        "temperature": params.temperature,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": None,
        "repetition_penalty": 1.0,
        "beta": params.kl,
        "num_iterations": 1,
        "steps_per_generation": params.grad_accum,
        "epsilon": 0.2,
        "loss_type": "dapo",
        "scale_rewards": "group",
        "importance_sampling_level": "token",
        "mask_truncated_completions": True,
        "shuffle_dataset": True,
        "disable_dropout": True,
        "sync_ref_model": False,
        "use_vllm": False,
        "log_completions": False,
    }
    return GRPOConfig(**common | own)
