"""One run, one directory, and where it may lie.

artifacts/<run>/run.yaml      every parameter as used, by notebook
                env.json      versions, hardware, commit, fingerprints
                data/ rollouts/ curated/ adapters/ evals/ rounds/ figures/ metrics.json
                rows.zip      in a run that is kept: the folders of rows
"""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import yaml

from .files import Rows, read_jsonl, room_at

STAGES = ("01_data", "02_reflection_generation", "03_sft", "04_dpo", "05_iteration", "06_analysis")
PACKED = "rows.zip"
MADE_BY = {"adapters": "03_sft", "rounds": "05_iteration"} | dict.fromkeys(("rollouts", "curated", "evals"), STAGES[1])


class ChangedParameters(ValueError):
    """The run directory was made with other parameters."""


class BadRunDir(ValueError):
    """A folder that a run must not write into."""


class Run:
    """A run directory. `path("evals", "x.jsonl")` names a file in it.

    A run that is kept with its rows in `rows.zip` (the reference run is) is unpacked in place when it is first opened.
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        if self.path(PACKED).exists() and not self.path("evals").exists():
            self._unpack()

    def _unpack(self) -> None:
        beside = self.path(f".{PACKED}.{os.getpid()}")
        try:
            with room_at(self.directory), zipfile.ZipFile(self.path(PACKED)) as packed:
                packed.extractall(beside)
            for folder in sorted(beside.iterdir(), key=lambda folder: folder.name == "evals"):  # evals: it is all there
                if not self.path(folder.name).exists():
                    folder.rename(self.path(folder.name))
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def path(self, *parts: str) -> Path:
        """A path inside the run directory."""
        return self.directory.joinpath(*parts)

    def read(self, *parts: str) -> list[Any]:
        """The rows of one of the run's files. Raises FileNotFoundError naming the notebook that makes it."""
        return read_jsonl(self._made(*parts))

    def rows(self, *parts: str) -> Rows:
        """As `read`, with the rows left on disk: for files that may be larger than memory."""
        return Rows(self._made(*parts))

    def _made(self, *parts: str) -> Path:
        path = self.path(*parts)
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing: run notebook {MADE_BY.get(parts[0], STAGES[0])} first")
        return path

    def environment(self) -> dict[str, Any]:
        """What env.json records: versions, hardware, fingerprints of data and model."""
        path = self.path("env.json")
        return json.loads(path.read_bytes()) if path.exists() else {}

    def params(self) -> dict[str, dict[str, Any]]:
        """Recorded parameters by notebook."""
        path = self.path("run.yaml")
        return yaml.safe_load(path.read_bytes()) or {} if path.exists() else {}


def executed_copy(directory: str | Path, stage: str) -> Path:
    """Where the executed copy of a stage's notebook lies."""
    return Path(directory) / "notebooks" / f"{stage}.ipynb"


def stage_finished(directory: str | Path, stage: str) -> bool:
    """Whether a stage's executed copy says that it ran to its end."""
    try:
        notebook = json.loads(executed_copy(directory, stage).read_bytes())
        state = notebook["metadata"]["papermill"]
        # papermill calls the cells after a dead kernel's last one completed, too; only those that ran have a number
        ran = all(cell["execution_count"] for cell in notebook["cells"] if cell["cell_type"] == "code")
    except (OSError, ValueError, KeyError):
        return False
    return ran and bool(state.get("end_time")) and not state.get("exception")


def project_root() -> Path:
    """The nearest folder, from the working directory up, that holds `notebooks/` and `params/`; else the working directory."""
    here = Path.cwd()
    return next((p for p in (here, *here.parents) if (p / "notebooks").is_dir() and (p / "params").is_dir()), here)


def resolve_dir(path: str | Path) -> Path:
    """An absolute path; a relative one is meant from the project's root, wherever a notebook runs."""
    return (project_root() / Path(path).expanduser()).resolve()


def run_dir(asked: str | Path) -> Path:
    """The directory of a run as an absolute path; see `resolve_dir`.

    A run writes its executed notebooks to `<run_dir>/notebooks/`, and `--force` moves them away. So it must be a folder
    of its own: raises BadRunDir if it is not, or if it could overwrite the source notebooks.
    """
    if not isinstance(asked, str | Path) or not str(asked).strip():
        raise BadRunDir(f"run_dir is {asked!r}: name a folder, such as artifacts/my_run")
    path = resolve_dir(asked)
    projects = [p for p in (project_root(), Path(__file__).parents[2], path) if _is_project(p)]
    faults = {
        "has a brace in its path, which papermill takes for a parameter": not {"{", "}"}.isdisjoint(str(path)),
        "is a file": path.exists() and not path.is_dir(),
        "is a home directory or the root of a disk": path in (Path.home(), Path(path.anchor)),
        "holds the project itself": any(project.is_relative_to(path) for project in projects),
        "lies among the source notebooks": any(path.is_relative_to(project / "notebooks") for project in projects),
        "holds notebooks that are not a run's": any(map(_is_source, path.glob("notebooks/*.ipynb"))),
    }
    if fault := next((fault for fault, found in faults.items() if found), None):
        raise BadRunDir(f"run_dir {str(asked)!r} {fault}: choose a folder of its own, such as artifacts/my_run")
    return path


def _is_project(path: Path) -> bool:
    return (path / "notebooks").is_dir() and ((path / "params").is_dir() or (path / "pyproject.toml").is_file())


def _is_source(notebook: Path) -> bool:
    """Whether a notebook was written by hand: papermill signs those that it executes. A torn file is no source."""
    try:
        return "papermill" not in json.loads(notebook.read_bytes())["metadata"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def cache_dir() -> Path:
    """Where the package keeps what it can fetch or make again: $REFLECTEVO_CACHE, else in the user's cache folder."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("REFLECTEVO_CACHE") or home / "reflectevo_lite")
