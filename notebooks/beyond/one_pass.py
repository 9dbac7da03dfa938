"""What are rounds worth beyond their data (one_pass.ipynb)? The questions of all rounds, answered by the base model at once."""

from collections.abc import Sequence
from typing import Any

from reflectevo_lite import curate, store
from reflectevo_lite.evaluate import roll_out
from reflectevo_lite.generate import Engine
from reflectevo_lite.rows import Problem


def one_pass(engine: Engine, run: store.Run, pool: Sequence[Problem], p: Any) -> int:
    """What rounds are worth beyond their data: the base model's rollouts on the questions of *all* rounds, made into D±
    at once, `curated/one_pass.jsonl`. Returns the number of pairs. Resumable."""
    found = run.read("rollouts", "train.jsonl")
    for r in range(2, p.rounds + 1):
        found += roll_out(engine, run.path("rollouts", f"one_pass_{r}.jsonl"), pool, r, p)
    kept = curate.Clean(found) if p.drop_leaks else found
    return store.write_jsonl(run.path("curated", "one_pass.jsonl"), curate.d_pm(kept, seed=p.seed))
