"""Is a reflection true? Where every mistake is known, each of its statements can be checked. Analysis only."""

import re
from typing import NamedTuple

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
REFLECTION = re.compile(rf"(?P<marks>(?:Step \d is right\. )*){_FINDS}")
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
    if (said := REFLECTION.fullmatch(reflection.strip())) is None:
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
