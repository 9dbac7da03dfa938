"""Questions with verifiable answers, from every source, as Problem rows (`rows.Problem`).

    load("logiqa", "test", n=500, seed=0)                  a published set: local copy, hub or origin
    load("mbpp:sanitized", "train", data_dir="mirror")     a version of a set, from a local mirror
    load("bbh:snarks") · load("bigbench:causal_judgment")  a task of a collection
    load("synthetic:arithmetic", "train", n=100)           the embedded tasks; no network, no files
    load("jsonl:mine.jsonl", "test")                       your own rows
    describe_sources(), sources_markdown()                 the table of all sources

One page per set, in `sources/`, says where it comes from, what its rows look like and how it is split. With
`data_dir`, a local copy is preferred (its forms: `sources/files.py`); the mapping to Problem rows is the
same.

No question of a source is in two of its splits: a train question that the test split holds too is dropped
(comparing question, context and options, normalised). Rows of a published split are otherwise kept as they
are.
"""

from __future__ import annotations

import difflib
import itertools
import random
import re
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .. import embedded, store
from ..rows import Problem
from .sources import (
    bbh,
    bigbench,
    coqa,
    gsm8k,
    hendrycks_math,
    logiqa,
    mbpp,
    own,
    social_iqa,
    squadshifts,
    strategyqa,
    timedial,
    vitaminc,
)
from .sources.base import Row, Source, question_key
from .sources.files import SourceMissing, pooled_rows, rows_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SOURCES", "SourceMissing", "describe_sources", "drop_shared", "load", "load_many", "sources_markdown"]

SOURCES: dict[str, Source] = {
    "logiqa": logiqa.SOURCE,
    "math": hendrycks_math.SOURCE,
    "mbpp": mbpp.FULL,
    "mbpp:sanitized": mbpp.SANITIZED,
    "coqa": coqa.SOURCE,
    **squadshifts.FAMILY,
    "social_iqa": social_iqa.SOURCE,
    "strategyqa": strategyqa.SOURCE,
    "timedial": timedial.SOURCE,
    "vitaminc": vitaminc.SOURCE,
    **bigbench.FAMILY,
    **bbh.FAMILY,
    "gsm8k": gsm8k.SOURCE,
}
EMBEDDED = ("synthetic", *(f"synthetic:{family}" for family in embedded.FAMILIES))
PRECEDENCE = ("test", "validation", "train")  # an earlier split keeps a question that two of them hold


def load(
    source: str,
    split: str = "test",
    *,
    n: int | None = None,
    seed: int = 0,
    data_dir: str | Path | None = None,
    shown_tests: int = mbpp.SHOWN_TESTS,
) -> list[Problem]:
    """Problems of one split of a source.

    `n` rows are drawn without replacement by `seed`, and the draw for a smaller n is the head of that for a
    larger one; None gives all, in published order (synthetic needs a number). Ids are `<source>-<split>-<id
    or index of the set>`. `data_dir` holds local copies; a relative path is meant from the project's root, as
    is jsonl's. `shown_tests` is how many asserts an MBPP prompt
    shows (`sources/mbpp.py`). Where a split has fewer than n rows, all are returned with a warning.

    Raises ValueError (one line) for an unknown source or split, bad n, or a file that cannot be read;
    SourceMissing, a FileNotFoundError, where there is no copy: the line says which file to put where.
    """
    return load_many([source], split, n=n, seed=seed, data_dir=data_dir, shown_tests=shown_tests)


def load_many(
    sources: Sequence[str],
    split: str = "test",
    *,
    n: int | None = None,
    seed: int = 0,
    data_dir: str | Path | None = None,
    shown_tests: int = mbpp.SHOWN_TESTS,
) -> list[Problem]:
    """Problems of several sources in turn, `n` of each (see `load`); ids are unique.

    In turn, so that the first questions of a list hold every source: notebook 02 takes the first `n_rollout`.
    Train questions that any of these sources holds in its test split are dropped, not only those of their
    own source (BBH tasks are BIG-bench tasks, for one). For train and test of different lists see
    `drop_shared`.
    """
    _check(sources, n, shown_tests)
    data_dir = store.resolve_dir(data_dir) if data_dir else None
    mixed = len(sources) > 1 and split != "test"
    held = {key for name in sources if mixed for key in _test_keys(name, data_dir)}
    drawn = [_shown(name, _drawn(name, split, n, seed, data_dir, held), shown_tests) for name in sources]
    if short := [f"{name} has {len(rows)}" for name, rows in zip(sources, drawn, strict=True) if len(rows) < (n or 0)]:
        warnings.warn(f"{', '.join(short)} {split} questions, fewer than the {n} asked for", stacklevel=2)
    in_turn = (row for turn in itertools.zip_longest(*drawn) for row in turn if row is not None)
    return _with_unique_ids(in_turn)


def drop_shared(train: Sequence[Problem], test: Sequence[Problem]) -> list[Problem]:
    """`train` without the questions that `test` holds: for train and test from different sources."""
    held = {question_key(problem) for problem in test}
    return [problem for problem in train if question_key(problem) not in held]


def describe_sources() -> pd.DataFrame:
    """A row per source or family: source, origin, hub, licence, splits, grader, rows as published, tested."""
    import pandas as pd

    table: dict[str, Row] = {}
    for source in SOURCES.values():
        row = table.setdefault(source.pattern or source.name, _described(source))
        row["grader"] = ", ".join(sorted({*row["grader"].split(", "), source.grader}))
    by_hash = "by the question's hash"
    own_rule = f"{{split}} in the path, else meta.split, else {by_hash}"
    package = ("this package", "", "Apache-2.0", by_hash, "exact, choice", "unlimited", "as it is")
    yours = ("your file", "", "yours", own_rule, "any", "yours", "invented rows, good and bad")
    table |= {"synthetic[:<family>]": _row(*package), "jsonl:PATH": _row(*yours)}
    return pd.DataFrame([{"source": name, **row} for name, row in table.items()])


def sources_markdown() -> str:
    """`describe_sources` as the Markdown table that the README and notebook 01 show."""
    lines = [
        "| source | from | licence | rows as published | train and test | grader | tested with |",
        "|---|" + "---|" * 6,
    ]
    for row in describe_sources().to_dict("records"):
        origin = f"[origin]({row['origin']})" if row["origin"].startswith("https://") else row["origin"]
        hub = f"hub [{row['hub']}](https://huggingface.co/datasets/{row['hub']}), " if row["hub"] else ""
        cells = (row["licence"], row["rows"], row["splits"], row["grader"], row["tested"])
        lines.append(f"| `{row['source']}` | {hub}{origin} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _described(source: Source) -> Row:
    url = source.url.split("/tree/")[0] if source.pattern else source.url
    rows = source.family_rows or source.published
    return _row(url, source.hub, source.licence, source.rule, source.grader, rows, source.tested)


def _row(origin: str, hub: str, licence: str, splits: str, grader: str, rows: str, tested: str) -> Row:
    columns = ("origin", "hub", "licence", "splits", "grader", "rows", "tested")
    return dict(zip(columns, (origin, hub, licence, splits, grader, rows, tested), strict=True))


# -- names ----------------------------------------------------------------------------------------------
def _check(sources: Sequence[str], n: int | None, shown_tests: int) -> None:
    if isinstance(sources, str) or not sources:
        raise ValueError("sources is a list of one or more names")
    if twice := [name for name in sources if list(sources).count(name) > 1]:
        raise ValueError(f"the source {twice[0]!r} is named twice")
    for name in sources:
        if name.split(":")[0] not in ("synthetic", "jsonl"):
            _resolve(name)
    if n is not None and (isinstance(n, bool) or not isinstance(n, int) or n < 1):
        raise ValueError(f"n is a number of rows from 1, or None for all; got {n!r}")
    if isinstance(shown_tests, bool) or not isinstance(shown_tests, int) or shown_tests < 0:
        raise ValueError(f"shown_tests is a number from 0; got {shown_tests!r}")


def _resolve(name: str) -> Source:
    if name in SOURCES:
        return SOURCES[name]
    family, _, task = name.partition(":")
    if family == "bigbench" and re.fullmatch(r"\w+", task):
        return bigbench.source(task)
    names = [*SOURCES, *EMBEDDED, "jsonl:PATH"]
    near = difflib.get_close_matches(name, names, 1, cutoff=0.0)[0]
    raise ValueError(f"unknown source {name!r}; did you mean {near!r}?")


def _check_split(name: str, split: str, known: Iterable[str]) -> None:
    if split not in known:
        raise ValueError(f"{name} has no split {split!r}; there are {', '.join(known)}")


# -- rows -----------------------------------------------------------------------------------------------
def _drawn(name: str, split: str, n: int | None, seed: int, data_dir: str | Path | None, held: set[str]) -> list[Row]:
    """`n` rows of a source, none of them with a key in `held`."""
    if name.split(":")[0] == "synthetic":
        return _synthetic(name, split, n, seed)
    rows = _pool(name, split, data_dir)
    rows = [row for row in rows if question_key(row) not in held] if held else rows
    if not rows:
        raise ValueError(f"{name} has no {split} questions")
    if n is None:
        return rows
    rows.sort(key=question_key)  # the same draw from a copy that lists its rows in another order
    random.Random(f"{name}/{split}/{seed}").shuffle(rows)
    return rows[:n]


def _shown(name: str, rows: list[Row], count: int) -> list[Row]:
    return [mbpp.with_shown_tests(row, count) for row in rows] if name.split(":")[0] == "mbpp" else rows


def _synthetic(name: str, split: str, n: int | None, seed: int) -> list[Row]:
    _check_split(name, split, ("train", "test"))
    if n is None:
        raise ValueError(f"{name} has no end; say how many problems with n")
    chosen = tuple(name.partition(":")[2].split(",")) if ":" in name else tuple(embedded.FAMILIES)
    if unknown := [family for family in chosen if family not in embedded.FAMILIES]:
        _resolve(f"synthetic:{unknown[0]}")
    rows = embedded.problems(n, split, seed, chosen)
    return [{**row, "meta": {**row["meta"], "split": split}} for row in rows]


def _test_keys(name: str, data_dir: str | Path | None) -> set[str]:
    if name.split(":")[0] in ("synthetic", "jsonl"):  # split by hash, or the user's own
        return set()
    return {question_key(row) for row in _pool(name, "test", data_dir)}


def _pool(name: str, split: str, data_dir: str | Path | None) -> list[Row]:
    """All problems of a split, in published order, without questions of the splits that precede it."""
    if name.startswith("jsonl:"):
        return _own(name.removeprefix("jsonl:"), split)
    source = _resolve(name)
    _check_split(name, split, source.split_names)
    if source.assign:
        problems = _problems(source, pooled_rows(source, data_dir))
        by_split = {s: [p for p in problems if source.assign(p) == s] for s in source.split_names}
    else:
        wanted = [s for s in PRECEDENCE if s in source.splits]
        wanted = wanted[: wanted.index(split) + 1]
        by_split = {s: _problems(source, rows_of(source, source.splits[s], data_dir)) for s in wanted}
    for needed in ("test", split):  # without the test questions, train could not be kept free of them
        if not by_split[needed]:
            raise SourceMissing(
                f"{name}: the copy at hand holds no {needed} questions; the whole set is at {source.url}"
            )
    kept = _without_shared(by_split, split, source)
    return [_finished(source, split, problem) for problem in kept]


def _without_shared(by_split: dict[str, list[Row]], split: str, source: Source) -> list[Row]:
    before = PRECEDENCE[: PRECEDENCE.index(split)] if split in PRECEDENCE else PRECEDENCE
    held = {source.key(problem) for s in before for problem in by_split.get(s, [])}
    return [problem for problem in by_split[split] if source.key(problem) not in held]


def _problems(source: Source, rows: Iterable[tuple[str, Row]]) -> list[Row]:
    """Published rows as problems without an id yet; rows without a usable answer are counted and left out."""
    problems, seen, dropped = [], set(), 0
    for index, row in rows:
        try:
            mapped = [source.to_problem(one) for one in source.unfold(row)]
        except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
            why = f"{type(error).__name__}: {error}"
            raise ValueError(f"{source.name}, row {index}: not of the form of this set ({why})") from error
        dropped += mapped.count(None)
        for problem in filter(None, mapped):
            same = (question_key(problem), str(problem["answer"])) if source.assign else None
            # pooled copies may hold one question twice; a published split is kept as it is
            if source.assign is None or same not in seen:
                problems.append(problem | {"native": index if problem["native"] is None else problem["native"]})
            seen.add(same)
    if dropped:
        warnings.warn(
            f"{source.name}: {dropped} of {dropped + len(problems)} rows left out, without a usable answer",
            stacklevel=2,
        )
    return problems


def _finished(source: Source, split: str, problem: Row) -> Row:
    row = {name: value for name, value in problem.items() if name not in ("native", "meta")}
    origin = {"source": source.name, "url": source.url, "licence": source.licence, "split": split}
    meta = origin | problem["meta"]
    return {"id": f"{source.name}-{split}-{problem['native']}", "task": source.name, **row, "meta": meta}


def _own(path: str, split: str) -> list[Row]:
    if "{split}" not in path:
        _check_split(f"jsonl:{path}", split, own.NAMES)
    rows = own.pool(str(store.resolve_dir(path)), split)
    if split in ("train", "validation"):
        held = {question_key(row) for row in _own_test(path)}
        rows = [row for row in rows if question_key(row) not in held]
    return [{**row, "meta": {"source": f"jsonl:{path}", "split": split, **row["meta"]}} for row in rows]


def _own_test(path: str) -> list[Row]:
    path = str(store.resolve_dir(path))
    there = "{split}" not in path or Path(path.replace("{split}", "test")).is_file()
    return own.pool(path, "test") if there else []


def _with_unique_ids(rows: Iterable[Row]) -> list[Problem]:
    """Rows with "~2", "~3", … after an id that was there before."""
    seen: dict[str, int] = {}
    unique = []
    for row in rows:
        seen[row["id"]] = count = seen.get(row["id"], 0) + 1
        unique.append(row if count == 1 else {**row, "id": f"{row['id']}~{count}"})
    return unique
