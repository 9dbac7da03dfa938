"""`reflectevo run`: the ordered notebooks through papermill, each with its own parameters, into one run directory.

A finished notebook is skipped; an interrupted one is executed again and finds its finished work on disk. The executed
copies lie in `<run_dir>/notebooks/`.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import json
import shutil
import time
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from .. import store

PRODUCTS = {  # what a stage writes, as patterns: --force moves it out of the way
    "01_data": ["data", "figures/task_mix.png"],
    "02_reflection_generation": [
        "rollouts",
        "curated",
        "judges",
        "evals/turn1.*",
        "evals/prompted.*",
        "evals/one_stage_prompted.*",
        "figures/instructions.png",
    ],
    "03_sft": [
        *(f"adapters/{name}*" for name in ("reflector", "corrector", "one_stage", "unfiltered", "qa")),
        *(f"evals/{name}.*" for name in ("reflector_only", "two_stage", "one_stage", "unfiltered", "qa")),
        "figures/training_sft.png",
    ],
    "04_dpo": [
        *(f"{folder}/{name}" for folder in ("adapters", "evals") for name in ("dpo_*", "sft_dpo*", "grpo*")),
        *(f"figures/training_{name}.png" for name in ("dpo", "grpo")),
    ],
    "05_iteration": [
        "rounds",
        *(f"adapters/{name}_*" for name in ("round", "task", "gain")),
        *(f"evals/{name}" for name in ("round_*", "gain_*", "*.resample*", "transfer", "swap")),
        *(f"figures/{name}.png" for name in ("rounds", "turns", "collapse", "transfer", "swap", "gain")),
    ],
    "06_analysis": [
        "metrics.json",
        "report.html",
        "rows.zip",
        *(f"figures/{name}.png" for name in ("accuracy", "localisation", "error_classes", "flips")),
        *(f"figures/{name}.png" for name in ("taxonomy", "reflection_style", "tokens_accuracy")),
    ],
}


class UserError(Exception):
    """Something the user can mend; the command line shows its one line and exits with 2."""


class Failure(Exception):
    """A notebook's cell failed; the command line shows where and exits with 1."""


class Plan(NamedTuple):
    """A run as asked for: its directory, and for each notebook its path and the parameters it takes."""

    run_dir: Path
    notebooks: dict[str, Path]
    params: dict[str, dict[str, Any]]  # by stage: all parameters of the notebook, defaults filled in


def load_params(path: str | Path, overrides: dict[str, Any] | None = None) -> dict[str, Any]:
    """A params file as one flat mapping, with command-line overrides on top. Raises UserError."""
    path = Path(path)
    if not path.exists():
        known = sorted(str(p) for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        raise UserError(f"{path} does not exist" + (f"; there are {', '.join(known)}" if known else ""))
    try:
        params = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(params, dict):
        raise UserError(f"{path} must be a mapping of parameter names to values, not a {type(params).__name__}")
    params.setdefault("run_dir", f"artifacts/{path.stem}")
    return params | (overrides or {})


def make_plan(params: dict[str, Any], notebooks: str | Path | None = None) -> Plan:
    """Check parameters against the notebooks' own and give each notebook its part.

    Raises UserError for a name that no notebook declares (with the nearest one) and for a value of another type.
    """
    folder = find_notebooks(notebooks)
    paths = {stage: folder / f"{stage}.ipynb" for stage in store.STAGES}
    declared = {stage: declared_parameters(path) for stage, path in paths.items()}
    known = {name: value for values in declared.values() for name, value in values.items()}
    for name, value in params.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, 1, 0.5)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(known))}"
            raise UserError(f"no notebook has a parameter {name!r}: {hint}")
        _check_type(name, value, known[name])
    by_stage = {
        stage: {n: params.get(n, default) for n, default in values.items()} for stage, values in declared.items()
    }
    return Plan(store.resolve_dir(str(params["run_dir"])), paths, by_stage)


def _check_type(name: str, value: Any, default: Any) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    fits = value is None or default is None or type(value) is type(default) or (number and isinstance(default, float))
    fits = fits or (default == "all" and isinstance(value, list))  # "all" of a collection, or some
    if not fits:
        raise UserError(f"parameter {name} = {value!r} should be a {type(default).__name__} like {default!r}")


def declared_parameters(notebook: str | Path) -> dict[str, Any]:
    """The names and defaults in a notebook's parameters cell. Raises UserError where the cell is missing."""
    cells = json.loads(Path(notebook).read_text())["cells"]
    sources = ["".join(c["source"]) for c in cells if "parameters" in c.get("metadata", {}).get("tags", [])]
    if not sources:
        raise UserError(f"{notebook} has no cell tagged 'parameters'")
    assigned = [node for node in ast.parse(sources[0]).body if isinstance(node, ast.Assign)]
    return {node.targets[0].id: ast.literal_eval(node.value) for node in assigned}


def find_notebooks(folder: str | Path | None = None) -> Path:
    """The folder of the ordered notebooks: the one given, ./notebooks, or the one beside the package."""
    tried = [Path(folder)] if folder else [Path.cwd() / "notebooks", Path(__file__).parents[2] / "notebooks"]
    for path in tried:
        if (path / f"{store.STAGES[0]}.ipynb").exists():
            return path
    raise UserError(
        f"no notebooks in {' or '.join(map(str, tried))}: run from the repository, or pass --notebooks FOLDER"
    )


def choose(only: str | None) -> list[str]:
    """Stages named by `--only 02,03` (numbers or names). Raises UserError."""
    if not only:
        return list(store.STAGES)
    chosen = []
    for word in only.split(","):
        found = [
            stage for stage in store.STAGES if stage == word.strip() or stage.split("_")[0] == word.strip().zfill(2)
        ]
        if not found:
            raise UserError(f"no notebook {word.strip()!r}; there are {', '.join(store.STAGES)}")
        chosen += found
    return [stage for stage in store.STAGES if stage in chosen]


def run_plan(plan: Plan, *, only: str | None = None, force: bool = False, say: Any = print) -> dict[str, float]:
    """Execute the plan and return seconds by stage (0 for skipped ones).

    Raises UserError where the directory was made with other parameters, and Failure where a cell fails.
    """
    stages = choose(only)
    with lock(plan.run_dir):
        if force:
            moved = set_aside(plan.run_dir, stages)
            say(f"{len(moved)} earlier results set aside in {plan.run_dir / 'before'}")
        _check_recorded(plan, stages)
        seconds = {}
        for i, stage in enumerate(stages, 1):
            head = f"[{i}/{len(stages)}] {stage}"
            if store.stage_finished(plan.run_dir, stage):
                say(f"{head}: finished before")
                seconds[stage] = 0.0
                continue
            started = time.time()
            execute(plan, stage, head)
            seconds[stage] = time.time() - started
            say(f"{head}: {seconds[stage]:.0f} s")
    return seconds


def _check_recorded(plan: Plan, stages: list[str]) -> None:
    recorded = store.Run(plan.run_dir).params()
    for stage in stages:
        params = {k: v for k, v in plan.params[stage].items() if k != "run_dir"}
        try:
            store.check_parameters(plan.run_dir, recorded, stage, params)
        except store.ChangedParameters as error:
            raise UserError(str(error)) from error


def execute(plan: Plan, stage: str, head: str) -> None:
    """Execute one notebook through papermill, with a progress bar over its cells. Raises Failure."""
    import papermill
    from papermill.exceptions import PapermillExecutionError

    out = store.executed_copy(plan.run_dir, stage)
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        papermill.execute_notebook(
            str(plan.notebooks[stage]),
            str(out),
            parameters=plan.params[stage] | {"run_dir": str(plan.run_dir)},
            kernel_name="python3",
            cwd=str(store.project_root()),
            progress_bar={"desc": head, "leave": False},
            log_output=False,
            # a local kernel need not warn of unencrypted TCP, nor show how it ends when it is interrupted
            extra_arguments=["--IPKernelApp.log_level=50"],
        )
    except PapermillExecutionError as error:
        raise Failure(
            f"{stage}, cell {error.cell_index}: {error.ename}: {error.evalue}\n(the whole trace is in {out})"
        ) from error
    if not store.stage_finished(plan.run_dir, stage):  # a kernel that exits leaves no exception behind
        raise Failure(f"{stage}: the kernel stopped before the last cell (see {out})")


def set_aside(run_dir: Path, stages: list[str]) -> list[Path]:
    """Move what the first of `stages` and all later ones made into `<run_dir>/before/<time>/`; nothing is deleted."""
    later = store.STAGES[store.STAGES.index(stages[0]) :]
    target = run_dir / "before" / time.strftime("%Y%m%d-%H%M%S")
    moved = []
    for stage in later:
        found = [p for pattern in (f"notebooks/{stage}.*", *PRODUCTS[stage]) for p in run_dir.glob(pattern)]
        for path in (p for p in found if p.exists()):
            to = target / path.relative_to(run_dir)
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(path, to)
            moved.append(path)
    recorded = store.Run(run_dir).params()
    if moved or recorded:
        store.write_text(
            run_dir / "run.yaml", yaml.safe_dump({k: v for k, v in recorded.items() if k not in later}, sort_keys=True)
        )
    return moved


@contextlib.contextmanager
def lock(run_dir: Path) -> Any:
    """Keep a second process out of a run directory; see `store.locked`. Raises UserError, naming the one that is there."""
    run_dir.mkdir(parents=True, exist_ok=True)
    with open(run_dir / ".lock", "a+") as handle:
        try:
            with store.locked(handle, run_dir):
                yield
        except store.InUse as error:
            raise UserError(str(error)) from None
