"""The paper's own figures (arXiv 2505.16475, tables of section 4) in percent (`paper.csv`). Never a run's own.

What the paper calls BIG-bench is a mixture of its small tasks that is not published in full."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from reflectevo_lite.evaluate import SETTINGS, Evaluation

from .elimination import eliminated

BENCHMARKS = {"logiqa": "LogiQA", "math": "MATH", "mbpp": "MBPP", "bigbench": "BIG-bench"}
MODELS = {name.lower(): name for name in ("Llama-3-8B-Instruct", "Mistral-7B-Instruct-v0.2")}  # by path or hub id
OURS = ["task", "setting", "Acc@t1", "Acc@t2", "low", "high", "n"]
COLUMNS = [*OURS, "Acc@t1 (paper)", "Acc@t2 (paper)", "inside"]  # of `beside`


def published() -> pd.DataFrame:
    """The paper's rows: model, key (an `Evaluation`), setting, benchmark, Acc@t1, Acc@t2, Δ; percent. For `qa`, which
    never reflects, both accuracies are the trained model's first answer."""
    table = pd.read_csv(Path(__file__).with_name("paper.csv"), index_col=["model", "key"])
    cells: Any = table.rename_axis(columns="benchmark").stack(future_stack=True)
    frame = cells.rename("Acc@t2").reset_index()
    first = frame[frame["key"] == "turn1"].drop(columns="key").rename(columns={"Acc@t2": "Acc@t1"})
    frame = frame[frame["key"] != "turn1"].merge(first, on=["model", "benchmark"])
    frame["key"] = [Evaluation.parse(key) for key in frame["key"]]
    frame["setting"] = [key.label for key in frame["key"]]
    never_reflects = np.array([bool(SETTINGS[key.setting].answers) for key in frame["key"]])
    frame["Acc@t1"] = np.where(never_reflects, frame["Acc@t2"], frame["Acc@t1"])
    frame["Δ"] = frame["Acc@t2"] - frame["Acc@t1"]
    return frame[["model", "key", "setting", "benchmark", "Acc@t1", "Acc@t2", "Δ"]]


def matching(model: str) -> str | None:
    """The paper's name of a model given by path or hub id ("meta-llama/Meta-Llama-3-8B-Instruct"); None for another."""
    plain = model.lower().replace("meta-", "").replace("_", "-").rstrip("/")
    return next((name for part, name in MODELS.items() if plain.split("/")[-1].startswith(part)), None)


def beside(metrics: dict[str, Any], model: str) -> pd.DataFrame:
    """A run's rows beside the paper's of the same model, benchmark and setting, in percent; one for each task
    ("mbpp:sanitized"). low, high: our Wilson interval; inside: whether the paper's Acc@t2 lies in it, or that the two are
    not comparable, for nobody knows which questions the paper's mixture of BIG-bench holds."""
    rows, name = [], matching(model)
    known = {(r["benchmark"], r["key"]): r for r in published().to_dict("records") if r["model"] == name}
    for r in metrics["rows"]:
        benchmark, key = BENCHMARKS.get(r["task"].split(":")[0]), Evaluation(r["setting"], r["mode"], r["control"])
        if (paper := known.get((benchmark, key))) and not math.isnan(paper["Acc@t2"]):
            t1, t2, low, high = (100 * x for x in (r["acc_t1"], r["acc_t2"], *r["acc_t2_ci"]))
            ours = (r["task"], paper["setting"], t1, t2, low, high, r["n"])
            inside = low <= paper["Acc@t2"] <= high if benchmark != "BIG-bench" else "not comparable"
            rows.append((*ours, paper["Acc@t1"], paper["Acc@t2"], inside))
    return pd.DataFrame(rows, columns=COLUMNS)


def orientation() -> pd.DataFrame:
    """The paper's Acc@t2 by model and setting, one column for each benchmark: other models and tasks than the embedded
    ones, so for orientation only. With what a blind guess among the other three options makes of LogiQA's Acc@t1."""
    frame = published()
    frame = frame[frame["model"].isin(MODELS.values())]
    guess = frame[frame["benchmark"] == "LogiQA"].drop_duplicates("model")
    guess = guess.assign(setting="a blind guess after a wrong letter")
    guess["Acc@t2"] = [round(100 * eliminated(acc / 100, 4), 1) for acc in guess["Acc@t1"]]
    both = pd.concat([frame, guess]).sort_values("model", kind="stable").set_index(["model", "setting", "benchmark"])
    return both["Acc@t2"].unstack(sort=False).rename_axis(columns="benchmark")
