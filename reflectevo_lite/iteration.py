"""Round follows round: the improved Reflector makes the next round's data (paper, section 3.4, "iterative").

Round 1 is the Reflector trained in notebook 03. Round r samples reflections from round r−1's Reflector on the next
training questions, keeps what led to a correct second turn, and trains a fresh adapter of the base model on it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from . import curation, evaluation, prompts, rollouts, store, training
from .engines import Adapter, Engine
from .rows import Attempt, Problem


def questions_of_round(train: Sequence[Problem], n: int, r: int) -> list[Problem]:
    """The `n` training questions of round r ≥ 1: fresh ones as long as there are any, then from the start again."""
    return [train[i % len(train)] for i in range((r - 1) * n, r * n)] if n < len(train) else list(train)


def run_round(
    engine: Engine,
    run: store.Run,
    r: int,
    previous: Adapter,
    train: Sequence[Problem],
    test: Sequence[Problem],
    first: Sequence[Attempt],
    *,
    model: str,
    params: training.TrainParams,
    k: int,
    temperature: float,
    max_new_tokens: int,
    seed: int,
    data: Literal["latest", "union"] = "latest",
    earlier: Sequence[curation.PlusRow] = (),
    instructions: Sequence[str] = prompts.POOL,
    turns: int = 2,
) -> dict[str, Any]:
    """One round: rollouts by `previous`, D+, a fresh Reflector, its evaluation as `evals/round_<r>.oracle.jsonl`.

    `data`: train on this round's D+ alone ("latest") or together with the `earlier` rows ("union"). Returns what the
    round's table shows, with the adapter's path and the D+ rows trained on; where there are none, no `rows` either.
    Resumable at every step.
    """
    found = rollouts.generate_rollouts(
        engine,
        train,
        run.path("rounds", str(r), "rollouts.jsonl"),
        k=k,
        instructions=instructions,
        temperature=temperature,
        max_new_tokens=max_new_tokens,
        seed=seed + r,
        reflector=previous,
    )
    plus = curation.d_plus(found)
    store.write_jsonl(run.path("rounds", str(r), "d_plus.jsonl"), plus)
    used = [*earlier, *plus] if data == "union" else plus
    if not curation.with_rows({f"round_{r}": used}):
        return {"round": r, "adapter": previous, "plus": [], "rows": [], **harvest(found)}
    adapter = run.path("adapters", f"round_{r}")
    training.train_sft(curation.sft_rows("reflector", used), adapter, model=model, params=params)
    setting = evaluation.Setting(f"round_{r}", reflector=adapter)
    rows = evaluation.evaluate(
        engine, test, first, setting, run.path("evals"), max_new_tokens=max_new_tokens, turns=turns
    )
    return {"round": r, "adapter": adapter, "plus": used, "rows": rows, **harvest(found)}


def rounds_table(prompted: Sequence[Any], done: Sequence[dict[str, Any]], *, seed: int = 0) -> pd.DataFrame:
    """One row per round (round 0: the prompted base), with Acc@t2, the interval of its gain over Acc@t1, and the harvest.

    `corrected`, `distinct` and `words` describe the rollouts that the round was trained on. Fractions in 0..1.
    """
    rows = []
    for entry in [{"round": 0, "rows": prompted}, *(d for d in done if d["rows"])]:
        r = entry["round"]
        row = evaluation.describe(f"round_{r}.oracle", "all", entry["rows"], seed)
        low, high = (row["acc_t1"] + bound for bound in row["delta_ci"])
        rows.append(
            {
                "round": r,
                "acc_t1": row["acc_t1"],
                "acc_t2": row["acc_t2"],
                "low": low,
                "high": high,
                "n": row["n"],
                **{key: entry.get(key, math.nan) for key in ("reflections", "corrected", "distinct", "words")},
            }
        )
    return pd.DataFrame(rows)


def harvest(found: Sequence[Any]) -> dict[str, Any]:
    """What a round's rollouts yielded: reflections, the share that led to a correct answer, and how varied they are."""
    reflections = [x for row in found for x in row["reflections"]]
    texts = [x["text"] for x in reflections]
    return {
        "reflections": len(texts),
        "corrected": sum(x["turn2"]["correct"] for x in reflections) / max(1, len(texts)),
        "distinct": len(set(texts)) / max(1, len(texts)),
        "words": sum(len(t.split()) for t in texts) / max(1, len(texts)),
    }


def first_round(run: store.Run) -> dict[str, Any]:
    """Round 1, which notebooks 02 and 03 made, in the form that `run_round` returns."""
    plus = run.read("curated", "d_plus.jsonl")
    rows = run.read("evals", "reflector_only.oracle.jsonl") if plus else []
    made = harvest(run.read("rollouts", "train.jsonl"))
    return {"round": 1, "adapter": adapter_of_round(run, 1), "plus": plus, "rows": rows, **made}


def adapter_of_round(run: store.Run, r: int) -> Path | None:
    """Where the Reflector of round r lies; round 1 is notebook 03's, and round 0 the base model, None.

    A round that found nothing to train on hands on the Reflector of the round before. Raises FileNotFoundError where
    one is missing that ought to be there.
    """
    if r == 0:
        return None
    path = run.path("adapters", "reflector" if r == 1 else f"round_{r}")
    if (path / "training.json").exists():
        return path
    plus = run.path("curated", "d_plus.jsonl") if r == 1 else run.path("rounds", str(r), "d_plus.jsonl")
    if plus.exists() and not store.read_jsonl(plus):
        return adapter_of_round(run, r - 1)
    raise FileNotFoundError(f"{path} is missing: run notebook {'03_sft' if r == 1 else '05_iteration'} first")
