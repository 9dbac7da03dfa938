"""What a source is, and the small tools that its page is written with."""

import hashlib
import random
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..prompts import LABELS

Row = dict[str, Any]

INVENTED = "invented rows in the original format and as hub rows"
REAL = f"{INVENTED}; real rows, which stay out of the repository"


def normalise(text: str) -> str:
    """Text for comparison: form, letter case and white space do not count; signs do (x+1 is not x-1)."""
    return " ".join(unicodedata.normalize("NFKC", text).split()).casefold()


def question_key(problem: Row) -> str:
    """Question, context and options (in whatever order), normalised."""
    options = sorted(normalise(option) for option in problem.get("choices", []))
    return "\n".join([normalise(problem.get("context", "")), normalise(problem["question"]), *options])


@dataclass(frozen=True)
class Source:
    """One set of questions, as its page in `sources/` describes it. A split is a published part, or see `assign`."""

    name: str  # what `load` calls it: "gsm8k", or "bbh:snarks" for one of a family
    url: str  # home of the set
    licence: str
    grader: str
    published: str  # how many rows, in words; those of the whole family
    # Published row → `fields`, or a list of them if it holds several questions; None if there is no usable answer, or
    # why there is none, in words.
    to_problem: Callable[[Row], Row | str | list[Row | None] | None]
    # Parts, named as on the hub → original files or globs below <data_dir>/<folder>; the first found counts.
    parts: Mapping[str, Sequence[str]]
    raw: str = ""  # address below which the first file of each part can be downloaded
    get: str = ""  # where a person finds the original files if there is no plain download
    hub: str = ""  # hub id that loads with datasets ≥ 4
    configs: Sequence[str] = ()  # hub configurations, read one after another
    hub_parts: Sequence[str] = ()  # with `assign`: the hub splits that make up the whole
    read: Callable[[Path], list[Row]] | None = None  # original file → rows; None: by its ending
    splits: Mapping[str, str] = field(default_factory=dict)  # split → part, if they are not called the same
    # If the set was published whole, or copies divide it differently: all parts are pooled, and this names a split.
    assign: Callable[[Row], str] | None = None
    rule: str = "as published"  # how train and test are made, in words
    key: Callable[[Row], str] = question_key  # two problems with one key are the same question
    pattern: str = ""  # name of the family in tables, "bbh:<task>"
    tested: str = INVENTED

    @property
    def folder(self) -> str:
        return self.name.partition(":")[0]

    @property
    def split_names(self) -> tuple[str, ...]:
        return tuple(self.splits or (("train", "test") if self.assign else self.parts))

    def file_url(self, part: str) -> str:
        """Where the original file of a part can be downloaded; "" if nowhere."""
        return f"{self.raw}/{self.file(part)}" if self.raw and self.file(part) else ""

    def file(self, part: str) -> str:
        """The first original file of a part that is no glob; "" if there is none."""
        return next((file for file in self.parts[part] if "*" not in file), "")


def fields(
    question: str, answer: str | list[str], grader: str, *, native: object = None, meta: Row | None = None, **more: Any
) -> Row:
    """A Problem without what `load` adds (`id`, `task`, the origin in `meta`) and without empty fields.

    `native` is the set's own id of the row, None if it has none; `more` is choices, context, tests and setup.
    """
    more |= {"choices": list(more.get("choices", ())), "context": more.get("context", "").strip()}
    row = {"question": question.strip(), "answer": answer, "grader": grader} | {k: v for k, v in more.items() if v}
    return row | {"native": native, "meta": meta or {}}


def check_split(name: str, split: str, known: Sequence[str]) -> None:
    """ValueError for a split that a source hasn't."""
    if split not in known:
        raise ValueError(f"{name} has no split {split!r}; there are {', '.join(known)}")


def shuffled_choices(right: str, wrong: Sequence[str], seed: str) -> tuple[list[str], str]:
    """Options in an order fixed by `seed` alone, and the letter of the right one."""
    options = sorted([right, *wrong])
    random.Random(seed).shuffle(options)
    return options, LABELS[options.index(right)]


def hash_split(test_share: float, of: Callable[[Row], str] = question_key) -> Callable[[Row], str]:
    """A split rule: "test" or "train" by the hash of `of`, such as a passage whose questions must stay on one side."""

    def assign(problem: Row) -> str:
        digest = hashlib.sha256(normalise(of(problem)).encode()).digest()
        return "test" if int.from_bytes(digest[:4], "big") < test_share * 2**32 else "train"

    return assign
