"""Round follows round: the improved Reflector makes the next round's data (paper, section 3.4, "iterative").

Round 1 is the Reflector trained in notebook 03. Round r samples reflections from round r−1's Reflector on the next
training questions and learns from them, in one of two ways: "sft" trains a fresh adapter of the base model on what led to
a correct second turn (D+); "dpo" goes on from round r−1's adapter, which is also the reference, on pairs of its own
reflections of which only one did (D±: iterated, on-policy DPO, arXiv 2404.19733).

Whether a further round pays is asked of *validation* questions, held back from the training split: stopping never looks
at a test question.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from .. import curate, embedded, generate, prompts, store
from ..generate import Adapter, Engine
from ..rows import Attempt, Problem
from ..train import TrainParams, train_dpo, train_sft
from . import evaluation

DATA = {"sft": "d_plus", "dpo": "d_pm"}  # how a round is trained → the curated set that it is trained on


def questions_of_round(
    train: Sequence[Problem], n: int, r: int, which: Literal["fresh", "same"] = "fresh"
) -> list[Problem]:
    """The `n` training questions of round r ≥ 1: fresh ones as long as there are any, then from the start again; or the
    same ones in every round. Raises ValueError for another word."""
    if which not in ("fresh", "same"):
        raise ValueError(f"unknown round_questions {which!r}; there are fresh and same")
    start = 0 if which == "same" else (r - 1) * n
    return [train[i % len(train)] for i in range(start, start + n)] if n < len(train) else list(train)


def hold_back(train: Sequence[Problem], n: int, n_rollout: int) -> tuple[list[Problem], list[Problem]]:
    """Training questions without the last `n`, and those as validation questions.

    Round 1 has used the first `n_rollout` already, so these are never held back: fewer than `n` where there are fewer.
    """
    start = max(min(n_rollout, len(train)), len(train) - n)
    return list(train[:start]), list(train[start:])


def validate(
    engine: Engine, run: store.Run, r: int, reflector: Adapter, questions: Sequence[Problem], *, max_new_tokens: int
) -> list[Any]:
    """The Reflector of round r (0: the base model) on the validation questions, kept in `rounds/validation/`."""
    folder = run.path("rounds", "validation")
    first = evaluation.first_turns(engine, questions, folder / "turn1.jsonl", max_new_tokens=max_new_tokens)
    setting = evaluation.Setting(f"round_{r}", reflector=reflector)
    return evaluation.evaluate(engine, questions, first, setting, folder, max_new_tokens=max_new_tokens)


def paid(later: Sequence[Any], earlier: Sequence[Any], seed: int = 0) -> dict[str, Any]:
    """The paired comparison of a round with the one before it on the same questions; `pays` says whether its interval
    lies above 0. See `evaluation.compare`."""
    found = evaluation.compare("later", later, "earlier", earlier, seed)
    return found | {"pays": found["n"] > 0 and found["ci"][0] > 0}


def verdict(r: int, found: dict[str, Any], questions: str = "validation") -> str:
    """`paid` of round r in words."""
    if not found["n"]:
        return f"Round {r}: no {questions} question is left to tell whether it paid; raise n_train above n_rollout."
    low, high = found["ci"]
    said = (
        "it **paid**"
        if found["pays"]
        else "it **cost**"
        if high < 0
        else f"**no gain that {found['n']:,} questions can show** (they would show {100 * found['mde']:.1f})"
    )
    return (
        f"Round {r} against round {r - 1} on {found['n']:,} {questions} questions: {100 * found['diff']:+.1f} points "
        f"(95 % interval {100 * low:+.1f} to {100 * high:+.1f}): {said}."
    )


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
    params: TrainParams,
    k: int,
    temperature: float,
    max_new_tokens: int,
    seed: int,
    how: Literal["sft", "dpo"] = "sft",
    data: Literal["latest", "union"] = "latest",
    earlier: Sequence[Any] = (),
    instructions: Sequence[str] = prompts.POOL,
    turns: int = 2,
) -> dict[str, Any]:
    """One round: rollouts by `previous`, curation, training, its evaluation as `evals/round_<r>.oracle.jsonl`.

    `how`: a fresh adapter by SFT on D+, or DPO on D± from `previous` on (see the module). `data`: train on this round's
    rows alone ("latest") or together with the `earlier` ones ("union"). Returns what the round's table shows, with the
    adapter's path and the curated rows trained on (`data`); where there are none, no `rows` either. Resumable at every
    step. Raises ValueError for another word in `how`.
    """
    if how not in DATA:
        raise ValueError(f"unknown round_training {how!r}; there are {' and '.join(DATA)}")
    found = generate.generate_rollouts(
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
    fresh = curate.d_plus(found) if how == "sft" else curate.d_pm(found, seed=seed + r)
    store.write_jsonl(run.path("rounds", str(r), f"{DATA[how]}.jsonl"), fresh)
    used = [*earlier, *fresh] if data == "union" else fresh
    if not curate.with_rows({f"round_{r}": used}):
        return {"round": r, "adapter": previous, "data": [], "rows": [], **harvest(found)}
    adapter = run.path("adapters", f"round_{r}")
    if how == "sft":
        train_sft(curate.sft_rows("reflector", used), adapter, model=model, params=params)
    else:
        train_dpo(curate.preference_rows(used), adapter, model=model, params=params, start=previous)
    setting = evaluation.Setting(f"round_{r}", reflector=adapter)
    rows = evaluation.evaluate(
        engine, test, first, setting, run.path("evals"), max_new_tokens=max_new_tokens, turns=turns
    )
    return {"round": r, "adapter": adapter, "data": used, "rows": rows, **harvest(found)}


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


def watch(by_round: dict[int, Sequence[Any]]) -> pd.DataFrame:
    """What tells a Reflector that learns from one that collapses, for each round's rollouts.

    Columns, all on as many reflections for every round (the fewest of any): round, reflections; corrected (share that
    led to a right answer); distinct (share of different texts); distinct_2 (share of different word pairs, Li et al.
    2016); same_place (share that blames the place blamed most often); copied (share of a reflection's word triples that
    stand in the question or the attempt); words (mean length).
    """
    pooled = {r: [(row, x) for row in found for x in row["reflections"]] for r, found in by_round.items()}
    n = min(map(len, pooled.values()), default=0)
    return pd.DataFrame([{"round": r, **_habits(_spaced(pairs, n))} for r, pairs in pooled.items()])


def _spaced(items: Sequence[Any], n: int) -> list[Any]:
    """`n` of the items, evenly spaced, so that every task keeps its share."""
    return [items[i * len(items) // n] for i in range(n)]


def _habits(pairs: Sequence[tuple[Any, Any]]) -> dict[str, float]:
    texts = [x["text"] for _, x in pairs]
    n, words = max(1, len(texts)), [t.split() for t in texts]
    bigrams = [pair for w in words for pair in _grams(w, 2)]
    blamed = Counter(place for t in texts if (place := _place(t)) is not None)
    return {
        "reflections": len(texts),
        "corrected": sum(x["turn2"]["correct"] for _, x in pairs) / n,
        "distinct": len(set(texts)) / n,
        "distinct_2": len(set(bigrams)) / max(1, len(bigrams)),
        "same_place": max(blamed.values(), default=0) / n,
        "copied": sum(_copied(row, x["text"]) for row, x in pairs) / n,
        "words": sum(map(len, words)) / n,
    }


def _grams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def _copied(row: Any, text: str) -> float:
    """Share of a reflection's word triples that stand in the question or in the attempt."""
    source = f"{prompts.question_text(row['problem'])}\n{row['turn1']['completion']}".split()
    known, triples = set(_grams(source, 3)), _grams(text.split(), 3)
    return sum(t in known for t in triples) / max(1, len(triples))


def _place(text: str) -> str | None:
    """The place that a reflection blames: as the embedded tasks put it, else the first step that it mentions."""
    if (place := embedded.blamed(text)) is not None:
        return str(place)
    found = re.search(r"\b[Ss]tep (\d+)", text)
    return found[1] if found else None


SIGNS = {  # column of `watch` → (what a collapse does to it, in words; how far it may move against round 1)
    "distinct": ("fewer different reflections", 0.5),
    "distinct_2": ("fewer different word pairs", 0.5),
    "words": ("shorter reflections", 0.5),
    "same_place": ("more reflections that blame one and the same place", 1.5),
    "copied": ("more text copied from the question or the attempt", 1.5),
}


def collapse_warnings(frame: pd.DataFrame) -> list[str]:
    """Plain words for every round of `watch` that shows a sign of collapse against the first; empty where none does.

    A share may halve (diversity, length) or grow by half (one place, copied text) before it is reported: a rule of
    thumb. Growing shares below a tenth are let pass.
    """
    warnings = []
    for row in frame.to_dict("records")[1:]:
        start = frame.iloc[0]
        for column, (words, limit) in SIGNS.items():
            ratio = row[column] / start[column] if start[column] else float(row[column] > 0) * limit
            if ratio < limit if limit < 1 else ratio >= limit and row[column] > 0.1:
                yields = "rose" if row["corrected"] > start["corrected"] else "did not rise"
                warnings.append(
                    f"Round {row['round']:.0f} shows {words} than round {start['round']:.0f}: {column} "
                    f"{start[column]:.2f} → {row[column]:.2f}, while the share that helps {yields} "
                    f"({start['corrected']:.0%} → {row['corrected']:.0%}). Read some before you go on."
                )
    return warnings


def first_round(run: store.Run, how: Literal["sft", "dpo"] = "sft") -> dict[str, Any]:
    """Round 1, which notebooks 02 and 03 made, in the form that `run_round` returns; `data` is what `how` trains on."""
    rows = run.read("evals", "reflector_only.oracle.jsonl") if run.read("curated", "d_plus.jsonl") else []
    made, data = harvest(run.read("rollouts", "train.jsonl")), run.read("curated", f"{DATA[how]}.jsonl")
    return {"round": 1, "adapter": adapter_of_round(run, 1), "data": data, "rows": rows, **made}


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
    folder = run.path("curated") if r == 1 else run.path("rounds", str(r))
    sets = [folder / f"{name}.jsonl" for name in (DATA.values() if r > 1 else ["d_plus"])]
    if any(path.exists() and not store.read_jsonl(path) for path in sets):
        return adapter_of_round(run, r - 1)
    raise FileNotFoundError(f"{path} is missing: run notebook {'03_sft' if r == 1 else '05_iteration'} first")
