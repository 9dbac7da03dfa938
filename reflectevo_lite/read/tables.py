"""Tables from a run's files, as data frames: results, flips, instructions, error places, training curves.

Nothing here runs a model. Localisation and error classes know the gold steps of the synthetic tasks; on other tasks
those tables are empty.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from .. import embedded, evaluate, prompts, store

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
    "gain_top": "reflector SFT (half of D+ by gain)",
    "gain_random": "reflector SFT (random half of D+)",
}
CONTROL_NAMES = {
    "retry": "plain retry",
    "shuffled": "shuffled reflections",
    "resample": "fresh answers (verifier picks)",
    "resample_vote": "fresh answers (majority vote)",
}

TRAINED_ON = {  # curated file → the settings that are trained on it
    "d_plus": ("one_stage", "two_stage", "reflector_only", "unfiltered"),
    "d_pm": ("dpo_pm", "sft_dpo"),
    "d_pref": ("dpo_pref",),
}


def label(setting: str, control: str | None = None) -> str:
    """A setting (and control) in words; a name that is not known keeps its own, with spaces."""
    name = NAMES.get(setting, setting.replace("_", " "))
    return name if control is None else f"{name} · {CONTROL_NAMES.get(control, control)}"


def left_out(run: store.Run) -> list[str]:
    """Settings that a run has no figures for because their training set came out empty, in words."""
    sets = {run.path("curated", f"{name}.jsonl"): settings for name, settings in TRAINED_ON.items()}
    sets |= {path: (f"round_{path.parent.name}",) for path in sorted(run.path("rounds").glob("*/d_p*.jsonl"))}
    empty = [s for path, settings in sets.items() if path.exists() and not path.stat().st_size for s in settings]
    return [label(s) for s in empty if not run.path("evals", f"{s}.oracle.jsonl").exists()]


def load_metrics(run: store.Run) -> dict[str, Any]:
    """metrics.json of a run. Raises FileNotFoundError naming the notebook that writes it."""
    path = run.path("metrics.json")
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: run notebook 06_analysis first")
    return json.loads(path.read_text())


def results(metrics: dict[str, Any], *, mode: str = "oracle", task: str = "all") -> pd.DataFrame:
    """The results table in the paper's form, one row per setting, in percent.

    Columns: setting, Acc@t1, Acc@t2, Δ with its interval, the four flips, tokens per question, n; `key` joins it to
    files.
    """
    rows = [r for r in metrics["rows"] if r["mode"] == mode and r["task"] == task]
    return pd.DataFrame([_result(r) for r in sorted(rows, key=_order)])


def _result(r: dict[str, Any]) -> dict[str, Any]:
    return {
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


def with_intervals(
    metrics: dict[str, Any], *, mode: str = "oracle", task: str = "all", settings: Sequence[str] | None = None
) -> pd.DataFrame:
    """`results` for reading: every rate with its 95 % interval beside it, as text. `settings`: some of them only."""

    def cell(value: float, bounds: Sequence[float], sign: str = "") -> str:
        return f"{100 * value:{sign}.1f} [{100 * bounds[0]:{sign}.1f}, {100 * bounds[1]:{sign}.1f}]"

    rows = [r for r in metrics["rows"] if r["mode"] == mode and r["task"] == task]
    return pd.DataFrame(
        [
            {
                "setting": label(r["setting"], r["control"]),
                "Acc@t1": cell(r["acc_t1"], r["acc_t1_ci"]),
                "Acc@t2": cell(r["acc_t2"], r["acc_t2_ci"]),
                "Δ": cell(r["delta"], r["delta_ci"], "+"),
                **{f"{kind[0]}→{kind[1]}": r["flips"][kind] for kind in ("cc", "ci", "ic", "ii")},
                "tokens per question": round(r["tokens"] / max(1, r["n"]), 1),
                "n": r["n"],
            }
            for r in sorted(rows, key=_order)
            if settings is None or r["setting"] in settings
        ]
    )


def results_of(run: store.Run, *, mode: str = "oracle") -> pd.DataFrame:
    """`results` of the eval files that a run has so far (metrics.json comes last)."""
    from .. import evaluate

    return results(evaluate.metrics(run.path("evals")), mode=mode)


def _order(row: dict[str, Any]) -> tuple:
    known = list(NAMES)
    place = known.index(row["setting"]) if row["setting"] in known else len(known)
    return (place, row["setting"], row["control"] or "")


def comparisons(metrics: dict[str, Any], *, against: str = "prompted.oracle") -> pd.DataFrame:
    """Paired differences of Acc@t2 against one file, in points: interval, McNemar's p, Holm's p over the whole table of
    the run, and the smallest difference that these questions would show. Pairs stored the other way round are turned."""
    rows = [_turned(c) if c["a"] == against else c for c in metrics["comparisons"] if against in (c["a"], c["b"])]
    rows.sort(key=lambda c: _order(_parts(c["a"])))
    return pd.DataFrame([_difference(c) for c in rows], columns=list(_difference(_NOTHING)))


_NOTHING = {"a": "", "diff": 0, "ci": [0, 0], "p_mcnemar": 1, "p_holm": 1, "significant": False, "mde": None, "n": 0}


def _turned(c: dict[str, Any]) -> dict[str, Any]:
    return c | {"a": c["b"], "b": c["a"], "diff": -c["diff"], "ci": [-c["ci"][1], -c["ci"][0]]}


def _difference(c: dict[str, Any]) -> dict[str, Any]:
    return {
        "setting": label(*_split(c["a"])),
        "difference": 100 * c["diff"],
        "low": 100 * c["ci"][0],
        "high": 100 * c["ci"][1],
        "p (McNemar)": c["p_mcnemar"],
        "p (Holm)": c["p_holm"],
        "significant": c["significant"],
        "detectable": None if c["mde"] is None else 100 * c["mde"],
        "n": c["n"],
    }


def verdicts(metrics: dict[str, Any], settings: Sequence[str] | None = None) -> list[str]:
    """What is significant after correction and what is not, in words computed from metrics.json.

    First a sentence on the whole table, then one on each setting against its baseline and controls. `settings`: which
    ones (default: all, in the table's order); oracle mode, then intrinsic.
    """
    plain = [r for r in metrics["rows"] if r["task"] == "all" and r["control"] is None]
    plain.sort(key=lambda r: (r["mode"] != "oracle", _order(r)))
    kept = [r for r in plain if settings is None or r["setting"] in settings]
    told = [_verdict(metrics, r["setting"], r["mode"]) for r in kept]
    return [_counted(metrics["comparisons"]), *(line for line in told if line)]


def _counted(comparisons: Sequence[dict[str, Any]]) -> str:
    alone, kept = sum(c["p_mcnemar"] < 0.05 for c in comparisons), sum(c["significant"] for c in comparisons)
    return (
        f"Of {len(comparisons)} comparisons {kept} are significant after Holm's correction over all of them (family-wise "
        f"5 %); {alone} would be if each stood alone."
    )


def _verdict(metrics: dict[str, Any], setting: str, mode: str) -> str | None:
    kinds: dict[str, list[str]] = {"better than": [], "worse than": [], "not told apart from": []}
    for c in metrics["comparisons"]:
        if c["a"] != f"{setting}.{mode}":
            continue
        kind = "not told apart from" if not c["significant"] else "better than" if c["diff"] > 0 else "worse than"
        low, high = (f"{100 * bound:+.1f}" for bound in c["ci"])
        kinds[kind].append(f"{_other(setting, c['b'])} {100 * c['diff']:+.1f} [{low}, {high}]")
    parts = [f"*{kind}* {', '.join(items)}" for kind, items in kinds.items() if items]
    return f"**{label(setting)}**{', told nothing,' * (mode != 'oracle')} is {'; '.join(parts)}." if parts else None


def _other(setting: str, name: str) -> str:
    """What a setting is compared with, briefly: controls of the prompted baseline need no name before them."""
    other, control = _split(name)
    if control is None:
        return label(other)
    return f"its own {CONTROL_NAMES.get(control, control)}" if other == setting else CONTROL_NAMES.get(control, control)


def modes(metrics: dict[str, Any]) -> pd.DataFrame:
    """Intrinsic beside oracle: the gain of each setting that was evaluated both ways, with intervals, in points.

    Columns: setting, Δ oracle, Δ intrinsic (each with low and high), broken and mended shares of intrinsic mode, n.
    """
    ordered = sorted((r for r in metrics["rows"] if r["task"] == "all"), key=_order)
    rows = {(r["setting"], r["control"], r["mode"]): r for r in ordered}
    found = []
    for (setting, control, mode), told_nothing in rows.items():
        oracle = rows.get((setting, control, "oracle"))
        if mode != "intrinsic" or oracle is None:
            continue
        row: dict[str, Any] = {"setting": label(setting, control)}
        for name, r in (("oracle", oracle), ("intrinsic", told_nothing)):
            low, high = (100 * bound for bound in r["delta_ci"])
            row |= {f"Δ {name}": 100 * r["delta"], f"{name} low": low, f"{name} high": high}
        flips, n = told_nothing["flips"], max(1, told_nothing["n"])
        found.append(row | {"broken": 100 * flips["ci"] / n, "mended": 100 * flips["ic"] / n, "n": n})
    return pd.DataFrame(found)


def _split(name: str) -> tuple[str, str | None]:
    setting, _, control = [*name.split("."), None, None][:3]
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

    `evals`: rows by setting, with first answers (`evaluate.read_rows`). Columns: setting, n, localised, blames the last step, chance (a random place).
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
    errors = embedded.diagnose(problem, attempt)
    if not errors:
        return None
    places, steps, blame = {place for place, _ in errors}, attempt.count("Step "), embedded.blamed(reflection)
    return {"localised": blame in places, "blames the last step": blame == steps, "chance": len(places) / (steps + 1)}


def error_classes(problems: Sequence[dict[str, Any]], evals: dict[str, Sequence[dict[str, Any]]]) -> pd.DataFrame:
    """First error of each wrong first answer by class of the paper's taxonomy, and the share mended; synthetic tasks only.

    `evals`: rows by setting, with first answers (`evaluate.read_rows`).
    """
    by_id = {p["id"]: p for p in problems}
    rows = []
    for setting, found in evals.items():
        for r in found:
            problem = by_id[r["id"]]
            if r["turn1_correct"] or problem["meta"].get("source") != "synthetic":
                continue
            errors = embedded.diagnose(problem, r["turn1"])
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
    """Acc@t for every turn that was run and what it cost.

    Columns: setting, turn, accuracy with its Wilson interval (fractions), tokens (of this turn, per question), spent (up
    to and with this turn, per question; turn 1 is shared and counts 0), tokens per gain (tokens that this turn spent for
    each further right answer; None where there is none), n.
    """
    from .. import evaluate

    rows = []
    for setting, found in evals.items():
        before, spent, n = None, 0.0, max(1, len(found))
        for t in evaluate.by_turn(found):
            spent += t["tokens"] / n
            gained = 0 if before is None else round((t["acc"] - before) * n)
            rows.append(
                {
                    "setting": setting,
                    "turn": t["turn"],
                    "accuracy": t["acc"],
                    "low": t["ci"][0],
                    "high": t["ci"][1],
                    "tokens": t["tokens"] / n,
                    "spent": spent,
                    "tokens per gain": t["tokens"] / gained if gained > 0 else None,
                    "n": len(found),
                }
            )
            before = t["acc"]
    return pd.DataFrame(rows)


def compare_runs(a: store.Run, b: store.Run, setting: str | None = None) -> pd.DataFrame:
    """Two runs, question by question: one row for each eval file that both have, or for one setting.

    `setting`: "reflector_only" (oracle mode), or a file's name such as "prompted.intrinsic". Columns: setting, A, B
    (Acc@t2 in percent), difference A − B with its interval, McNemar's p, Holm's over these rows, the smallest
    detectable difference, n. Raises FileNotFoundError for a run or setting without rows, ValueError where the two were
    asked different questions.
    """
    from .. import evaluate

    names = _shared_files(a, b, setting)
    found = []
    for name in names:
        rows_a, rows_b = (run.read("evals", f"{name}.jsonl") for run in (a, b))
        _check_same_questions(a, rows_a, b, rows_b)
        c = evaluate.compare(name, rows_a, name, rows_b)
        found.append(c | {key: _acc2(rows) for key, rows in (("A", rows_a), ("B", rows_b))})
    rows = [
        {"setting": r.pop("setting") + ("" if ".intrinsic" not in c["a"] else " (intrinsic)"), "A": c["A"], "B": c["B"]}
        | r
        for c in evaluate.correct_for_many(found)
        for r in [_difference(c)]
    ]
    return pd.DataFrame(rows).drop(columns="significant")


def _acc2(rows: Sequence[dict[str, Any]]) -> float:
    return 100 * sum(r["turn2_correct"] for r in rows) / max(1, len(rows))


def _shared_files(a: store.Run, b: store.Run, setting: str | None) -> list[str]:
    stems = []
    for run in (a, b):
        found = {p.stem for p in run.path("evals").glob("*.*.jsonl")}
        if not found:
            raise FileNotFoundError(f"{run.path('evals')} holds no eval files: name a run that evaluated something")
        stems.append(found)
    shared = sorted(stems[0] & stems[1], key=lambda n: (".oracle" not in n, _order(_parts(n))))
    if setting is not None:
        name = setting if "." in setting else f"{setting}.oracle"
        if name not in shared:
            missing = " and ".join(
                str(run.directory) for run, own in zip((a, b), stems, strict=True) if name not in own
            )
            raise ValueError(f"{missing} has no {name}; both have {', '.join(shared) or 'no setting in common'}")
        return [name]
    if not shared:
        raise ValueError(f"{a.directory} and {b.directory} have no setting in common")
    return shared


def _parts(name: str) -> dict[str, str | None]:
    return dict(zip(("setting", "control"), _split(name), strict=True))


def _check_same_questions(
    a: store.Run, rows_a: Sequence[dict[str, Any]], b: store.Run, rows_b: Sequence[dict[str, Any]]
) -> None:
    """Ids alone can be alike by accident (they count up), so the questions' texts are compared where both are at hand,
    and the fingerprints of the test data in env.json where they are not."""
    ids_a, ids_b = ({r["id"] for r in rows} for rows in (rows_a, rows_b))
    if ids_a != ids_b:
        raise ValueError(
            f"the runs were asked different questions: {len(ids_a - ids_b):,} only in {a.directory}, {len(ids_b - ids_a):,} "
            f"only in {b.directory}; compare runs with the same sources, n_test and seed"
        )
    if not _same_texts(a, b):
        raise ValueError(
            f"the ids in {a.directory} and {b.directory} are alike but the questions are not: compare runs with the same "
            "sources, n_test and seed (`analysis.seeds` pools runs with other seeds)"
        )


def _same_texts(a: store.Run, b: store.Run) -> bool:
    files = [run.path("data", "test.jsonl") for run in (a, b)]
    if all(f.exists() for f in files):
        texts = [{p["id"]: prompts.question_text(p) for p in store.read_jsonl(f)} for f in files]
        return texts[0] == texts[1]
    records = [json.loads(p.read_text()) for run in (a, b) if (p := run.path("env.json")).exists()]
    prints = {r.get("data", {}).get("test.jsonl") for r in records}
    return len(prints - {None}) < 2


def seeds(runs: Sequence[str | Path], *, mode: str = "oracle", against: str = "prompted") -> pd.DataFrame:
    """Runs of the same parameters with other seeds, pooled: mean over seeds and its 95 % interval by Student's t.

    `runs`: run directories, or metrics.json files. Columns: setting, seeds, Acc@t2 (mean, low, high, smallest, largest)
    and the difference from `against` (mean, low, high), in percent and points. Only what every run has. The interval is
    over seeds of the whole loop (questions, rollouts, training), so a handful of seeds leaves it wide; None for one.
    """
    tables = [_seed_table(path, mode) for path in runs]
    shared = [key for key in tables[0] if all(key in table for table in tables)] if tables else []
    baseline = (against, None)
    rows = []
    for key in sorted(shared, key=lambda k: _order({"setting": k[0], "control": k[1]})):
        acc = [100 * table[key] for table in tables]
        row: dict[str, Any] = {"setting": label(*key), "seeds": len(tables), **_spread("Acc@t2", acc)}
        row |= {"smallest": min(acc), "largest": max(acc)}
        if baseline in shared and key != baseline:
            row |= _spread("difference", [100 * (table[key] - table[baseline]) for table in tables])
        rows.append(row)
    return pd.DataFrame(rows)


def _seed_table(path: str | Path, mode: str) -> dict[tuple[str, str | None], float]:
    path = Path(path)
    file = path if path.suffix == ".json" else path / "metrics.json"
    if not file.exists():
        raise FileNotFoundError(f"{file} is missing: name run directories that notebook 06_analysis has finished")
    rows = json.loads(file.read_text())["rows"]
    return {(r["setting"], r["control"]): r["acc_t2"] for r in rows if r["mode"] == mode and r["task"] == "all"}


def _spread(name: str, values: Sequence[float]) -> dict[str, float | None]:
    mean, ci = evaluate.over_seeds(values)
    return {name: mean, f"{name} low": ci and ci[0], f"{name} high": ci and ci[1]}


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
