"""The command `reflectevo`: run, plan, report, compare, export, doctor, bench.

reflectevo run params/tiny_cpu.yaml [-p NAME VALUE]... [--only 02,03] [--with grpo,gain] [--force]
reflectevo plan params/tiny_cpu.yaml [--gpu T4]
reflectevo report artifacts/tiny_cpu
reflectevo compare artifacts/a artifacts/b [--setting reflector_only]
reflectevo export artifacts/tiny_cpu --setting reflector --merged [--gguf q8_0] [--push OWNER/NAME]
reflectevo doctor
reflectevo bench [--gpu] [--out artifacts/bench]
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from typing import Any

import yaml

from .. import __version__
from .pipeline import Failure, Plan, UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status: 0 done, 1 a stage failed, 2 something to mend, 130 interrupted."""
    from .. import store

    args = _parser().parse_args(argv)
    try:
        return args.command(args) or 0
    except Failure as error:
        print(f"reflectevo: {error}", file=sys.stderr)
        return 1
    except (UserError, ValueError, FileNotFoundError, store.InUse) as error:
        print(f"reflectevo: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in store.FULL and not isinstance(error, store.NoRoom):
            raise
        place = f"{error.filename}: no room to write. {store.GOES_ON}" if error.filename else str(error)
        print(f"reflectevo: {place}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nreflectevo: interrupted; the same command goes on from here", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    about = "Small language models learn to reflect (arXiv 2505.16475)."
    parser = argparse.ArgumentParser(prog="reflectevo", description=about)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, function: Any, help: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help)
        sub.set_defaults(command=function)
        return sub

    _add_running(command)
    _add_results(command)
    _add_machine(command)
    return parser


def _add_running(command: Any) -> None:
    run = command("run", _run, "the notebooks in order, through papermill")
    plan = command("plan", _plan, "what a run would do; nothing is loaded")
    for sub in (run, plan):
        add = sub.add_argument
        add("params", help="a file such as params/tiny_cpu.yaml")
        pair = {"nargs": 2, "action": "append", "default": [], "metavar": ("NAME", "VALUE")}
        add("-p", dest="overrides", help="override a parameter", **pair)
        add("--with", dest="beyond", metavar="NAMES", help="also notebooks/beyond/: grpo,resampling,transfer,gain")
        add("--notebooks", help="folder of the notebooks (default: ./notebooks)")
    run.add_argument("--only", help="some notebooks, e.g. 02,03")
    run.add_argument("--force", action="store_true", help="redo the chosen notebooks and all after them")
    plan.add_argument("--gpu", help="plan for this card, e.g. T4, L4, A100 80GB, H100 (default: the one that is here)")
    plan.add_argument("--gpu-memory", type=float, metavar="GIB", help="plan for this much GPU memory")
    plan.add_argument("--wrong", type=float, default=0.5, help="assumed share of wrong first answers (default 0.5)")
    plan.add_argument("--corrected", type=float, default=0.25, help="assumed share of them corrected (default 0.25)")


def _add_results(command: Any) -> None:
    command("report", _report, "one HTML file about a run, readable offline").add_argument("run_dir")
    compare = command("compare", _compare, "the paired difference of two runs on the same questions")
    compare.add_argument("run_a")
    compare.add_argument("run_b")
    compare.add_argument("--setting", help="one setting, e.g. reflector_only (default: all that both have)")
    export = command("export", _export, "a trained adapter, merged model or GGUF file with its model card")
    export.add_argument("run_dir")
    export.add_argument("--setting", default="reflector", help="which adapter of the run (default: reflector)")
    export.add_argument("--merged", action="store_true", help="also the base model with the adapter merged")
    gguf = {"nargs": "?", "const": "q8_0", "metavar": "PRECISION"}
    export.add_argument("--gguf", help="also a GGUF file: q8_0 (default), f16, q4_k_m, …", **gguf)
    export.add_argument("--push", metavar="OWNER/NAME", help="upload to this (private) Hub repository")


def _add_machine(command: Any) -> None:
    command("doctor", _doctor, "what this machine can do")
    bench = command("bench", _bench, "the performance table: about 3 minutes on two cores")
    bench.add_argument("--gpu", action="store_true", help="generation and training at real models' shapes, too")
    bench.add_argument("--out", default="artifacts/bench", help="folder for the results")
    bench.add_argument("--rounds", type=int, default=5, help="repeats of each comparison (default 5)")
    bench.add_argument("--size", type=int, default=256, help="problems rolled out at a time (default 256)")
    bench.add_argument("--seconds", type=float, default=1800, help="with --gpu: at most so many (default 1800)")


def _asked(args: argparse.Namespace) -> Plan:
    from . import pipeline

    try:
        overrides = {name: yaml.safe_load(value) for name, value in args.overrides}
    except yaml.YAMLError as error:
        raise UserError(f"-p: {' '.join(str(error).split())}") from error
    return pipeline.make_plan(pipeline.load_params(args.params, overrides), args.notebooks)


def _run(args: argparse.Namespace) -> None:
    from .. import evaluate, read, store
    from . import pipeline

    plan = _asked(args)
    pipeline.choose(args.only, args.beyond)
    with_card = shutil.which("nvidia-smi")  # only then torch, which takes seconds to import
    if with_card and (warning := _too_big(plan.values)):
        print(f"reflectevo: {warning}", file=sys.stderr)
    seconds = pipeline.run_plan(plan, only=args.only, beyond=args.beyond, force=args.force)
    run = store.Run(plan.run_dir)
    if run.path("metrics.json").exists():
        table = read.results(read.load_metrics(run))[["setting", "Acc@t1", "Acc@t2", "Δ", "Δ low", "Δ high", "n"]]
        print("\n" + table.to_string(index=False, float_format="{:.1f}".format))
    if missing := evaluate.left_out(run):
        print(f"\nLeft out, nothing to train on: {', '.join(missing)}")
    print(f"\n{sum(seconds.values()):.0f} s. Executed notebooks: {run.path('notebooks')}")
    if run.path("report.html").exists():
        print(f"Report: {run.path('report.html')}")


def _plan(args: argparse.Namespace) -> int:
    from .. import store
    from . import pipeline
    from . import plan as planner

    plan = _asked(args)
    stages = pipeline.choose(beyond=args.beyond)
    for stage in stages:
        state = "finished" if store.stage_finished(plan.run_dir, stage) else "to do"
        print(f"{stage}  ({state})")
        own = {name: value for name, value in plan.params[stage].items() if name != "run_dir"}
        print("".join(f"    {name} = {value!r}\n" for name, value in own.items()), end="")
    print(f"into {plan.run_dir}\n")
    facts = planner.Assumed(wrong=args.wrong, corrected=args.corrected)
    found = planner.estimate(plan.values, stages, memory=args.gpu_memory, device=_card(args), facts=facts)
    print(planner.report(found))
    return 2 if found.fits is False else 0


def _too_big(values: dict[str, Any]) -> str | None:
    """The plan's verdict if a run may not fit this machine's card. It is an upper bound, so the run goes on."""
    from . import plan as planner

    try:
        found = planner.estimate(values, device=_card_here())
    except ValueError:  # a model of unknown size
        return None
    return planner.verdict(found) if found.fits is False else None


def _card(args: argparse.Namespace) -> Any:
    """The card to plan for: the one named, or the one in this machine, or none."""
    from .memory import CARDS, card

    if args.gpu and (found := card(args.gpu)) is None:
        raise UserError(f"unknown card {args.gpu!r}: there are {', '.join(CARDS)}, or --gpu-memory")
    if args.gpu:
        return found
    return None if args.gpu_memory else _card_here()


def _card_here() -> Any:
    import torch

    from ..generate import GIB
    from .memory import CARDS, card

    if not torch.cuda.is_available():
        return None
    there = torch.cuda.get_device_properties(0)
    known = card(there.name) or CARDS["T4"]  # an unknown card: slow, so that no time is promised
    return known._replace(memory=there.total_memory / GIB)


def _report(args: argparse.Namespace) -> None:
    from ..read import build_report

    print(build_report(args.run_dir))


def _compare(args: argparse.Namespace) -> None:
    from .. import read, store

    table = read.compare_runs(store.Run(args.run_a), store.Run(args.run_b), args.setting)
    print(f"Acc@t2 in percent, A = {args.run_a}, B = {args.run_b}; difference A − B in points, 95 % paired bootstrap")
    forms = dict.fromkeys(("p (McNemar)", "p (Holm)"), "{:.2g}".format)
    print(table.to_string(index=False, float_format="{:.1f}".format, formatters=forms))


def _export(args: argparse.Namespace) -> None:
    from ..train import export

    found = export(args.run_dir, args.setting, merged=args.merged, gguf=args.gguf, push=args.push)
    for form, path in found.paths.items():
        print(f"{form:8s}{path}")
    if found.pushed:
        print(f"pushed  {found.pushed}")


def _doctor(args: argparse.Namespace) -> None:
    from .doctor import examine

    for name, value in examine().items():
        print(f"{name:18s}{value}")


def _bench(args: argparse.Namespace) -> None:
    from . import bench

    if args.rounds < 1 or args.size < 8:
        raise UserError("bench needs --rounds of 1 or more and --size of 8 or more")
    print(bench.run(args.out, gpu=args.gpu, rounds=args.rounds, size=args.size, seconds=args.seconds))
    print(f"Stored in {args.out}")


if __name__ == "__main__":
    sys.exit(main())
