"""What a run was made with: versions, hardware, commit, and the fingerprints of its data and model."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from .directory import Run
from .files import write_json

PACKAGES = ("reflectevo_lite", "torch", "transformers", "trl", "peft", "accelerate", "datasets", "papermill", "unsloth")


def record_environment(run: Run, found: dict[str, dict[str, str] | None]) -> None:
    """Write env.json: versions, hardware, git commit, and the fingerprints `found` of data and model."""
    known = run.environment()
    env = environment() | {"data": found["data"], "model": found["model"] or known.get("model")}
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
    found = {}
    for path in sorted(run.path("data").glob("*.jsonl")):
        with open(path, "rb") as handle:
            found[path.name] = hashlib.file_digest(handle, "sha256").hexdigest()[:16]
    return found


def version(package: str) -> str | None:
    """The installed version of a package, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found if re.fullmatch(r"[0-9a-f]{40}", found) else None
