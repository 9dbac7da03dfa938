"""Rollouts sorted into what is trained on: D+, D±, D^pref and their controls; the judges; the gain of a reflection."""

from .calibration import gain_auc, gain_by_instruction, gain_items, gain_reliability, gain_table
from .curation import (
    PairRow,
    PlusRow,
    both_helped,
    d_plus,
    d_pm,
    preference_rows,
    qa_rows,
    random_share,
    reward_rows,
    sft_rows,
    top_gain,
    with_rows,
    write_curated,
)
from .judges import Cache, agreement, gain, make_judge

__all__ = [
    "Cache",
    "PairRow",
    "PlusRow",
    "agreement",
    "both_helped",
    "d_plus",
    "d_pm",
    "gain",
    "gain_auc",
    "gain_by_instruction",
    "gain_items",
    "gain_reliability",
    "gain_table",
    "make_judge",
    "preference_rows",
    "qa_rows",
    "random_share",
    "reward_rows",
    "sft_rows",
    "top_gain",
    "with_rows",
    "write_curated",
]
