"""`reflectevo run`: the ordered notebooks through papermill, each with its own parameters, into one run directory.

A finished notebook is skipped; an interrupted one is executed again and finds its finished work on disk.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from .. import generate, store
from . import preflight
from .params import ANALYSIS, BEYOND, DATA, checked, defaults
from .products import ORDER, set_aside
from .record import check_recorded


class UserError(Exception):
    """Something that the user can mend; the command line shows its one line and exits with 2."""


class Failure(Exception):
    """A notebook's cell failed; the command line shows where and exits with 1."""


class Plan(NamedTuple):
    """A run as asked for: its directory, and for each notebook its path and all of its parameters."""

    run_dir: Path
    notebooks: dict[str, Path]
    params: dict[str, dict[str, Any]]

    @property
    def values(self) -> dict[str, Any]:
        """Every parameter of the run as one mapping."""
        return {name: value for own in self.params.values() for name, value in own.items()}


def load_params(path: str | Path, overrides: dict[str, Any] | None = None) -> dict[str, Any]:
    """A params file as one flat mapping, with command-line overrides on top. Raises UserError."""
    path = Path(path)
    if not os.path.isfile(path):
        known = sorted(str(p) for p in (path if os.path.isdir(path) else path.parent).glob("*.yaml"))
        what = f"{path} is {'a folder, not a' if os.path.isdir(path) else 'no'} params file"
        raise UserError(what + (f"; there are {', '.join(known)}" if known else ""))
    try:
        params = read_yaml(path.read_bytes().decode("utf-8-sig"), str(path))
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start}): save it as UTF-8") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    if not isinstance(params, dict):
        what = f"is a {type(params).__name__.replace('str', 'text')}" if params is not None else "is empty"
        raise UserError(f"{path} {what}: a params file maps names to values, a line each, such as k: 6")
    return {"run_dir": f"artifacts/{path.stem}"} | params | (overrides or {})


class _Loader(yaml.SafeLoader):
    """YAML without its traps: no key twice, no 010 that means 8, no 1:30 that means 90."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        for i, (key, _) in enumerate(node.value):
            if any(key.value == other.value for other, _ in node.value[:i]):
                raise yaml.MarkedYAMLError(problem=f"{key.value} is there twice", problem_mark=key.start_mark)
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        number, text = super().construct_yaml_int(node), str(node.value)
        if re.match(r"[-+]?0[0-7_]|.*:", text):
            said = f"YAML reads {text} as {number}: write {number}, or {text} without its {':' if ':' in text else '0'}"
            raise yaml.MarkedYAMLError(problem=said, problem_mark=node.start_mark)
        return number


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def read_yaml(text: str, place: str) -> Any:
    """A YAML text as a value. Raises UserError, in one line that names the place, for one that is not clear."""
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark, said = (getattr(error, name, None) for name in ("problem_mark", "context"))
        problem = ", ".join(filter(None, (said, getattr(error, "problem", None)))) or str(error)
        problem = "nested too deeply" if isinstance(error, RecursionError) else problem
        place += f", line {mark.line + 1}" if mark else ""
        remedy = "; indent with spaces, never with tabs" if "\\t" in problem else ""
        remedy = '; put what holds ? or : into quotes, "…"' if "'?'" in problem else remedy
        raise UserError(f"{place}: {' '.join(problem.split())}{remedy}") from error


def make_plan(params: dict[str, Any], notebooks: str | Path | None = None) -> Plan:
    """Check parameters against the table and give each notebook its part. Raises BadParameter, BadRunDir, UserError."""
    values = defaults() | checked({str(name): value for name, value in params.items()})
    generate.check_answer_by(values["answer_by"], values["server_url"])
    run_dir, folder = store.run_dir(values["run_dir"]), find_notebooks(notebooks)
    paths = {stage: folder / ("beyond" if stage in BEYOND else "") / f"{stage}.ipynb" for stage in ORDER}
    by_stage = {stage: {name: values[name] for name in defaults(stage)} for stage in ORDER}
    return Plan(run_dir, paths, by_stage)


def find_notebooks(folder: str | Path | None = None) -> Path:
    """The folder of the ordered notebooks: the one given, ./notebooks, or the one beside the package."""
    tried = [Path(folder)] if folder else [Path.cwd() / "notebooks", Path(__file__).parents[2] / "notebooks"]
    for path in tried:
        if (path / f"{DATA}.ipynb").exists():
            return path
    remedy = "the package comes without them: get the repository, and run there or pass --notebooks FOLDER"
    raise UserError(f"no notebooks in {' or '.join(map(str, tried))}: {remedy}")


def choose(only: str | None = None, beyond: str | None = None) -> list[str]:
    """The stages of `--only 02,03` (numbers or names; default: 01 to 06) and `--with grpo,gain`, in order. Raises UserError."""
    chosen = set(store.STAGES if only is None else [_stage(word, ORDER) for word in only.split(",")])
    chosen |= {_stage(word, BEYOND) for word in (beyond or "").split(",") if word.strip()}
    return [stage for stage in ORDER if stage in chosen]


def _stage(word: str, known: tuple[str, ...]) -> str:
    word = word.strip()
    for stage in known:
        if word == stage or stage.startswith(f"{word.zfill(2)}_"):
            return stage
    raise UserError(f"no notebook {word!r}; there are {', '.join(known)}")


def run_plan(
    plan: Plan, *, only: str | None = None, beyond: str | None = None, force: bool = False, say: Any = print
) -> dict[str, float]:
    """Execute the plan and return seconds by stage (0 for skipped ones). Raises ChangedParameters, InUse and Failure,
    and what `preflight.check` raises."""
    stages, seconds = choose(only, beyond), dict[str, float]()
    if not (force and DATA in stages):  # a run that is kept for readers goes on in its copy
        plan = plan._replace(run_dir=store.Run(plan.run_dir).directory)
    to_do = [stage for stage in stages if force or not store.stage_finished(plan.run_dir, stage)]
    absent = preflight.check(plan.values, to_do, plan.run_dir, say)
    if not (stages := [stage for stage in stages if stage not in absent]):
        raise UserError("nothing is left to run: where only a server has the weights, run --only 01,02,06")
    with _locked(plan.run_dir):
        if force:
            moved = set_aside(plan.run_dir, stages)
            say(f"{len(moved)} earlier results set aside in {plan.run_dir / 'before'}")
        run = store.Run(plan.run_dir)
        for stage in stages:
            check_recorded(run, run.params(), stage, plan.params[stage])
        for i, stage in enumerate(stages, 1):
            head, anew = f"[{i}/{len(stages)}] {stage}", stage == ANALYSIS and any(seconds.values())
            started, seconds[stage] = time.time(), 0.0
            if store.stage_finished(plan.run_dir, stage) and not anew:
                say(f"{head}: finished before")
                continue
            execute(plan, stage, head)
            seconds[stage] = time.time() - started
            say(f"{head}: {seconds[stage]:.0f} s")
    return seconds


def execute(plan: Plan, stage: str, head: str) -> None:
    """Execute one notebook through papermill, with a progress bar over its cells. Raises Failure."""
    import papermill
    from papermill.exceptions import PapermillExecutionError

    out = store.executed_copy(plan.run_dir, stage)
    out.parent.mkdir(parents=True, exist_ok=True)
    how = {"kernel_name": "python3", "cwd": str(store.project_root()), "progress_bar": {"desc": head, "leave": False}}
    how["parameters"] = plan.params[stage] | {"run_dir": str(plan.run_dir)}
    # a local kernel need not warn of unencrypted TCP, nor show how it ends when it is interrupted
    how["extra_arguments"] = ["--IPKernelApp.log_level=50"]
    try:
        papermill.execute_notebook(str(plan.notebooks[stage]), str(out), **how)
    except PapermillExecutionError as error:
        said = f"{stage}, cell {error.cell_index}: {error.ename}: {error.evalue}"
        raise Failure(f"{said}\n(the whole trace is in {out})") from error
    if not store.stage_finished(plan.run_dir, stage):  # a kernel that exits leaves no exception behind
        raise Failure(f"{stage}: the kernel stopped before the last cell (see {out})")
    _relink(plan.notebooks[stage].parent, out)


def _relink(home: Path, out: Path) -> None:
    """Links of a notebook in `home` lead to the same places from its executed copy, and to the copies of other stages."""

    def moved(found: re.Match[str]) -> str:
        copied = Path(found[1]).stem in store.STAGES and "solutions" not in found[1]
        return f"]({Path(found[1]).name if copied else Path(os.path.relpath(home / found[1], out.parent)).as_posix()})"

    text = out.read_text(encoding="utf-8")
    store.write_text(out, re.sub(r"\]\(((?:[\w.]+/)*\w+\.(?:ipynb|md))\)", moved, text))


@contextlib.contextmanager
def _locked(run_dir: Path) -> Iterator[None]:
    run_dir.mkdir(parents=True, exist_ok=True)
    main = threading.current_thread() is threading.main_thread()  # elsewhere no signal can be caught
    before = signal.signal(signal.SIGTERM, signal.default_int_handler) if main else None  # like Ctrl-C: the kernel, too
    try:
        with open(run_dir / ".lock", "a+", encoding="utf-8") as handle, store.locked(handle, run_dir):
            yield
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)
