"""Turn 1, reflections on what went wrong, turn 2: the data that reflection learning starts from (paper, section 3.2).

Every reflection and every second turn sees the first attempt only, never another reflection or retry; prompts are
built before generation and stored with the row.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from .. import prompts, store
from ..grading import grade_many
from ..rows import Attempt, Message, Problem, Reflection, Rollout
from .engines import Adapter, Completion, Engine


def generate_rollouts(
    engine: Engine,
    problems: Iterable[Problem] | str | Path,
    out: str | Path,
    *,
    k: int = 2,
    instructions: str | Sequence[str] = "all",
    temperature: float = 0.8,
    max_new_tokens: int = 512,
    seed: int = 0,
    chunk_size: int = 250,
    reflector: Adapter = None,
    progress: bool = True,
) -> store.Rows:
    """Write one Rollout per problem to `out` (JSON Lines), and return them as a sequence that stays on disk.

    `problems`: rows, or the path of a file of them; one chunk of them is in memory at a time. Turn 1 and turn 2 are
    greedy answers of the untouched Generator. Where turn 1 is wrong, `k` reflections are sampled at `temperature`, each
    under its own instruction out of `instructions` (see `prompts.instruction_pool`; balanced within a chunk), written by
    the Reflector (`reflector`: a LoRA adapter, None for the base model), and each is followed by its own turn 2.

    A chunk of `chunk_size` problems is the unit of resume and seeds its own sampling: an interrupted call goes on where
    it stopped and gives the very rows of an undisturbed one. Raises ValueError for an unknown instruction and if `out`
    holds rows of other problems, seeds, chunks or models, and what `store.append_chunks` raises.
    """
    pool, out = prompts.instruction_pool(instructions), Path(out)
    with contextlib.ExitStack() as stack:
        problems = _on_hand(problems, stack)
        progress = stack.enter_context(Progress(len(problems), show=progress))

        def of_chunk(i: int) -> list[Problem]:
            return list(problems[i * chunk_size : (i + 1) * chunk_size])

        def make(i: int) -> list[Rollout]:
            progress.start()
            chunk = chunk_seed(seed, "rollouts", i)
            return _chunk(engine, of_chunk(i), k, pool, temperature, max_new_tokens, chunk, reflector)

        def on_chunk(i: int, rows: list[Rollout]) -> None:
            if not progress.started:
                _check_found(out, rows, of_chunk(i), chunk_seed(seed, "rollouts", i), k, engine, reflector)
            progress.add(rows)

        store.append_chunks(out, -(-len(problems) // chunk_size), make, chunk_size, on_chunk)
    return store.Rows(out)


def _on_hand(problems: Iterable[Problem] | str | Path, stack: contextlib.ExitStack) -> Sequence[Problem]:
    """Problems as a sequence that need not be in memory; an iterator's are put into a temporary file first."""
    if isinstance(problems, str | Path):
        return store.Rows(problems)
    if isinstance(problems, Sequence):
        return problems
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="problems-")))
    store.write_jsonl(folder / "problems.jsonl", problems)
    return store.Rows(folder / "problems.jsonl")


def _check_found(
    out: Path, rows: list[Rollout], problems: list[Problem], seed: int, k: int, engine: Engine, reflector: Adapter
) -> None:
    """Refuse to go on with a file that was made from something else than what is asked for now."""
    if len(rows) != len(problems):
        raise ValueError(f"{out} was made from another number of problems: {store.OTHER_FILE}")
    for row, problem in zip(rows, problems, strict=True):
        counts = {0} if row["turn1"]["correct"] else {k}
        found = {
            "problem": (row["id"], problem["id"]),
            "seed of the chunk (seed, chunk_size)": (row["seed"], seed),
            "k": (len(row["reflections"]), k if len(row["reflections"]) not in counts else len(row["reflections"])),
            "model": (Path(row["model"]).name, Path(engine.name).name),  # a run directory may be moved
            "adapter": (Path(row["adapter"] or "").name, Path(reflector or "").name),
        }
        for name, (old, new) in found.items():
            if old != new:
                raise ValueError(f"{out}: {name} was {old!r}, is {new!r}: {store.OTHER_FILE}")
        if row["problem"] != problem and row["problem"] != json.loads(json.dumps(problem)):
            raise ValueError(f"{out}: problem {row['id']} reads differently now: {store.OTHER_FILE}")


def chunk_seed(seed: int, stage: str, chunk: int) -> int:
    """The sampling seed of a chunk: a function of (seed, stage, chunk) alone."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{stage}/{chunk}".encode()).digest()[:4], "big")


def answer(
    engine: Engine,
    problems: Sequence[Problem],
    conversations: Sequence[list[Message]],
    *,
    max_new_tokens: int,
    adapter: Adapter = None,
    temperature: float = 0.0,
    seed: int = 0,
) -> list[Attempt]:
    """One graded attempt per conversation; greedy by default."""
    found = engine.generate(
        conversations, max_new_tokens=max_new_tokens, adapter=adapter, temperature=temperature, seed=seed
    )
    return graded(problems, conversations, [completions[0] for completions in found])


def graded(
    problems: Sequence[Problem], conversations: Sequence[list[Message]], completions: Sequence[Completion]
) -> list[Attempt]:
    """Attempt rows from completions."""
    grades = grade_many(problems, [c.text for c in completions])
    return [
        {
            "prompt": prompt,
            "completion": c.text,
            "answer": g.answer,
            "correct": g.correct,
            "tokens": c.tokens,
            "truncated": c.truncated,
        }
        for prompt, c, g in zip(conversations, completions, grades, strict=True)
    ]


def _chunk(
    engine: Engine,
    problems: Sequence[Problem],
    k: int,
    instructions: Sequence[str],
    temperature: float,
    max_new_tokens: int,
    seed: int,
    reflector: Adapter,
) -> list[Rollout]:
    first = answer(engine, problems, [prompts.answer_prompt(p) for p in problems], max_new_tokens=max_new_tokens)
    jobs = [i for i, attempt in enumerate(first) if not attempt["correct"] for _ in range(k)]
    names = prompts.draw_instructions(len(jobs), seed, instructions, k=k)
    asked = [
        prompts.reflection_prompt(problems[i], first[i]["completion"], name)
        for i, name in zip(jobs, names, strict=True)
    ]
    written = [
        c[0]
        for c in engine.generate(
            asked, temperature=temperature, max_new_tokens=max_new_tokens, seed=seed, adapter=reflector
        )
    ]
    retries = [
        prompts.retry_prompt(problems[i], first[i]["completion"], c.text) for i, c in zip(jobs, written, strict=True)
    ]
    second = answer(engine, [problems[i] for i in jobs], retries, max_new_tokens=max_new_tokens)
    reflections: list[list[Reflection]] = [[] for _ in problems]
    for i, name, prompt, c, attempt in zip(jobs, names, asked, written, second, strict=True):
        reflections[i].append(
            {"instruction": name, "prompt": prompt, "text": c.text, "tokens": c.tokens, "turn2": attempt}
        )
    return [
        {
            "id": p["id"],
            "problem": p,
            "turn1": first[i],
            "reflections": reflections[i],
            "model": engine.name,
            "adapter": str(reflector) if reflector else None,
            "seed": seed,
        }
        for i, p in enumerate(problems)
    ]


# -- Counters and progress ----------------------------------------------------------------------------------------------
def tally(rows: Iterable[Rollout], seen: dict[str, int] | None = None) -> dict[str, int]:
    """Counts over rollouts, added to `seen`: problems, right (at turn 1), reflections, corrected (right at turn 2), tokens."""
    seen = seen or dict.fromkeys(("problems", "right", "reflections", "corrected", "tokens"), 0)
    for row in rows:
        turns = [row["turn1"], *(r["turn2"] for r in row["reflections"])]
        seen["problems"] += 1
        seen["right"] += row["turn1"]["correct"]
        seen["reflections"] += len(row["reflections"])
        seen["corrected"] += sum(r["turn2"]["correct"] for r in row["reflections"])
        seen["tokens"] += sum(a["tokens"] for a in turns) + sum(r["tokens"] for r in row["reflections"])
    return seen


class Progress:
    """A tqdm bar over rows with time left, rows/s, tokens/s, running Acc@t1 and correction rate.

    Rows found on disk count for the rates of success and not for those of speed: `start` is called when generation does.
    """

    def __init__(self, total: int, *, show: bool = True) -> None:
        self.total, self.show, self.started = total, show, False
        self.seen = tally(())

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        if self.started:
            self.bar.close()

    def start(self) -> None:
        """The first chunk is about to be made: open the bar with what was found, and start the clock."""
        from tqdm.auto import tqdm

        if not self.started:
            self.started, self.began, self.found = True, time.perf_counter(), dict(self.seen)
            at = {"total": self.total, "initial": self.found["problems"]}
            self.bar = tqdm(desc="rollouts", unit=" rows", smoothing=0, disable=not self.show, **at)

    def add(self, rows: Sequence[Rollout]) -> None:
        """Count a chunk."""
        tally(rows, self.seen)
        if self.started:
            self.bar.set_postfix_str(self.summary(), refresh=False)
            self.bar.update(len(rows))

    def summary(self) -> str:
        """The running rates, e.g. "Acc@t1 55.8%, corrected 27.2%, 3,210 tokens/s"."""
        seen, seconds = self.seen, max(time.perf_counter() - self.began, 1e-9)
        return (
            f"Acc@t1 {seen['right'] / max(1, seen['problems']):.1%}, "
            f"corrected {seen['corrected'] / max(1, seen['reflections']):.1%}, "
            f"{(seen['tokens'] - self.found['tokens']) / seconds:,.0f} tokens/s"
        )
