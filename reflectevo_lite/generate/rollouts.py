"""Turn 1, reflections on what went wrong, turn 2: the data that reflection learning starts from (paper, section 3.2).

A reflection or second turn sees the first attempt only, never another reflection or retry. Rows keep the prompts.
"""

import contextlib
import hashlib
import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .. import prompts, store
from ..grading import grade_readings, read
from ..rows import Attempt, Message, Problem, Reflection, Rollout
from .protocol import Adapter, Completion, Engine, refused


class RolloutParams(NamedTuple):
    """How rollouts are made; the names are those of a run's parameters."""

    k: int = 2
    instructions: str | Sequence[str] = "all"  # see `prompts.instruction_pool`
    temperature: float = 0.8
    max_new_tokens: int = 512
    seed: int = 0
    chunk_size: int = 250


def generate_rollouts(
    engine: Engine,
    problems: Iterable[Problem] | str | Path,
    out: str | Path,
    params: RolloutParams | None = None,
    *,
    reflector: Adapter = None,
    progress: bool = True,
    **settings: Any,
) -> store.Rows:
    """Write one Rollout per problem to `out` (JSON Lines), and return them as a sequence that stays on disk.

    `problems`: rows, or the path of a file of them, read chunk by chunk. `settings` are fields of `params`. Turns 1 and
    2 are greedy answers of the untouched Generator. If turn 1 is wrong, the Reflector (`reflector`: a LoRA adapter,
    None for the base model) samples `k` reflections, each under its own instruction (balanced within a chunk) and with
    its own turn 2. A chunk seeds its own sampling: an interrupted call goes on where it stopped and gives the very rows
    of an undisturbed one. Raises ValueError for an unknown instruction and if `out` holds rows of other problems,
    seeds, chunks or models, and what `store.append_chunks` raises.
    """
    how = (params or RolloutParams())._replace(**settings)
    how, out = how._replace(instructions=prompts.instruction_pool(how.instructions)), Path(out)
    if not isinstance(problems, Sequence) or isinstance(problems, str):
        problems = store.Rows(problems) if isinstance(problems, str | Path) else list(problems)
    with contextlib.closing(Progress(len(problems), show=progress)) as shown:

        def of_chunk(i: int) -> tuple[list[Problem], RolloutParams]:
            seed = chunk_seed(how.seed, "rollouts", i)
            return list(problems[i * how.chunk_size : (i + 1) * how.chunk_size]), how._replace(seed=seed)

        def make(i: int) -> list[Rollout]:
            shown.start()
            return _chunk(engine, *of_chunk(i), reflector)

        def on_chunk(i: int, rows: list[Rollout]) -> None:
            if shown.bar is None:
                _check_found(out, rows, *of_chunk(i), engine, reflector)
            shown.add(rows)

        store.append_chunks(out, -(-len(problems) // how.chunk_size), make, how.chunk_size, on_chunk)
    return store.Rows(out)


def _check_found(
    out: Path, rows: list[Rollout], problems: list[Problem], how: RolloutParams, engine: Engine, reflector: Adapter
) -> None:
    """Raise ValueError if the rows found were made from something else than what is asked for now."""
    if len(rows) != len(problems):
        raise ValueError(f"{out} was made from another number of problems: {store.OTHER_FILE}")
    for row, problem in zip(rows, problems, strict=True):
        found = {
            "problem": (row["id"], problem["id"]),
            "seed of the chunk (seed, chunk_size)": (row["seed"], how.seed),
            "k": (len(row["reflections"]), how.k if _goes_on(row["turn1"]) else 0),
            "dtype": (row.get("dtype", now := getattr(engine, "dtype", None)), now),
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
    engine: Engine, problems: Sequence[Problem], conversations: Sequence[list[Message]], **settings: Any
) -> list[Attempt]:
    """One graded attempt per conversation; `settings` are those of `Engine.generate`, greedy by default. If the engine's
    `answer_by` says so, choice questions are answered by `likeliest`, without a word."""
    scored = [i for i, p in enumerate(problems) if scores_options(engine, p)]
    rest = sorted(set(range(len(problems))) - set(scored))
    asked = [conversations[i] for i in rest]
    written = [found[0] for found in engine.generate(asked, **settings)]
    found = dict(zip(rest, graded([problems[i] for i in rest], asked, written), strict=True))
    some = [(problems[i], conversations[i], "") for i in scored]
    found |= zip(scored, likeliest(engine, some, settings.get("adapter")), strict=True)
    return [found[i] for i in range(len(problems))]


def scores_options(engine: Engine, problem: Problem) -> bool:
    """Whether an engine answers a problem by its options' likelihood."""
    return problem["grader"] == "choice" and getattr(engine, "answer_by", "text") != "text"


def likeliest(
    engine: Any, asked: Sequence[tuple[Problem, list[Message], str]], adapter: Adapter = None
) -> list[Attempt]:
    """Choice questions answered by the option that is likeliest after what the model has said before and "Answer:".

    `likelihood` compares the options' letters, which the prompt lists and asks for, all about as long; so do MMLU's tasks
    in https://github.com/EleutherAI/lm-evaluation-harness. `likelihood_norm` compares their texts, the log-probability
    divided by the text's characters: its `acc_norm`.
    """
    norm, attempts = asked and engine.answer_by == "likelihood_norm", []
    names = [p["choices"] if norm else prompts.LABELS[: len(p["choices"])] for p, *_ in asked]
    starts = [(conversation, f"{begun}{prompts.ANSWER_CUE}") for _, conversation, begun in asked]
    found = engine.score_options(starts, [[f" {name}" for name in own] for own in names], adapter) if asked else []
    for (p, conversation, _), own, logs in zip(asked, names, found, strict=True):
        values = [value / max(1, len(name)) if norm else value for value, name in zip(logs, own, strict=True)]
        letter = prompts.LABELS[values.index(max(values))]
        said = {"completion": f"{prompts.ANSWER_CUE} {letter}", "answer": letter, "correct": letter == p["answer"]}
        how = {"tokens": 0, "truncated": False, "read": engine.answer_by, "options": logs}
        attempts.append(Attempt(prompt=conversation, **said, **how))
    return attempts


def graded(
    problems: Sequence[Problem], conversations: Sequence[list[Message]], completions: Sequence[Completion]
) -> list[Attempt]:
    """Attempt rows from completions."""
    readings = [read(p, c.text, c.truncated) for p, c in zip(problems, completions, strict=True)]
    grades = grade_readings(problems, readings)
    both = zip(conversations, completions, grades, readings, strict=True)
    return [
        Attempt(
            prompt=prompt, completion=c.text, answer=grade.answer, correct=grade.correct, tokens=c.tokens,
            truncated=c.truncated, read=reading.rule, **c.lacks,
        )
        for prompt, c, grade, reading in both
    ]  # fmt: skip


def _goes_on(attempt: Attempt) -> bool:
    return not attempt["correct"] and not refused(attempt)


def _chunk(engine: Engine, problems: list[Problem], how: RolloutParams, reflector: Adapter) -> list[Rollout]:
    limit = {"max_new_tokens": how.max_new_tokens}
    first = answer(engine, problems, [prompts.answer_prompt(p) for p in problems], **limit)
    jobs = [i for i, attempt in enumerate(first) if _goes_on(attempt) for _ in range(how.k)]
    wrong = [(problems[i], first[i]["completion"]) for i in jobs]
    names = prompts.draw_instructions(len(jobs), how.seed, how.instructions, k=how.k)
    asked = [prompts.reflection_prompt(*attempt, name) for attempt, name in zip(wrong, names, strict=True)]
    drawn = engine.generate(asked, temperature=how.temperature, seed=how.seed, adapter=reflector, **limit)
    written = [found[0] for found in drawn]
    pairs = zip(wrong, written, strict=True)  # an empty prompt is not asked
    retries = [[] if refused(c.lacks) else prompts.retry_prompt(*attempt, c.text) for attempt, c in pairs]
    second = answer(engine, [problem for problem, _ in wrong], retries, **limit)
    reflections: list[list[Reflection]] = [[] for _ in problems]
    for i, name, prompt, c, turn2 in zip(jobs, names, asked, written, second, strict=True):
        said = {"instruction": name, "prompt": prompt, "text": c.text, "tokens": c.tokens, **c.lacks}
        reflections[i].append(Reflection(**said, turn2=turn2))
    adapter = str(reflector) if reflector else None
    made = {"model": engine.name, "dtype": getattr(engine, "dtype", None), "adapter": adapter, "seed": how.seed}
    return [
        Rollout(id=p["id"], problem=p, turn1=turn1, reflections=own, **made)
        for p, turn1, own in zip(problems, first, reflections, strict=True)
    ]


def tally(rows: Iterable[Rollout], seen: dict[str, int] | None = None) -> dict[str, int]:
    """Counts over rollouts, added to `seen`: problems, right (turn 1), reflections, corrected (by turn 2), tokens."""
    seen = seen or dict.fromkeys(("problems", "right", "reflections", "corrected", "tokens"), 0)
    for row in rows:
        turns = [row["turn1"], *(r["turn2"] for r in row["reflections"])]
        seen["problems"] += 1
        seen["right"] += row["turn1"]["correct"]
        seen["reflections"] += len(row["reflections"])
        seen["corrected"] += sum(r["turn2"]["correct"] for r in row["reflections"])
        seen["tokens"] += sum(part["tokens"] for part in (*turns, *row["reflections"]))
    return seen


class Progress:
    """A tqdm bar over rows with time left, rows/s, tokens/s, running Acc@t1 and correction rate.

    Rows found on disk, added before `start`, count for the rates of success and not for those of speed.
    """

    def __init__(self, total: int, *, show: bool = True) -> None:
        self.seen, self.bar = tally(()), None
        self.options = {"total": total, "disable": not show, "desc": "rollouts", "unit": " rows", "smoothing": 0}

    def start(self) -> None:
        """Open the bar and start the clock, at the first chunk that is made."""
        if self.bar is None:
            from tqdm.auto import tqdm

            self.began, self.found = time.perf_counter(), self.seen["tokens"]
            self.bar = tqdm(initial=self.seen["problems"], **self.options)

    def add(self, rows: Sequence[Rollout]) -> None:
        seen = tally(rows, self.seen)
        if self.bar is not None:
            rate = (seen["tokens"] - self.found) / max(time.perf_counter() - self.began, 1e-9)
            right = seen["right"] / max(1, seen["problems"])
            corrected = seen["corrected"] / max(1, seen["reflections"])
            said = f"Acc@t1 {right:.1%}, corrected {corrected:.1%}, {rate:,.0f} tokens/s"
            self.bar.set_postfix_str(said, refresh=False)
            self.bar.update(len(rows))

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
