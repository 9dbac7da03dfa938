"""What training was worth: settings, controls, paired statistics, and rounds.

`settings` is the registry that all else reads. Rows of questions and answers come in, eval rows and figures go out.
"""
# ruff: noqa: I001 - long imports are wrapped by hand

from .adapters import train_adapter, training_sets
from .collapse import collapse_warnings, watch
from .evaluation import Asked, evaluate, first_turns, held_out, read_rows, row_of, shuffled
from .health import health, health_warnings
from .metrics import PAIRED, SHARE, by_turn, compare, correct_for_many, metrics, paired, share
from .reading import how_read, reading, reading_of, reading_summary, reading_warnings, too_many, unread
from .rounds import (
    ROUND_DATA, adapter_of_round, first_round, hold_back, last_round, multi_turn, paid, questions_of_round,
    roll_out, rot, rounds_table, run_round, validate, verdict,
)  # fmt: skip
from .settings import (
    BASELINE, CONTROLS, SETTINGS, TRAININGS, Evaluation, Setting, Training, files, label, left_out, reflecting,
    rollout_files, round_setting, setting, settings, trainings,
)  # fmt: skip
from .stats import LEVEL, mean_ci, wilson
from .truth import checked, first_true, truth_table, whole
