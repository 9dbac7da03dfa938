"""Rollouts sorted into what is trained on: D+, D±, D^pref and their controls; the judges; the gain of a reflection.

Comes in: rollouts, an engine that scores or answers, and a judge's name. Goes out: rows of training sets
(`write_curated`, `d_plus`, …), the examples that TRL trains on (`examples`, by the forms in `FORMS`), and tables."""

from .agreement import agreement, interval, resampled_counts
from .cache import Cache
from .examples import FORMS, examples
from .gain import gain, gain_items
from .judges import make_judge
from .leaks import Clean, leak_shares, leaks, masked
from .sets import PairRow, PlusRow, both_helped, d_plus, d_pm, with_rows, write_curated
