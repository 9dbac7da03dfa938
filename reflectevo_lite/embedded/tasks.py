"""The embedded tasks: a small world in which reflection can be taught, and checked, without any pretrained weights.

Three families share one grammar ("Step 2: rotate left gives c a d b"): `arithmetic`, `lists` and `lineup`.

A *hasty* solver makes systematic mistakes: each depends on its context alone, so greedy decoding makes it too. Every
mistake has a place (a step number, or "answer") and a class of the paper's error taxonomy (`prompts.LOCATE`). A
*careful* redo of one place mends nothing else, so a reflection has to point at the right one. Gold places serve
analysis only (`diagnose`): no training set of the pipeline contains them."""

import functools
import hashlib
import random
import re
from dataclasses import dataclass, replace

from ..rows import Problem

Place = int | str  # a step number from 1, or "answer"
ANSWER: Place = "answer"
NAMES = ("Ann", "Ben", "Cat", "Dan", "Eve", "Fay")
OPTIONS = NAMES[:4]  # (A) Ann … (D) Dan: looking up shuffled letters is more than so small a model learns in minutes
ORDINALS = ("first", "second", "third", "fourth")


@dataclass(frozen=True)
class Attempt:
    """An attempt as its steps: `ops[i]` is the operation as it was read, `states[i]` what it gave."""

    ops: tuple[str, ...]
    states: tuple[str, ...]
    answer: str

    def text(self, task: "Task") -> str:
        before = (task.start, *self.states)
        steps = [f"Step {i + 1}: {task.working(op, before[i])} gives {self.states[i]}" for i, op in enumerate(self.ops)]
        return "\n".join([*steps, f"Answer: {self.answer}"])


@dataclass(frozen=True)
class Task:
    """One question: a start and the operations on it, plain strings. A family also defines

    sample(rng)       a random question
    apply(op, state)  the right result of an operation; "" if the state is malformed
    rush(op, state)   the operation as a hasty solver reads it, and their result
    spoil(op)         what is done instead after a right step was called wrong"""

    start: str
    ops: tuple[str, ...]
    choices: tuple[str, ...] = ()

    family = ""
    grader = "exact"
    wording = ""  # of the question; the start and the operations are filled in
    step_class = "calculation"  # error class of a step that does the right thing wrongly
    answer_class = "consistency"  # error class of an answer that differs from the last step
    dropped = ()  # the operations that a hasty solver leaves out when they come last

    def answer_of(self, state: str) -> str:
        return state

    def misstate(self, state: str) -> str:
        """The answer as a hasty solver writes it down."""
        return self.answer_of(state)

    def working(self, op: str, state: str) -> str:
        """The operation as a step writes it down."""
        return op

    def read_working(self, working: str, state: str) -> str:
        """The inverse of `working`; any other text comes back unchanged."""
        return working

    def question(self) -> str:
        return self.wording.format(self.start, " ".join(f"{op.capitalize()}." for op in self.ops))

    def gold(self) -> str:
        return self.answer_of(functools.reduce(lambda state, op: self.apply(op, state), self.ops, self.start))

    def hasty(self) -> Attempt:
        """Turn 1 of someone who makes every systematic mistake that the question invites."""
        steps, state = [], self.start
        for op in self.ops[:-1] if self.ops[-1] in self.dropped else self.ops:
            steps.append(self.rush(op, state))
            state = steps[-1][1]
        return Attempt(*zip(*steps, strict=True), self.misstate(state))

    def retry(self, attempt: Attempt, place: Place | None) -> Attempt:
        """Redo `place` with care, or spoil it if it was right; keep what does not depend on it (None: keep it all)."""
        if place == ANSWER:
            return replace(attempt, answer=self.answer_of(attempt.states[-1]))
        k = int(place or 0) - 1
        if not 0 <= k < len(self.ops) or k > len(attempt.ops):
            return attempt
        op, state = self.ops[k], (self.start, *attempt.states)[k]
        old = list(zip(attempt.ops, attempt.states, strict=True))
        right = (op, self.apply(op, state))
        steps = [*old[:k], (op, self.apply(self.spoil(op), state)) if [right] == old[k : k + 1] else right]
        for i in range(k + 1, len(old)):  # a later step is kept if its start is unchanged, or if nothing asked for it
            state = steps[-1][1]
            keep = state == attempt.states[i - 1] or i >= len(self.ops)
            steps.append(old[i] if keep else self.rush(self.ops[i], state))
        kept = len(steps) == len(old) and steps[-1][1] == attempt.states[-1]
        return Attempt(*zip(*steps, strict=True), attempt.answer if kept else self.misstate(steps[-1][1]))

    def errors(self, attempt: Attempt) -> list[tuple[Place, str]]:
        """Every wrong place of an attempt with its class, in order."""
        before, found = (self.start, *attempt.states), list[tuple[Place, str]]()
        for i, (read, result) in enumerate(zip(attempt.ops, attempt.states, strict=True)):
            if read not in self.ops[i : i + 1]:
                found.append((i + 1, "completeness" if i >= len(self.ops) else "context"))
            elif result != self.apply(read, before[i]):
                found.append((i + 1, self.step_class))
        found += [(len(attempt.ops) + 1, "completeness")] * (len(attempt.ops) < len(self.ops))
        return found + [(ANSWER, self.answer_class)] * (attempt.answer != self.answer_of(before[-1]))

    def parse(self, text: str) -> Attempt | None:
        """Read an attempt back from (model-written) text; None if it does not follow the grammar."""
        ops, states = [], [self.start]
        for line in text.strip().split("\n"):
            if answer := re.fullmatch(r"Answer: (.+)", line):
                return Attempt(tuple(ops), tuple(states[1:]), answer[1]) if ops else None
            step = re.fullmatch(r"Step (\d): (.+) gives (.+)", line)
            if step is None or int(step[1]) != len(states):
                return None
            ops.append(self.read_working(step[2], states[-1]))
            states.append(step[3])
        return None


class Arithmetic(Task):
    """Digits modulo 10. "Subtract 7" from 2 is taken the wrong way round, "multiply by 9" falls one short, and an
    added 6 is read as 9 on odd values; a result of 0 is written as a word; a final "add 1" or "add 2" is left out."""

    family, step_class, answer_class = "arithmetic", "calculation", "format"
    wording = "Start with {}. {} What is the result modulo 10?"
    dropped = ("add 1", "add 2")
    SIGN = {"add": "+", "subtract": "-", "multiply by": "x"}

    @classmethod
    def sample(cls, rng: random.Random) -> Task:
        verbs = rng.choices(list(cls.SIGN), [0.4, 0.35, 0.25], k=rng.randint(4, 6))
        return cls(str(rng.randrange(10)), tuple(f"{verb} {rng.randint(1, 9)}" for verb in verbs))

    def apply(self, op: str, state: str) -> str:
        if not state.isdecimal():
            return ""
        verb, c = op.rsplit(" ", 1)
        v, c = int(state), int(c)
        return str({"add": v + c, "subtract": v - c, "multiply by": v * c}[verb] % 10)

    def rush(self, op: str, state: str) -> tuple[str, str]:
        verb, c = op.rsplit(" ", 1)
        if op == "add 6" and int(state) % 2:
            op = "add 9"
        elif verb == "subtract" and int(c) - int(state) >= 4:
            return op, str(int(c) - int(state))
        return op, self.apply("multiply by 8" if op == "multiply by 9" else op, state)

    def spoil(self, op: str) -> str:
        return f"add {int(op[-1]) + 1}" if op.startswith("add") else op

    def misstate(self, state: str) -> str:
        return "zero" if state == "0" else state

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

    family, step_class = "lists", "method"
    wording = "Start with the list {}. {} What is the list now?"
    dropped = ("reverse",)
    MOVES = {
        "reverse": (3, 2, 1, 0), "rotate left": (1, 2, 3, 0), "rotate right": (3, 0, 1, 2),
        "swap the ends": (3, 1, 2, 0), "swap the first two": (1, 0, 2, 3), "swap the last two": (0, 1, 3, 2),
        "swap the middle": (0, 2, 1, 3),  # only ever done by mistake
    }  # fmt: skip

    @classmethod
    def sample(cls, rng: random.Random) -> Task:
        moves = list(cls.MOVES)[:-1]
        return cls(" ".join(rng.sample("abcdef", 4)), tuple(rng.choice(moves) for _ in range(rng.randint(4, 6))))

    def apply(self, op: str, state: str) -> str:
        letters = state.split(" ")
        return " ".join(letters[i] for i in self.MOVES[op]) if len(letters) == 4 else ""

    def rush(self, op: str, state: str) -> tuple[str, str]:
        if op == "swap the first two" and state.endswith("f"):
            op = "swap the last two"
        done = "rotate left" if op == "rotate right" and state[0] in "ab" else op
        return op, self.apply("swap the middle" if op == "swap the ends" and state[2] == "c" else done, state)

    def spoil(self, op: str) -> str:
        return "rotate right" if op == "rotate left" else op


class Lineup(Task):
    """A queue. Whoever goes before Ann, Ben or Cat at the very front lands behind them, "put Eve after …" is read as
    "before"; if option D is right and the first or third is asked for, the answer says A."""

    family, grader, step_class = "lineup", "choice", "method"
    wording = "{} stands before {}. {} Who is {}?"

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
            if task.gold() in "ABCD":
                return task

    def question(self) -> str:
        moves = " ".join(f"{op[0].upper()}{op[1:]}." for op in self.ops[:-1])
        return self.wording.format(*self.start.split(" "), moves, self.ops[-1].removeprefix("find the "))

    def apply(self, op: str, state: str) -> str:
        queue, (verb, person, where, *other) = state.split(" "), op.split(" ")
        if verb == "find":
            return dict(zip(ORDINALS, queue, strict=False)).get(where, "")
        if other and other[0] not in queue:
            return ""
        at = queue.index(other[0]) + (where == "after") if other else 0 if where == "first" else len(queue)
        return " ".join([*queue[:at], person, *queue[at:]])

    def rush(self, op: str, state: str) -> tuple[str, str]:
        op, front = op.replace("Eve after", "Eve before"), state.split(" ")[0]
        ahead = front in NAMES[:3] and op.endswith(f" before {front}")
        return op, self.apply(op.replace(" before ", " after ") if ahead else op, state)

    def spoil(self, op: str) -> str:
        return op.replace(" after ", " before ")

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
    """`n` distinct problems of a split ("train" or "test"), the families in turn. KeyError for an unknown family."""
    rng = random.Random(f"synthetic/{split}/{seed}")
    rows: dict[str, Problem] = {}
    while len(rows) < n:
        task = sample_task(rng, split, (families[len(rows) % len(families)],))
        rows.setdefault(task.question(), to_problem(task, f"{task.family}-{split}-{len(rows)}"))
    return list(rows.values())


def to_problem(task: Task, id: str = "") -> Problem:
    """A task as a Problem row."""
    meta = {"source": "synthetic", "start": task.start, "ops": list(task.ops)}
    row = Problem(id=id, task=task.family, question=task.question(), answer=task.gold(), grader=task.grader, meta=meta)
    return row | {"choices": list(task.choices)} if task.choices else row


def synthetic(problem: Problem | None) -> bool:
    """Whether a question is one of the embedded tasks, so that its mistakes are known."""
    return problem is not None and problem.get("meta", {}).get("source") == "synthetic"


def to_task(problem: Problem) -> Task:
    """The inverse of `to_problem`."""
    meta = problem["meta"]
    return FAMILIES[problem["task"]](meta["start"], tuple(meta["ops"]), tuple(problem.get("choices", ())))


def diagnose(problem: Problem, attempt: str) -> list[tuple[Place, str]] | None:
    """Every error of an attempt as (place, class), from the gold steps; None for an unreadable one. Analysis only."""
    task = to_task(problem)
    return task.errors(parsed) if (parsed := task.parse(attempt)) else None


def blamed(reflection: str) -> Place | None:
    """The place that a reflection calls wrong or missing; None if it names none."""
    found = re.search(r"(?:Step (\d)|The answer) is (?:wrong|missing)", reflection)
    return None if found is None else int(found[1]) if found[1] else ANSWER
