"""Every table of evidence that a run has, as metrics.json keeps them."""

from __future__ import annotations

from typing import Any

from reflectevo_lite import store
from reflectevo_lite.evaluate import Evaluation, truth_table

from . import ablation, elimination, injected, ladder, transfer, verifier, words


def evidence(run: store.Run, *, seed: int = 0) -> dict[str, list[Any]]:
    """Rows by the table's name; a table of a notebook that was not run is empty."""
    tables = {
        "transfer": transfer.transfer_table(run, seed=seed),
        "elimination": elimination.elimination(run, seed=seed),
    }
    tables |= {"truth": truth_table(run), "first": ablation.first_table(run, seed=seed)}
    tables |= {"words": words.words_table(run, seed=seed), "injected": injected.injected_table(run)}
    if run.path("evals", ladder.FOLDER).exists():
        tables |= {"ladder": ladder.ladder_table(run), "learned": ladder.learned_table(run, seed=seed)}
    for path in run.path("evals", verifier.FOLDER).glob("*.accused.jsonl"):
        tables["verifier"] = verifier.verifier_table(run, Evaluation.parse(path.name).setting, seed=seed)
    return {name: t.astype(object).where(t.notna(), None).to_dict("records") for name, t in tables.items()}
