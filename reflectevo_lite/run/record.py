"""The record that a run keeps of itself: a notebook opens its run here, and what it was told is written down."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from .. import generate
from ..store import ChangedParameters, Run, check_parameters, fingerprints, record_environment, resolve_dir, write_text


def open_run(notebook: str, run_dir: str | Path, **params: Any) -> Run:
    """Open the run that a notebook belongs to and record its parameters in run.yaml.

    Raises ChangedParameters, naming each, where that directory was made with other values, by this notebook or by
    another one that shares the name, and where its data or model files have changed since.
    """
    run = Run(resolve_dir(run_dir))
    recorded = run.params()
    check_parameters(run.directory, recorded, notebook, params)
    model = params.get("model")
    found = {"data": fingerprints(run), "model": {model: generate.fingerprint(model)} if model else None}
    check_inputs(run, found)
    if recorded.get(notebook) != params:
        write_text(
            run.path("run.yaml"), yaml.safe_dump(recorded | {notebook: params}, sort_keys=True, allow_unicode=True)
        )
    record_environment(run, found)
    return run


def check_inputs(run: Run, found: dict[str, dict[str, str] | None]) -> None:
    """Raise ChangedParameters where the fingerprints of data and model (`found`) are not those that notebooks after 01
    have worked on."""
    if not set(run.params()) - {"01_data"}:
        return
    known = run.environment()
    before, now = ({**(env.get("data") or {}), **(env.get("model") or {})} for env in (known, found))
    changed = sorted(name for name, digest in now.items() if before.get(name, digest) != digest)
    if changed:
        raise ChangedParameters(
            f"{run.directory} was made with other contents of {', '.join(changed)}. "
            "Put them back, choose another run_dir, or redo it with `reflectevo run … --force`."
        )
