"""The embedded tasks: a small world in which reflection can be taught, and checked, without any pretrained weights.

Three families share one grammar ("Step 2: rotate left gives c a d b"):

* `arithmetic`  a chain of additions, subtractions and multiplications modulo 10      (grader exact)
* `lists`       a chain of reversals, rotations and swaps on four letters            (grader exact)
* `lineup`      people placed one by one into a queue; who stands third?             (grader choice)

A *hasty* solver makes systematic mistakes: each depends on its context alone, so that greedy decoding makes it too.
Every mistake has a place (a step number, or "answer") and a class of the paper's error taxonomy (`prompts.LOCATE`).
A *careful* redo of one place mends that place and nothing else; this is why a reflection has to point at the right one.
Gold places serve analysis only (`diagnose`): no training set of the pipeline contains them.
"""

from __future__ import annotations

import hashlib
import random
import re
from dataclasses import dataclass, replace
from typing import Any

from ..rows import Problem

Place = int | str  # a step number from 1, or "answer"
ANSWER: Place = "answer"
DIGIT_WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
NAMES = ("Ann", "Ben", "Cat", "Dan", "Eve", "Fay")
OPTIONS = NAMES[:4]  # (A) Ann … (D) Dan: looking up shuffled letters is more than so small a model learns in minutes
ORDINALS = ("first", "second", "third", "fourth")


@dataclass(frozen=True)
class Attempt:
    """An attempt as its steps: `ops[i]` is the operation as it was read, `states[i]` what it gave."""

    ops: tuple[str, ...]
    states: tuple[str, ...]
    answer: str

    def text(self, task: Task) -> str:
        """The attempt in words, as the model writes it."""
        before = (task.start, *self.states)
        steps = [f"Step {i + 1}: {task.working(op, before[i])} gives {self.states[i]}" for i, op in enumerate(self.ops)]
        return "\n".join([*steps, f"Answer: {self.answer}"])


@dataclass(frozen=True)
class Task:
    """One question. Operations and states are plain strings; a family says how they act on each other."""

    start: str
    ops: tuple[str, ...]
    choices: tuple[str, ...] = ()

    family = "abstract"
    grader = "exact"

    # -- what a family defines --------------------------------------------------------------------------------------
    step_class = "calculation"  # error class of a step that does the right thing wrongly
    answer_class = "consistency"  # error class of an answer that differs from the last step

    @classmethod
    def sample(cls, rng: random.Random) -> Task:
        """A random question."""
        raise NotImplementedError

    def question(self) -> str:
        """The question in words."""
        raise NotImplementedError

    def apply(self, op: str, state: str) -> str:
        """The right result of an operation; "" where a malformed state admits none."""
        raise NotImplementedError

    def misread(self, op: str, state: str) -> str:
        """The operation as a hasty reader takes it."""
        return op

    def misapply(self, op: str, state: str) -> str:
        """The result as a hasty solver gets it."""
        return self.apply(op, state)

    def spoil(self, op: str, state: str) -> str:
        """The result after a right step was called wrong."""
        return self.apply(op, state)

    def answer_of(self, state: str) -> str:
        """The answer that belongs to a final state."""
        return state

    def misstate(self, state: str) -> str:
        """The answer as a hasty solver writes it down."""
        return self.answer_of(state)

    def stops_early(self) -> bool:
        """Whether a hasty solver leaves out the last operation."""
        return False

    def working(self, op: str, state: str) -> str:
        """How a step writes down its operation."""
        return op

    def read_working(self, working: str, state: str) -> str:
        """The inverse of `working`; the text itself where it is not one."""
        return working

    # -- what follows from it ---------------------------------------------------------------------------------------
    def final_state(self) -> str:
        """What the operations lead to when every one is carried out right."""
        state = self.start
        for op in self.ops:
            state = self.apply(op, state)
        return state

    def gold(self) -> str:
        """The right answer."""
        return self.answer_of(self.final_state())

    def hasty(self) -> Attempt:
        """Turn 1 of someone who makes every systematic mistake that the question invites."""
        ops = self.ops[:-1] if self.stops_early() else self.ops
        read, states = [], []
        for op in ops:
            state = states[-1] if states else self.start
            read.append(self.misread(op, state))
            states.append(self.misapply(read[-1], state))
        return Attempt(tuple(read), tuple(states), self.misstate(states[-1]))

    def retry(self, attempt: Attempt, place: Place) -> Attempt:
        """Redo `place` with care; keep what stands before it and whatever does not depend on it.

        A step that was right to begin with is spoiled on some operations: blame misleads.
        """
        if place == ANSWER:
            return replace(attempt, answer=self.answer_of(attempt.states[-1]))
        k = int(place) - 1
        if not 0 <= k < len(self.ops) or k > len(attempt.ops):
            return attempt
        before = (self.start, *attempt.states)
        op, state = self.ops[k], before[k]
        right = self.apply(op, state)
        was_right = k < len(attempt.ops) and attempt.ops[k] == op and attempt.states[k] == right
        result = self.spoil(op, state) if was_right else right
        read, states = [*attempt.ops[:k], op], [*attempt.states[:k], result]
        for i in range(k + 1, len(attempt.ops)):  # later steps: kept where their input is unchanged
            same = states[i - 1] == attempt.states[i - 1]
            read.append(attempt.ops[i] if same else self.misread(self.ops[i], states[i - 1]))
            states.append(attempt.states[i] if same else self.misapply(read[i], states[i - 1]))
        kept = len(states) == len(attempt.states) and states[-1] == attempt.states[-1]
        return Attempt(tuple(read), tuple(states), attempt.answer if kept else self.misstate(states[-1]))

    def errors(self, attempt: Attempt) -> list[tuple[Place, str]]:
        """Every wrong place of an attempt with its class, in order."""
        found: list[tuple[Place, str]] = []
        before = (self.start, *attempt.states)
        for i, (read, result) in enumerate(zip(attempt.ops, attempt.states, strict=True)):
            if i >= len(self.ops):
                found.append((i + 1, "completeness"))
            elif read != self.ops[i]:
                found.append((i + 1, "context"))
            elif result != self.apply(read, before[i]):
                found.append((i + 1, self.step_class))
        if len(attempt.ops) < len(self.ops):
            found.append((len(attempt.ops) + 1, "completeness"))
        if attempt.answer != self.answer_of(before[-1]):
            found.append((ANSWER, self.answer_class))
        return found

    def corrections_needed(self, attempt: Attempt, limit: int = 8) -> int:
        """How many redos, each of the first wrong place, lead to the right answer (`limit` where none does).

        More than one where an attempt has several errors, or where a mended step leads into another pitfall.
        """
        for n in range(limit):
            errors = self.errors(attempt)
            if attempt.answer == self.gold() or not errors:
                return n
            attempt = self.retry(attempt, errors[0][0])
        return limit

    def parse(self, text: str) -> Attempt | None:
        """Read an attempt back from (model-written) text; None where it does not follow the grammar."""
        ops, states = [], []
        for line in text.strip().split("\n"):
            if step := re.fullmatch(r"Step (\d): (.+) gives (.+)", line):
                state = states[-1] if states else self.start
                if int(step[1]) != len(ops) + 1:
                    return None
                ops.append(self.read_working(step[2], state))
                states.append(step[3])
            elif answer := re.fullmatch(r"Answer: (.+)", line):
                return Attempt(tuple(ops), tuple(states), answer[1]) if ops else None
            else:
                return None
        return None


class Arithmetic(Task):
    """Digits modulo 10. "Subtract 7" from 2 is taken the wrong way round, "multiply by 9" falls one short, and an
    added 6 is read as 9 on odd values; a result of 0 is written as a word; a final "add 1" or "add 2" is left out."""

    family, step_class, answer_class = "arithmetic", "calculation", "format"
    SIGN = {"add": "+", "subtract": "-", "multiply by": "x"}

    @classmethod
    def sample(cls, rng: random.Random) -> Task:
        verbs = rng.choices(["add", "subtract", "multiply by"], [0.4, 0.35, 0.25], k=rng.randint(4, 6))
        return cls(str(rng.randrange(10)), tuple(f"{verb} {rng.randint(1, 9)}" for verb in verbs))

    def question(self) -> str:
        return (
            f"Start with {self.start}. "
            + "".join(f"{op.capitalize()}. " for op in self.ops)
            + "What is the result modulo 10?"
        )

    def apply(self, op: str, state: str) -> str:
        return str(self._result(op, int(state)))

    def _result(self, op: str, v: int) -> int:
        verb, c = op.rsplit(" ", 1)
        return {"add": v + int(c), "subtract": v - int(c), "multiply by": v * int(c)}[verb] % 10

    def misread(self, op: str, state: str) -> str:
        return "add 9" if op == "add 6" and int(state) % 2 else op

    def misapply(self, op: str, state: str) -> str:
        verb, c = op.rsplit(" ", 1)
        v, c = int(state), int(c)
        if verb == "subtract" and c - v >= 4:
            return str(c - v)
        if verb == "multiply by" and c == 9:
            return str(v * 8 % 10)
        return self.apply(op, state)

    def spoil(self, op: str, state: str) -> str:
        right = self.apply(op, state)
        return str((int(right) + 1) % 10) if op.startswith("add") else right

    def misstate(self, state: str) -> str:
        return "zero" if state == "0" else state

    def stops_early(self) -> bool:
        return self.ops[-1] in ("add 1", "add 2")

    def working(self, op: str, state: str) -> str:
        verb, c = op.rsplit(" ", 1)
        return f"{state} {self.SIGN[verb]} {c}"

    def read_working(self, working: str, state: str) -> str:
        value, sign, c = [*working.split(" "), "", ""][:3]
        verb = {s: verb for verb, s in self.SIGN.items()}.get(sign, sign)
        return f"{verb} {c}" if value == state else working


class Lists(Task):
    """Four letters. "Rotate right" goes left when the list starts with a or b, "swap the ends" swaps the middle when
    c stands second, "swap the first two" is read as "swap the last two" before an f; a final "reverse" is left out."""

    family, step_class, answer_class = "lists", "method", "consistency"
    MOVES = {
        "reverse": (3, 2, 1, 0),
        "rotate left": (1, 2, 3, 0),
        "rotate right": (3, 0, 1, 2),
        "swap the ends": (3, 1, 2, 0),
        "swap the first two": (1, 0, 2, 3),
        "swap the last two": (0, 1, 3, 2),
        "swap the middle": (0, 2, 1, 3),
    }

    @classmethod
    def sample(cls, rng: random.Random) -> Task:
        moves = [move for move in cls.MOVES if move != "swap the middle"]
        return cls(" ".join(rng.sample("abcdef", 4)), tuple(rng.choice(moves) for _ in range(rng.randint(4, 6))))

    def question(self) -> str:
        return (
            f"Start with the list {self.start}. "
            + "".join(f"{op.capitalize()}. " for op in self.ops)
            + "What is the list now?"
        )

    def apply(self, op: str, state: str) -> str:
        letters = state.split(" ")
        return " ".join(letters[i] for i in self.MOVES[op]) if len(letters) == 4 and op in self.MOVES else ""

    def misread(self, op: str, state: str) -> str:
        return "swap the last two" if op == "swap the first two" and state.endswith("f") else op

    def misapply(self, op: str, state: str) -> str:
        if op == "rotate right" and state[0] in "ab":
            return self.apply("rotate left", state)
        if op == "swap the ends" and state[2] == "c":
            return self.apply("swap the middle", state)
        return self.apply(op, state)

    def spoil(self, op: str, state: str) -> str:
        return self.apply("rotate right" if op == "rotate left" else op, state)

    def stops_early(self) -> bool:
        return self.ops[-1] == "reverse"


class Lineup(Task):
    """A queue. Whoever goes before Ann, Ben or Cat at the very front lands behind them, "put Eve after …" is read as
    "before"; where option D is right and the first or third is asked for, the answer says A."""

    family, grader, step_class, answer_class = "lineup", "choice", "method", "consistency"

    @classmethod
    def sample(cls, rng: random.Random) -> Task:
        while True:
            people = rng.sample(NAMES, rng.randint(5, 6))
            ops, there = [], people[:2]
            for person in people[2:]:
                how = rng.choices(["before", "after", "first", "last"], [0.4, 0.4, 0.1, 0.1])[0]
                ops.append(f"put {person} {how}" + (f" {rng.choice(there)}" if how in ("before", "after") else ""))
                there.append(person)
            task = cls(" ".join(people[:2]), (*ops, f"find the {rng.choice(ORDINALS)}"), OPTIONS)
            if task.final_state() in OPTIONS:
                return task

    def question(self) -> str:
        first, second = self.start.split(" ")
        moves = "".join(f"{op[0].upper()}{op[1:]}. " for op in self.ops[:-1])
        return f"{first} stands before {second}. {moves}Who is {self.ops[-1].removeprefix('find the ')}?"

    def apply(self, op: str, state: str) -> str:
        queue = state.split(" ")
        words = op.split(" ")
        if words[0] == "find":
            i = ORDINALS.index(words[2]) if words[-1] in ORDINALS else 9
            return queue[i] if i < len(queue) else ""
        if words[0] != "put" or len(words) < 3 or (len(words) == 4 and words[3] not in queue):
            return ""
        at = {"first": 0, "last": len(queue)}.get(words[2])
        if at is None:
            at = queue.index(words[3]) + (words[2] == "after")
        return " ".join([*queue[:at], words[1], *queue[at:]])

    def misread(self, op: str, state: str) -> str:
        return op.replace(" after ", " before ") if op.startswith("put Eve after") else op

    def misapply(self, op: str, state: str) -> str:
        front = state.split(" ")[0]
        if front in NAMES[:3] and op.endswith(f" before {front}"):
            return self.apply(op.replace(" before ", " after "), state)
        return self.apply(op, state)

    def spoil(self, op: str, state: str) -> str:
        return self.apply(op.replace(" after ", " before "), state)

    def answer_of(self, state: str) -> str:
        return "ABCD"[self.choices.index(state)] if state in self.choices else "none of them"

    def misstate(self, state: str) -> str:
        right = self.answer_of(state)
        return "A" if right == "D" and self.ops[-1].endswith(("first", "third")) else right


FAMILIES: dict[str, type[Task]] = {cls.family: cls for cls in (Arithmetic, Lists, Lineup)}


def split_of(question: str) -> str:
    """ "corpus", "train" or "test", fixed by the question's hash: no question can be in two of them."""
    bucket = hashlib.sha256(question.encode()).digest()[0]
    return "test" if bucket < 32 else "train" if bucket < 96 else "corpus"


def sample_task(rng: random.Random, split: str, families: tuple[str, ...] = tuple(FAMILIES)) -> Task:
    """A random task whose question belongs to `split`."""
    while True:
        task = FAMILIES[rng.choice(families)].sample(rng)
        if split_of(task.question()) == split:
            return task


def problems(n: int, split: str, seed: int = 0, families: tuple[str, ...] = tuple(FAMILIES)) -> list[Problem]:
    """`n` distinct problems of a split ("train" or "test"), the families in turn.

    Raises ValueError for an unknown family.
    """
    if unknown := set(families) - set(FAMILIES):
        raise ValueError(f"unknown synthetic family {sorted(unknown)[0]!r}; there are {', '.join(FAMILIES)}")
    rng = random.Random(f"synthetic/{split}/{seed}")
    rows: dict[str, Problem] = {}
    while len(rows) < n:
        task = sample_task(rng, split, (families[len(rows) % len(families)],))
        if task.question() not in rows:
            rows[task.question()] = to_problem(task, f"{task.family}-{split}-{len(rows)}")
    return list(rows.values())


def to_problem(task: Task, id: str = "") -> Problem:
    """The task as a Problem row."""
    row: Problem = {
        "id": id,
        "task": task.family,
        "question": task.question(),
        "answer": task.gold(),
        "grader": task.grader,
        "meta": {"source": "synthetic", "start": task.start, "ops": list(task.ops)},
    }
    return row | {"choices": list(task.choices)} if task.choices else row


def to_task(problem: Problem) -> Task:
    """The inverse of `to_problem`."""
    meta: dict[str, Any] = problem["meta"]
    return FAMILIES[problem["task"]](meta["start"], tuple(meta["ops"]), tuple(problem.get("choices", ())))


def diagnose(problem: Problem, attempt: str) -> list[tuple[Place, str]] | None:
    """Every error of an attempt as (place, class), from the gold steps; None where the text cannot be read.

    For analysis only: what is trained on never sees it.
    """
    task = to_task(problem)
    parsed = task.parse(attempt)
    return None if parsed is None else task.errors(parsed)


def blamed(reflection: str) -> Place | None:
    """The place that a reflection calls wrong or missing; None where it names none."""
    found = re.search(r"(?:Step (\d)|(The answer)) is (?:wrong|missing)", reflection)
    return None if found is None else int(found[1]) if found[1] else ANSWER
