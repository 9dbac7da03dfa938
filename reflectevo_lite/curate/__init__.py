"""Rollouts sorted into what is trained on: D+, D±, D^pref and their controls; the judges; the gain of a reflection.

Comes in: rollouts, an engine that scores or answers, and a judge's name. Goes out: rows of training sets
(`write_curated`, `d_plus`, …), the examples that TRL trains on (`examples`, by the forms in `FORMS`), and tables."""

from .agreement import agreement
from .cache import Cache
from .examples import FORMS, examples
from .gain import gain, gain_auc, gain_by_instruction, gain_items, gain_reliability, gain_table
from .judges import make_judge
from .leaks import Clean, leak_shares, leaks, masked
from .sets import PairRow, PlusRow, both_helped, d_plus, d_pm, random_share, top_gain, with_rows, write_curated
