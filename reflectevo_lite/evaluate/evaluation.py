"""Acc@t1, Acc@t2 and what they are worth: settings, controls, intervals (paper, section 4; statistics beyond it).

Turn 1 is the untouched Generator's, greedy, and shared by all settings. In *oracle* mode only wrong first answers go
on to a second turn (the paper's way, so Acc@t2 cannot fall below Acc@t1); in *intrinsic* mode every answer does and no
verdict is given. Rows are kept one per question; every figure is computed from the rows and can be recomputed
(`tests/recompute.py` does).

Controls: `retry` (answer again without a reflection), `shuffled` (with the reflection on another problem), `resample`
and `resample_vote` (as many tokens as the setting spent, on fresh answers: see `resample`).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import grading, prompts, store
from ..generate import Adapter, Engine, answer, chunk_seed, graded
from ..prompts import Mode
from ..rows import Attempt, EvalRow, Problem
from .stats import bootstrap_ci, holm, mcnemar, smallest_detectable, wilson

CONTROLS = (None, "retry", "shuffled")


class Setting(NamedTuple):
    """Which weights write what. None stands for the untouched base model."""

    name: str
    reflector: Adapter = None
    corrector: Adapter = None
    one_stage: bool = False  # reflection and second attempt in one completion, by `reflector`

    @property
    def trained(self) -> bool:
        """Whether every adapter that it names has been trained; one with nothing to train on is left out of a run."""
        return all(
            (Path(adapter) / "training.json").exists() for adapter in (self.reflector, self.corrector) if adapter
        )


def first_turns(
    engine: Engine, problems: Sequence[Problem], out: str | Path, *, max_new_tokens: int, chunk_size: int = 500
) -> list[Attempt]:
    """Greedy first attempts, one per problem, kept in `out`; a finished file is read back."""

    def make(i: int) -> list[Attempt]:
        part = problems[i * chunk_size : (i + 1) * chunk_size]
        return answer(engine, part, [prompts.answer_prompt(p) for p in part], max_new_tokens=max_new_tokens)

    store.append_chunks(out, -(-len(problems) // chunk_size), make, chunk_size)
    return store.read_jsonl(out)


def evaluate(
    engine: Engine,
    problems: Sequence[Problem],
    first: Sequence[Attempt],
    setting: Setting,
    directory: str | Path,
    *,
    mode: Mode = "oracle",
    control: str | None = None,
    turns: int = 2,
    max_new_tokens: int = 512,
    seed: int = 0,
    chunk_size: int = 500,
) -> list[EvalRow]:
    """Second (and further) turns of a setting, written to `<directory>/<setting>.<mode>[.<control>].jsonl`.

    `control`: None, "retry" (answer again without a reflection) or "shuffled" (with the reflection on another problem).
    From turn 3 on, the latest attempt takes the first one's place. A finished file is read back.
    """
    if control not in CONTROLS:
        raise ValueError(f"unknown control {control!r}; there are retry and shuffled (and the function `resample`)")

    def make(i: int) -> list[EvalRow]:
        part = slice(i * chunk_size, (i + 1) * chunk_size)
        return _chunk(engine, problems[part], first[part], setting, mode, control, turns, max_new_tokens, seed)

    out = Path(directory) / f"{file_name(setting.name, mode, control)}.jsonl"
    store.append_chunks(out, -(-len(problems) // chunk_size), make, chunk_size)
    return store.read_jsonl(out)


def file_name(setting: str, mode: str = "oracle", control: str | None = None) -> str:
    """The stem of an eval file: `<setting>.<mode>[.<control>]`."""
    return ".".join([setting, mode, *([control] if control else [])])


def read_rows(run: store.Run, name: str) -> list[dict[str, Any]]:
    """The rows of `evals/<name>.jsonl`, each with the text of its first answer as `turn1`.

    First answers are shared by all settings and stored once, in `evals/turn1.jsonl`, in the order of the questions.
    Raises FileNotFoundError for a missing file, ValueError where the two do not belong together.
    """
    rows, first = run.read("evals", f"{name}.jsonl"), run.read("evals", "turn1.jsonl")
    if [r["turn1_correct"] for r in rows] != [a["correct"] for a in first]:
        raise ValueError(f"{run.path('evals', name)}.jsonl was made from other first answers than turn1.jsonl; redo it")
    return [r | {"turn1": a["completion"]} for r, a in zip(rows, first, strict=True)]


def _new_row(problem: Problem, attempt: Attempt) -> dict[str, Any]:
    return {
        "id": problem["id"],
        "task": problem["task"],
        "turn1_correct": attempt["correct"],
        "turn2_correct": attempt["correct"],
        "reflection": None,
        "turn2": None,
        "tokens": 0,
    }


def evaluate_answers(
    engine: Engine,
    problems: Sequence[Problem],
    first: Sequence[Attempt],
    name: str,
    adapter: Adapter,
    directory: str | Path,
    *,
    max_new_tokens: int = 512,
    chunk_size: int = 500,
) -> list[EvalRow]:
    """A model that was tuned to answer, not to reflect: its own first turn, as `<directory>/<name>.oracle.jsonl`.

    It answers every question anew from the question alone, so in metrics.json `acc_t1` is the untouched model's accuracy
    (as in every row), `acc_t2` the tuned model's own ("t1 only" in the paper), `delta` the difference, and the flip c→i
    counts what tuning broke. Nothing is told to it; "oracle" merely places the row in the paper's table.
    """

    def make(i: int) -> list[EvalRow]:
        part = slice(i * chunk_size, (i + 1) * chunk_size)
        asked = [prompts.answer_prompt(p) for p in problems[part]]
        found = answer(engine, problems[part], asked, max_new_tokens=max_new_tokens, adapter=adapter)
        return [row_of(p, a, b, None) for p, a, b in zip(problems[part], first[part], found, strict=True)]

    out = Path(directory) / f"{name}.oracle.jsonl"
    store.append_chunks(out, -(-len(problems) // chunk_size), make, chunk_size)
    return store.read_jsonl(out)


def _chunk(
    engine: Engine,
    problems: Sequence[Problem],
    first: Sequence[Attempt],
    setting: Setting,
    mode: Mode,
    control: str | None,
    turns: int,
    max_new_tokens: int,
    seed: int,
) -> list[EvalRow]:
    rows = [_new_row(p, a) for p, a in zip(problems, first, strict=True)]
    latest = list(first)
    turn_tokens: list[list[int]] = [[] for _ in rows]
    correct = [[a["correct"]] for a in first]
    for turn in range(2, turns + 1):
        going = [i for i, attempt in enumerate(latest) if mode == "intrinsic" or not attempt["correct"]]
        found = _turn(
            engine,
            [problems[i] for i in going],
            [latest[i] for i in going],
            setting,
            mode,
            control,
            max_new_tokens,
            seed,
        )
        for i, (reflection, attempt, tokens) in zip(going, found, strict=True):
            latest[i] = attempt
            turn_tokens[i].append(tokens)
            if turn == 2:
                rows[i] = row_of(problems[i], first[i], attempt | {"tokens": tokens}, reflection)
        for known, attempt in zip(correct, latest, strict=True):
            known.append(attempt["correct"])
    if turns > 2:
        rows = [r | {"correct": c, "turn_tokens": t} for r, c, t in zip(rows, correct, turn_tokens, strict=True)]
    return rows


def _turn(
    engine: Engine,
    problems: list[Problem],
    attempts: list[Attempt],
    setting: Setting,
    mode: Mode,
    control: str | None,
    max_new_tokens: int,
    seed: int,
) -> list[tuple[str | None, Attempt, int]]:
    """(reflection, next attempt, tokens spent) for each."""
    texts = [a["completion"] for a in attempts]
    if setting.one_stage and control is None:
        return _one_stage_turn(engine, problems, texts, setting, mode, max_new_tokens)
    reflections: list[str | None] = [None] * len(problems)
    spent = [0] * len(problems)
    if control != "retry":
        asked = [prompts.reflection_prompt(p, t, mode=mode) for p, t in zip(problems, texts, strict=True)]
        found = [c[0] for c in engine.generate(asked, max_new_tokens=max_new_tokens, adapter=setting.reflector)]
        reflections, spent = [c.text for c in found], [c.tokens for c in found]
    if control == "shuffled":
        reflections = shuffled(reflections, seed)
    asked = [prompts.retry_prompt(p, t, r, mode) for p, t, r in zip(problems, texts, reflections, strict=True)]
    found = answer(engine, problems, asked, max_new_tokens=max_new_tokens, adapter=setting.corrector)
    return [(r, a, s + a["tokens"]) for r, a, s in zip(reflections, found, spent, strict=True)]


def _one_stage_turn(
    engine: Engine,
    problems: list[Problem],
    texts: list[str],
    setting: Setting,
    mode: Mode,
    max_new_tokens: int,
) -> list[tuple[str | None, Attempt, int]]:
    asked = [prompts.one_stage_prompt(p, t, mode) for p, t in zip(problems, texts, strict=True)]
    found = [c[0] for c in engine.generate(asked, max_new_tokens=2 * max_new_tokens, adapter=setting.reflector)]
    parts = [prompts.split_one_stage(c.text) for c in found]
    attempts = graded(problems, asked, [c._replace(text=second) for c, (_, second) in zip(found, parts, strict=True)])
    return [(reflection, a, a["tokens"]) for (reflection, _), a in zip(parts, attempts, strict=True)]


def shuffled(items: Sequence[Any], seed: int) -> list[Any]:
    """A seeded derangement by rotation of a random order: nothing stays in its place (where there are two or more)."""
    order = list(range(len(items)))
    random.Random(f"shuffled/{seed}").shuffle(order)
    moved = list(items)
    for a, b in zip(order, order[1:] + order[:1], strict=True):
        moved[a] = items[b]
    return moved


def row_of(problem: Problem, attempt: Attempt, second: Attempt | None, reflection: str | None) -> dict[str, Any]:
    """The EvalRow of a first attempt and a second one that was made elsewhere (None: the first one was kept)."""
    row = _new_row(problem, attempt)
    if second is not None:
        row |= {
            "turn2_correct": second["correct"],
            "reflection": reflection,
            "turn2": second["completion"],
            "tokens": second["tokens"],
        }
    return row


# -- The same tokens, spent on fresh answers -----------------------------------------------------------------------------
def resample(
    engine: Engine,
    problems: Sequence[Problem],
    first: Sequence[Attempt],
    setting: str,
    directory: str | Path,
    *,
    mode: Mode = "oracle",
    temperature: float = 1.0,
    max_new_tokens: int = 512,
    seed: int = 0,
    chunk_size: int = 500,
) -> dict[str, list[EvalRow]]:
    """The control that spends what `setting` spent, question by question, on fresh answers of the untouched Generator.

    Answers to the bare question are sampled at `temperature` until the tokens that the setting's reflection and second
    turn took are used up: at least one, and the last may overshoot, so the control never has less than the setting.
    Two eval files come of it, by control name:

    `resample`       the verifier picks: right where any sample is (pass@k under the budget); oracle mode only
    `resample_vote`  the samples vote and the earliest of the most frequent answers wins (self-consistency, Wang et al.
                     2022). In oracle mode the answer known to be wrong has no vote; in intrinsic mode the first answer
                     votes too. Code has no two alike answers, so there the earliest sample wins.

    The setting itself must have been evaluated before: FileNotFoundError otherwise. A finished file is read back.
    """
    base = Path(directory) / f"{file_name(setting, mode)}.jsonl"
    if not base.exists():
        raise FileNotFoundError(f"{base} is missing: evaluate {setting} first, its tokens are the budget")
    budgets = [r["tokens"] for r in store.read_jsonl(base)]

    def make(i: int) -> list[EvalRow]:
        at = slice(i * chunk_size, (i + 1) * chunk_size)
        chunk = chunk_seed(seed, f"resample/{setting}/{mode}", i)
        return _resampled(engine, problems[at], first[at], budgets[at], mode, temperature, max_new_tokens, chunk)

    out = Path(directory) / f"{file_name(setting, mode, 'resample_vote')}.jsonl"
    store.append_chunks(out, -(-len(problems) // chunk_size), make, chunk_size)
    found = {"resample_vote": store.read_jsonl(out)}
    if mode == "oracle":
        found["resample"] = [_verified(row) for row in found["resample_vote"]]
        store.write_jsonl(out.with_name(f"{file_name(setting, mode, 'resample')}.jsonl"), found["resample"])
    return found


def _resampled(
    engine: Engine,
    problems: Sequence[Problem],
    first: Sequence[Attempt],
    budgets: Sequence[int],
    mode: Mode,
    temperature: float,
    max_new_tokens: int,
    seed: int,
) -> list[EvalRow]:
    rows = [_new_row(p, a) for p, a in zip(problems, first, strict=True)]
    going = [i for i, a in enumerate(first) if mode == "intrinsic" or not a["correct"]]
    drawn = _spend(engine, [problems[i] for i in going], [budgets[i] for i in going], temperature, max_new_tokens, seed)
    for i, samples in zip(going, drawn, strict=True):
        winner, tokens = _vote(problems[i], first[i], samples, mode), sum(a["tokens"] for a in samples)
        rows[i] = row_of(problems[i], first[i], winner | {"tokens": tokens}, None)
        rows[i] |= {"turn2": None, "samples": [[a["answer"], a["correct"], a["tokens"]] for a in samples]}
    return rows


def _spend(
    engine: Engine,
    problems: Sequence[Problem],
    budgets: Sequence[int],
    temperature: float,
    max_new_tokens: int,
    seed: int,
) -> list[list[Attempt]]:
    """Fresh answers to each problem until its budget of tokens is used up, one draw for all problems at a time."""
    drawn: list[list[Attempt]] = [[] for _ in problems]
    left, going, draw = list(budgets), list(range(len(problems))), 0
    while going:
        some = [problems[i] for i in going]
        asked = [prompts.answer_prompt(p) for p in some]
        sampling = {"temperature": temperature, "seed": chunk_seed(seed, "draw", draw)}
        for i, a in zip(going, answer(engine, some, asked, max_new_tokens=max_new_tokens, **sampling), strict=True):
            drawn[i].append(a)
            left[i] -= max(1, a["tokens"])
        going, draw = [i for i in going if left[i] > 0], draw + 1
    return drawn


def _vote(problem: Problem, first: Attempt, samples: Sequence[Attempt], mode: Mode) -> Attempt:
    voters = [a for a in ([first, *samples] if mode == "intrinsic" else samples) if a["answer"] is not None]
    if mode == "oracle":
        voters = [a for a in voters if not _same(problem, a["answer"], first["answer"])]
    parties: list[list[Attempt]] = []
    for a in voters:
        party = next((p for p in parties if _same(problem, p[0]["answer"], a["answer"])), None)
        parties.append([a]) if party is None else party.append(a)
    return max(parties, key=len)[0] if parties else samples[0]


def _same(problem: Problem, a: str | None, b: str | None) -> bool:
    if a is None or b is None:
        return a is b
    plain = " ".join(a.casefold().split()) == " ".join(b.casefold().split())
    return plain or (problem["grader"] == "math" and grading.same_math(a, b))


def repeated(rows: Sequence[EvalRow], first: Sequence[Attempt]) -> float | None:
    """Share of the fresh answers of `resample` that say what the first answer said; None where none was drawn.

    Near 1 the model's mistakes are systematic, and sampling again cannot mend them.
    """
    same = [
        answered == attempt["answer"]
        for row, attempt in zip(rows, first, strict=True)
        for answered, _, _ in row.get("samples", [])
    ]
    return sum(same) / len(same) if same else None


def _verified(row: dict[str, Any]) -> dict[str, Any]:
    """The row of `resample` from that of `resample_vote`: right where any sample is. The samples stay with the vote."""
    right = row["turn1_correct"] or any(correct for _, correct, _ in row.get("samples", []))
    kept = {k: v for k, v in row.items() if k != "samples"}
    return kept | {"turn2_correct": right}


# -- Figures from rows ---------------------------------------------------------------------------------------------------
def metrics(
    directory: str | Path,
    *,
    seed: int = 0,
    baseline: str = "prompted",
    control_setting: str = "unfiltered",
    extra: Sequence[tuple[str, str]] = (),
) -> dict[str, list[dict[str, Any]]]:
    """All figures of a directory of eval files, as metrics.json holds them (see README, "The numbers").

    `rows`: one per file and task (and "all"); fractions in 0..1. `comparisons`: paired differences of Acc@t2 on the same
    questions (`compared` says which; `extra` names further pairs of files), with Holm's correction over all of them.
    """
    files = {path.stem: store.read_jsonl(path) for path in sorted(Path(directory).glob("*.*.jsonl"))}
    rows = [
        describe(name, task, [r for r in found if task in ("all", r["task"])], seed)
        for name, found in files.items()
        for task in ["all", *sorted({r["task"] for r in found})]
    ]
    pairs = compared(list(files), baseline, control_setting)
    pairs += [(a, b) for a, b in extra if {a, b} <= set(files) and not {(a, b), (b, a)} & set(pairs)]
    comparisons = [compare(a, files[a], b, files[b], seed) for a, b in pairs]
    return {"rows": rows, "comparisons": correct_for_many(comparisons)}


def compared(names: Sequence[str], baseline: str = "prompted", control_setting: str = "unfiltered") -> list[tuple]:
    """Which eval files are compared, each pair once, within a mode.

    Every file against the prompted baseline; every setting against the baseline's controls and its own; every setting
    against the control that was trained on unfiltered reflections; every round against the one before it.
    """
    parts = {name: (*name.split("."), None)[:3] for name in names}
    pairs: dict[tuple[str, str], None] = {}
    for a, (setting, mode, control) in parts.items():
        for b, (other, other_mode, other_control) in parts.items():
            if a == b or mode != other_mode or (b, a) in pairs:
                continue
            against_baseline = other == baseline and other_control is None
            against_control = control is None and other_control is not None and other in (setting, baseline)
            trained = control is None and other_control is None and setting != baseline
            if against_baseline or against_control or (trained and other in (control_setting, _round_before(setting))):
                pairs[a, b] = None
    return list(pairs)


def _round_before(setting: str) -> str | None:
    number = setting.removeprefix("round_")
    if number == setting or not number.isdigit():
        return None
    return "reflector_only" if number == "2" else f"round_{int(number) - 1}"


def correct_for_many(comparisons: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The comparisons with Holm's p over all of them and what follows: `significant` at a family-wise 5 %."""
    adjusted = holm([c["p_mcnemar"] for c in comparisons])
    return [c | {"p_holm": p, "significant": p < 0.05} for c, p in zip(comparisons, adjusted, strict=True)]


def describe(name: str, task: str, rows: Sequence[EvalRow], seed: int) -> dict[str, Any]:
    """One row of metrics.json from the rows of one eval file (of one task, or "all")."""
    setting, mode, control = [*name.split("."), None][:3]
    first = np.array([r["turn1_correct"] for r in rows], bool)
    second = np.array([r["turn2_correct"] for r in rows], bool)
    flips = {"cc": first & second, "ci": first & ~second, "ic": ~first & second, "ii": ~first & ~second}
    return {
        "setting": setting,
        "mode": mode,
        "control": control,
        "task": task,
        "n": len(rows),
        "acc_t1": _mean(first),
        "acc_t1_ci": wilson(first.sum(), len(rows)),
        "acc_t2": _mean(second),
        "acc_t2_ci": wilson(second.sum(), len(rows)),
        "delta": _mean(second) - _mean(first),
        "delta_ci": bootstrap_ci(second.astype(int) - first.astype(int), seed),
        "flips": {k: int(v.sum()) for k, v in flips.items()},
        "tokens": int(sum(r["tokens"] for r in rows)),
        "turns": by_turn(rows),
    }


def by_turn(rows: Sequence[EvalRow]) -> list[dict[str, Any]]:
    """Acc@t for each turn that was run, with its Wilson interval and the tokens that the turn spent on all questions.

    Turn 1 is shared by all settings and counts 0 tokens.
    """
    if not rows:
        return []
    correct = [r.get("correct") or [r["turn1_correct"], r["turn2_correct"]] for r in rows]
    tokens = [r.get("turn_tokens", [r["tokens"]]) for r in rows]
    found = []
    for t in range(len(correct[0])):
        right, spent = sum(c[t] for c in correct), sum(spent[t - 1] for spent in tokens if t and len(spent) >= t)
        found.append({"turn": t + 1, "acc": right / len(rows), "ci": wilson(right, len(rows)), "tokens": spent})
    return found


def compare(name_a: str, a: Sequence[EvalRow], name_b: str, b: Sequence[EvalRow], seed: int = 0) -> dict[str, Any]:
    """Paired difference of Acc@t2 on the questions that two files share: a − b.

    `wins`: questions that only a gets right, `losses`: that only b does. `mde` is the smallest difference that this many
    questions, with this many discordant pairs, would show (80 % power).
    """
    second = {r["id"]: r["turn2_correct"] for r in b}
    pairs = [(r["turn2_correct"], second[r["id"]]) for r in a if r["id"] in second]
    x, y = np.array(pairs, bool).reshape(-1, 2).T
    wins, losses = int((x & ~y).sum()), int((~x & y).sum())
    return {
        "a": name_a,
        "b": name_b,
        "diff": _mean(x) - _mean(y),
        "ci": bootstrap_ci(x.astype(int) - y.astype(int), seed),
        "p_mcnemar": mcnemar(wins, losses),
        "mde": smallest_detectable((wins + losses) / max(1, len(pairs)), len(pairs)),
        "n": len(pairs),
        "wins": wins,
        "losses": losses,
    }


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else 0.0
