"""Tables from a run's files, as data frames: results, flips, instructions, error places, training curves.

Nothing here runs a model. Localisation and error classes know the gold steps of the synthetic tasks; on other tasks
those tables are empty.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pandas as pd

from . import prompts, store, synthetic

NAMES = {  # settings in words, in the order of the paper's table
    "prompted": "prompted reflection",
    "one_stage_prompted": "prompted, one completion",
    "qa": "SFT on answers (its own turn 1)",
    "one_stage": "one-stage SFT (D+)",
    "two_stage": "two-stage SFT (D+)",
    "reflector_only": "reflector SFT (D+)",
    "unfiltered": "reflector SFT (unfiltered)",
    "dpo_pm": "DPO (D±)",
    "dpo_pref": "DPO (D^pref)",
    "sft_dpo": "reflector SFT, then DPO (D±)",
    "grpo": "GRPO (reward: turn 2 is right)",
}
CONTROL_NAMES = {"retry": "plain retry", "shuffled": "shuffled reflections"}


def label(setting: str, control: str | None = None) -> str:
    """A setting (and control) in words."""
    name = NAMES.get(setting, setting.replace("round_", "round "))
    return name if control is None else f"{name} · {CONTROL_NAMES.get(control, control)}"


def load_metrics(run: store.Run) -> dict[str, Any]:
    """metrics.json of a run. Raises FileNotFoundError naming the notebook that writes it."""
    path = run.path("metrics.json")
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: run notebook 06_analysis first")
    return json.loads(path.read_text())


def results(metrics: dict[str, Any], *, mode: str = "oracle", task: str = "all") -> pd.DataFrame:
    """The results table in the paper's form, one row per setting, in percent.

    Columns: setting, Acc@t1, Acc@t2, Δ with its interval, the four flips, tokens per question, n; `key` joins it to files.
    """
    rows = [r for r in metrics["rows"] if r["mode"] == mode and r["task"] == task]
    rows.sort(key=_order)
    return pd.DataFrame(
        [
            {
                "key": ".".join(filter(None, [r["setting"], r["mode"], r["control"]])),
                "setting": label(r["setting"], r["control"]),
                "Acc@t1": 100 * r["acc_t1"],
                "Acc@t2": 100 * r["acc_t2"],
                "Δ": 100 * r["delta"],
                "Δ low": 100 * r["delta_ci"][0],
                "Δ high": 100 * r["delta_ci"][1],
                "c→c": r["flips"]["cc"],
                "c→i": r["flips"]["ci"],
                "i→c": r["flips"]["ic"],
                "i→i": r["flips"]["ii"],
                "tokens per question": r["tokens"] / max(1, r["n"]),
                "n": r["n"],
            }
            for r in rows
        ]
    )


def results_of(run: store.Run, *, mode: str = "oracle") -> pd.DataFrame:
    """`results` of the eval files that a run has so far (metrics.json comes last)."""
    from . import evaluation

    return results(evaluation.metrics(run.path("evals")), mode=mode)


def _order(row: dict[str, Any]) -> tuple:
    known = list(NAMES)
    place = known.index(row["setting"]) if row["setting"] in known else len(known)
    return (place, row["setting"], row["control"] or "")


def comparisons(metrics: dict[str, Any], *, against: str = "prompted.oracle") -> pd.DataFrame:
    """Paired differences of Acc@t2 against one file, in points, with intervals, McNemar's p and the detectable difference."""
    return pd.DataFrame(
        [
            {
                "setting": label(*_split(c["a"])),
                "difference": 100 * c["diff"],
                "low": 100 * c["ci"][0],
                "high": 100 * c["ci"][1],
                "p (McNemar)": c["p_mcnemar"],
                "detectable": None if c["mde"] is None else 100 * c["mde"],
                "n": c["n"],
            }
            for c in metrics["comparisons"]
            if c["b"] == against
        ]
    )


def _split(name: str) -> tuple[str, str | None]:
    setting, _, control = [*name.split("."), None][:3]
    return setting, control


def by_instruction(rollouts: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Sampled reflections by their instruction: verify, locate, plan, n, and the share whose second turn was correct."""
    counts: dict[str, list[int]] = {}
    for row in rollouts:
        for r in row["reflections"]:
            counts.setdefault(r["instruction"], []).append(r["turn2"]["correct"])
    rows = []
    for name, outcomes in sorted(counts.items()):
        if name != "generic":
            v, where, p = name.split("-")
            rows.append(
                {
                    "verify": {"1": "trace", "2": "skim"}[v],
                    "locate": prompts.LOCATE[int(where)][0],
                    "plan": {"1": "high-level", "2": "low-level"}[p],
                    "n": len(outcomes),
                    "corrected": sum(outcomes) / len(outcomes),
                }
            )
    return pd.DataFrame(rows, columns=["verify", "locate", "plan", "n", "corrected"])


def localisation(problems: Sequence[dict[str, Any]], evals: dict[str, Sequence[dict[str, Any]]]) -> pd.DataFrame:
    """How often a reflection on a wrong answer blames a place that is truly wrong; synthetic tasks only.

    `evals`: rows by setting. Columns: setting, n, localised, blames the last step, chance (a random place).
    """
    by_id = {p["id"]: p for p in problems}
    rows = []
    for setting, found in evals.items():
        hits = [
            h for r in found if not r["turn1_correct"] and (h := _located(by_id[r["id"]], r["turn1"], r["reflection"]))
        ]
        if hits:
            frame = pd.DataFrame(hits)
            rows.append({"setting": setting, "n": len(hits), **frame.mean().to_dict()})
    return pd.DataFrame(rows, columns=["setting", "n", "localised", "blames the last step", "chance"])


def _located(problem: dict[str, Any], attempt: str, reflection: str | None) -> dict[str, float] | None:
    if problem["meta"].get("source") != "synthetic" or not reflection:
        return None
    errors = synthetic.diagnose(problem, attempt)
    if not errors:
        return None
    places, steps, blame = {place for place, _ in errors}, attempt.count("Step "), synthetic.blamed(reflection)
    return {"localised": blame in places, "blames the last step": blame == steps, "chance": len(places) / (steps + 1)}


def error_classes(problems: Sequence[dict[str, Any]], evals: dict[str, Sequence[dict[str, Any]]]) -> pd.DataFrame:
    """First error of each wrong first answer by class of the paper's taxonomy, and the share mended; synthetic tasks only."""
    by_id = {p["id"]: p for p in problems}
    rows = []
    for setting, found in evals.items():
        for r in found:
            problem = by_id[r["id"]]
            if r["turn1_correct"] or problem["meta"].get("source") != "synthetic":
                continue
            errors = synthetic.diagnose(problem, r["turn1"])
            rows.append(
                {"setting": setting, "class": errors[0][1] if errors else "unreadable", "mended": r["turn2_correct"]}
            )
    frame = pd.DataFrame(rows, columns=["setting", "class", "mended"])
    return frame.groupby(["setting", "class"], sort=False)["mended"].agg(n="size", mended="mean").reset_index()


def training_curves(run: store.Run) -> pd.DataFrame:
    """What was logged while every adapter of a run was trained, one row per report.

    Columns: adapter, kind, step, loss, margin (DPO), accuracy (of pairs in DPO, of tokens else), reward (GRPO), and
    validation (the loss on held-out training questions; its rows have no other figure).
    """
    names = ("adapter", "kind", "step", "loss", "margin", "accuracy", "reward", "validation")
    rows = []
    for path in sorted(run.path("adapters").glob("*/training.json")):
        record = json.loads(path.read_text())
        for h in [*record["history"], *record.get("validation", [])]:
            accuracy = h.get("rewards/accuracies", h.get("mean_token_accuracy"))
            figures = (
                h["step"],
                h.get("loss"),
                h.get("rewards/margins"),
                accuracy,
                h.get("reward"),
                h.get("eval_loss"),
            )
            rows.append((path.parent.name, record["kind"], *figures))
    return pd.DataFrame(rows, columns=names)


def turn_curve(evals: dict[str, Sequence[dict[str, Any]]]) -> pd.DataFrame:
    """Acc@t for every turn that was run: setting, turn, accuracy, n."""
    return pd.DataFrame(
        [
            {
                "setting": setting,
                "turn": t + 1,
                "accuracy": sum(r["correct"][t] for r in rows) / len(rows),
                "n": len(rows),
            }
            for setting, rows in evals.items()
            if rows
            for t in range(len(rows[0]["correct"]))
        ]
    )


def transcript(row: dict[str, Any], problem: dict[str, Any]) -> str:
    """One evaluated question as Markdown: question, first answer, reflection, second answer, gold."""
    parts = [
        ("Question", prompts.question_text(problem)),
        ("First answer", row["turn1"]),
        ("Reflection", row["reflection"]),
        ("Second answer", row["turn2"]),
        ("Gold", str(problem["answer"])),
    ]
    outcome = f"{'right' if row['turn1_correct'] else 'wrong'} → {'right' if row['turn2_correct'] else 'wrong'}"
    return f"#### {row['id']} · {outcome}\n\n" + "\n\n".join(
        f"**{name}**\n```text\n{text}\n```" for name, text in parts if text
    )
