"""Rows become an adapter: SFT, DPO and GRPO by TRL, in one process or several; export of what was trained."""

from .export import export
from .grpo import GRPOParams, train_grpo
from .training import TrainParams, train_dpo, train_sft

__all__ = ["GRPOParams", "TrainParams", "export", "train_dpo", "train_grpo", "train_sft"]
