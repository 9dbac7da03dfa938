"""What a person sees of a run: tables, figures, transcripts, the explorer, the report."""

from . import figures
from .explorer import Explorer, explore
from .report import build_report
from .tables import (
    by_instruction,
    compare_runs,
    comparisons,
    error_classes,
    label,
    left_out,
    load_metrics,
    localisation,
    modes,
    results,
    results_of,
    seeds,
    training_curves,
    transcript,
    turn_curve,
    verdicts,
    with_intervals,
)

__all__ = [
    "Explorer",
    "build_report",
    "by_instruction",
    "compare_runs",
    "comparisons",
    "error_classes",
    "explore",
    "figures",
    "label",
    "left_out",
    "load_metrics",
    "localisation",
    "modes",
    "results",
    "results_of",
    "seeds",
    "training_curves",
    "transcript",
    "turn_curve",
    "verdicts",
    "with_intervals",
]
