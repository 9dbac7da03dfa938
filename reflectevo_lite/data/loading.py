"""Loading a split from one source or several.

    load("logiqa", "test", n=500, seed=0)                  a published set: local copy, hub or origin
    load("mbpp:sanitized", "train", data_dir="mirror")     a version of a set, from a local mirror
    load("bbh:snarks")                                     a task of a collection
    load("synthetic:arithmetic", "train", n=100)           the embedded tasks; no network, no files
    load("reasoning_gym:gcd?max_value=20", n=100)          a generator, graded by its own scorer; see reasoning.py
    load("mine.csv", "test")                               your own rows; a folder; hub:owner/name; a DataFrame

A train question that the test split holds too is dropped (comparing question, context and options, normalised); rows of
a published split are otherwise kept as they are.
"""

import difflib
import itertools
import os
import random
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import embedded, store
from ..rows import Problem
from . import own, reasoning
from .base import Row, Source, check_split, question_key
from .files import SourceMissing, rows_of
from .sources import SOURCES, bigbench, mbpp

EMBEDDED = ("synthetic", *(f"synthetic:{family}" for family in embedded.FAMILIES))
REPEATED = "repeated"
PRECEDENCE = ("test", "validation", "train")  # an earlier split keeps a question that two of them hold


def load(source: Any, split: str = "test", **how: Any) -> list[Problem]:
    """Problems of one split of a source; see `load_many` for the other arguments and for errors."""
    return load_many([source], split, **how)


def load_many(
    sources: Sequence[Any],
    split: str = "test",
    *,
    n: int | None = None,
    seed: int = 0,
    data_dir: str | Path | None = None,
    shown_tests: int = mbpp.SHOWN_TESTS,
    columns: Mapping[str, Any] | None = None,
    divide: bool = True,
) -> list[Problem]:
    """Problems of several sources in turn; ids, `<source>-<split>-<id or index of the set>`, are unique.

    `n` rows of each are drawn by `seed`, and a smaller draw is the head of a larger one; None gives all, in published
    order (synthetic needs a number). A split with fewer rows gives all, with a warning. `data_dir` holds local copies,
    which are preferred (forms: `files.py`); it and own paths are relative to the project's root. A code prompt shows
    `shown_tests` asserts. `columns` and `divide` are for own sources (`own.read`). Train questions in the test split of any
    of these sources are dropped (BBH tasks are BIG-bench tasks, for one); for different lists see `drop_shared`.

    Raises ValueError (one line) for an unknown source or split, bad n, or a file that cannot be read; SourceMissing, a
    FileNotFoundError, if there is no copy: the line says which file to put where.
    """
    sources = _checked(sources, n, shown_tests)
    data_dir = store.resolve_dir(data_dir) if data_dir else None
    mixed = len(sources) > 1 and split != "test"
    published = [name for name in sources if mixed and _is_published(name)]
    held = {question_key(row) for name in published for row in _pool(name, "test", data_dir)}
    mine = {"seed": seed, "columns": columns, "divide": divide}
    drawn = {name: _draw(name, split, n, seed, data_dir, held, mine) for name in sources}
    if short := [f"{name} has {len(rows)}" for name, rows in drawn.items() if len(rows) < (n or 0)]:
        warnings.warn(f"{', '.join(short)} {split} questions, fewer than the {n} asked for", stacklevel=2)
    for row in (row for rows in drawn.values() for row in rows if "tests" in row and shown_tests):
        row.setdefault("shown_tests", row["tests"][:shown_tests])
    in_turn = [row for turn in itertools.zip_longest(*drawn.values()) for row in turn if row is not None]
    copies: dict[str, int] = {}
    for row in in_turn:  # "~2", "~3" … after an id that was there before
        copies[row["id"]] = count = copies.get(row["id"], 0) + 1
        row["id"] += f"~{count}" if count > 1 else ""
    return in_turn


def drop_shared(train: Sequence[Problem], test: Sequence[Problem]) -> list[Problem]:
    """`train` without the questions that `test` holds: for train and test from different sources."""
    held = {question_key(problem) for problem in test}
    return [problem for problem in train if question_key(problem) not in held]


def describe(name: str, data_dir: str | Path | None = None) -> Row:
    """What a published source holds: `rows` (questions of all splits), how many are `kept`, why others are `dropped`
    (reason → number), and the fewest and most `options`. Raises as `load_many` does."""
    source, data_dir = _resolve(name), store.resolve_dir(data_dir) if data_dir else None
    parts = [rows_of(source, part, data_dir) for part in ([""] if source.assign else source.parts)]
    problems, dropped = _mapped(source, itertools.chain(*parts))
    sizes = sorted({len(problem["choices"]) for problem in problems if "choices" in problem})
    counts = {"source": name, "rows": len(problems) + dropped.total(), "kept": len(problems), "dropped": dict(dropped)}
    return counts | {"options": sizes[:: max(1, len(sizes) - 1)]}


def sources_markdown() -> str:
    """What there is to `load`, a row per source or family: the Markdown table in docs/sources.md."""
    rows = []
    for name, one in {source.pattern or source.name: source for source in SOURCES.values()}.items():
        home = one.url.split("/tree/")[0] if one.pattern else one.url
        rows.append((name, home, one.hub, one.licence, one.published, one.rule, one.grader, one.tested))
    rule, here = "by the question's hash", "this package"
    rows.append(("synthetic[:<family>]", here, "", "Apache-2.0", "unlimited", rule, "exact, choice", "as it is"))
    made = ("103 generators", rule, "scored", "the package")
    rows.append(("reasoning_gym:<task>", reasoning.URL, "", "Apache-2.0", *made))
    name, mine = "PATH, hub:OWNER/NAME[:CONFIG][@PART]", "[your own](data.md): a file, a folder, a hub set"
    rule = "by column, by file name, else a quarter is test, by the question's hash and the seed"
    rows.append((name, mine, "", "yours", "yours", rule, "any", "invented files, good and bad; a stand-in for the hub"))
    heads = "source", "from", "licence", "rows as published", "train and test", "grader", "tested with"
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, origin, hub, *cells in rows:
        place = f"[origin]({origin})" if origin.startswith("https://") else origin
        place = (f"hub [{hub}](https://huggingface.co/datasets/{hub}), " if hub else "") + place
        lines.append(f"| `{name}` | {place} | {' | '.join(cells)} |")
    return "\n".join(lines)


def check_names(sources: Sequence[Any]) -> list[str]:
    """The names of sources, known ones, which need not be here. Raises ValueError."""
    if not isinstance(sources, list | tuple) or not sources:
        raise ValueError("sources is a list of one or more names")
    names = [own.source_name(source) for source in sources]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"the source {name!r} is named twice")
        if _is_published(name):
            _resolve(name)
        elif not is_own(name):  # made here, and a question shows whether it can be
            _draw(name, "train", 1, 0, None, set(), {})
    return names


def _checked(sources: Sequence[Any], n: int | None, shown_tests: int) -> list[str]:
    names = check_names(sources)
    if n is not None and (type(n) is not int or n < 1):
        raise ValueError(f"n is a number of rows from 1, or None for all; got {n!r}")
    if type(shown_tests) is not int or shown_tests < 0:
        raise ValueError(f"shown_tests is a number from 0; got {shown_tests!r}")
    return names


def _is_published(name: str) -> bool:
    return name.partition(":")[0] not in ("synthetic", reasoning.NAME) and not is_own(name)


def is_own(name: str) -> bool:
    """Whether a source is a path or a hub set; a published set goes before a file of its name."""
    if name.partition(":")[0] in {"synthetic", reasoning.NAME, "", *(source.folder for source in SOURCES.values())}:
        return False
    named = name.startswith(("jsonl:", "hub:")) or bool(re.search(r"[/\\.]", name))
    return named or os.path.exists(store.resolve_dir(name))


def _resolve(name: str) -> Source:
    family, _, task = name.partition(":")
    if name not in SOURCES and family == "bigbench" and re.fullmatch(r"\w+(/\w+)?", task):
        return bigbench.source(task)
    if name not in SOURCES:
        near = difflib.get_close_matches(name, [*SOURCES, *EMBEDDED, "reasoning_gym:TASK"], 1, cutoff=0.0)[0]
        raise ValueError(f"unknown source {name!r}; did you mean {near!r}?")
    return SOURCES[name]


def _draw(
    name: str, split: str, n: int | None, seed: int, data_dir: Path | None, held: set[str], mine: Row
) -> list[Row]:
    if name.partition(":")[0] == "synthetic":
        return _synthetic(name, split, n, seed)
    if name.partition(":")[0] == reasoning.NAME:
        return reasoning.problems(name, split, n, seed)
    rows = _own(name, split, **mine) if is_own(name) else _pool(name, split, data_dir)
    rows = [row for row in rows if not held or question_key(row) not in held]
    if not rows:
        raise ValueError(f"{name} has no {split} questions")
    if n is not None:
        rows.sort(key=question_key)  # the same draw from a copy that lists its rows in another order
        random.Random(f"{name}/{split}/{seed}").shuffle(rows)
    return rows[:n]


def _synthetic(name: str, split: str, n: int | None, seed: int) -> list[Row]:
    check_split(name, split, ("train", "test"))
    if n is None:
        raise ValueError(f"{name} has no end; say how many problems with n")
    chosen = tuple(name.partition(":")[2].split(",")) if ":" in name else tuple(embedded.FAMILIES)
    if unknown := [family for family in chosen if family not in embedded.FAMILIES]:
        _resolve(f"synthetic:{unknown[0]}")  # raises, and names the nearest
    return [row | {"meta": row["meta"] | {"split": split}} for row in embedded.problems(n, split, seed, chosen)]


def _own(name: str, split: str, **how: Any) -> list[Row]:
    check_split(name, split, ("train", "validation", "test", "all"))
    found = own.read(name, **how)
    if found.refused:
        raise ValueError(found.refused)
    if found.faults:
        count = f"{len(found.faults):,} of {len(found.faults) + len(found.rows):,} rows"
        warnings.warn(f"{name}: {count} left out, the first: {': '.join(found.faults[0])}", stacklevel=5)
    return [row | {"meta": {"source": name, "split": split, **row["meta"]}} for row in found.split(split)]


def _pool(name: str, split: str, data_dir: Path | None) -> list[Row]:
    """All problems of a split, in published order, without questions of the splits that precede it."""
    source = _resolve(name)
    check_split(name, split, source.split_names)
    before = itertools.takewhile(lambda other: other != split, PRECEDENCE)
    wanted = [*(other for other in before if other in source.split_names), split]
    if source.assign:
        pooled = _problems(source, rows_of(source, data_dir=data_dir))
        by_split = {one: [problem for problem in pooled if source.assign(problem) == one] for one in wanted}
    else:
        part = {one: source.splits.get(one, one) for one in wanted}
        by_split = {one: _problems(source, rows_of(source, part[one], data_dir)) for one in wanted}
    for needed in ("test", split):  # without the test questions, train could not be kept free of them
        if not by_split[needed]:
            message = f"{name}: the copy at hand holds no {needed} questions; the whole set is at {source.url}"
            raise SourceMissing(message)
    held = {source.key(problem) for other in wanted[:-1] for problem in by_split[other]}
    problems = [problem for problem in by_split[split] if source.key(problem) not in held]
    origin = {"source": source.name, "url": source.url, "licence": source.licence, "split": split}
    head = [{"id": f"{name}-{split}-{problem.pop('native')}", "task": name} for problem in problems]
    return [{**one, **problem, "meta": origin | problem["meta"]} for one, problem in zip(head, problems, strict=True)]


def _problems(source: Source, rows: Iterable[tuple[int | str, Row]]) -> list[Row]:
    """Published rows as problems without an id yet; rows without a usable answer are counted and left out."""
    problems, dropped = _mapped(source, rows)
    del dropped[REPEATED]
    if dropped:
        why = ", ".join(f"{reason} ({n})" if len(dropped) > 1 else reason for reason, n in dropped.items())
        share = f"{dropped.total()} of {dropped.total() + len(problems)} rows"
        warnings.warn(f"{source.name}: {share} left out: {why}", stacklevel=2)
    return problems


def _mapped(source: Source, rows: Iterable[tuple[int | str, Row]]) -> tuple[list[Row], Counter[str]]:
    """The problems, and for each reason how many were left out."""
    problems, seen, dropped = [], set(), Counter[str]()
    for index, row in rows:
        try:
            mapped = source.to_problem(row)
        except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
            wrong = f"it has no field {error}" if isinstance(error, KeyError) else f"{type(error).__name__}: {error}"
            raise ValueError(f"{source.name}, row {index}: not of the form of this set ({wrong})") from error
        for problem in mapped if isinstance(mapped, list) else [mapped]:
            if not isinstance(problem, dict):
                dropped[problem or "no usable answer"] += 1
                continue
            same = (question_key(problem), str(problem["answer"]))
            # pooled copies may hold one question twice; a published split is kept as it is
            if source.assign and same in seen:
                dropped[REPEATED] += 1
            else:
                problems.append(problem | {"native": index if problem["native"] is None else problem["native"]})
            seen.add(same)
    return problems, dropped
