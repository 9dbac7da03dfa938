"""One run split over several machines: shard i of n generates every n-th chunk, and `merge` puts them in order.

    reflectevo run params/x.yaml -p shard 1/4        on each machine its own: rollouts/train.1-of-4.jsonl
    reflectevo merge OUT RUN_DIR RUN_DIR …           checks them and writes OUT/rollouts/train.jsonl
    reflectevo run params/x.yaml -p run_dir OUT      goes on from there, without `shard`

A chunk seeds itself by its place in the whole, so the merged file is the very file of an unsharded run (on machines that
compute alike: greedy and sampled text may differ between kinds of GPU).
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import shutil
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import yaml

from . import store

GENERATION = "02_reflection_generation"
COMPARED = ("01_data", GENERATION)  # what shards must have in common: the parameters of these notebooks


class Shard(NamedTuple):
    """Part `index` (from 1) of `of` parts."""

    index: int
    of: int

    def __str__(self) -> str:
        return f"{self.index}/{self.of}"


def parse(text: str | Shard | None) -> Shard | None:
    """ "2/4" as a Shard; None for None. Raises ValueError."""
    if text is None or isinstance(text, Shard):
        return text
    match = re.fullmatch(r"(\d+)/(\d+)", str(text).strip())
    shard = Shard(*map(int, match.groups())) if match else None
    if shard is None or not 1 <= shard.index <= shard.of:
        raise ValueError(f"shard {text!r} should be like 2/4, the second of four parts (null for the whole)")
    return shard


def path(out: str | Path, shard: Shard) -> Path:
    """Where a shard of the rows of `out` lies: `train.jsonl` → `train.2-of-4.jsonl`."""
    out = Path(out)
    return out.with_name(f"{out.stem}.{shard.index}-of-{shard.of}{out.suffix}")


def chunks(shard: Shard | None, total: int) -> range:
    """Which of `total` chunks a shard makes: every n-th."""
    return range(total) if shard is None else range(shard.index - 1, total, shard.of)


def wait_for_merge(shard: str | None, run: store.Run) -> None:
    """End a notebook here where it made one shard only, in one line that says how it goes on; nothing for a whole run."""
    if (part := parse(shard)) is not None:
        print(next_step(part, run.directory))
        warnings.filterwarnings(
            "ignore", message="To exit: use"
        )  # Jupyter's advice; papermill takes status 0 as a good end
        raise SystemExit(0)


def next_step(shard: Shard, run_dir: Path) -> str:
    """What to do once a shard is finished."""
    return (
        f"Shard {shard} is finished; curation waits for the merge. When all {shard.of} are: "
        f"`reflectevo merge {run_dir} [the other run directories]`, then the same command without shard."
    )


# -- Merge ---------------------------------------------------------------------------------------------------------------
def merge(out: str | Path, run_dirs: Sequence[str | Path] = ()) -> tuple[Path, int]:
    """Join the shards in `run_dirs` (default: in `out` itself) into `<out>/rollouts/train.jsonl`; returns it and its rows.

    Checks that every shard is there once and finished, that all were made with the same parameters, data and model, and
    that the rows are those of the questions, in order, none missing and none twice. A merge done before is left as it is.
    Raises ValueError with what to mend.
    """
    sources = [store.Run(d) for d in dict.fromkeys(Path(d).resolve() for d in (run_dirs or [out]))]
    target = Path(out).resolve() / "rollouts" / "train.jsonl"
    parts = _found(sources)
    _check_alike([run for run, _ in parts.values()] + ([store.Run(out)] if store.Run(out).params() else []))
    run = parts[min(parts)][0]
    made = run.params()[GENERATION]
    questions = run.rows("data", "train.jsonl")[: made["n_rollout"]]
    size = made["chunk_size"]
    lines = _interleaved({shard: file for shard, (_, file) in parts.items()}, questions, size)
    if target.exists():
        _refuse_other(target, lines)
    else:
        with store.writing(target) as handle:
            handle.writelines(lines)
    store.mark_finished(target, -(-len(questions) // size), size)
    _adopt(run, Path(out))
    return target, len(questions)


def _found(sources: Sequence[store.Run]) -> dict[Shard, tuple[store.Run, Path]]:
    """The shards' files, each with its run. Raises ValueError where one is missing, unfinished, or there twice."""
    found: dict[Shard, tuple[store.Run, Path]] = {}
    for run in sources:
        for file in sorted(run.path("rollouts").glob("train.*-of-*.jsonl")):
            if match := re.fullmatch(r"train\.(\d+)-of-(\d+)\.jsonl", file.name):
                shard = Shard(*map(int, match.groups()))
                if shard in found:
                    raise ValueError(f"shard {shard} is there twice: {found[shard][1]} and {file}; name one of them")
                found[shard] = (run, file)
    if not found:
        places = ", ".join(str(run.path("rollouts")) for run in sources)
        raise ValueError(f"no shards in {places}: `reflectevo run … -p shard 1/4` makes one")
    if len(counts := sorted({shard.of for shard in found})) > 1:
        raise ValueError(f"shards of {' and of '.join(map(str, counts))} parts lie together: merge one kind")
    if missing := [f"{i}/{counts[0]}" for i in range(1, counts[0] + 1) if Shard(i, counts[0]) not in found]:
        raise ValueError(f"missing: shard {', '.join(missing)}; `reflectevo run … -p shard {missing[0]}` makes it")
    for shard, (_, file) in found.items():
        if not store.finished(file):
            raise ValueError(f"{file} is unfinished: `reflectevo run … -p shard {shard}` goes on with it")
    return found


def _check_alike(runs: Sequence[store.Run]) -> None:
    """Raise ValueError where runs differ in parameters, data or model, naming the first difference."""
    wanted = None
    for run in runs:
        facts = {"data": run.environment().get("data"), "model": run.environment().get("model")}
        for notebook in COMPARED:
            values = run.params().get(notebook)
            if values is None:
                raise ValueError(f"{run.path('run.yaml')} has no record of {notebook}: copy the whole run directory")
            facts |= {name: value for name, value in values.items() if name not in store.NOT_COMPARED}
        wanted = wanted or (run, facts)
        for name in sorted(facts.keys() | wanted[1].keys()):
            if (a := wanted[1].get(name)) != (b := facts.get(name)):
                raise ValueError(f"{name} differs: {a!r} in {wanted[0].directory}, {b!r} in {run.directory}")
        if (now := store.fingerprints(run)) and now != facts["data"]:
            raise ValueError(
                f"{run.path('data')} has changed since its shard was made: {facts['data']!r} is now {now!r}"
            )


def _interleaved(files: dict[Shard, Path], questions: Sequence[Any], size: int) -> Iterator[bytes]:
    """The lines of the whole, chunk by chunk. Raises ValueError where a row is not the one of the next question."""
    with contextlib.ExitStack() as stack:
        handles = {s.index - 1: stack.enter_context(open(file, "rb")) for s, file in files.items()}
        names = {shard.index - 1: file for shard, file in files.items()}
        for i, question in enumerate(questions):
            part = i // size % len(handles)
            yield _checked(handles[part], names[part], question["id"])
        for part, handle in handles.items():
            if handle.readline():
                raise ValueError(f"{names[part]} holds more rows than its part of the {len(questions)} questions")


def _checked(handle: BinaryIO, name: Path, wanted: str) -> bytes:
    line = handle.readline()
    found = json.loads(line)["id"] if line.endswith(b"\n") else None
    if found != wanted:
        raise ValueError(
            f"{name}: the row of question {wanted} should come here, found {found or 'the end'}: make it again"
        )
    return line


def _refuse_other(target: Path, lines: Iterator[bytes]) -> None:
    with open(target, "rb") as found:
        if any(a != b for a, b in itertools.zip_longest(found, lines)):
            raise ValueError(f"{target} exists already and is not the merge of these shards: move it away first")


def _adopt(run: store.Run, out: Path) -> None:
    """Give `out` the record and data of the shards where it has none."""
    if not (out / "run.yaml").exists():
        whole = {name: run.params()[name] for name in COMPARED}
        whole[GENERATION] = whole[GENERATION] | {"shard": None}
        store.write_text(out / "run.yaml", yaml.safe_dump(whole, sort_keys=True, allow_unicode=True))
        store.write_json(out / "env.json", run.environment())
    if not (out / "data").exists():
        shutil.copytree(run.path("data"), out / "data")
