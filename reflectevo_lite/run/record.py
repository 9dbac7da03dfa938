"""A notebook opens its run here: its parameters are checked, compared with the run's record, and written down."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import yaml

from .. import generate, store
from ..store import Run
from .params import ANALYSIS, DATA, ROLLOUTS, SFT, TABLE, checked, defaults
from .products import made
from .servers import with_judge

REFERENCE = "artifacts/reference/tiny_cpu"
NOT_COMPARED = frozenset({"run_dir", "other_seeds"})  # where the run lies, what is read beside it
SENT = ("extra_body", "top_p", "stop", "max_tokens")  # what of a server's options may change the rows


class Params(SimpleNamespace):
    """A run's parameters as attributes: a notebook's own, and those that earlier notebooks have recorded."""

    def __getattr__(self, name: str) -> Any:
        if name in TABLE:
            raise AttributeError(f"{name} is a parameter of notebook {TABLE[name].notebooks[0]}: run that one first")
        raise AttributeError(name)


def open_run(notebook: str, given: Mapping[str, Any]) -> tuple[Run, Params]:
    """The run that a notebook belongs to, and its parameters; `given` holds the notebook's own (its `globals()`).
    Raises BadParameter for a value that is not possible, BadRunDir for a place that cannot hold a run, and
    ChangedParameters, naming each, if the run was made with other values, data or model files."""
    from .. import data

    own = {name: given.get(name, default) for name, default in defaults(notebook).items()}
    for name in ("sources", "test_sources"):  # a DataFrame becomes a file
        own |= {name: [*map(data.source_name, own[name])]} if isinstance(own.get(name), list) else {}
    own, asked = checked(own), store.run_dir(own["run_dir"])
    run = Run(asked)
    recorded = run.params()
    if run.directory != asked:  # a run that is kept: what it was made with, unless something else is asked for
        print(f"{asked} is kept as it is: all that is made of it goes to {run.directory}")
        told = {name for name, value in defaults(notebook).items() if own[name] != value}
        own |= {name: value for name, value in recorded.get(notebook, {}).items() if name not in told}
    _check_earlier(run, recorded, notebook)
    check_recorded(run, recorded, notebook, own)
    values = {k: v for stage, others in recorded.items() for k, v in (defaults(stage) | others).items()} | own
    model = values.get("model")
    files = [values["model"], *filter(None, [values.get("chat_template")])] if model else []
    found = {"data": store.fingerprints(run), "model": {f: generate.fingerprint(f) for f in files} or None}
    _check_inputs(run, recorded, found)
    kept = {name: value for name, value in own.items() if name != "run_dir"}
    if recorded.get(notebook) != kept:
        text = yaml.safe_dump(recorded | {notebook: kept}, sort_keys=True, allow_unicode=True)
        store.write_text(run.path("run.yaml"), text)
    store.record_environment(run, found)
    return run, Params(**with_judge(values))


def open_engine(run: Run, p: Params, **server: Any) -> Any:
    """The engine of a run (see `generate.open_engine`); env.json then says how it computes."""
    engine = generate.open_engine(p.model, p, **server)
    known, used = run.environment(), {"dtype": getattr(engine, "dtype", None), "backend": engine.backend}
    if known.get("generation") != used:
        store.write_json(run.path("env.json"), known | {"generation": used})
    return engine


def check_recorded(run: Run, recorded: Mapping[str, Any], notebook: str, own: Mapping[str, Any]) -> None:
    """Raise ChangedParameters if a notebook's parameters differ from those that it ran with in this directory."""
    before = defaults(notebook) | recorded.get(notebook, own)
    changed = [n for n in own if n not in NOT_COMPARED and _matters(n, before[n]) != _matters(n, own[n])]
    if changed and (files := made(run.directory, notebook)):  # what was never used holds nothing fast
        said = "; ".join(f"{name} was {before[name]!r}, is {own[name]!r}" for name in changed)
        hang = ", ".join(files[:3]) + " …" * (len(files) > 3)
        raise _changed(run, f"parameters ({said}), which {hang} hang on. Choose", notebook)


def _matters(name: str, value: Any) -> Any:
    """What of a value may change the rows; a server may have moved, and may be asked less at a time."""
    options = {key: (value or {}).get(key) for key in SENT} if name.endswith("_options") else None
    return bool(value) if name in ("server_url", "judge_url") else options or value


def _check_earlier(run: Run, recorded: Mapping[str, Any], notebook: str) -> None:
    """Raise FileNotFoundError, in a line, for a notebook that is opened before those that it builds on."""
    needed = store.STAGES[: {DATA: 0, ROLLOUTS: 1, SFT: 2, ANALYSIS: 2}.get(notebook, 3)]
    if lacking := [stage for stage in needed if stage not in recorded and not made(run.directory, stage)]:
        remedy = f"first, with the same run_dir (`reflectevo run` does), or open the finished run_dir = {REFERENCE!r}"
        raise FileNotFoundError(f"{run.directory} lacks what {', '.join(lacking)} writes: run that {remedy}")


def _check_inputs(run: Run, recorded: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Data and model must be those that notebooks after 01 have worked on."""
    known = run.environment() if set(recorded) - {store.STAGES[0]} else {}
    before, now = ({**(env.get("data") or {}), **(env.get("model") or {})} for env in (known, found))
    changed = sorted(name for name, digest in now.items() if before.get(name, digest) != digest)
    if changed:
        raise _changed(run, f"contents of {', '.join(changed)}. Put them back, choose", ROLLOUTS)


def _changed(run: Run, what: str, notebook: str) -> store.ChangedParameters:
    later = [stage[:2] for stage in store.STAGES if stage >= notebook] if notebook in store.STAGES else [notebook]
    remedy = f"another run_dir, or redo it: `reflectevo run PARAMS.yaml --only {','.join(later)} --force`."
    return store.ChangedParameters(f"{run.directory} was made with other {what} {remedy}")
