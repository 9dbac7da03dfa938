"""Where things may lie: the project, a run, what can be fetched or made again."""

import json
import os
import tempfile
from pathlib import Path

SOURCE = ("notebooks", "params", "tests", "docs", "reflectevo_lite")  # of the project: no place for runs
STAGES = ("01_data", "02_reflection_generation", "03_sft", "04_dpo", "05_iteration", "06_analysis")


class BadRunDir(ValueError):
    """A folder that a run must not write into."""


def project_root() -> Path:
    """The nearest folder from here up that holds `notebooks/` and `params/`; else the working directory."""
    here = Path.cwd()
    return next((p for p in (here, *here.parents) if (p / "notebooks").is_dir() and (p / "params").is_dir()), here)


def resolve_dir(path: str | Path) -> Path:
    """An absolute path; a relative one is meant from the project's root, wherever a notebook runs."""
    return Path(os.path.realpath(project_root() / os.path.expanduser(path)))  # resolve() raises for a link to itself


def run_dir(asked: str | Path) -> Path:
    """The directory of a run as an absolute path. Raises BadRunDir if it is no folder of its own: a run writes executed
    notebooks to `<run_dir>/notebooks/`, and `--force` moves what is there away."""
    if not isinstance(asked, str | Path) or not str(asked).strip():
        raise BadRunDir(f"run_dir is {asked!r}: name a folder, such as artifacts/my_run")
    path = resolve_dir(asked)
    roots = (p for p in (project_root(), Path(__file__).parents[2], path) if (p / "notebooks").is_dir())
    projects = [p for p in roots if (p / "params").is_dir() or (p / "pyproject.toml").is_file()]
    faults = {
        "has a brace in its path, which papermill takes for a parameter": not {"{", "}"}.isdisjoint(str(path)),
        "is a file": path.exists() and not path.is_dir(),
        "is a home directory or the root of a disk": path in (Path(os.path.expanduser("~")), Path(path.anchor)),
        "holds the project itself": any(project.is_relative_to(path) for project in projects),
        "lies among the project's own files": any(path.is_relative_to(p / own) for p in projects for own in SOURCE),
        "holds notebooks that are not a run's": any(map(_is_source, path.glob("notebooks/*.ipynb"))),
    }
    if fault := next((fault for fault, found in faults.items() if found), None):
        raise BadRunDir(f"run_dir {str(asked)!r} {fault}: choose a folder of its own, such as artifacts/my_run")
    return path


def _is_source(notebook: Path) -> bool:
    """Whether a notebook is written by hand: papermill signs those that it executes. A torn file is no source."""
    try:
        return "papermill" not in json.loads(notebook.read_bytes())["metadata"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def cache_dir() -> Path:
    """Where the package keeps what it can fetch or make again: $REFLECTEVO_CACHE, else in the user's cache folder, else,
    where that cannot be written, among temporary files."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))  # stays ~ for a user without a home
    there = next((folder for folder in (home, *home.parents) if folder.exists()), home)
    own = f"reflectevo_lite-{getattr(os, 'getuid', int)()}"
    usable = home.is_absolute() and os.access(there, os.W_OK)
    usual = home / "reflectevo_lite" if usable else Path(tempfile.gettempdir(), own)
    return Path(os.environ.get("REFLECTEVO_CACHE") or usual)


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
