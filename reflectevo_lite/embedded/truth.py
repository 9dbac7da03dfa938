"""Is a reflection true? Where every mistake is known, each of its statements can be checked. Analysis only."""

import random
import re
from typing import Literal, NamedTuple

from .. import prompts
from ..rows import Problem
from .tasks import ANSWER, blamed, synthetic, to_task

CAUSES = {
    "calculation": "it is miscalculated.", "method": "it is carried out the wrong way.",
    "context": "it does not do what the question says.", "completeness": "the question asks for one step more.",
    "consistency": "it does not follow from the last step.", "format": "it is not in the form asked for.",
}  # fmt: skip
MARK = "Mark every step of it as right or wrong."

_PLAN = r"(?:(?P<act>redo|add) step (?P<step>\d)(?:: (?P<op>[^.]+)| with care and go on from there)|(?P<other>[^.]+))"
_BLAMES = r"(?P<found>Step \d|The answer) is (?P<how>wrong|missing): (?P<cause>[^.]+\.)"
_FINDS = rf"(?:I find no mistake\.|{_BLAMES}) Plan: (?P<plan>{_PLAN})\."
_REFLECTION = re.compile(rf"(?P<marks>(?:Step \d is right\. )*){_FINDS}")
_OF_ANSWER = ("write it as a digit", "read it off the last step", "state the answer with care")


class Truth(NamedTuple):
    """What holds of a reflection. A malformed one states nothing that could be checked beyond the place it blames."""

    form: bool  # it says which steps are right, what is wrong, why, and what to do
    place: bool  # what it calls wrong or missing is so; nothing, if nothing is
    cause: bool  # for the reason that it gives
    facts: bool  # the operation that it quotes is the question's
    marks: bool  # no step that it calls right is wrong
    plan: bool  # the plan mends the place that is blamed

    @property
    def whole(self) -> bool:
        """True in every part."""
        return all(self)


def truth(problem: Problem, attempt: str, reflection: str) -> Truth | None:
    """A reflection on an attempt at an embedded task, checked against the gold steps; None for an unreadable attempt,
    and for other questions, of which nothing is known."""
    if not synthetic(problem) or (parsed := (task := to_task(problem)).parse(attempt)) is None:
        return None
    errors, place = dict(task.errors(parsed)), blamed(reflection)
    there = place in errors or (place is None and not errors)
    if (said := _REFLECTION.fullmatch(reflection.strip())) is None:
        return Truth(False, there, False, False, False, False)
    cause = said["cause"] is None if place is None else said["cause"] == CAUSES[errors[place]] if there else False
    at = int(said["step"] or 0)
    facts = said["op"] is None or (0 < at <= len(task.ops) and said["op"] == task.ops[at - 1])
    right = {int(step) for step in re.findall(r"\d", said["marks"])}
    if place in (None, ANSWER):
        plan = said["other"] in (_OF_ANSWER if place else ("keep the answer",))
    else:
        plan = at == place and (said["act"] == "add") == (at > len(parsed.ops))
    return Truth(True, there, cause, facts, not right & set(errors), plan)


Part = Literal["place", "cause", "plan", "elsewhere"]


def edit(problem: Problem, attempt: str, reflection: str, part: Part, rng: random.Random) -> str | None:
    """The reflection with one part replaced by an untrue one: the place it blames, the cause, the plan, or place and
    plan alike ("elsewhere"), always a step that is right. None if it has no such parts, or if every step is wrong."""
    task, said = to_task(problem), _REFLECTION.fullmatch(reflection.strip())
    parsed, place = task.parse(attempt), blamed(reflection)
    if said is None or parsed is None or place is None:
        return None
    wrong = {p for p, _ in task.errors(parsed)}
    right = [i for i in range(1, min(len(task.ops), len(parsed.ops)) + 1) if i not in wrong | {place}]
    if not right:
        return None
    other = rng.choice(right)
    finding, cause, plan = f"{said['found']} is {said['how']}", said["cause"], said["plan"]
    if part in ("place", "elsewhere"):
        finding = f"Step {other} is wrong"
    if part == "cause":
        cause = rng.choice([c for c in CAUSES.values() if c != cause])
    if part in ("plan", "elsewhere"):
        plan = f"redo step {other}" + (f": {task.ops[other - 1]}" if said["op"] else " with care and go on from there")
    marks = said["marks"]
    if part == "elsewhere" and marks:
        marks = "".join(f"Step {i} is right. " for i in range(1, other))
    return f"{marks}{finding}: {cause} Plan: {plan}."


OWN_WORDS = f"{MARK} {prompts.VERIFY[2]}"  # the corpus asks so for the first wrong place, and it is answered truly


def with_plan(found: str) -> str:
    """A first wrong place, as `OWN_WORDS` gets it, made a reflection by a plan that says nothing new."""
    if (place := blamed(found)) is None:
        return found
    how = "state the answer with care" if place == ANSWER else f"redo step {place} with care and go on from there"
    return f"{found.strip()} Plan: {how}."
