"""One run, one directory: JSON Lines that survive interruption, the record of parameters, the environment.

    artifacts/<run>/run.yaml      every parameter as used, by notebook
                    env.json      versions, hardware, commit, fingerprints
                    data/ rollouts/ curated/ adapters/ evals/ rounds/ figures/ metrics.json

Rows are appended in chunks and flushed; a truncated last chunk is dropped and made again. Everything else is written
beside its place and renamed, so a reader never sees half a file.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

VERSIONS = ("reflectevo_lite", "torch", "transformers", "trl", "peft", "accelerate", "datasets", "papermill", "unsloth")


class ChangedParameters(ValueError):
    """The run directory was made with other parameters."""


# -- JSON Lines ----------------------------------------------------------------------------------------------------------
def read_jsonl(path: str | Path) -> list[dict[str, Any]]:
    """All rows of a file; a truncated last line (a killed writer's) is left out. Raises FileNotFoundError, ValueError."""
    return list(iter_jsonl(path))


def iter_jsonl(path: str | Path) -> Iterator[dict[str, Any]]:
    """Rows of a file one by one; see `read_jsonl`."""
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.endswith("\n"):
                return
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(
                    f"{path}, line {number}: not a JSON row ({error.msg}); mend or delete that line"
                ) from error


def write_jsonl(path: str | Path, rows: Iterable[Any]) -> None:
    """Write a whole file of rows: beside its place, then renamed."""
    write_text(path, "".join(map(_line, rows)))


def _line(row: Any) -> str:
    return json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n"


def write_text(path: str | Path, text: str) -> None:
    """Write a whole file: beside its place, flushed to disk, then renamed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with open(beside, "w", encoding="utf-8") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    beside.replace(path)


def write_json(path: str | Path, value: Any) -> None:
    """Write a JSON file; see `write_text`."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def append_chunks(
    path: str | Path,
    chunks: int,
    make: Callable[[int], list[Any]],
    size: int,
    on_chunk: Callable[[int, list], None] | None = None,
) -> None:
    """Append chunk after chunk of rows, resuming after the last whole one.

    `make(i)` returns the rows of chunk i: `size` of them, but for the last chunk, which may hold fewer. It must depend
    on i alone, so that an interrupted and resumed file equals an undisturbed one. `on_chunk(i, rows)` hears of every
    chunk, those found on disk included.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    found = read_jsonl(path) if path.exists() else []
    done = marker.read_text() if (marker := path.with_suffix(".done")).exists() else ""
    whole = chunks if done else min(len(found) // size, chunks)
    if not done and path.exists():
        _truncate(path, whole * size)
    for i in range(whole):
        if on_chunk:
            on_chunk(i, found[i * size : (i + 1) * size])
    with open(path, "a", encoding="utf-8") as handle:
        for i in range(whole, chunks):
            rows = make(i)
            handle.write("".join(map(_line, rows)))
            handle.flush()
            os.fsync(handle.fileno())
            if on_chunk:
                on_chunk(i, rows)
    write_text(marker, f"{chunks} chunks of {size}\n")


def _truncate(path: Path, rows: int) -> None:
    with open(path, "rb+") as handle:
        for _ in range(rows):
            handle.readline()
        handle.truncate(handle.tell())


# -- Run directory -------------------------------------------------------------------------------------------------------
class Run:
    """A run directory. `path("evals", "x.jsonl")` names a file in it."""

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)

    def path(self, *parts: str) -> Path:
        """A path inside the run directory."""
        return self.directory.joinpath(*parts)

    def read(self, *parts: str) -> list[dict[str, Any]]:
        """The rows of one of the run's files. Raises FileNotFoundError naming the notebook that makes it."""
        path = self.path(*parts)
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing: run notebook {MADE_BY.get(parts[0], '01_data')} first")
        return read_jsonl(path)

    def params(self) -> dict[str, dict[str, Any]]:
        """Recorded parameters by notebook."""
        path = self.path("run.yaml")
        return yaml.safe_load(path.read_text()) or {} if path.exists() else {}


MADE_BY = {
    "data": "01_data",
    "rollouts": "02_reflection_generation",
    "curated": "02_reflection_generation",
    "evals": "02_reflection_generation",
    "adapters": "03_sft",
    "rounds": "05_iteration",
}


def open_run(notebook: str, run_dir: str | Path, **params: Any) -> Run:
    """Open the run that a notebook belongs to and record its parameters in run.yaml.

    Raises ChangedParameters, naming each, where that directory was made with other values, by this notebook or by
    another one that shares the name.
    """
    run = Run(resolve_dir(run_dir))
    recorded = run.params()
    check_parameters(run.directory, recorded, notebook, params)
    if recorded.get(notebook) != params:
        write_text(
            run.path("run.yaml"), yaml.safe_dump(recorded | {notebook: params}, sort_keys=True, allow_unicode=True)
        )
    record_environment(run, params.get("model"))
    return run


def project_root() -> Path:
    """The nearest folder, from the working directory up, that holds `notebooks/` and `params/`; else the working directory."""
    here = Path.cwd()
    return next((p for p in (here, *here.parents) if (p / "notebooks").is_dir() and (p / "params").is_dir()), here)


def resolve_dir(run_dir: str | Path) -> Path:
    """A run directory as an absolute path; a relative one is meant from the project's root, wherever a notebook runs."""
    return (project_root() / Path(run_dir).expanduser()).resolve()


def check_parameters(
    directory: Path, recorded: dict[str, dict[str, Any]], notebook: str, params: dict[str, Any]
) -> None:
    """Raise ChangedParameters where `params` differ from what the directory was made with."""
    changed = {}
    for other, values in recorded.items():
        names = set(values) | set(params) if other == notebook else set(values) & set(params)
        for name in sorted(names):
            if (old := values.get(name, "absent")) != (new := params.get(name, "absent")):
                changed[name] = f"{name} was {old!r}, is {new!r}"
    if changed:
        raise ChangedParameters(
            f"{directory} was made with other parameters ({'; '.join(changed.values())}). "
            "Choose another run_dir, or redo it with `reflectevo run … --force`."
        )


# -- Environment ---------------------------------------------------------------------------------------------------------
def record_environment(run: Run, model: str | None) -> None:
    """Write env.json: versions, hardware, git commit, fingerprints of model and data."""
    from . import models

    path = run.path("env.json")
    known = json.loads(path.read_text()) if path.exists() else {}
    env = environment() | {"data": fingerprints(run)}
    env["model"] = {model: models.fingerprint(model)} if model else known.get("model")
    if env != known:
        write_json(path, env)


def environment() -> dict[str, Any]:
    """Versions and hardware of this process."""
    return {
        "versions": {"python": platform.python_version(), **{name: v for name in VERSIONS if (v := _version(name))}},
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "gpu": _gpu(),
        "commit": _commit(),
    }


def fingerprints(run: Run) -> dict[str, str]:
    """sha256 (16 digits) of the run's data files."""
    files = sorted(run.path("data").glob("*.jsonl"))
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest()[:16] for f in files}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _gpu() -> str | None:
    if "torch" not in sys.modules:
        return None
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None


def _commit() -> str | None:
    try:
        found = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=10,
        ).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found if re.fullmatch(r"[0-9a-f]{40}", found) else None
