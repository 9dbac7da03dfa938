r"""MATH: competition mathematics with worked solutions, 7 subjects, 5 levels.

https://github.com/hendrycks/math · hub EleutherAI/hendrycks_math (a configuration per subject)

Original files MATH/{train,test}/<subject>/<number>.json, one row each; hub rows are the same.

    {"problem": "If $3x + 1 = 10$, what is $x$?", "level": "Level 1", "type": "Algebra",
     "solution": "Subtracting 1 gives $3x = 9$, so $x = \\boxed{3}$."}

Exports of the hub's DigitalLearningGmbH/MATH-lighteval, the same rows in one configuration, serve as a local copy too.
"""

import re
from pathlib import Path

from ..base import REAL, Row, Source, fields
from ..files import read_rows

SUBJECTS = ("algebra", "counting_and_probability", "geometry", "intermediate_algebra", "number_theory", "prealgebra",
            "precalculus")  # fmt: skip


def boxed(solution: str) -> str | None:
    r"""The answer: what the last \boxed{…} or \fbox{…} (braces balanced) or `\boxed 7` holds; None if there is none."""
    *before, rest = re.split(r"\\(?:boxed|fbox)\b\s*", solution)
    if not before:
        return None
    if not rest.startswith("{"):
        return re.match(r"[^\s$.,;]*", rest)[0] or None
    depth = 0
    for brace in re.finditer(r"(?<!(?<!\\)\\)[{}]", rest):  # \{ is no brace, \\{ is one
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            return rest[1 : brace.start()].strip() or None
    return None


def read(path: Path) -> list[Row]:
    """A file of one problem, whose id is its subject and number."""
    return [row | {"native": f"{path.parent.name}-{path.stem}"} for row in read_rows(path)]


def to_problem(row: Row) -> Row | None:
    """Row → problem."""
    answer = boxed(row["solution"])
    meta = {"level": row.get("level"), "subject": row.get("type")}
    return answer and fields(row["problem"], answer, "math", native=row.get("native"), meta=meta)


SOURCE = Source(
    name="math", url="https://github.com/hendrycks/math", licence="MIT", grader="math",
    published="7,500 train, 5,000 test", to_problem=to_problem, tested=REAL, read=read,
    hub="EleutherAI/hendrycks_math", configs=SUBJECTS,
    parts={part: [f"MATH/{part}/*/*.json", f"{part}/*/*.json"] for part in ("train", "test")})  # fmt: skip
