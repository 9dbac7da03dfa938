"""The performance table: what batching brings, measured side by side.

Two ways of doing the same work run in turn, several rounds, the order swapped every round, so that whatever else the
machine does hits both; the table gives the median ratio of a round's two rates, and the lowest and highest.

reflectevo bench [--gpu] [--out artifacts/bench]
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from .. import embedded, generate, grading, prompts, sandbox, store
from ..generate import TransformersEngine
from ..rows import Message, Problem

if TYPE_CHECKING:
    from transformers import PretrainedConfig

Rate = Callable[[int], float]  # round -> units per second


class Row(TypedDict):
    """One line of the table; `baseline`, `ratio`, `low` and `high` are None where nothing is compared."""

    measure: str
    unit: str
    rate: float
    against: str
    baseline: float | None
    ratio: float | None
    low: float | None
    high: float | None
    rounds: int


def run(out: str | Path, *, gpu: bool = False, rounds: int = 5, size: int = 256) -> list[Row]:
    """Measure, write `bench.json` and `bench.md` into `out`, and return the rows.

    `size` problems are rolled out at a time. With `gpu`, generation at a real model's shape is measured as well;
    ValueError without CUDA.
    """
    import torch

    if gpu and not torch.cuda.is_available():
        raise ValueError("bench --gpu needs a CUDA device: there is none here (leave --gpu out for the CPU's table)")
    load = os.getloadavg()[0]
    rows = [*generation(rounds=rounds, size=size), memory(), *checking(rounds)]
    rows += gpu_generation(rounds=rounds) if gpu else []
    env = store.environment() | {"load_before": load, "torch_threads": torch.get_num_threads()}
    store.write_json(Path(out) / "bench.json", {"environment": env, "rows": rows})
    store.write_text(Path(out) / "bench.md", table(rows, env))
    return rows


def compare(measure: str, unit: str, ours: Rate, against: str, theirs: Rate, rounds: int, warm_up: bool = True) -> Row:
    """Both rates, round by round in turn; the first round's order is ours, theirs, the second's the reverse."""
    if warm_up:
        ours(0), theirs(0)
    pairs = []
    for i in range(rounds):
        both = {name: rate(i) for name, rate in ((0, ours), (1, theirs))[:: 1 if i % 2 == 0 else -1]}
        pairs.append((both[0], both[1]))
    ratios = [a / b for a, b in pairs]
    return {
        "measure": measure,
        "unit": unit,
        "rate": statistics.median(a for a, _ in pairs),
        "against": against,
        "baseline": statistics.median(b for _, b in pairs),
        "ratio": statistics.median(ratios),
        "low": min(ratios),
        "high": max(ratios),
        "rounds": rounds,
    }


def generation(*, rounds: int, size: int, alone: int = 48) -> list[Row]:
    """The embedded model on this machine's CPU: rollouts, and the parts they are made of.

    One prompt at a time is transformers' `generate` on each prompt, measured on `alone` problems a round.
    """
    loaded = generate.load(generate.TINY, device="cpu")
    ours, plain = TransformersEngine(loaded), TransformersEngine(loaded, batching="generate")
    one = TransformersEngine(loaded, batching="generate", batch_tokens=1)
    problems = embedded.problems(size, "train", seed=0)
    first = ours.generate([prompts.answer_prompt(p) for p in problems], max_new_tokens=96)
    pool = prompts.POOL
    asked = [
        prompts.reflection_prompt(p, c[0].text, pool[(4 * i + j) % len(pool)])
        for i, (p, c) in enumerate(zip(problems[: size // 4], first, strict=False))
        for j in range(4)
    ]
    answers = [prompts.answer_prompt(p) for p in problems]
    parts = {"answers": (answers, {}), "4 reflections each": (asked, {})}
    parts["8 samples each"] = (answers[: size // 8], {"n": 8, "temperature": 1.0})
    rows = [
        compare(
            "rollouts (answer, 2 reflections, 2 second answers; greedy)",
            "problems/s",
            _rollout_rate(ours, problems, size),
            "one prompt at a time",
            _rollout_rate(one, problems, min(alone, size // 4)),
            rounds,
        )
    ]
    for name, (conversations, options) in parts.items():
        mine, other = (_token_rate(e, conversations, 96, **options) for e in (ours, plain))
        rows.append(compare(f"generation: {name}", "tokens/s", mine, "generate, same batches", other, rounds))
    return rows


def memory(sizes: tuple[int, int] = (2_000, 20_000)) -> Row:
    """Peak memory of rollouts by the embedded model for many problems against few, each in a process of its own.

    Short ones (8 new tokens, one reflection): what grows with the number of problems is what is looked for.
    """
    few, many = (_in_a_process(_peak_mib, n) for n in sizes)
    return {
        "measure": f"peak memory of rollouts, {sizes[1]:,} problems",
        "unit": "MiB",
        "rate": many,
        "against": f"{sizes[0]:,} problems",
        "baseline": few,
        "ratio": many / few,
        "low": many / few,
        "high": many / few,
        "rounds": 1,
    }


def _in_a_process(function: Callable[[int], float], n: int) -> float:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, n).result()


def _peak_mib(n: int) -> float:
    engine = TransformersEngine(generate.load(generate.TINY, device="cpu"))
    with tempfile.TemporaryDirectory() as folder:
        asked = Path(folder) / "problems.jsonl"
        store.write_jsonl(asked, embedded.problems(n, "train", seed=0))
        out = Path(folder) / "rollouts.jsonl"
        generate.generate_rollouts(engine, asked, out, k=1, temperature=0.0, max_new_tokens=8, progress=False)
    return _peak_kib() / 1024


def _peak_kib() -> float:
    """The largest resident set of this process so far. Linux hands ru_maxrss on from parent to child: not used there."""
    with contextlib.suppress(OSError):
        return next(float(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "darwin" else 1)


def checking(rounds: int) -> list[Row]:
    """Grading of mathematical answers, and of programs in the sandbox: all cores against one at a time."""
    maths: list[Problem] = [
        {
            "id": str(i),
            "task": "math",
            "question": "",
            "answer": f"\\frac{{{i}}}{{{i + 1}}}",
            "grader": "math",
            "meta": {},
        }
        for i in range(120)
    ]
    codes: list[Problem] = [
        {"id": str(i), "task": "code", "question": "", "answer": "", "grader": "code", "tests": [f"assert f({i}) == {i + 1}"], "meta": {}}
        for i in range(24)
    ]  # fmt: skip
    said = [f"The answer is \\boxed{{{i}/{i + 1}}}" for i in range(len(maths))]
    program = ["```python\ndef f(x):\n    return x + 1\n```"] * len(codes)
    rows = [_grading_row("grading: mathematics", maths, said, rounds)]
    try:
        rows.append(_grading_row("grading: programs in the sandbox", codes, program, rounds))
    except sandbox.SandboxError as error:  # no containment here: nothing is run, and the table says so
        print(f"programs not measured: {error}")
    return rows


def gpu_generation(
    *,
    rounds: int = 3,
    rows: int = 256,
    alone: int = 2,
    new_tokens: int = 256,
    prompt_tokens: tuple[int, int] = (200, 400),
    config: PretrainedConfig | None = None,
    device: str = "cuda",
) -> list[Row]:
    """Greedy generation by a randomly initialised model of Qwen3-1.7B's shape (or `config`), always `new_tokens` long.

    Continuous and padded batches of `rows` prompts, each against one prompt at a time.
    """
    loaded = _random_model(config or _qwen3_1_7b(), device)
    conversations = _random_prompts(loaded.model.config.vocab_size, rows, prompt_tokens)
    one = TransformersEngine(loaded, batching="generate", batch_tokens=1)
    found = []
    for batching in ("continuous", "padded"):
        engine = TransformersEngine(loaded, batching=batching)
        ours = _token_rate(engine, conversations, new_tokens)
        theirs = _token_rate(one, conversations[:alone], new_tokens)
        name = f"generation on {device}, {batching} ({new_tokens} new tokens, {rows} prompts)"
        found.append(compare(name, "tokens/s", ours, "one prompt at a time", theirs, rounds))
    return found


def table(rows: Sequence[Row], env: dict[str, Any]) -> str:
    """The rows as a Markdown table, with the machine beneath it."""
    lines = ["| | rate | against | rate | ratio (lowest to highest round) |", "|---|---|---|---|---|"]
    for row in rows:
        ratio = f"**{row['ratio']:.3g}×** ({row['low']:.3g} to {row['high']:.3g})" if row["ratio"] else "–"
        base = f"{row['baseline']:,.1f}" if row["baseline"] else "–"
        lines.append(f"| {row['measure']} | {row['rate']:,.1f} {row['unit']} | {row['against']} | {base} | {ratio} |")
    versions = ", ".join(f"{name} {v}" for name, v in env["versions"].items())
    lines += [
        "",
        f"{max((r['rounds'] for r in rows), default=0)} rounds, median; {env['cpus']} CPUs, {env['torch_threads']} torch threads, ",
    ]
    lines[-1] += f"{env['gpu'] or 'no GPU'}; load before the start {env['load_before']:.1f}; {versions}."
    return "\n".join(lines) + "\n"


def _rollout_rate(engine: TransformersEngine, problems: Sequence[Problem], size: int) -> Rate:
    def rate(i: int) -> float:
        start = i * size % len(problems)
        part = [*problems, *problems][start : start + size]
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            generate.generate_rollouts(
                engine, part, Path(folder) / "rollouts.jsonl", k=2, temperature=0.0, max_new_tokens=96, chunk_size=size,
                progress=False,
            )  # fmt: skip
            return size / (time.perf_counter() - began)

    return rate


def _token_rate(
    engine: TransformersEngine, conversations: Sequence[list[Message]], max_new_tokens: int, **options: Any
) -> Rate:
    def rate(i: int) -> float:
        began = time.perf_counter()
        found = engine.generate(conversations, max_new_tokens=max_new_tokens, seed=i, **options)
        return sum(c.tokens for row in found for c in row) / (time.perf_counter() - began)

    return rate


def _grading_row(measure: str, problems: Sequence[Problem], said: Sequence[str], rounds: int) -> Row:
    def rate(workers: int | None) -> Rate:
        def measured(_: int) -> float:
            began = time.perf_counter()
            grades = grading.grade_many(problems, said, workers=workers, progress=False)
            seconds = time.perf_counter() - began
            if not all(g.correct for g in grades):
                raise RuntimeError(f"{measure}: a right answer was graded wrong; the rate would mean nothing")
            return len(problems) / seconds

        return measured

    return compare(measure, "answers/s", rate(None), "one at a time", rate(1), rounds)


class _Numbers:
    """A tokenizer for a model without one: a token is a number, a text a list of them."""

    pad_token_id, eos_token_id = 0, None

    def apply_chat_template(self, conversation: list[Message], **_: Any) -> str:
        return conversation[0]["content"]

    def __call__(self, texts: list[str], **_: Any) -> dict[str, list[list[int]]]:
        return {"input_ids": [[int(word) for word in text.split()] for text in texts]}

    def decode(self, ids: Sequence[int], **_: Any) -> str:
        return " ".join(map(str, ids))


def _random_prompts(vocabulary: int, n: int, lengths: tuple[int, int]) -> list[list[Message]]:
    import random

    rng = random.Random(0)
    draw = lambda: " ".join(str(rng.randrange(3, vocabulary)) for _ in range(rng.randint(*lengths)))
    return [[{"role": "user", "content": draw()}] for _ in range(n)]


def _random_model(config: PretrainedConfig, device: str) -> generate.Loaded:
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    dtype = generate.pick_dtype("auto", device)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype)).eval()
    return generate.Loaded(model, _Numbers(), "random", f"transformers on {device}, {dtype}")  # type: ignore[arg-type]


def _qwen3_1_7b() -> PretrainedConfig:
    """The shape in Qwen/Qwen3-1.7B's config.json; no token ends a turn, so every completion is as long as asked."""
    from transformers import Qwen3Config

    return Qwen3Config(
        vocab_size=151_936, hidden_size=2048, intermediate_size=6144, num_hidden_layers=28, num_attention_heads=16,
        num_key_value_heads=8, head_dim=128, max_position_embeddings=40_960, tie_word_embeddings=True,
        bos_token_id=None, eos_token_id=None, pad_token_id=None,
    )  # fmt: skip
