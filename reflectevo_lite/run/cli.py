"""The command `reflectevo`: run, plan, report, compare, export, doctor, bench.

reflectevo run params/tiny_cpu.yaml [-p NAME VALUE]... [--only 02,03] [--force]
reflectevo plan params/tiny_cpu.yaml
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
from pathlib import Path
from typing import Any

import yaml

from .. import __version__


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status: 0 done, 1 a stage failed, 2 something to mend, 130 interrupted."""
    from .. import store
    from .pipeline import Failure, UserError

    args = _parser().parse_args(argv)
    try:
        return args.command(args) or 0
    except UserError as error:
        print(f"reflectevo: {error}", file=sys.stderr)
        return 2
    except Failure as error:
        print(f"reflectevo: {error}", file=sys.stderr)
        return 1
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
    parser = argparse.ArgumentParser(
        prog="reflectevo", description="Small language models learn to reflect (arXiv 2505.16475)."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_running(commands)
    _add_results(commands)
    _add_machine(commands)
    return parser


def _add_running(commands: Any) -> None:
    run = commands.add_parser("run", help="the notebooks in order, through papermill")
    plan = commands.add_parser("plan", help="what a run would do; nothing is loaded")
    for sub in (run, plan):
        sub.add_argument("params", help="a file such as params/tiny_cpu.yaml")
        sub.add_argument(
            "-p",
            dest="overrides",
            nargs=2,
            action="append",
            default=[],
            metavar=("NAME", "VALUE"),
            help="override a parameter",
        )
        sub.add_argument("--notebooks", help="folder of the notebooks (default: ./notebooks)")
    plan.add_argument("--gpu", help="plan for this card, e.g. T4, L4, A100 80GB, H100 (default: the one that is here)")
    plan.add_argument("--gpu-memory", type=float, metavar="GIB", help="plan for this much GPU memory")
    plan.add_argument("--wrong", type=float, default=0.5, help="assumed share of wrong first answers (default 0.5)")
    plan.add_argument("--corrected", type=float, default=0.25, help="assumed share of them corrected (default 0.25)")
    run.add_argument("--only", help="some notebooks, e.g. 02,03")
    run.add_argument(
        "--force", action="store_true", help="redo the chosen notebooks and all after them (old results are set aside)"
    )
    run.set_defaults(command=_run)
    plan.set_defaults(command=_plan)


def _add_results(commands: Any) -> None:
    report = commands.add_parser("report", help="one HTML file about a run, readable offline")
    report.add_argument("run_dir")
    report.set_defaults(command=_report)
    compare = commands.add_parser("compare", help="the paired difference of two runs on the same questions")
    compare.add_argument("run_a")
    compare.add_argument("run_b")
    compare.add_argument(
        "--setting", help="one setting, e.g. reflector_only or prompted.intrinsic (default: all shared)"
    )
    compare.set_defaults(command=_compare)
    export = commands.add_parser("export", help="a trained adapter, merged model or GGUF file with its model card")
    export.add_argument("run_dir")
    export.add_argument("--setting", default="reflector", help="which adapter of the run (default: reflector)")
    export.add_argument("--merged", action="store_true", help="also the base model with the adapter merged")
    export.add_argument(
        "--gguf",
        nargs="?",
        const="q8_0",
        metavar="PRECISION",
        help="also a GGUF file: q8_0 (default), f16, q4_k_m, …",
    )
    export.add_argument("--push", metavar="OWNER/NAME", help="upload to this (private) Hub repository")
    export.set_defaults(command=_export)


def _add_machine(commands: Any) -> None:
    commands.add_parser("doctor", help="what this machine can do").set_defaults(command=_doctor)
    bench = commands.add_parser("bench", help="the performance table: about 3 minutes on two cores")
    bench.add_argument("--gpu", action="store_true", help="generation and training at real models' shapes, too")
    bench.add_argument("--out", default="artifacts/bench", help="folder for bench.json and bench.md")
    bench.add_argument("--rounds", type=int, default=5, help="repeats of each comparison (default 5)")
    bench.add_argument("--size", type=int, default=256, help="problems rolled out at a time (default 256)")
    bench.set_defaults(command=_bench)


def _params(args: argparse.Namespace) -> dict[str, Any]:
    from . import pipeline

    return pipeline.load_params(args.params, {name: yaml.safe_load(value) for name, value in args.overrides})


def _run(args: argparse.Namespace) -> None:
    from .. import read, store
    from . import pipeline

    plan = pipeline.make_plan(_params(args), args.notebooks)
    with_card = shutil.which("nvidia-smi")  # only then torch, which takes seconds to import
    if with_card and (warning := _too_big(plan.params)):
        print(f"reflectevo: {warning}", file=sys.stderr)
    seconds = pipeline.run(plan, only=args.only, force=args.force)
    run = store.Run(plan.run_dir)
    if run.path("metrics.json").exists():
        table = read.results(read.load_metrics(run))[["setting", "Acc@t1", "Acc@t2", "Δ", "Δ low", "Δ high", "n"]]
        print("\n" + table.to_string(index=False, float_format="{:.1f}".format))
    if missing := read.left_out(run):
        print(f"\nLeft out, nothing to train on: {', '.join(missing)}")
    print(f"\n{sum(seconds.values()):.0f} s. Executed notebooks: {run.path('notebooks')}")
    if run.path("report.html").exists():
        print(f"Report: {run.path('report.html')}")


def _plan(args: argparse.Namespace) -> int:
    from . import pipeline, planning

    plan = pipeline.make_plan(_params(args), args.notebooks)
    for stage, params in plan.params.items():
        state = "finished" if pipeline.finished(plan.run_dir, stage) else "to do"
        print(f"{stage}  ({state})")
        print("".join(f"    {name} = {value!r}\n" for name, value in params.items() if name != "run_dir"), end="")
    print(f"into {plan.run_dir}\n")
    if not any("model" in params for params in plan.params.values()):
        return 0  # notebooks of another kind
    assumed = planning.Assumed(wrong=args.wrong, corrected=args.corrected)
    try:
        found = planning.estimate(plan.params, memory=args.gpu_memory, device=_card(args), assumed=assumed)
    except ValueError as error:
        raise pipeline.UserError(str(error)) from error
    print(planning.report(found))
    return 2 if found.fits is False else 0


def _too_big(params: dict[str, dict[str, Any]]) -> str | None:
    """The plan's verdict where a run may not fit this machine's card. It is an upper bound, so the run goes on."""
    from . import planning

    try:
        found = planning.estimate(params, device=_card_here())
    except (KeyError, ValueError):  # no model, or one of unknown size
        return None
    return planning.verdict(found) if found.fits is False else None


def _card(args: argparse.Namespace) -> Any:
    """The card to plan for: the one named, or the one in this machine, or none."""
    from . import pipeline, planning

    if args.gpu and (found := planning.card(args.gpu)) is None:
        raise pipeline.UserError(f"unknown card {args.gpu!r}: there are {', '.join(planning.CARDS)}, or --gpu-memory")
    if args.gpu:
        return found
    return None if args.gpu_memory else _card_here()


def _card_here() -> Any:
    import torch

    from . import planning

    if not torch.cuda.is_available():
        return None
    there = torch.cuda.get_device_properties(0)
    known = planning.card(there.name) or planning.CARDS["T4"]  # an unknown card: slow, so that no time is promised
    return known._replace(memory=there.total_memory / planning.GIB)


def _report(args: argparse.Namespace) -> None:
    from ..read import build_report
    from .pipeline import UserError

    try:
        print(build_report(args.run_dir))
    except FileNotFoundError as error:
        raise UserError(str(error)) from error


def _compare(args: argparse.Namespace) -> None:
    from .. import read, store
    from .pipeline import UserError

    try:
        table = read.compare_runs(store.Run(args.run_a), store.Run(args.run_b), args.setting)
    except (FileNotFoundError, ValueError) as error:
        raise UserError(str(error)) from error
    print(f"Acc@t2 in percent, A = {args.run_a}, B = {args.run_b}; difference A − B in points, 95 % paired bootstrap")
    print(table.to_string(index=False, float_format="{:.1f}".format, formatters=dict.fromkeys(_P, "{:.2g}".format)))


_P = ("p (McNemar)", "p (Holm)")


def _export(args: argparse.Namespace) -> None:
    from ..train import export
    from .pipeline import UserError

    try:
        found = export(args.run_dir, args.setting, merged=args.merged, gguf=args.gguf, push=args.push)
    except ValueError as error:
        raise UserError(str(error)) from error
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
    from .pipeline import UserError

    if args.rounds < 1 or args.size < 8:
        raise UserError("bench needs --rounds of 1 or more and --size of 8 or more")
    try:
        bench.run(args.out, gpu=args.gpu, rounds=args.rounds, size=args.size)
    except ValueError as error:
        raise UserError(str(error)) from error
    print(Path(args.out, "bench.md").read_text())
    if args.gpu:
        from . import bench_gpu

        bench_gpu.run(Path(args.out))
    print(f"Stored in {args.out}")


if __name__ == "__main__":
    sys.exit(main())
