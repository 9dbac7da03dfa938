"""One run, one directory: run.yaml (parameters by notebook), env.json (versions, hardware, commit, fingerprints),
metrics.json, data/ rollouts/ curated/ adapters/ evals/ rounds/ figures/; if a run is kept, rows.zip holds the rows."""

import contextlib
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from .files import Rows, read_json, room_at, write_json
from .places import STAGES, cache_dir

PACKED = "rows.zip"
PACKAGES = ("reflectevo_lite", "torch", "transformers", "trl", "peft", "accelerate", "datasets", "papermill", "unsloth")
MADE_BY = {"adapters": "03_sft", "rounds": "05_iteration"} | dict.fromkeys(("rollouts", "curated", "evals"), STAGES[1])


class ChangedParameters(ValueError):
    """The run directory was made with other parameters."""


class Run:
    """A run directory. One that is kept for others to read, with its rows in `rows.zip`, is never written to: what is
    opened is a copy in the package's cache, its rows unpacked, where all that is made of it goes, too."""

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        if self.path(PACKED).exists():
            self.directory = _unpacked(self.directory.resolve())

    def path(self, *parts: str) -> Path:
        """A path inside the run directory: `path("evals", "x.jsonl")`."""
        return self.directory.joinpath(*parts)

    def read(self, *parts: str) -> list[Any]:
        """The rows of one of the run's files. Raises FileNotFoundError naming the notebook that makes it."""
        return list(self.rows(*parts))

    def rows(self, *parts: str) -> Rows:
        """As `read`, with the rows left on disk: for files that may be larger than memory."""
        if not (path := self.path(*parts)).exists():
            raise FileNotFoundError(f"{path} is missing: run notebook {MADE_BY.get(parts[0], STAGES[0])} first")
        return Rows(path)

    def environment(self) -> dict[str, Any]:
        """What env.json records."""
        path = self.path("env.json")
        return read_json(path) if path.exists() else {}

    def params(self) -> dict[str, dict[str, Any]]:
        """Recorded parameters by notebook (run.yaml)."""
        path = self.path("run.yaml")
        found = yaml.safe_load(path.read_bytes()) or {} if path.exists() else {}
        if not isinstance(found, dict) or not all(isinstance(own, dict) for own in found.values()):
            raise ValueError(f"{path} is no record of a run: choose another run_dir, or move that file away")
        return found


def _unpacked(kept: Path) -> Path:
    """The copy of a packed run: one for each place and content."""
    digest = hashlib.sha256(str(kept).encode() + (kept / PACKED).read_bytes()).hexdigest()[:8]
    copy = cache_dir() / "runs" / digest / kept.name
    beside = copy.with_name(f".{os.getpid()}")
    if not copy.exists():
        try:
            with room_at(copy), zipfile.ZipFile(kept / PACKED) as packed:
                packed.extractall(beside)
                inside = {name.partition("/")[0] for name in packed.namelist()}  # may lie unpacked beside it, too
                for path in kept.rglob("*"):
                    part = path.relative_to(kept)
                    if path.is_file() and part.parts[0] not in {*inside, PACKED, "before", ".lock"}:
                        (beside / part).parent.mkdir(parents=True, exist_ok=True)
                        shutil.copyfile(path, beside / part)  # not its mode, which may be read-only
            with contextlib.suppress(OSError):  # another process was quicker
                beside.rename(copy)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    return copy


def record_environment(run: Run, found: dict[str, dict[str, str] | None]) -> None:
    """Write env.json: `environment()` and the fingerprints `found` of data and model."""
    known = run.environment()
    env = environment() | {"data": found["data"], "model": found["model"] or known.get("model")}
    env |= {"generation": known["generation"]} if "generation" in known else {}
    if env != known:
        write_json(run.path("env.json"), env)


def environment() -> dict[str, Any]:
    """Versions and hardware of this process. The GPU is named only if torch is imported already."""
    torch = sys.modules.get("torch")
    return {
        "versions": {"python": platform.python_version()} | {name: v for name in PACKAGES if (v := version(name))},
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "gpu": torch.cuda.get_device_name(0) if torch and torch.cuda.is_available() else None,
        "commit": _commit(),
    }


def fingerprints(run: Run) -> dict[str, str]:
    """sha256 (16 digits) of the run's data files."""
    files = sorted(run.path("data").glob("*.jsonl"))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in files}


def version(package: str) -> str | None:
    """The installed version of a package, or None."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return None


def _commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--verify", "--quiet", "HEAD"]
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        return subprocess.run(command, capture_output=True, text=True, timeout=10).stdout.strip() or None
    return None
