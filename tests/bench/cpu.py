"""The CPU's table: generation by the embedded model and its memory, grading, the sandbox."""

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from reflectevo_lite import embedded, generate, grading, prompts, sandbox, store
from reflectevo_lite.generate import TransformersEngine
from reflectevo_lite.rows import Message, Problem

from .table import COMPARISON, comparison, lines, paired, write


def measure(out: str | Path, *, rounds: int, size: int) -> str:
    """Measure, write bench.json and bench.md to `out`, and return the table."""
    load = os.getloadavg()[0]
    rows = [*generation(rounds, size), memory(), *checking(rounds)]
    note = f"Medians of {rounds} rounds; load before the start {load:.1f}."
    return write(Path(out) / "bench", COMPARISON, lines(rows), note, {"load_before": load, "rows": rows})


def generation(rounds: int, size: int, alone: int = 48) -> list[dict[str, Any]]:
    """Rollouts against one prompt at a time (`alone` problems a round); their parts against transformers' `generate`."""
    loaded = generate.load(generate.TINY, device="cpu")
    ours, plain = TransformersEngine(loaded), TransformersEngine(loaded, batching="generate")
    one = TransformersEngine(loaded, batching="generate", batch_tokens=1)
    problems, pool = embedded.problems(size, "train", seed=0), prompts.POOL
    answers = [prompts.answer_prompt(p) for p in problems]
    first = ours.generate(answers[: size // 4], max_new_tokens=96)
    attempts = [(problem, found[0].text) for problem, found in zip(problems, first, strict=False) for _ in range(4)]
    reflections = [prompts.reflection_prompt(*attempt, pool[i % len(pool)]) for i, attempt in enumerate(attempts)]
    name = "rollouts (answer, 2 reflections, 2 second answers; greedy)"
    both = partial(rolled_out, ours, problems, size), partial(rolled_out, one, problems, min(alone, size // 4))
    rows = [comparison(name, "problems/s", "one prompt at a time", paired(*both, rounds))]
    sampled = ("8 samples each", answers[: size // 8], {"n": 8, "temperature": 1.0})
    for name, asked, options in (("answers", answers, {}), ("4 reflections each", reflections, {}), sampled):
        both = (partial(tokens, engine, asked, 96, **options) for engine in (ours, plain))
        rows.append(comparison(f"generation: {name}", "tokens/s", "generate, same batches", paired(*both, rounds)))
    return rows


def rolled_out(engine: TransformersEngine, problems: Sequence[Problem], size: int, i: int) -> int:
    """Roll out the i-th `size` problems."""
    start = i * size % len(problems)
    part = [*problems, *problems][start : start + size]
    how = {"k": 2, "temperature": 0.0, "max_new_tokens": 96, "chunk_size": size, "progress": False}
    with tempfile.TemporaryDirectory() as folder:
        generate.generate_rollouts(engine, part, Path(folder) / "rollouts.jsonl", **how)
    return size


def tokens(engine: TransformersEngine, asked: Sequence[list[Message]], limit: int, i: int, **options: Any) -> int:
    """Generate up to `limit` tokens for each prompt, with seed i; the number of new tokens."""
    found = engine.generate(asked, max_new_tokens=limit, seed=i, **options)
    return sum(completion.tokens for row in found for completion in row)


def memory(few: int = 2_000, many: int = 20_000) -> dict[str, Any]:
    """Peak memory of short rollouts for many problems against few, each in a process of its own."""
    peaks = []
    for n in (many, few):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            peaks.append(pool.submit(peak_mib, n).result())
    return comparison(f"peak memory of rollouts, {many:,} problems", "MiB", f"{few:,} problems", [tuple(peaks)])


def peak_mib(n: int) -> float:
    """The largest resident set of this process in MiB, after rollouts for `n` problems."""
    engine = TransformersEngine(generate.load(generate.TINY, device="cpu"))
    with tempfile.TemporaryDirectory() as folder:
        asked, out = Path(folder) / "problems.jsonl", Path(folder) / "rollouts.jsonl"
        store.write_jsonl(asked, embedded.problems(n, "train", seed=0))
        generate.generate_rollouts(engine, asked, out, k=1, temperature=0.0, max_new_tokens=8, progress=False)
    if (status := Path("/proc/self/status")).exists():  # Linux hands ru_maxrss on from parent to child, VmHWM not
        lines = status.read_text(encoding="utf-8").splitlines()
        return next(float(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)


def checking(rounds: int) -> list[dict[str, Any]]:
    """Grading of mathematical answers, and of programs in the sandbox: all cores against one at a time; the quick graders
    against math-verify alone, which reads letters and numbers too."""
    program = "```python\ndef f(x):\n    return x + 1\n```"
    maths = [({"answer": f"\\frac{{{i}}}{{{i + 1}}}"}, f"The answer is \\boxed{{{i}/{i + 1}}}") for i in range(120)]
    options = {"choices": ["a kite", "a lamp", "a clock", "a violin"]}
    letters = [({"answer": c} | options, f"We weigh {i}.\nSo the answer is {c}.") for i, c in enumerate("ABCD" * 30)]
    numbers = [({"answer": str(i)}, f"First {i + 1}, then one less.\nThe final answer is {i}.") for i in range(120)]
    codes = [({"answer": "", "tests": [f"assert f({i}) == {i + 1}"]}, program) for i in range(24)]
    kinds = (("mathematics", "math", maths), ("letters", "choice", letters), ("numbers", "exact", numbers))
    rows = []
    for name, grader, items in (*kinds, ("programs in the sandbox", "code", codes)):
        shared = {"task": grader, "question": "", "grader": grader, "meta": {}}
        problems, replies = [{"id": str(i)} | shared | own for i, (own, _) in enumerate(items)], [r for _, r in items]
        alone = partial(graded, problems, replies, 1)
        others = {"math-verify alone": (alone, partial(verified, problems, replies))} if grader != "code" else {}
        if grader in ("math", "code"):
            others["one at a time"] = partial(graded, problems, replies, None), alone
        try:
            for against, both in others.items():
                rows.append(comparison(f"grading: {name}", "answers/s", against, paired(*both, rounds)))
        except sandbox.SandboxError as error:  # no containment here: nothing is run, and the bench says so
            print(f"grading: {name}: not measured ({error})")
    return rows


def graded(problems: Sequence[Problem], replies: Sequence[str], workers: int | None, _: int) -> int:
    """Grade replies that are all right."""
    grades = grading.grade_many(problems, replies, workers=workers, progress=False)
    if not all(grade.correct for grade in grades):
        raise RuntimeError("a right answer was graded wrong; the rate would mean nothing")
    return len(problems)


def verified(problems: Sequence[Problem], replies: Sequence[str], _: int) -> int:
    """Read and judge the same replies by math-verify alone; what it says is not looked at."""
    import math_verify

    letters = [math_verify.StringExtractionConfig(strings=("A", "B", "C", "D"))]
    maths = [math_verify.LatexExtractionConfig(), math_verify.ExprExtractionConfig()]
    for problem, reply in zip(problems, replies, strict=True):
        how, gold = (letters, "{}") if problem["grader"] == "choice" else (maths, "\\boxed{{{}}}")
        math_verify.verify(math_verify.parse(gold.format(problem["answer"]), how), math_verify.parse(reply, how))
    return len(problems)
