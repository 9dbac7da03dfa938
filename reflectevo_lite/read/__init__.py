"""What a person sees of a run: tables, figures, transcripts, the explorer, the report.

A finished or half-finished run comes in; nothing here changes it, but for figures, annotations and the report. The
module `figures` is for others too; only importing it loads seaborn.
"""
# ruff: noqa: I001 - long imports are wrapped by hand

from .explorer import Explorer
from .report import build_report, refusals, warnings
from .tables import (
    accused, by_instruction, compare_runs, comparisons, dpo_ends, error_classes, headline_rows, load_metrics, localisation, modes,
    reading_notes, readings, results, results_of, styled, training_curves, transcript, turn_curve, unread,
    verdicts, with_intervals,
)  # fmt: skip
from .widgets import explore
