"""What a source is, and the small tools that its page is written with."""

from __future__ import annotations

import hashlib
import random
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

Row = dict[str, Any]

INVENTED = "invented rows in the original format and as hub rows"
REAL = f"{INVENTED}; real rows, which stay out of the repository"


class Part(NamedTuple):
    """A published part of a set ("train", "validation", …, named as on the hub)."""

    files: tuple[str, ...] = ()  # original files below <data_dir>/<folder>, globs allowed; the first that exists wins
    url: str = ""  # where the first of them can be downloaded as it is


@dataclass(frozen=True)
class Source:
    """One set of questions.

    With `splits`, a split is a published part. With `assign`, every part at hand is pooled and
    `assign(problem)` names the split of each problem; this is for sets published whole or with splits that
    differ from copy to copy.
    """

    name: str  # what `problems.load` calls it
    url: str  # home of the set
    licence: str
    grader: str
    published: str  # rows as published
    rule: str  # how "train" and "test" are made, in words
    to_problem: Callable[[Row], Row | None]  # published row → `fields`; None where it has no usable answer
    parts: Mapping[str, Part]
    folder: str  # a local copy lies in <data_dir>/<folder>
    splits: Mapping[str, str] = field(default_factory=dict)
    assign: Callable[[Row], str] | None = None
    names: tuple[str, ...] = ("train", "test")  # splits that `assign` gives
    variant: str = ""  # "amazon" of "squadshifts:amazon"
    hub: str = ""  # hub id that loads with datasets ≥ 4; "" where there is none
    get: str = ""  # where a person finds the original file when no plain download is known
    configs: tuple[str, ...] = ()  # hub configurations, read one after another
    hub_parts: tuple[str, ...] = ()  # pooled sets: the hub splits that make up the whole
    read: Callable[[Path], list[Row]] | None = None  # original file → rows; None: by its ending
    # a published row that holds several questions, as its questions
    unfold: Callable[[Row], Iterable[Row]] = lambda row: [row]
    # what makes two problems the same question; None: `question_key`
    text: Callable[[Row], str] | None = None
    pattern: str = ""  # name of the family in tables, "bbh:<task>"
    family_rows: str = ""  # rows of the whole family as published
    tested: str = INVENTED

    @property
    def split_names(self) -> tuple[str, ...]:
        """The splits that can be asked for."""
        return tuple(self.splits) or self.names

    def key(self, problem: Row) -> str:
        """Two problems with one key are the same question."""
        return normalise(self.text(problem)) if self.text else question_key(problem)


def fields(
    question: str,
    answer: str | list[str],
    grader: str,
    *,
    native: object = None,
    choices: Sequence[str] = (),
    context: str = "",
    meta: Row | None = None,
    **code: Any,
) -> Row:
    """A Problem but for what its source adds (`id`, `task`, and origin in `meta`); empty fields are left out.

    `native` is the set's own id of the row; None where it has none.
    """
    row: Row = {"question": question.strip(), "answer": answer, "grader": grader}
    optional = {"choices": list(choices), "context": context.strip(), **code}
    return row | {name: value for name, value in optional.items() if value} | {"native": native, "meta": meta or {}}


def letter(index: int) -> str:
    """0 → "A"."""
    return chr(65 + index)


def shuffled_choices(right: str, wrong: Sequence[str], seed: str) -> tuple[list[str], str]:
    """Options in an order fixed by `seed` alone, and the letter of the right one."""
    options = sorted([right, *wrong])
    random.Random(seed).shuffle(options)
    return options, letter(options.index(right))


def normalise(text: str) -> str:
    """Text for comparison: form, letter case and white space do not count; signs do (x+1 is not x-1)."""
    return " ".join(unicodedata.normalize("NFKC", text).split()).casefold()


def question_key(problem: Row) -> str:
    """Question, context and options (in whatever order), normalised."""
    options = sorted(normalise(option) for option in problem.get("choices", []))
    return "\n".join([normalise(problem.get("context", "")), normalise(problem["question"]), *options])


def hash_split(test_share: float, of: Callable[[Row], str] = question_key) -> Callable[[Row], str]:
    """A split rule: a problem is "test" or "train" by the hash of its text, whatever else the set holds.

    Sets with several questions on a passage pass the passage as `of`, so that it stays on one side.
    """

    def assign(problem: Row) -> str:
        digest = hashlib.sha256(normalise(of(problem)).encode()).digest()
        return "test" if int.from_bytes(digest[:4], "big") < test_share * 2**32 else "train"

    return assign
