"""The command `reflectevo`; `reflectevo COMMAND --help` lists its options."""

from __future__ import annotations

import argparse
import errno
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import __version__, store
from ..generate import GIB
from . import params, pipeline, preflight, servers
from . import plan as planner
from .memory import CARDS, card


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status: 0 done, 1 a stage failed, 2 something to mend, 130 interrupted."""
    args = _parser().parse_args(argv)
    for stream in (sys.stdout, sys.stderr):  # a Windows console does not know every sign
        getattr(stream, "reconfigure", dict)(errors="replace")
    try:
        return args.command(args) or 0
    except pipeline.Failure as error:
        said, status = str(error), 1
    except (pipeline.UserError, ValueError, FileNotFoundError, store.InUse) as error:
        said, status = str(error), 2
    except BrokenPipeError:  # `| head`: what is left to print is wanted no more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if isinstance(error, PermissionError) or error.errno == errno.EROFS:
            said = f"{error.filename or 'a file'} cannot be read or written ({error.strerror}): choose another place"
        elif error.errno in store.FULL or isinstance(error, store.NoRoom):
            said = f"{error.filename}: no room to write. {store.GOES_ON}" if error.filename else str(error)
        elif error.filename:
            said = f"{error.filename}: {error.strerror}"
        else:
            raise
        status = 2
    except KeyboardInterrupt:
        said, status = "interrupted; the same command goes on from here", 130
        print(file=sys.stderr)
    print(f"reflectevo: {said}", file=sys.stderr)
    return status


def _parser() -> argparse.ArgumentParser:
    about = "Small language models learn to reflect (arXiv 2505.16475)."
    parser = argparse.ArgumentParser(prog="reflectevo", description=about)
    parser.set_defaults(command=lambda args: parser.print_help())
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(metavar="COMMAND")

    def command(name: str, function: Any, help: str) -> Any:
        sub = commands.add_parser(name, help=help)
        sub.set_defaults(command=function)
        return sub.add_argument

    run = command("run", _run, "the notebooks in order, through papermill")
    plan = command("plan", _plan, "what a run would do; nothing is loaded")
    check = command("check", _check, "what a run would understand of your own data; nothing is generated")
    check("params", metavar="SOURCE", help="a file or folder of questions, hub:OWNER/NAME, or a params file")
    calibrate = command("calibrate", _calibrate, "how the model does on each source: what to put into a run")
    calibrate("-n", type=int, default=30, help="questions of each source (default 30)")
    for add in (run, plan, calibrate):
        add("params", help="a file such as params/tiny_cpu.yaml")
        add("--notebooks", help="folder of the notebooks (default: ./notebooks)")
        add("--with", dest="beyond", metavar="NAMES", help=f"also notebooks/beyond/: {','.join(pipeline.BEYOND)}")
    for add in (run, plan, calibrate, check):
        pair = {"nargs": 2, "action": "append", "default": [], "metavar": ("NAME", "VALUE")}
        add("-p", dest="overrides", help="override a parameter", **pair)
    run("--only", help="some notebooks, e.g. 02,03")
    run("--force", action="store_true", help="redo the chosen notebooks and all after them")
    plan("--gpu", help="plan for this card, e.g. T4, L4, A100 80GB, H100 (default: the one that is here)")
    plan("--gpu-memory", type=float, metavar="GIB", help="plan for this much GPU memory")
    plan("--wrong", type=float, default=0.5, help="assumed share of wrong first answers (default 0.5)")
    plan("--corrected", type=float, default=0.25, help="assumed share of them corrected (default 0.25)")
    report = command("report", _report, "one HTML file about a run, readable offline")
    report("run_dir")
    report("--out", metavar="FILE", help="write it here (default: report.html in the run)")
    compare = command("compare", _compare, "the paired difference of two runs on the same questions")
    compare("run_a")
    compare("run_b")
    compare("--setting", help="one setting, e.g. reflector_only (default: all that both have)")
    export = command("export", _export, "a trained adapter, merged model or GGUF file with its model card")
    export("run_dir")
    export("--setting", default="reflector", help="a trained setting or adapter of the run (default: reflector)")
    export("--merged", action="store_true", help="also the base model with the adapter merged")
    gguf = {"nargs": "?", "const": "q8_0", "metavar": "PRECISION"}
    export("--gguf", help="also a GGUF file: q8_0 (default), f16, q4_k_m, …", **gguf)
    export("--push", metavar="OWNER/NAME", help="upload to this (private) Hub repository")
    sources = command("sources", _sources, "published sources: rows kept, and why others are dropped")
    sources("names", nargs="+", metavar="SOURCE", help="e.g. logiqa bigbench:snarks")
    sources("--data-dir", help="a folder with local copies")
    command("doctor", _doctor, "what this machine can do")
    bench = command("bench", _bench, "the performance table: about 3 minutes on two cores")
    bench("--gpu", action="store_true", help="generation and training at real models' shapes, too")
    bench("--out", default="artifacts/bench", help="folder for the results")
    bench("--rounds", type=int, default=5, help="repeats of each comparison (default 5)")
    bench("--size", type=int, default=256, help="problems rolled out at a time (default 256)")
    bench("--seconds", type=float, default=1800, help="with --gpu: at most so many (default 1800)")
    return parser


def _asked(args: argparse.Namespace) -> pipeline.Plan:
    plan = pipeline.make_plan(pipeline.load_params(args.params, _overrides(args)), args.notebooks)
    if not store.stage_finished(plan.run_dir, params.DATA):
        _show_data(plan.values)
    return plan


def _overrides(args: argparse.Namespace) -> dict[str, Any]:
    names = [name for name, _ in args.overrides]
    if twice := [name for name in names if names.count(name) > 1]:
        raise pipeline.UserError(f"-p {twice[0]} is there twice")
    return {name: pipeline.read_yaml(value, f"-p {name}") for name, value in args.overrides}


def _check(args: argparse.Namespace) -> None:
    named = {"sources": [args.params]}
    if args.params.endswith((".yaml", ".yml")):
        named = pipeline.load_params(args.params)
    from .. import data

    asked = params.defaults() | {"n_train": 0, "n_test": 0, "model": None} | params.checked(named | _overrides(args))
    data.check_names(asked["sources"])
    if not _show_data(asked):
        print("No source of your own: nothing to check.")


def _show_data(values: dict[str, Any]) -> str:
    from .. import data

    said, fine = data.check(values)
    print(said, end="\n" if said else "")
    if not fine:
        raise pipeline.UserError("these data cannot be used: mend the faulty rows, or map other columns")
    return said


def _run(args: argparse.Namespace) -> None:
    from .. import evaluate, read

    plan = _asked(args)
    pipeline.choose(args.only, args.beyond)
    # only with a card torch, which takes seconds to import
    if shutil.which("nvidia-smi") and (warning := _too_big(plan.values)):
        print(f"reflectevo: {warning}", file=sys.stderr)
    seconds = pipeline.run_plan(plan, only=args.only, beyond=args.beyond, force=args.force)
    run = store.Run(plan.run_dir)
    if run.path("metrics.json").exists():
        metrics = read.load_metrics(run)
        table = read.results(metrics)[["setting", "Acc@t1", "Acc@t2", "Δ", "Δ low", "Δ high", "n"]]
        print("\n" + table.to_string(index=False, float_format="{:.1f}".format))
        shares = metrics.get("reading", [])
        print("", *([evaluate.reading_summary(shares)] * bool(shares)), *read.warnings(run, metrics), sep="\n")
    if missing := evaluate.left_out(run):
        print(f"\nLeft out, nothing to train on: {', '.join(missing)}")
    print(f"\n{sum(seconds.values()):.0f} s. Executed notebooks: {run.path('notebooks')}")
    if run.path("report.html").exists():
        print(f"Report: {run.path('report.html')}")


def _plan(args: argparse.Namespace) -> int:
    plan = _asked(args)
    stages = pipeline.choose(beyond=args.beyond)
    fault = None
    try:
        absent = preflight.check(plan.values, stages, plan.run_dir)
    except ValueError as error:  # a plan may be made before the server is up, and for another machine
        fault = error
        absent = servers.without_weights(plan.values, stages)
    stages = [stage for stage in stages if stage not in absent]
    for stage in stages:
        print(f"{stage}  ({'finished' if store.stage_finished(plan.run_dir, stage) else 'to do'})")
        own = {name: value for name, value in plan.params[stage].items() if name != "run_dir"}
        print("".join(f"    {name} = {value!r}\n" for name, value in own.items()), end="")
    print(f"into {plan.run_dir}\n")
    if not (0 <= args.wrong <= 1 and 0 <= args.corrected <= 1):
        raise pipeline.UserError("--wrong and --corrected are shares, from 0 to 1")
    facts = planner.Assumed(wrong=args.wrong, corrected=args.corrected)
    if absent:  # nothing is loaded here
        parts = planner.count(plan.values, stages, facts)
        print("".join(f"{p.what:40s}{p.prompts:10,} prompts, about {p.tokens:,} tokens\n" for p in parts))
        return _warned(fault)
    found = planner.estimate(plan.values, stages, memory=args.gpu_memory, device=_card(args), facts=facts)
    print(planner.report(found))
    return 2 if found.fits is False else _warned(fault)


def _warned(fault: Exception | None) -> int:
    if fault:
        print(f"reflectevo: a run would stop here: {fault}", file=sys.stderr)
    return 0


def _calibrate(args: argparse.Namespace) -> None:
    from .calibrate import calibrate

    for line in calibrate(_asked(args).values, args.n):
        print(line, flush=True)


def _too_big(values: dict[str, Any]) -> str | None:
    """The plan's verdict if a run may not fit this machine's card. It is an upper bound, so the run goes on."""
    try:
        found = planner.estimate(values, device=_card_here())
    except ValueError:  # a model of unknown size
        return None
    return planner.verdict(found) if found.fits is False else None


def _card(args: argparse.Namespace) -> Any:
    """The card to plan for: the one named, or the one in this machine, or none."""
    if not args.gpu:
        return None if args.gpu_memory else _card_here()
    if (found := card(args.gpu)) is None:
        raise pipeline.UserError(f"unknown card {args.gpu!r}: there are {', '.join(CARDS)}, or --gpu-memory")
    return found


def _card_here() -> Any:
    import torch

    if not torch.cuda.is_available():
        return None
    there = torch.cuda.get_device_properties(0)
    known = card(there.name) or CARDS["T4"]  # an unknown card: slow, so that no time is promised
    return known._replace(memory=there.total_memory / GIB)


def _report(args: argparse.Namespace) -> None:
    from .. import read

    print(read.build_report(args.run_dir, out=args.out))


def _compare(args: argparse.Namespace) -> None:
    from .. import read

    table = read.compare_runs(store.Run(args.run_a), store.Run(args.run_b), args.setting)
    print(f"Acc@t2 in percent, A = {args.run_a}, B = {args.run_b}; difference A − B in points, 95 % paired bootstrap")
    forms = dict.fromkeys(("p (McNemar)", "p (Holm)"), "{:.2g}".format)
    print(table.to_string(index=False, float_format="{:.1f}".format, formatters=forms))


def _export(args: argparse.Namespace) -> None:
    from .. import evaluate, train

    one = evaluate.SETTINGS.get(args.setting)  # a setting's name stands for the adapter that it is known for
    name = str(one.reflector or one.answers or one.corrector or args.setting) if one else args.setting
    found = train.export(args.run_dir, name, merged=args.merged, gguf=args.gguf, push=args.push)
    for form, path in found.paths.items():
        print(f"{form:8s}{path}")
    if found.pushed:
        print(f"pushed  {found.pushed}")


def _sources(args: argparse.Namespace) -> None:
    from .. import data

    print(f"{'source':60s}{'rows':>10s}{'kept':>10s}{'options':>10s}  dropped")
    for name in args.names:
        found = data.describe(name, args.data_dir)
        sizes, why = "–".join(map(str, found["options"])), ", ".join(f"{n:,} {r}" for r, n in found["dropped"].items())
        print(f"{name:60s}{found['rows']:10,}{found['kept']:10,}{sizes:>10s}  {why}", flush=True)


def _doctor(args: argparse.Namespace) -> None:
    from . import doctor

    print("\n".join(f"{name:18s}{value}" for name, value in doctor.examine().items()))


def _bench(args: argparse.Namespace) -> None:
    places = (store.project_root(), Path(__file__).parents[2])
    if not (found := [place / "tests" for place in places if (place / "tests" / "bench").is_dir()]):
        raise pipeline.UserError("the bench is in tests/bench of the repository: call it in a clone")
    sys.path.insert(0, str(found[0]))
    import bench

    if args.rounds < 1 or args.size < 8:
        raise pipeline.UserError("bench needs --rounds of 1 or more and --size of 8 or more")
    print(bench.run(args.out, gpu=args.gpu, rounds=args.rounds, size=args.size, seconds=args.seconds))
    print(f"Stored in {args.out}")


if __name__ == "__main__":
    sys.exit(main())
