"""What training was worth: settings, controls, paired statistics, rounds, and the paper's own figures.

`settings` is the registry that all else reads. Rows of questions and answers come in, eval rows and figures go out.
"""
# ruff: noqa: I001 - long imports are wrapped by hand

from .adapters import train_adapter, training_sets
from .carryover import balanced, some_of_each, swap, swaps_of, transfer, transfer_table
from .collapse import collapse_warnings, watch
from .evaluation import Asked, evaluate, first_turns, held_out, read_rows
from .metrics import by_turn, compare, correct_for_many, metrics
from .paper import beside, orientation
from .resample import repeated, resample
from .rounds import (
    ROUND_DATA, adapter_of_round, first_round, hold_back, last_round, multi_turn, paid, questions_of_round,
    rounds_table, run_round, validate, verdict,
)  # fmt: skip
from .settings import (
    BASELINE, CONTROLS, SETTINGS, TRAININGS, Evaluation, Setting, Training, files, label, left_out, reflecting,
    round_setting, setting, settings, trainings,
)  # fmt: skip
from .stats import over_seeds, wilson
