"""What if the verdict is not to be trusted? (verifier.ipynb)

Oracle mode is told by the gold answer which answers are wrong; nobody has that. Every answer, right ones too, is told
"not correct" once; from these second turns follows what any verifier, noisy or not, would have led to.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from reflectevo_lite import prompts, store
from reflectevo_lite.evaluate import Asked, Evaluation, Setting, evaluate, mean_ci
from reflectevo_lite.generate import Engine, TransformersEngine

FOLDER = "verifier"
NOISE = (0.0, 0.1, 0.2, 0.3)  # share of verdicts that are flipped
_NOTHING = re.compile(r"(?i)\bno (?:mistakes?|errors?)\b|\bnothing (?:is )?wrong\b|\banswer is (?:right|correct)\b")


def accuse(engine: Engine, asked: Asked, setting: Setting) -> None:
    """Second turns of a setting if every first answer is called wrong; kept in `evals/verifier/`."""
    everywhere = asked._replace(directory=asked.directory / FOLDER)
    evaluate(engine, everywhere, setting, Evaluation(setting.name, control="accused"))


def confidence(engine: TransformersEngine, asked: Asked) -> list[float]:
    """The mean log-probability of a token of each first answer, in nats; kept in `evals/verifier/confidence.jsonl`."""

    def make(part: Asked, _: int) -> list[float]:
        said = [prompts.answer_prompt(p) for p in part.problems]
        scores = engine.score(said, [a["completion"] for a in part.first])
        return [score / max(1, a["tokens"]) for score, a in zip(scores, part.first, strict=True)]

    return asked.keep(f"{FOLDER}/confidence.jsonl", make)


def accuses(reflection: str) -> bool:
    """Whether a reflection of intrinsic mode finds something wrong: it does not say that there is nothing."""
    return not _NOTHING.search(reflection)


def verifier_table(run: store.Run, name: str, *, seed: int = 0) -> pd.DataFrame:
    """What follows from a setting's second turns under each verifier: Acc@t2 with its bootstrap interval; `broken` and
    `accused`: shares of right answers that are broken, that are called wrong; `auroc` of "something is wrong". Fractions.
    Verifiers: the gold answer with a share of verdicts flipped (expected over flips), the model's own intrinsic
    reflection, and the likelihood of the first answer, which accuses as many as are wrong in training."""
    rows = run.read("evals", FOLDER, Evaluation(name, control="accused").file)
    right, after = (np.array([r[key] for r in rows], bool) for key in ("turn1_correct", "turn2_correct"))
    doubts = {f"gold answer, {noise:.0%} flipped": np.where(right, noise, 1 - noise) for noise in NOISE}
    if (path := run.path("evals", Evaluation(name, "intrinsic").file)).exists():
        doubts["its own reflection"] = np.array([accuses(r["reflection"] or "") for r in store.iter_jsonl(path)], float)
    scores = dict(doubts)
    if run.path("evals", FOLDER, "confidence.jsonl").exists():
        scores["its own likelihood"] = -np.array(run.read("evals", FOLDER, "confidence.jsonl"))
        wrong = np.mean([not r["turn1"]["correct"] for r in run.rows("rollouts", "train.jsonl")])
        least = np.quantile(scores["its own likelihood"], 1 - wrong)
        doubts["its own likelihood"] = (scores["its own likelihood"] > least).astype(float)
    found = []
    for i, (verifier, doubt) in enumerate(doubts.items()):
        second = np.where(right, 1 - doubt * ~after, doubt * after)
        shares = ((doubt * ~after)[right].mean(), doubt[right].mean()) if right.any() else (np.nan, np.nan)
        # of a verdict flipped at random: (1 + true positive rate − false positive rate) / 2
        sure = 1 - NOISE[i] if i < len(NOISE) else auroc(scores[verifier], ~right)
        found.append((verifier, len(rows), second.mean(), *mean_ci(second, seed), *shares, sure))
    return pd.DataFrame(found, columns=["verifier", "n", "acc_t2", "low", "high", "broken", "accused", "auroc"])


def auroc(scores: Sequence[float] | np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve: the chance that a positive one scores higher than another, ties half (Hanley & McNeil
    1982); NaN if either kind is missing."""
    from scipy.stats import mannwhitneyu

    yes, no = np.asarray(scores, float)[positive], np.asarray(scores, float)[~positive]
    return float(mannwhitneyu(yes, no).statistic / len(yes) / len(no)) if len(yes) and len(no) else float("nan")
