"""Second turns under a setting: the eval files that every figure is computed from (paper, section 4).

Turn 1 is the untouched Generator's, greedy, and shared by all settings. In *oracle* mode only wrong first answers go on
to a second turn (the paper's way, so Acc@t2 cannot fall below Acc@t1); in *intrinsic* mode every answer does, untold.
The controls `retry` and `shuffled` answer again without a reflection, or with the one on another problem; `accused`
tells every answer that it is wrong (`verifier`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .. import prompts, store
from ..generate import Completion, Engine, answer, graded, likeliest, refused, scores_options
from ..prompts import Mode
from ..rows import Attempt, EvalRow, Problem
from .reading import how_read
from .settings import Evaluation, Setting


class Asked(NamedTuple):
    """Questions with their first answers, and the directory that holds their eval files."""

    problems: Sequence[Problem]
    first: Sequence[Attempt]
    directory: Path
    max_new_tokens: int = 512
    seed: int = 0
    chunk_size: int = 500

    def at(self, places: Sequence[int]) -> Asked:
        """The questions at these places."""
        return self._replace(problems=[self.problems[i] for i in places], first=[self.first[i] for i in places])

    def pairs(self) -> Iterator[tuple[Problem, Attempt]]:
        """Each question with its first answer."""
        return zip(self.problems, self.first, strict=True)

    def part(self, i: int) -> Asked:
        """The questions of chunk i."""
        at = slice(i * self.chunk_size, (i + 1) * self.chunk_size)
        return self._replace(problems=self.problems[at], first=self.first[at])

    def keep(self, file: str | Path, make: Callable[[Asked, int], list[Any]]) -> list[Any]:
        """The rows of a file, made chunk by chunk by `make(questions, i)`; a finished file is read back."""
        out, chunks = Path(self.directory) / file, -(-len(self.problems) // self.chunk_size)
        store.append_chunks(out, chunks, lambda i: make(self.part(i), i), self.chunk_size)
        return store.read_jsonl(out)


def held_out(run: store.Run, *, max_new_tokens: int, seed: int) -> Asked:
    """A run's test questions with the first answers that all settings share."""
    problems, first = run.read("data", "test.jsonl"), run.read("evals", "turn1.jsonl")
    return Asked(problems, first, run.path("evals"), max_new_tokens, seed)


def first_turns(
    engine: Engine, problems: Sequence[Problem], out: str | Path, *, max_new_tokens: int, chunk_size: int = 500
) -> list[Attempt]:
    """Greedy first attempts, one per problem, kept in `out`; a finished file is read back."""

    def make(part: Asked, _: int) -> list[Attempt]:
        asked = [prompts.answer_prompt(p) for p in part.problems]
        return answer(engine, part.problems, asked, max_new_tokens=max_new_tokens)

    return Asked(problems, [], Path(out).parent, max_new_tokens, chunk_size=chunk_size).keep(Path(out).name, make)


def evaluate(
    engine: Engine, asked: Asked, setting: Setting, evaluation: Evaluation | None = None, turns: int = 2
) -> list[EvalRow]:
    """The rows of one evaluation of a setting (default: its plain oracle mode), kept in its file. From turn 3 on, the
    latest attempt takes the first one's place. The `turn2` of a setting that only answers is the tuned model's answer to
    the bare question ("t1 only" in the paper). Raises ValueError for another control."""
    how = evaluation or Evaluation(setting.name)
    if how.control not in (None, "retry", "shuffled", "accused"):
        known = "evaluate makes retry, shuffled and accused, resample the others"
        raise ValueError(f"unknown control {how.control!r}; {known}")

    def make(part: Asked, _: int) -> list[EvalRow]:
        if not setting.answers:
            return _turns(engine, part, setting, how, turns)
        bare = [prompts.answer_prompt(p) for p in part.problems]
        found = answer(engine, part.problems, bare, max_new_tokens=part.max_new_tokens, adapter=setting.answers)
        return [row_of(*pair, second) for pair, second in zip(part.pairs(), found, strict=True)]

    return asked.keep(how.file, make)


def read_rows(run: store.Run, evaluation: Evaluation, folder: str = "evals") -> list[dict[str, Any]]:
    """The rows of an eval file, each with the text of its first answer (of the folder's turn1.jsonl) as `turn1`. Raises
    FileNotFoundError for a missing file, and ValueError if the two do not belong together."""
    rows, first = run.read(folder, evaluation.file), run.read(folder, "turn1.jsonl")
    if [r["turn1_correct"] for r in rows] != [a["correct"] for a in first]:
        file = run.path(folder, evaluation.file)
        raise ValueError(f"{file} was made from other first answers than turn1.jsonl: redo it")
    return [r | {"turn1": a["completion"]} for r, a in zip(rows, first, strict=True)]


def row_of(problem: Problem, attempt: Attempt, second: Attempt | None = None, reflection: str | None = None) -> Any:
    """The EvalRow of a first attempt and a second one (None: the first one was kept)."""
    row = {"id": problem["id"], "task": problem["task"], "turn1_correct": attempt["correct"]}
    if second is None:
        return row | {"turn2_correct": attempt["correct"], "reflection": None, "turn2": None, "tokens": 0}
    texts = {"reflection": reflection, "turn2": second["completion"]}
    kept = how_read([second]) | ({"options": second["options"]} if "options" in second else {})
    return row | {"turn2_correct": second["correct"], **texts, "tokens": second["tokens"], **kept}


def _turns(engine: Engine, part: Asked, setting: Setting, how: Evaluation, turns: int) -> list[EvalRow]:
    rows = [row_of(*pair) for pair in part.pairs()]
    latest, made = list(part.first), [list[Attempt]() for _ in rows]
    correct, joined = [[a["correct"]] for a in part.first], setting.one_stage and how.control is None
    for turn in range(2, turns + 1):
        everyone = how.mode == "intrinsic" or how.control == "accused"
        going = [i for i, attempt in enumerate(latest) if everyone or not attempt["correct"]]
        going = [i for i in going if not refused(latest[i])]
        now = part._replace(first=latest).at(going)
        found = _one_stage(engine, now, setting, how.mode) if joined else _turn(engine, now, setting, how)
        for i, (reflection, attempt) in zip(going, found, strict=True):
            made[i].append(attempt)
            if turn == 2:
                rows[i] = row_of(part.problems[i], part.first[i], attempt, reflection)
            if said := attempt.get("trouble"):
                rows[i]["trouble"] = "; ".join(filter(None, (rows[i].get("trouble"), said)))
            if refused(attempt):  # there is no new answer; the one before stays, for good
                attempt = latest[i] | {"trouble": said}
                rows[i] |= {"turn2_correct": attempt["correct"], "turn2": None} if turn == 2 else {}
            latest[i] = attempt
        for known, attempt in zip(correct, latest, strict=True):
            known.append(attempt["correct"])
    if turns > 2:
        for row, known, own in zip(rows, correct, made, strict=True):
            row |= {"correct": known, "turn_tokens": [a["tokens"] for a in own]} | how_read(own)
    return rows


def _turn(engine: Engine, now: Asked, setting: Setting, how: Evaluation) -> list[tuple[str | None, Any]]:
    """For each question its reflection and the next attempt, with the tokens of both."""
    pairs = [(p, a["completion"]) for p, a in now.pairs()]
    written: list[Completion | None] = [None] * len(pairs)
    if how.control != "retry" and not setting.plain:
        asked = [prompts.reflection_prompt(p, text, mode=how.mode) for p, text in pairs]
        found = engine.generate(asked, max_new_tokens=now.max_new_tokens, adapter=setting.reflector)
        written = [completions[0] for completions in found]
    read = shuffled(written, now.seed) if how.control == "shuffled" else written
    ask = lambda p, text, c: [] if c and refused(c.lacks) else prompts.retry_prompt(p, text, c and c.text, how.mode)
    asked = [ask(*pair, c) for pair, c in zip(pairs, read, strict=True)]  # an empty prompt is not asked
    second = answer(engine, now.problems, asked, max_new_tokens=now.max_new_tokens, adapter=setting.corrector)
    for attempt, own, c in zip(second, written, read, strict=True):
        if own and c:
            attempt["tokens"] += own.tokens
            if both := "; ".join(filter(None, (attempt.get("trouble"), c.trouble))):
                attempt["trouble"] = both
    return [(c and c.text, attempt) for c, attempt in zip(read, second, strict=True)]


def _one_stage(engine: Engine, now: Asked, setting: Setting, mode: Mode) -> list[tuple[str | None, Any]]:
    asked = [prompts.one_stage_prompt(p, a["completion"], mode) for p, a in now.pairs()]
    found = engine.generate(asked, max_new_tokens=2 * now.max_new_tokens, adapter=setting.reflector)
    parts = [prompts.split_one_stage(c.text) for c, *_ in found]
    seconds = [c._replace(text=text) for (c, *_), (_, text) in zip(found, parts, strict=True)]
    attempts = graded(now.problems, asked, seconds)
    scored = [i for i, p in enumerate(now.problems) if scores_options(engine, p)]
    begun = [(now.problems[i], asked[i], prompts.join_one_stage(parts[i][0], "")) for i in scored]
    for i, a in zip(scored, likeliest(engine, begun, setting.reflector), strict=True):  # what it has reflected stays
        attempts[i] = Attempt(**{**a, "tokens": seconds[i].tokens})
    return [(reflection, a) for (reflection, _), a in zip(parts, attempts, strict=True)]


def shuffled(items: Sequence[Any], seed: int) -> list[Any]:
    """A seeded derangement by rotation of a random order: with two or more items, nothing stays in its place."""
    order, moved = list(range(len(items))), list(items)
    random.Random(f"shuffled/{seed}").shuffle(order)
    for a, b in zip(order, order[1:] + order[:1], strict=True):
        moved[a] = items[b]
    return moved
