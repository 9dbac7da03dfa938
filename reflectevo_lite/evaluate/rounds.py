"""Round follows round: the improved Reflector makes the next round's data (paper, section 3.4, "iterative").

Round 1 is the Reflector of notebook 03. Round r samples reflections from round r−1's Reflector on the next training
questions and learns from them in one of two ways: "sft" trains a fresh adapter of the base model on what led to a right
second turn (D+); "dpo" goes on from round r−1's adapter, also the reference, on pairs of its own reflections of which
only one did (D±: iterated, on-policy DPO, arXiv 2404.19733).

Whether a further round pays is asked of *validation* questions, held back from the training split: stopping never looks
at a test question. `p` is a run's parameters.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from .. import curate, store
from ..generate import Adapter, Engine, generate_rollouts
from ..rows import Problem
from ..train import TrainParams, train_dpo, train_sft
from .collapse import HARVEST, harvest
from .evaluation import Asked, evaluate, first_turns, read_rows
from .metrics import compare, describe
from .settings import BASELINE, Evaluation, round_setting
from .truth import whole

ROUND_DATA = {"sft": "d_plus", "dpo": "d_pm"}  # how a round is trained → the curated set that it is trained on


def questions_of_round(
    train: Sequence[Problem], n: int, r: int, which: Literal["fresh", "same"] = "fresh"
) -> list[Problem]:
    """The `n` training questions of round r ≥ 1: fresh ones, from the start again if they run out; or the same."""
    start = 0 if which == "same" else (r - 1) * n
    return [train[i % len(train)] for i in range(start, start + n)] if n < len(train) else list(train)


def hold_back(train: Sequence[Problem], n: int, n_rollout: int) -> tuple[list[Problem], list[Problem]]:
    """Training questions without the last `n`, and those as validation questions; fewer if round 1, which has used the
    first `n_rollout`, leaves fewer."""
    start = max(min(n_rollout, len(train)), len(train) - n)
    return list(train[:start]), list(train[start:])


def validate(engine: Engine, run: store.Run, r: int, questions: Sequence[Problem], *, max_new_tokens: int) -> list[Any]:
    """The Reflector of round r (0: the base model) on the validation questions, kept in `rounds/validation/`."""
    folder = run.path("rounds", "validation")
    first = first_turns(engine, questions, folder / "turn1.jsonl", max_new_tokens=max_new_tokens)
    reflector = round_setting(r)._replace(name=f"round_{r}", reflector=adapter_of_round(run, r))
    return evaluate(engine, Asked(questions, first, folder, max_new_tokens), reflector)


def paid(later: Sequence[Any], earlier: Sequence[Any], seed: int = 0) -> dict[str, Any]:
    """The paired comparison of a round with the one before (`compare`); `pays`: whether its interval lies above 0."""
    found = compare("later", later, "earlier", earlier, seed)
    return found | {"pays": found["n"] > 0 and found["ci"][0] > 0}


def verdict(r: int, found: dict[str, Any], questions: str = "validation") -> str:
    """`paid` of round r in words."""
    if not found["n"]:
        return f"Round {r}: no {questions} question is left to tell whether it paid; raise n_train above n_rollout."
    low, high = found["ci"]
    said = f"**no gain that {found['n']:,} questions can show** (they would show {100 * found['mde']:.1f})"
    said = "it **paid**" if found["pays"] else "it **cost**" if high < 0 else said
    return (
        f"Round {r} against round {r - 1} on {found['n']:,} {questions} questions: {100 * found['diff']:+.1f} points "
        f"(95 % interval {100 * low:+.1f} to {100 * high:+.1f}): {said}."
    )


def rot(run: store.Run, r: int, questions: Sequence[Problem]) -> str | None:
    """A warning if reflections of round r on the validation questions are true in every part less often, by a tenth or
    more, than those of the round before; None if not, or where truth is not known. Accuracy may rise all the same."""
    folder = "rounds/validation"
    before, now = (whole(questions, read_rows(run, Evaluation(f"round_{i}"), folder)) for i in (r - 1, r))
    if before is None or now is None or now >= 0.9 * before:
        return None
    fell = f"from {before:.0%} in round {r - 1} to {now:.0%}"
    return f"Its reflections are true in every part less often: {fell}. **The texts rot**, whatever the accuracy says."


def roll_out(engine: Engine, out: Path, pool: Sequence[Problem], r: int, p: Any, reflector: Adapter = None) -> Any:
    """Rollouts of round r on its questions of `pool`, kept in `out`. Resumable."""
    how = {name: getattr(p, name) for name in ("k", "instructions", "temperature", "max_new_tokens")}
    questions = questions_of_round(pool, p.n_rollout, r, p.round_questions)
    return generate_rollouts(engine, questions, out, reflector=reflector, seed=p.seed + r, **how)


def run_round(
    engine: Engine, run: store.Run, r: int, p: Any, pool: Sequence[Problem], asked: Asked, earlier: Iterable[Any] = ()
) -> dict[str, Any]:
    """One round: rollouts by the round before on questions of `pool`, curation, training, evaluation. Trains on this
    round's rows alone, or with the `earlier` ones too (`p.round_data` "union"). Returns what `rounds_table` shows, the
    adapter's path and the curated rows trained on (`data`); with none, `rows` is empty too. Resumable at every step."""
    previous, how, folder = adapter_of_round(run, r - 1), p.round_training, run.path("rounds", str(r))
    found = roll_out(engine, folder / "rollouts.jsonl", pool, r, p, previous)
    kept = curate.Clean(found) if p.drop_leaks else found
    fresh = list(curate.d_plus(kept) if how == "sft" else curate.d_pm(kept, seed=p.seed + r))
    store.write_jsonl(folder / f"{ROUND_DATA[how]}.jsonl", fresh)
    used = [*earlier, *fresh] if p.round_data == "union" else fresh
    setting, adapter = round_setting(r).at(run), run.path("adapters", f"round_{r}")
    made = {"round": r, **harvest(found)}
    if not curate.with_rows({setting.name: used}):
        return made | {"adapter": previous, "data": [], "rows": []}
    ways: dict[str, Any] = {"sft": (train_sft, "reflector", "sft", None)}
    ways["dpo"] = (train_dpo, "preference", "further", previous)
    train, form, rates, start = ways[how]
    train(curate.examples(form, used), adapter, model=p.model, params=TrainParams.of(rates, p), start=start)
    return made | {"adapter": adapter, "data": used, "rows": evaluate(engine, asked, setting, turns=p.turns)}


def rounds_table(run: store.Run, done: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Acc@t2 with its Wilson interval, and the harvest, by round (0: the prompted base). Fractions."""
    rows, base = [], {"round": 0, "rows": run.read("evals", Evaluation(BASELINE).file)}
    for entry in [base, *(d for d in done if d["rows"])]:
        row = describe(Evaluation(BASELINE), "all", entry["rows"], 0)
        reached = (row["acc_t1"], row["acc_t2"], *row["acc_t2_ci"], row["n"])
        rows.append((entry["round"], *reached, *(entry.get(key, math.nan) for key in HARVEST)))
    return pd.DataFrame(rows, columns=["round", "acc_t1", "acc_t2", "low", "high", "n", *HARVEST])


def first_round(run: store.Run, how: Literal["sft", "dpo"] = "sft") -> dict[str, Any]:
    """Round 1, which notebooks 02 and 03 made, in the form that `run_round` returns; `data` is what `how` trains on."""
    trained = run.read("curated", "d_plus.jsonl")
    rows = run.read("evals", Evaluation(round_setting(1).name).file) if trained else []
    made, data = harvest(run.read("rollouts", "train.jsonl")), run.read("curated", f"{ROUND_DATA[how]}.jsonl")
    return {"round": 1, "adapter": adapter_of_round(run, 1), "data": data, "rows": rows, **made}


def adapter_of_round(run: store.Run, r: int) -> Adapter:
    """Where the Reflector of round r lies; None for round 0, the base model. A round with nothing to train on hands on
    the one before. Raises FileNotFoundError if one is missing that ought to be there."""
    if r == 0:
        return None
    path = Path(round_setting(r).at(run).reflector or "")
    if (path / "training.json").exists():
        return path
    folder = run.path("curated") if r == 1 else run.path("rounds", str(r))
    sets = [folder / f"{name}.jsonl" for name in (ROUND_DATA.values() if r > 1 else ["d_plus"])]
    if any(file.exists() and not store.read_jsonl(file) for file in sets):
        return adapter_of_round(run, r - 1)
    raise FileNotFoundError(f"{path} is missing: run notebook {'03_sft' if r == 1 else '05_iteration'} first")


def multi_turn(run: store.Run) -> list[str]:
    """The evaluated settings that were run for several turns: prompted, round 1, and the latest round."""
    names = dict.fromkeys((BASELINE, round_setting(1).name, last_round(run)))
    return [name for name in names if run.path("evals", Evaluation(name).file).exists()]


def last_round(run: store.Run) -> str:
    """The setting of the latest round that was evaluated; round 1 if there is no other."""
    numbers = sorted(int(p.parent.name) for p in run.path("rounds").glob("*/rollouts.jsonl"))
    names = [round_setting(r).name for r in (1, *numbers)]
    return [name for name in names if name == names[0] or run.path("evals", Evaluation(name).file).exists()][-1]
