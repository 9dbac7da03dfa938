"""What each notebook writes into a run directory: what redoing it sets aside, and what holds its parameters fast."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import yaml

from .. import store
from .params import ANALYSIS, BEYOND, DATA, DPO, ROLLOUTS, ROUNDS, SFT

ORDER = (*store.STAGES[:-1], *BEYOND, ANALYSIS)  # the analysis reads what all others made
FIGURES = {
    DATA: ("task_mix",),
    ROLLOUTS: ("instructions",),
    SFT: ("training_sft",),
    DPO: ("training_dpo",),
    ROUNDS: ("rounds", "turns", "collapse"),
    "grpo": ("training_grpo",),
    "transfer": ("transfer", "swap"),
    "gain": ("gain",),
    "ladder": ("ladder",),
    "words": ("words",),
    "verifier": ("verifier",),
    "injected": ("injected",),
    ANALYSIS: ("headline", "accuracy", "localisation", "truth", "error_classes", "flips", "taxonomy",
               "reflection_style", "tokens_accuracy"),
}  # fmt: skip
FILES = {  # what a stage writes beside figures, adapters and evals of its settings
    DATA: ("data",),
    ROLLOUTS: ("rollouts", "curated", "judges", "evals/turn1.*"),
    ROUNDS: ("rounds", "adapters/round_*", "evals/round_*"),
    "resampling": ("evals/*.resample*",),
    "transfer": ("adapters/task_*", "evals/transfer", "evals/swap"),
    "gain": ("adapters/gain_*",),
    "ladder": ("evals/ladder",),
    "ablation": ("curated/plus_*", "evals/first"),
    "words": ("evals/words",),
    "verifier": ("evals/verifier",),
    "injected": ("evals/injected",),
    "one_pass": ("curated/one_pass.*", "rollouts/one_pass_*"),
    ANALYSIS: ("metrics.json", "report.html", "rows.zip"),
}


def products(stage: str) -> list[str]:
    """What a stage writes into a run directory, as patterns."""
    from ..evaluate import SETTINGS, TRAININGS

    found = [f"notebooks/{stage}.*", *FILES.get(stage, ()), *(f"figures/{name}.png" for name in FIGURES.get(stage, ()))]
    found += [f"adapters/{t.name}{end}" for t in TRAININGS.values() if t.notebook == stage for end in ("", ".*")]
    return found + [f"evals/{s.name}.*" for s in SETTINGS.values() if s.notebook == stage]


def set_aside(run_dir: Path, stages: list[str]) -> list[Path]:
    """Move what the first of `stages` and all later ones made into `<run_dir>/before/<time>/`; nothing is deleted."""
    later = ORDER[ORDER.index(stages[0]) :]
    if stages[0] in BEYOND:  # beyond notebooks do not build on one another
        later = tuple(stage for stage in later if stage in (*stages, ANALYSIS))
    target, moved = run_dir / "before" / time.strftime("%Y%m%d-%H%M%S"), []
    for path in [p for stage in later for pattern in products(stage) for p in run_dir.glob(pattern)]:
        if path.exists():
            to = target / path.relative_to(run_dir)
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(path, to)
            moved.append(path)
    if recorded := store.Run(run_dir).params():  # rows.zip has gone with the rest
        kept = {stage: values for stage, values in recorded.items() if stage not in later}
        store.write_text(run_dir / "run.yaml", yaml.safe_dump(kept, sort_keys=True, allow_unicode=True))
    return moved


def made(run_dir: Path, stage: str) -> list[str]:
    """What a stage has made so far, as paths in the run directory; its executed copy counts once it is finished."""
    patterns = [p for p in products(stage) if not p.startswith(("notebooks/", "figures/"))]
    found = [path for pattern in patterns for path in sorted(run_dir.glob(pattern))]
    found += [store.executed_copy(run_dir, stage)] * store.stage_finished(run_dir, stage)
    return [str(path.relative_to(run_dir)) for path in found]
