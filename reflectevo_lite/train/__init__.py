"""Rows become an adapter: SFT, DPO and GRPO by TRL, in one process or several; export of what was trained.

Read `training` first (`launch` starts several processes), then `trainer`, which builds TRL's from `examples` (rows),
`reward` (GRPO) and `backend` (Unsloth or plain). Nothing here reads a run directory but `export`."""

from .backend import explicit, settle, trainable
from .export import export
from .params import GRPOParams, TrainParams, planned_steps
from .training import train, train_dpo, train_grpo, train_sft
