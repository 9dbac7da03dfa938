"""What a run will take: prompts, tokens, optimiser steps, GPU memory, time. Nothing is loaded.

Work is counted from the registry of settings and the run's parameters. What these cannot know (how many answers are
wrong, how many reflections help) comes from `Assumed` shares, or from the files of a finished run (`Measured`)."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

from .. import store
from ..generate import GIB, default_batch_tokens, shape_of
from . import memory as m
from .memory import USABLE, Card, Setup
from .params import ROLLOUTS, ROUNDS

ROLLED_OUT = "rollouts/train.jsonl"
Values = Mapping[str, Any]  # of every parameter of a run


@dataclass
class Assumed:
    """What a plan cannot know: shares in 0..1, lengths in tokens (defaults: means of the paper's data, rounded up)."""

    wrong: float = 0.5  # of first answers
    corrected: float = 0.25  # of second answers, and so the share of reflections in D+
    prompt: int = 200
    answer: int = 240
    reflection: int = 270

    def asked(self, split: str, n: int) -> int:
        """Questions of a split, of `n` that were asked for."""
        return n

    def going(self, evaluation: Any, n: int, turn: int, folder: str = "evals") -> float:
        """Questions of an evaluation that go on to a turn."""
        return n if evaluation.mode == "intrinsic" else n * self.wrong * (1 - self.corrected) ** (turn - 2)

    def failed(self, file: str, n: int) -> float:
        """Rolled-out questions whose first answer is wrong."""
        return n * self.wrong

    def rows(self, file: str, failed: float, k: int) -> float:
        """Rows of a curated file: of c helpful ones among k reflections, at most 4 pairs go into D±, 2 into D^pref."""
        pairs = {"d_pm.jsonl": lambda c: min(4, c * (k - c)), "d_pref.jsonl": lambda c: min(2, math.comb(c, 2))}
        each = pairs.get(file.split("/")[-1], lambda c: c)
        chance = [math.comb(k, c) * self.corrected**c * (1 - self.corrected) ** (k - c) for c in range(k + 1)]
        return failed * sum(p * each(c) for c, p in enumerate(chance))


class Measured(Assumed):
    """The same answers from the files of a finished run."""

    def __init__(self, run: store.Run) -> None:
        super().__init__()
        self.run = run

    def asked(self, split: str, n: int) -> int:
        return len(self.run.rows("data", f"{split}.jsonl"))

    def going(self, evaluation: Any, n: int, turn: int, folder: str = "evals") -> float:
        if not self.run.path(folder, evaluation.file).exists():
            return 0  # a setting that was left out
        rows = self.run.read(folder, evaluation.file)
        if evaluation.mode == "intrinsic":
            return len(rows)
        return sum(not (r["turn1_correct"] if turn == 2 else r["correct"][turn - 2]) for r in rows)

    def failed(self, file: str, n: int) -> float:
        return sum(not r["turn1"]["correct"] for r in self.run.rows(*file.split("/")))

    def rows(self, file: str, failed: float, k: int) -> float:
        return len(self.run.rows(*file.split("/"))) if self.run.path(file).exists() else 0


class Part(NamedTuple):
    """What one part of a run does. `tokens`: generated, or trained on (prompts included); `rows`: trained on."""

    stage: str
    what: str
    prompts: int = 0
    tokens: int = 0
    rows: int = 0
    steps: int = 0
    dpo: bool = False


def count(values: Values, stages: Sequence[str], facts: Assumed | None = None) -> list[Part]:
    """The parts of the stages' work, from a run's parameters (`Plan.values`)."""
    p, facts = SimpleNamespace(**values), facts or Assumed()
    p.pool = facts.asked("train", p.n_train * len(p.sources))
    p.n_rollout, p.test = min(p.n_rollout, p.pool), facts.asked("test", p.n_test * len(p.test_sources or p.sources))
    p.answer, p.reflection = min(facts.answer, p.max_new_tokens), min(facts.reflection, p.max_new_tokens)
    p.length = facts.prompt + p.answer + p.reflection  # of a training row: question, attempt, reflection
    return [part for stage in stages for part in _parts(stage, p, facts) if part.prompts or part.rows]


def _generated(p: Any, stage: str, what: str, answers: float, reflections: float) -> Part:
    tokens = answers * p.answer + reflections * p.reflection
    return Part(stage, what, round(answers + reflections), round(tokens))


def _rolled_out(p: Any, facts: Assumed, stage: str, file: str) -> Part:
    sampled = facts.failed(file, p.n_rollout) * p.k
    return _generated(p, stage, "rollouts", p.n_rollout + sampled, sampled)


def _parts(stage: str, p: Any, facts: Assumed) -> Iterator[Part]:
    """Rollouts or rounds, then the trainings and evaluations that the registry declares for a stage."""
    from .. import evaluate

    if stage == ROLLOUTS:
        yield _rolled_out(p, facts, stage, ROLLED_OUT)
        yield _generated(p, stage, "first answers", p.test, 0)
    if stage == ROUNDS:
        yield from _round_parts(stage, p, facts)
    for t in evaluate.trainings(stage):
        failed = facts.failed(ROLLED_OUT, p.n_rollout)
        rows = {"qa": p.n_rollout, "reward": failed}.get(t.form)
        yield _trained(p, stage, t.label, t.kind, t.rates, facts.rows(t.rows, failed, p.k) if rows is None else rows)
    for setting in (s for s in evaluate.SETTINGS.values() if s.notebook == stage):
        yield _evaluated(p, facts, stage, setting, p.test)


def _evaluated(p: Any, facts: Assumed, stage: str, setting: Any, n: int, folder: str = "evals") -> Part:
    answers, reflections = n if setting.answers else 0, 0
    for evaluation, turns in ({} if setting.answers else setting.evaluations(p.turns)).items():
        for turn in range(2, turns + 1):
            going = facts.going(evaluation, n, turn, folder)
            joined = setting.one_stage and evaluation.control is None  # reflection and answer in one completion
            answers += going
            reflections += 0 if joined or evaluation.control == "retry" else going
    return _generated(p, stage, setting.label, answers, reflections)


def _trained(p: Any, stage: str, what: str, kind: str, rates: str, rows: float) -> Part:
    from ..train import GRPOParams, TrainParams, planned_steps

    params = GRPOParams.of(p) if kind == "grpo" else TrainParams.of(rates, p)
    if not (rows := round(rows)):
        return Part(stage, what)
    length = min(p.length, p.max_length) * (2 if kind == "dpo" else 1)
    examples = -(-rows * length // p.max_length) if params.packing and kind == "sft" else rows
    steps = planned_steps(kind, params, examples)
    seen = steps * params.batch_size if kind == "grpo" else rows * params.epochs
    return Part(stage, f"{kind.upper()}: {what}", 0, round(seen * length), rows, steps, kind == "dpo")


def _round_parts(stage: str, p: Any, facts: Assumed) -> Iterator[Part]:
    from .. import evaluate

    held, folder = min(p.n_validation, max(0, p.pool - p.n_rollout)), "rounds/validation"
    yield _generated(p, stage, "first answers to validate on", held, 0)
    for r in range(p.rounds + 1):
        setting = evaluate.round_setting(r)._replace(name=f"round_{r}", also=(), multi_turn=False)
        yield _evaluated(p, facts, stage, setting._replace(label=f"round {r}, validation"), held, folder)
    used = 0.0
    for r in range(2, p.rounds + 1):
        file = f"rounds/{r}/rollouts.jsonl"
        yield _rolled_out(p, facts, stage, file)
        name = evaluate.ROUND_DATA[p.round_training]
        rows = facts.rows(f"rounds/{r}/{name}.jsonl", facts.failed(file, p.n_rollout), p.k)
        first = facts.rows(f"curated/{name}.jsonl", facts.failed(ROLLED_OUT, p.n_rollout), p.k) if r == 2 else 0
        used = used + first + rows if p.round_data == "union" else rows
        rates = {"dpo": "further"}.get(p.round_training, p.round_training)
        yield _trained(p, stage, f"round {r}", p.round_training, rates, used)
        yield _evaluated(p, facts, stage, evaluate.round_setting(r), p.test)


class Estimate(NamedTuple):
    """A run's plan: its work, peak bytes by what needs them, seconds (None without a known card), remedies if too big."""

    setup: Setup
    parts: list[Part]
    memory: dict[str, float]
    seconds: list[float] | None
    limit: float | None
    remedies: list[str]

    @property
    def fits(self) -> bool | None:
        """Whether the peak fits the card; None if no card is known."""
        return None if self.limit is None else max(self.memory.values()) <= self.limit * USABLE


def estimate(
    values: Values,
    stages: Sequence[str] = store.STAGES,
    *,
    memory: float | None = None,
    device: Card | None = None,
    facts: Assumed | None = None,
) -> Estimate:
    """Plan a run from its parameters. `memory` in GiB overrides the card's. Raises ValueError for a model of unknown size."""
    shape, checkpointing = shape_of(values["model"]), values["gradient_checkpointing"]
    checkpointing = shape.parameters >= 1e9 if checkpointing is None else checkpointing
    given = {name: values[name] for name in ("load_in_4bit", "lora_r", "full_finetuning", "max_length")}
    width = 4 if memory is None and device is None else 2
    setup = Setup(shape, bytes_per_weight=width, gradient_checkpointing=checkpointing, **given)
    limit = memory * GIB if memory else device.memory * GIB if device else None
    parts, facts = count(values, stages, facts), facts or Assumed()
    times = [_seconds(part, setup, device, values, facts.prompt, limit) for part in parts] if device else None
    found = Estimate(setup, parts, _peaks(setup, values, limit), times, limit, [])
    return found if found.fits is not False else found._replace(remedies=_remedies(setup, values, limit))


def _seconds(part: Part, setup: Setup, device: Card, values: Values, prompt: int, limit: float) -> float:
    if part.steps:
        return m.training_seconds(setup, device, part.tokens, dpo=part.dpo, processes=values["processes"])
    longest = values["max_new_tokens"]
    rows = min(_batch_tokens(setup, limit) // (prompt + longest), values["chunk_size"])
    how = {"rows": rows, "prompt": prompt, "longest": longest}
    return m.generation_seconds(setup._replace(full_finetuning=False), device, part.prompts, part.tokens, **how)


def _batch_tokens(setup: Setup, limit: float | None) -> int:
    """The engine halves its batches until they fit; below a few rows it would not run."""
    batch = default_batch_tokens(setup.shape, setup.bytes_per_weight, "cuda" if limit else "cpu")
    while limit and batch > 4096 and m.generation_memory(setup, batch) > limit * USABLE:
        batch //= 2
    return batch


def _peaks(setup: Setup, values: Values, limit: float | None) -> dict[str, float]:
    found = {"generation": m.generation_memory(setup, _batch_tokens(setup, limit))}
    for kind in ("sft", "dpo"):  # a batch is shared by the processes
        found[kind] = m.train_memory(setup, kind, -(-values[f"{kind}_batch_size"] // values["processes"]))
    return found


def _remedies(setup: Setup, values: Values, limit: float) -> list[str]:
    """The usual changes, in the order of what they cost, up to the first with which the run fits."""
    said, values = [], dict(values)
    fits = lambda: max(_peaks(setup, values, limit).values()) <= limit * USABLE
    for kind in ("sft", "dpo"):  # the same training, in smaller steps
        name = f"{kind}_batch_size"
        before = values[name]
        while values[name] > 1 and _peaks(setup, values, limit)[kind] > limit * USABLE:
            values[name] //= 2
        if values[name] < before:
            said.append(f"{name}: {values[name]} and grad_accum × {before // values[name]}")
    for name, value in (("gradient_checkpointing", True), ("full_finetuning", False), ("load_in_4bit", True)):
        if not fits() and getattr(setup, name) != value:
            setup = setup._replace(**{name: value})
            said.append(f"{name}: {str(value).lower()}")
    return said if fits() else [*said, "and that is not enough: a smaller model, a shorter max_length or a larger card"]


def report(found: Estimate) -> str:
    """The plan as text: a line per part of the run, the memory table, the verdict."""
    lines = [f"{'':58s}{'prompts':>10s}{'rows':>8s}{'tokens':>13s}{'steps':>7s}{'about':>9s}"]
    for part, about in zip(found.parts, found.seconds or [None] * len(found.parts), strict=True):
        numbers = (f"{n:,}" if n else "" for n in (part.prompts, part.rows, part.tokens, part.steps))
        cells = "".join(f"{n:>{w}s}" for n, w in zip(numbers, (10, 8, 13, 7), strict=True))
        lines.append(f"{part.stage + '  ' + part.what:58s}{cells}{'?' if about is None else _duration(about):>9s}")
    if found.seconds:
        lines.append(f"{'in all, estimated, not measured':96s}{_duration(sum(found.seconds)):>9s}")
    setup = found.setup
    held = "NF4" if setup.load_in_4bit else f"{8 * setup.bytes_per_weight} bits"
    adapter = f"{setup.shape.lora(setup.lora_r):,} in a LoRA adapter"
    lines.append(f"\n{setup.shape.parameters:,} parameters, {adapter}; trained on {held}")
    lines += [f"peak memory of {name:12s}{_gib(value):>10s}" for name, value in found.memory.items()]
    return "\n".join([*lines, verdict(found)])


def verdict(found: Estimate) -> str:
    """One line: fits, does not fit and what would help, or which card to name."""
    what, most = max(found.memory.items(), key=lambda item: item[1])
    need = f"{_gib(most)} ({what})"
    if found.fits is None:
        return f"needs at most {need}; no GPU here: name one with --gpu T4 or --gpu-memory 16"
    if found.fits:
        return f"fits: at most {need} of {_gib(found.limit)}"
    return f"does not fit: up to {need}, and {_gib(found.limit)} are there; set {', '.join(found.remedies)}"


def _gib(value: float) -> str:
    return f"{value / GIB:.1f} GiB"


def _duration(value: float) -> str:
    units: Sequence[tuple[float, str]] = ((86400, "d"), (3600, "h"), (60, "min"))
    return next((f"{value / size:.1f} {unit}" for size, unit in units if value >= size), f"{value:.0f} s")
