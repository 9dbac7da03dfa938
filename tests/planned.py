"""Does a plan, given a run's own outcomes, count what the run's files say was done?"""

import json

from reflectevo_lite import evaluate, store
from reflectevo_lite.run import plan

COUNTED = ("02_reflection_generation", "03_sft", "04_dpo", "05_iteration")


def assert_planned(asked, run):
    """Prompts, rows and steps of every stage, from the declarations, against the run's files."""
    for stage in COUNTED:
        parts = plan.count(asked.values, [stage], plan.Measured(run))
        planned = sum(p.prompts for p in parts), sorted((p.rows, p.steps) for p in parts if p.rows)
        assert planned == counted(run, stage), stage


def counted(run, stage):
    """Prompts that a stage's files say were answered, and (rows, steps) of each of its trainings."""
    evals = [
        p
        for s in evaluate.SETTINGS.values()
        if s.notebook == stage
        for p in run.path("evals").glob(f"{s.name}.*.jsonl")
    ]
    evals = [p for p in evals if "resample" not in p.name]
    trained = [run.path("adapters", t.name) for t in evaluate.trainings(stage)]
    rollouts = [run.path("rollouts", "train.jsonl")] if stage == "02_reflection_generation" else []
    firsts = [run.path("evals", "turn1.jsonl")] if rollouts else []
    if stage == "05_iteration":
        rollouts = sorted(run.path("rounds").glob("*/rollouts.jsonl"))
        evals = [*run.path("rounds", "validation").glob("round_*.jsonl"), *run.path("evals").glob("round_*.jsonl")]
        firsts = [run.path("rounds", "validation", "turn1.jsonl")]
        trained = sorted(run.path("adapters").glob("round_*"))
    prompts = sum(len(store.read_jsonl(p)) for p in firsts)
    prompts += sum(1 + 2 * len(r["reflections"]) for p in rollouts for r in store.read_jsonl(p))
    prompts += sum(answered(p) for p in evals)
    records = [json.loads((p / "training.json").read_text()) for p in trained if p.exists()]
    return prompts, sorted((r["rows"], r["steps"]) for r in records)


def answered(path):
    how, joined = evaluate.Evaluation.parse(path.name), path.name.startswith(("one_stage", "qa"))
    rows, each = store.read_jsonl(path), 1 if joined or how.control == "retry" else 2
    return each * sum(len(r["turn_tokens"]) if "turn_tokens" in r else r["turn2"] is not None for r in rows)
