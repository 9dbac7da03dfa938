"""The one table of parameters: name, default, type, range, which notebooks take it, and one line of help.

It checks the notebooks' parameters cells (a test), YAML files, `-p` values and the planner. A parameter stands in the
first notebook that uses it; later ones read it from the run (`record.open_run`).
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ..store import STAGES

DATA, ROLLOUTS, SFT, DPO, ROUNDS, ANALYSIS = STAGES
BEYOND = ("grpo", "resampling", "transfer", "gain")  # notebooks/beyond/, run by --with


class BadParameter(ValueError):
    """A parameter's name or value is not possible; one line that names it and the remedy."""


class Parameter(NamedTuple):
    """One parameter. `kind`: int, float, bool, str, names (a list of strings) or price (a number, or a pair of them)."""

    name: str
    default: Any
    kind: str
    notebooks: tuple[str, ...]
    help: str
    low: float | None = None
    high: float | None = None
    above: float | None = None  # an open lower end
    choices: tuple[str, ...] = ()
    empty: bool = False  # null is allowed

    @property
    def range(self) -> str:
        """The values that are allowed, in words."""
        if self.choices:
            return " or ".join(self.choices)
        ends = [
            f"{word} {end:g}"
            for word, end in (("from", self.low), ("above", self.above), ("to", self.high))
            if end is not None
        ]
        what = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text"}
        what |= {"names": "a list of names", "price": "dollars, or [dollars in, dollars out]"}
        return " ".join([what[self.kind], *ends]) + (", or null" if self.empty else "")


def _table() -> Iterable[Parameter]:
    def row(name: str, default: Any, kind: str, notebook: str, help: str, **limits: Any) -> Parameter:
        return Parameter(name, default, kind, (notebook,), help, **limits)

    batch, rate = {"low": 1}, {"above": 0, "high": 1}
    every = (*STAGES, *BEYOND)
    yield Parameter("run_dir", "artifacts/tiny_cpu", "str", every, "where everything of the run goes")
    yield row("sources", ["synthetic"], "names", DATA, "where questions come from")
    yield row("test_sources", None, "names", DATA, "where test questions come from; null: the same", empty=True)
    yield row("n_train", 4000, "int", DATA, "training questions of each source", low=1)
    yield row("n_test", 1200, "int", DATA, "held-out questions of each source", low=1)
    yield row("data_dir", None, "str", DATA, "a folder with local copies of published sets", empty=True)
    yield row("shown_tests", 3, "int", DATA, "asserts that an MBPP prompt shows", low=0)
    yield row("seed", 0, "int", DATA, "of every draw in the run", low=0, high=2**32 - 1)

    yield row("model", "tiny", "str", ROLLOUTS, "tiny, a hub id, or a local folder")
    yield row("n_rollout", 1000, "int", ROLLOUTS, "training questions of a round", low=1)
    yield row("k", 6, "int", ROLLOUTS, "reflections sampled for each wrong answer", low=1, high=1000)
    yield row("instructions", "all", "names", ROLLOUTS, "the pool: all, identifiers, or patterns such as 1-*-*")
    yield row("server_url", None, "str", ROLLOUTS, "an OpenAI-compatible server that generates instead", empty=True)
    yield row("load_in_4bit", False, "bool", ROLLOUTS, "NF4 weights, in generation and in training")
    yield row("backend", "auto", "str", ROLLOUTS, "who trains", choices=("auto", "unsloth", "transformers"))
    yield row("temperature", 1.0, "float", ROLLOUTS, "of sampled reflections", above=0, high=10)
    yield row("max_new_tokens", 96, "int", ROLLOUTS, "tokens of a completion", low=1)
    yield row("chunk_size", 250, "int", ROLLOUTS, "questions written at a time: the unit of resume", low=1)
    yield row("judge", "gain", "str", ROLLOUTS, "who prefers for D^pref", choices=("gain", "self", "server"))
    yield row("judge_model", None, "str", ROLLOUTS, "the judge's name on its server", empty=True)
    yield row("judge_url", None, "str", ROLLOUTS, "the judge's OpenAI-compatible server", empty=True)
    yield row("judge_usd_per_million_tokens", None, "price", ROLLOUTS, "its price, for the estimate", low=0, empty=True)
    yield row("judge_max_usd", None, "float", ROLLOUTS, "what it may cost at most", low=0, empty=True)
    yield row("turns", 4, "int", ROLLOUTS, "turns that the multi-turn settings are run for", low=2, high=20)

    yield row("sft_learning_rate", 3e-3, "float", SFT, "of SFT", **rate)
    yield row("sft_epochs", 5, "float", SFT, "of SFT", above=0)
    yield row("corrector_learning_rate", 1e-3, "float", SFT, "of the corrector; null: SFT's", empty=True, **rate)
    yield row("corrector_epochs", 2, "float", SFT, "of the corrector; null: SFT's", above=0, empty=True)
    yield row("sft_batch_size", 32, "int", SFT, "rows in a batch", **batch)
    yield row("grad_accum", 1, "int", SFT, "batches in an optimiser step", **batch)
    yield row("max_length", 1024, "int", SFT, "tokens of a training row", low=8)
    yield row("lora_r", 16, "int", SFT, "LoRA's rank", low=1)
    yield row("lora_alpha", 32, "int", SFT, "LoRA's scale", low=1)
    yield row("lora_dropout", 0.0, "float", SFT, "LoRA's dropout", low=0, high=0.99)
    yield row("gradient_checkpointing", False, "bool", SFT, "less memory, more time; null: by size", empty=True)
    yield row("full_finetuning", False, "bool", SFT, "train all weights instead of an adapter")
    yield row("packing", False, "bool", SFT, "SFT: short rows share a sequence of max_length")
    yield row("too_long", "error", "str", SFT, "rows over max_length", choices=("error", "skip"))
    yield row("validation_share", 0.0, "float", SFT, "training questions kept to watch the loss on", low=0, high=0.9)
    yield row("patience", 0, "int", SFT, "evaluations without a lower loss before stopping; 0: never", low=0)
    yield row("processes", 1, "int", SFT, "training processes, one per GPU", low=1, high=64)

    yield row("dpo_learning_rate", 2e-3, "float", DPO, "of DPO", **rate)
    yield row("dpo_epochs", 1, "float", DPO, "of DPO", above=0)
    yield row("dpo_batch_size", 32, "int", DPO, "pairs in a batch", **batch)
    yield row("dpo_beta", 0.1, "float", DPO, "pull towards the reference", above=0)
    yield row("judge_pairs", 60, "int", DPO, "pairs on which judges are compared", low=0)

    yield row("rounds", 3, "int", ROUNDS, "how many rounds; round 1 is notebook 03's", low=1, high=100)
    yield row("round_training", "dpo", "str", ROUNDS, "how a later round learns", choices=("dpo", "sft"))
    yield row("round_data", "latest", "str", ROUNDS, "from what", choices=("latest", "union"))
    yield row("round_questions", "fresh", "str", ROUNDS, "which questions it meets", choices=("fresh", "same"))
    yield row("n_validation", 800, "int", ROUNDS, "training questions held back to see whether a round paid", low=0)
    yield row("stop_early", False, "bool", ROUNDS, "the first round that did not pay is the last")

    yield row("other_seeds", [], "names", ANALYSIS, "finished runs with other seeds, to be pooled with this one")

    yield row("grpo_steps", 25, "int", "grpo", "optimiser steps", low=1)
    yield row("grpo_learning_rate", 3e-3, "float", "grpo", "of GRPO", **rate)
    yield row("grpo_batch_size", 64, "int", "grpo", "sampled reflections in a step", low=2)
    yield row("grpo_generations", 8, "int", "grpo", "of them, on one attempt", low=2)
    yield row("n_transfer", 450, "int", "transfer", "test questions of the transfer map", low=1)


TABLE: dict[str, Parameter] = {p.name: p for p in _table()}


def of_notebook(notebook: str) -> dict[str, Parameter]:
    """The parameters that a notebook declares, in order."""
    return {name: p for name, p in TABLE.items() if notebook in p.notebooks}


def checked(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values as their parameters want them (numbers that YAML read as text are numbers again).

    Raises BadParameter for an unknown name, with the nearest one, and for a value of another type or out of range.
    """
    return {name: _checked(_known(name), value) for name, value in values.items()}


def _known(name: str) -> Parameter:
    if name in TABLE:
        return TABLE[name]
    near = difflib.get_close_matches(name, TABLE, 1, 0.5)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(TABLE)}"
    raise BadParameter(f"no notebook has a parameter {name!r}: {hint}")


def _checked(p: Parameter, value: Any) -> Any:
    found = _as_kind(p, value)
    if found is None and not (value is None and p.empty):
        raise BadParameter(f"{p.name}: {value!r} is not {p.range} ({p.help})")
    return found


def _as_kind(p: Parameter, value: Any) -> Any:
    """The value as the parameter's kind; None if it cannot be one or is out of range."""
    if p.kind == "bool":
        return value if isinstance(value, bool) else None
    if p.kind == "str":
        return value if isinstance(value, str) and value.strip() and value in (p.choices or [value]) else None
    if p.kind == "names":
        fits = (
            isinstance(value, list)
            and all(isinstance(v, str) and v.strip() for v in value)
            and (value or not p.default)
        )
        return value if fits or (isinstance(p.default, str) and isinstance(value, str) and value.strip()) else None
    if p.kind == "price" and isinstance(value, list | tuple):
        both = [_number(p, v) for v in value]
        return both if len(both) == 2 and None not in both else None
    return _number(p, value)


def _number(p: Parameter, value: Any) -> int | float | None:
    if isinstance(value, str):  # YAML 1.1 reads 1e-4 as text
        try:
            value = float(value) if p.kind != "int" else int(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    if p.kind == "int" and value != int(value):
        return None
    if (p.low is not None and value < p.low) or (p.high is not None and value > p.high):
        return None
    if p.above is not None and value <= p.above:
        return None
    return int(value) if p.kind == "int" else value


def defaults(notebook: str | None = None) -> dict[str, Any]:
    """Every parameter's default, or those of one notebook."""
    return {name: p.default for name, p in TABLE.items() if notebook in (None, *p.notebooks)}
