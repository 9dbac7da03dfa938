"""What a run needs besides its notebooks, looked at before anything costs: servers, a judge, model files, disk space."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from .. import data, generate, prompts, store
from . import servers
from .params import ANALYSIS, DATA, ROLLOUTS, ROUNDS, defaults

ROOM = 0.5  # GiB of a run's rows, adapters and checkpoints; in full fine-tuning also COPIES of the weights in 32 bits
OWN = ("chat_template", "system_prompt")
COPIES = 4  # the newest checkpoint (weights, two moments) and the trained model


def check(values: dict[str, Any], stages: Sequence[str], run_dir: Path, say: Any = print) -> list[str]:
    """The stages to be left out (see `servers.check`). Raises ValueError, in a line, for what would stop a run later."""
    _check_values(values, stages)
    absent = servers.check(values, stages, say)
    elsewhere = [DATA, ANALYSIS, *[ROLLOUTS] * bool(values["server_url"]), *absent]
    sizes = {name: values[name] for name in ("max_length", "max_new_tokens")}
    usual = values["model"] == generate.TINY and all(values[name] == defaults()[name] for name in (*sizes, *OWN))
    if not usual and set(stages) - set(elsewhere):  # the embedded model as it is shipped has been tested
        generate.check_model(values["model"], generate.LoadParams.of(SimpleNamespace(**values)), **sizes)
    if stages:
        _check_room(values, run_dir)
        _warn(values, stages, say)
    return absent


def _check_values(values: dict[str, Any], stages: Sequence[str]) -> None:
    """Refuse what a notebook would refuse, perhaps hours later."""
    from ..train import GRPOParams, TrainParams

    v, p = values, SimpleNamespace(**values)
    for some in (v["sources"], v["test_sources"] or v["sources"]) if DATA in stages else ():
        data.check_names(some)
    prompts.instruction_pool(v["instructions"])
    for rates in ("sft", "corrector", "dpo", "further"):
        TrainParams.of(rates, p)
    if "grpo" in stages:
        GRPOParams.of(p)
    if absent := [one for one in v["other_seeds"] if ANALYSIS in stages and not (store.project_root() / one).exists()]:
        raise ValueError(f"other_seeds: there is no {absent[0]}")


def _warn(values: dict[str, Any], stages: Sequence[str], say: Any) -> None:
    """Say what a run may do, but hardly ever should."""
    v = values
    foreign = [str(s) for s in (*v["sources"], *(v["test_sources"] or ())) if s not in data.EMBEDDED]
    if v["model"] == generate.TINY and foreign and not v["server_url"] and set(stages) - {DATA, ANALYSIS}:
        say(f"The embedded model knows its own tasks only, and will get nothing of {foreign[0]} right: set model")
    wanted, there = v["rounds"] * v["n_rollout"] + v["n_validation"], v["n_train"] * len(v["sources"])
    if ROUNDS in stages and v["rounds"] > 1 and v["round_questions"] == "fresh" and wanted > there:
        says = f"{v['rounds']} rounds of {v['n_rollout']:,} questions and {v['n_validation']:,} to validate on"
        say(f"{says} want {wanted:,} training questions, and n_train gives {there:,}: some will be asked again")


def _check_room(values: dict[str, Any], run_dir: Path) -> None:
    there = next(folder for folder in (run_dir, *run_dir.parents) if folder.exists())
    if not os.access(there, os.W_OK):
        raise ValueError(f"{there} cannot be written: choose another run_dir")
    whole = values["full_finetuning"] and generate.shape_of(values["model"]).parameters
    needed, free = ROOM + COPIES * 4 * whole / generate.GIB, shutil.disk_usage(there).free / generate.GIB
    if free < needed:
        has = f"{free:.1f} GiB free, and the run needs some {needed:.1f} GiB"
        raise ValueError(f"{there} has {has}: choose another run_dir")
