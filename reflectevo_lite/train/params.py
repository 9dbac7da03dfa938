"""What a training is told: its hyper-parameters, checked and taken from a run's own."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple

Kind = Literal["sft", "dpo", "grpo"]


@dataclass(frozen=True)
class TrainParams:
    """Hyper-parameters of one training, lengths in tokens. Raises ValueError for values that contradict each other."""

    learning_rate: float
    epochs: float
    batch_size: int = 32  # of all processes together; times grad_accum: the rows of an optimiser step
    grad_accum: int = 1
    max_length: int = 1024
    too_long: str = "error"  # rows over max_length: "error" refuses them, "skip" leaves them out and names them
    packing: bool = False  # SFT only: short rows share a sequence of max_length; batch_size then counts sequences
    lora_r: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0.0
    full_finetuning: bool = False  # train all weights; the result is a whole model instead of an adapter
    warmup: float = 0.1  # share of the steps
    schedule: str = "cosine"
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    beta: float = 0.1  # DPO only: strength of the pull towards the reference
    chosen_weight: float = 0.0  # DPO only: of an SFT loss on the chosen text, which keeps texts whole
    dtype: str = "auto"  # of the weights; computing follows
    load_in_4bit: bool = False
    chat_template: str | None = None  # this and the next one: see `generate.LoadParams`
    system_prompt: str | None = None
    gradient_checkpointing: bool | None = False  # None: by the model's size
    backend: str = "auto"  # auto, unsloth, transformers
    validation_share: float = 0.0  # share of the training questions whose rows are only evaluated on
    patience: int = 0  # stop after so many evaluations without a lower validation loss, keep the best; 0 = never
    checkpoints: int = 4  # how many are written along the way (10 if there is a validation loss to watch)
    processes: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        share, uneven = self.validation_share, self.processes < 1 or self.batch_size % self.processes != 0
        wrong = {
            f"too_long {self.too_long!r} must be 'error' or 'skip'": self.too_long not in ("error", "skip"),
            "full_finetuning needs load_in_4bit: false": self.full_finetuning and self.load_in_4bit,
            "lora_r must be at least 1 (all weights are trained by full_finetuning: true)": self.lora_r < 1,
            f"warmup {self.warmup} must be in [0, 1)": not 0 <= self.warmup < 1,
            f"validation_share {share} must be in [0, 1)": not 0 <= share < 1,
            "patience watches the validation loss: set validation_share above 0": self.patience > 0 and not share,
            f"batch_size {self.batch_size} cannot be shared by {self.processes} processes: choose a multiple": uneven,
        }
        if found := [message for message, is_so in wrong.items() if is_so]:
            raise ValueError("; ".join(found))

    @classmethod
    def of(cls, rates: str, p: Any) -> "TrainParams":
        """From a run's parameters: its `<rates>_learning_rate` …, and every field that it has under its own name."""
        # a rate of the corrector that is 0 or None is that of SFT, one of DPO that goes on from an adapter DPO's
        prefix = {"sft": "sft", "corrector": "sft", "dpo": "dpo", "further": "dpo"}[rates]
        names = ("learning_rate", "epochs", "batch_size")
        own = {name: getattr(p, f"{rates}_{name}", None) or getattr(p, f"{prefix}_{name}") for name in names}
        own |= {"beta": p.dpo_beta, "chosen_weight": p.dpo_chosen_weight, "packing": False} if prefix == "dpo" else {}
        return cls(**_named_in(p) | own)


@dataclass(frozen=True)
class GRPOParams(TrainParams):
    """`TrainParams` for GRPO: `batch_size` counts reflections, `steps` optimiser steps; `epochs`, `beta` go unused."""

    epochs: float = 1.0
    steps: int = 25
    generations: int = 8  # reflections of a group, all on one failed attempt
    temperature: float = 1.0
    max_new_tokens: int = 96
    kl: float = 0.0  # pull towards what training starts from; 0: none, as is usual for rewards that can be checked

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size * self.grad_accum % self.generations or self.generations < 2:
            rows = f"batch_size {self.batch_size} × grad_accum {self.grad_accum}"
            raise ValueError(f"{rows} must hold whole groups of {self.generations} (two or more) generations")
        if self.validation_share or self.packing:
            raise ValueError("validation_share and packing are for SFT and DPO: leave them out for GRPO")

    @classmethod
    def of(cls, p: Any) -> "GRPOParams":  # type: ignore[override]
        """From a run's parameters: `p.grpo_learning_rate` …, and every field that `p` has under its own name."""
        own = {name: getattr(p, f"grpo_{name}") for name in ("learning_rate", "batch_size", "generations")}
        own |= {"steps": max(1, p.grpo_steps), "temperature": p.temperature, "max_new_tokens": p.max_new_tokens}
        return cls(**_named_in(p) | own | {"validation_share": 0.0, "patience": 0, "packing": False})


def _named_in(p: Any) -> dict[str, Any]:
    return {field.name: getattr(p, field.name) for field in fields(TrainParams) if hasattr(p, field.name)}


def planned_steps(kind: Kind, params: Any, rows: int) -> int:
    """Optimiser steps of a whole training on so many rows (or packed sequences)."""
    if kind == "grpo":
        return params.steps
    return math.ceil(-(-rows // (params.batch_size * params.grad_accum)) * params.epochs)


class Job(NamedTuple):
    """One training: what, on which rows, from which weights, to where."""

    kind: Kind
    rows: Sequence[Any]
    out: Path
    model: str
    params: Any  # TrainParams, for GRPO GRPOParams
    start: str | None = None  # the adapter (or whole model) to go on from; None: a fresh adapter of `model`

    @property
    def work(self) -> Path:
        """Where checkpoints lie until the training is finished."""
        return self.out.with_name(self.out.name + ".checkpoints")

    @property
    def packed(self) -> bool:
        """Whether rows share sequences, which SFT alone can."""
        return self.kind == "sft" and self.params.packing
