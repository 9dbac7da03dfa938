"""The paper's own figures (arXiv 2505.16475, tables of section 4) in percent; None: not reported. Never a run's own.

What the paper calls BIG-bench is a mixture of its small tasks that is not published in full.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from .settings import SETTINGS, Evaluation

BENCHMARKS = {"logiqa": "LogiQA", "math": "MATH", "mbpp": "MBPP", "bigbench": "BIG-bench"}
MODELS = {name.lower(): name for name in ("Llama-3-8B-Instruct", "Mistral-7B-Instruct-v0.2")}  # by path or hub id
ACC_T1 = {  # shared by all rows of a model
    "Llama-3-8B-Instruct": (30.2, 14.4, 28.4, 38.2),
    "Mistral-7B-Instruct-v0.2": (28.8, 9.2, 20.4, 36.6),
    "Llama-3-70B-Instruct": (42.4, 40.8, 66.2, 48.0),
    "Mistral-Small-22B-Instruct": (46.4, 47.4, 63.0, 54.4),
}
OURS = ["task", "setting", "Acc@t1", "Acc@t2", "low", "high", "n"]
COLUMNS = [*OURS, "Acc@t1 (paper)", "Acc@t2 (paper)", "inside"]  # of `beside`
PROMPTED, RETRY = Evaluation("prompted"), Evaluation("prompted", control="retry")
ACC_T2: dict[str, dict[Evaluation, tuple[float | None, ...]]] = {  # qa: Acc@t1 after training
    "Llama-3-8B-Instruct": {
        RETRY: (38.8, 15.0, 44.0, 52.4),
        PROMPTED: (36.2, 16.0, 45.8, 51.0),
        Evaluation("qa"): (46.6, 10.0, 31.2, 61.6),
        Evaluation("one_stage"): (43.8, 23.6, 29.6, 71.2),
        Evaluation("two_stage"): (49.4, 14.5, 42.4, 45.4),
        Evaluation("dpo_pm"): (41.8, 15.2, 48.8, 63.0),
        Evaluation("dpo_pref"): (39.2, 14.8, 47.4, 59.6),
    },
    "Mistral-7B-Instruct-v0.2": {
        RETRY: (31.2, 10.6, 23.0, 43.8),
        PROMPTED: (34.2, 10.2, 23.6, 44.4),
        Evaluation("qa"): (28.8, 7.6, 17.0, 37.8),
        Evaluation("one_stage"): (38.4, None, 24.0, 51.6),
        Evaluation("two_stage"): (48.8, None, 20.8, 71.1),
        Evaluation("dpo_pm"): (39.2, None, 23.2, 50.2),
        Evaluation("dpo_pref"): (38.0, None, 22.6, 48.4),
    },
    "Llama-3-70B-Instruct": {RETRY: (64.4, 49.6, 71.0, 67.0), PROMPTED: (56.8, 48.6, 73.0, 64.4)},
    "Mistral-Small-22B-Instruct": {RETRY: (62.8, 56.2, 68.0, 67.2), PROMPTED: (62.0, 52.8, 68.0, 68.0)},
}


def published(model: str | None = None) -> pd.DataFrame:
    """The paper's rows: model, key (an `Evaluation`), setting, benchmark, Acc@t1, Acc@t2, Δ; percent. For `qa`, which
    never reflects, both accuracies are the trained model's first answer."""
    rows = []
    for name, settings in ACC_T2.items():
        for key, second in settings.items():
            firsts: tuple[Any, ...] = second if SETTINGS[key.setting].answers else ACC_T1[name]
            for benchmark, t1, t2 in zip(BENCHMARKS.values(), firsts, second, strict=True):
                delta = None if t2 is None else t2 - t1
                row: dict[str, Any] = {"model": name, "key": key, "setting": key.label}
                rows.append(row | {"benchmark": benchmark, "Acc@t1": t1, "Acc@t2": t2, "Δ": delta})
    frame = pd.DataFrame(rows)
    return frame if model is None else frame[frame["model"] == model].reset_index(drop=True)


def matching(model: str) -> str | None:
    """The paper's name of a model given by path or hub id ("meta-llama/Meta-Llama-3-8B-Instruct"); None for another."""
    plain = model.lower().replace("meta-", "").replace("_", "-").rstrip("/")
    return next((name for part, name in MODELS.items() if plain.split("/")[-1].startswith(part)), None)


def beside(metrics: dict[str, Any], model: str) -> pd.DataFrame:
    """A run's rows beside the paper's of the same model, benchmark and setting, in percent; one for each task
    ("mbpp:sanitized"). low, high: our Wilson interval; inside: whether the paper's Acc@t2 lies in it."""
    theirs = published(name) if (name := matching(model)) else published().iloc[:0]
    known = {(r["benchmark"], r["key"]): r for r in theirs.to_dict("records")}
    rows = []
    for r in metrics["rows"]:
        benchmark, key = BENCHMARKS.get(r["task"].split(":")[0]), Evaluation(r["setting"], r["mode"], r["control"])
        if (paper := known.get((benchmark, key))) and not math.isnan(paper["Acc@t2"]):
            t1, t2, low, high = (100 * x for x in (r["acc_t1"], r["acc_t2"], *r["acc_t2_ci"]))
            theirs_t1, theirs_t2 = paper["Acc@t1"], paper["Acc@t2"]
            ours = (r["task"], paper["setting"], t1, t2, low, high, r["n"])
            rows.append((*ours, theirs_t1, theirs_t2, low <= theirs_t2 <= high))
    return pd.DataFrame(rows, columns=COLUMNS)


def orientation(models: Sequence[str] = tuple(MODELS.values())) -> pd.DataFrame:
    """The paper's Acc@t2 by model and setting, one column for each benchmark: other models and tasks than the embedded
    ones, so for orientation only."""
    frame = published()
    frame = frame[frame["model"].isin(models)]
    wide = frame.pivot(index=["model", "setting"], columns="benchmark", values="Acc@t2")
    order = frame[["model", "setting"]].drop_duplicates().itertuples(index=False, name=None)
    return wide.reindex(pd.MultiIndex.from_tuples(list(order), names=["model", "setting"]))[list(BENCHMARKS.values())]
