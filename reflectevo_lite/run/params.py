"""The one table of parameters: name, default, type, range, which notebooks take it, and one line of help.

A parameter stands in the first notebook that uses it; later ones read it from the run (`record.open_run`).
"""

from __future__ import annotations

import contextlib
import difflib
import math
import reprlib
from collections.abc import Mapping
from typing import Any, NamedTuple, get_args

from ..generate import AnswerBy, ServerOptions
from ..store import STAGES

DATA, ROLLOUTS, SFT, DPO, ROUNDS, ANALYSIS = STAGES
# notebooks/beyond/, run by --with
BEYOND = ("grpo", "resampling", "transfer", "gain", "ladder", "ablation", "words", "verifier", "injected", "one_pass")


class BadParameter(ValueError):
    """A parameter's name or value is not possible; one line that names it and the remedy."""


class Parameter(NamedTuple):
    """One parameter. `kind`: int, float, bool, str, mapping, names (a list of strings), price (one or two numbers)
    or options (see `generate.ServerOptions`)."""

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
        limits = {"from": self.low, "above": self.above, "to": self.high}
        ends = [f"{word} {end:,.10g}" for word, end in limits.items() if end is not None]
        what = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text"}
        what |= {"names": "a list of names, such as [a, b]", "price": "dollars, or [dollars in, dollars out]"}
        what |= {"mapping": "a mapping such as {question: Frage, answer: Antwort}", "options": "a mapping"}
        return " ".join([what[self.kind], *ends]) + (", or null" if self.empty else "")


def _row(name: str, default: Any, kind: str, notebooks: str | tuple[str, ...], help: str, **limits: Any) -> Parameter:
    return Parameter(name, default, kind, (notebooks,) if isinstance(notebooks, str) else notebooks, help, **limits)


_BATCH, _RATE = {"low": 1}, {"above": 0, "high": 1}
_ROWS = (
    _row("run_dir", "artifacts/tiny_cpu", "str", (*STAGES, *BEYOND), "where everything of the run goes"),
    _row("sources", ["synthetic"], "names", DATA, "where questions come from: docs/sources.md"),
    _row("test_sources", None, "names", DATA, "where test questions come from; null: the same", empty=True),
    _row("columns", None, "mapping", DATA, "what the columns of your own files mean; null: guessed", empty=True),
    _row("n_train", 4000, "int", DATA, "training questions of each source", low=1, high=10**7),
    _row("n_test", 1200, "int", DATA, "held-out questions of each source", low=1, high=10**7),
    _row("data_dir", None, "str", DATA, "a folder with local copies of published sets", empty=True),
    _row("shown_tests", 3, "int", DATA, "asserts that a code prompt shows", low=0),
    _row("shots", 0, "int", DATA, "worked examples before every question, of its task", low=0, high=20),
    _row("shots_from", None, "str", DATA, "a file of them; null: training questions", empty=True),
    _row("seed", 0, "int", DATA, "of every draw in the run", low=0, high=2**32 - 1),
    _row("model", "tiny", "str", ROLLOUTS, "tiny, smollm2, a hub id, a local folder or a .gguf file"),
    _row("n_rollout", 1000, "int", ROLLOUTS, "training questions of a round", low=1),
    _row("k", 6, "int", ROLLOUTS, "reflections sampled for each wrong answer", low=1, high=1000),
    _row("instructions", "all", "names", ROLLOUTS, "the pool: all, identifiers, or patterns such as 1-*-*"),
    _row("server_url", None, "str", ROLLOUTS, "an OpenAI-compatible server that generates instead", empty=True),
    _row("server_options", None, "options", ROLLOUTS, "how it is asked: docs/servers.md", empty=True),
    _row("dtype", "auto", "str", ROLLOUTS, "of the weights", choices=("auto", "float32", "bfloat16", "float16")),
    _row("load_in_4bit", False, "bool", ROLLOUTS, "NF4 weights, in generation and in training"),
    _row("chat_template", None, "str", ROLLOUTS, "a file, plain, or one that TRL ships; null: the model's", empty=True),
    _row("system_prompt", None, "str", ROLLOUTS, "said first in every conversation; null: the template's", empty=True),
    _row("backend", "auto", "str", ROLLOUTS, "who trains", choices=("auto", "unsloth", "transformers")),
    _row("temperature", 1.0, "float", ROLLOUTS, "of sampled reflections", above=0, high=10),
    _row("max_new_tokens", 96, "int", ROLLOUTS, "tokens of a completion", low=1),
    _row("answer_by", "text", "str", ROLLOUTS, "how choice questions are answered", choices=get_args(AnswerBy)),
    _row("chunk_size", 250, "int", ROLLOUTS, "questions written at a time: the unit of resume", low=1),
    _row("judge", "gain", "str", ROLLOUTS, "who prefers for D^pref", choices=("gain", "self", "server")),
    _row("judge_model", None, "str", ROLLOUTS, "the judge's name on its server", empty=True),
    _row("judge_url", None, "str", ROLLOUTS, "its OpenAI-compatible server; null: server_url", empty=True),
    _row("judge_options", None, "options", ROLLOUTS, "how it is asked: docs/servers.md", empty=True),
    _row("judge_usd_per_million_tokens", None, "price", ROLLOUTS, "its price, for the estimate", low=0, empty=True),
    _row("judge_max_usd", None, "float", ROLLOUTS, "what it may cost at most", low=0, empty=True),
    _row("drop_leaks", True, "bool", ROLLOUTS, "leave out reflections that state the answer"),
    _row("turns", 4, "int", ROLLOUTS, "turns that the multi-turn settings are run for", low=2, high=20),
    _row("sft_learning_rate", 3e-3, "float", SFT, "of SFT", **_RATE),
    _row("sft_epochs", 5, "float", SFT, "of SFT", above=0),
    _row("corrector_learning_rate", 1e-3, "float", SFT, "of the corrector; null: SFT's", empty=True, **_RATE),
    _row("corrector_epochs", 2, "float", SFT, "of the corrector; null: SFT's", above=0, empty=True),
    _row("sft_batch_size", 32, "int", SFT, "rows in a batch", **_BATCH),
    _row("grad_accum", 1, "int", SFT, "batches in an optimiser step", **_BATCH),
    _row("max_length", 1024, "int", SFT, "tokens of a training row", low=32),
    _row("lora_r", 16, "int", SFT, "LoRA's rank", low=1),
    _row("lora_alpha", 32, "int", SFT, "LoRA's scale", low=1),
    _row("lora_dropout", 0.0, "float", SFT, "LoRA's dropout", low=0, high=0.99),
    _row("gradient_checkpointing", False, "bool", SFT, "less memory, more time; null: by size", empty=True),
    _row("full_finetuning", False, "bool", SFT, "train all weights instead of an adapter"),
    _row("packing", False, "bool", SFT, "SFT: short rows share a sequence of max_length"),
    _row("too_long", "error", "str", SFT, "rows over max_length", choices=("error", "skip")),
    _row("validation_share", 0.0, "float", SFT, "training questions kept to watch the loss on", low=0, high=0.9),
    _row("patience", 0, "int", SFT, "evaluations without a lower loss before stopping; 0: never", low=0),
    _row("processes", 1, "int", SFT, "training processes, one per GPU", low=1, high=64),
    _row("dpo_learning_rate", 2e-3, "float", DPO, "of DPO", **_RATE),
    _row(
        "further_learning_rate",
        5e-4,
        "float",
        DPO,
        "of DPO that goes on from an adapter; null: DPO's",
        empty=True,
        **_RATE,
    ),
    _row("dpo_epochs", 1, "float", DPO, "of DPO", above=0),
    _row("dpo_batch_size", 32, "int", DPO, "pairs in a batch", **_BATCH),
    _row("dpo_beta", 0.1, "float", DPO, "pull towards the reference", above=0),
    _row("dpo_chosen_weight", 0.0, "float", DPO, "of an SFT loss on the chosen text", low=0, high=10),
    _row("judge_pairs", 60, "int", DPO, "pairs on which judges are compared", low=0),
    _row("rounds", 3, "int", ROUNDS, "how many rounds; round 1 is notebook 03's", low=1, high=100),
    _row("round_training", "dpo", "str", ROUNDS, "how a later round learns", choices=("dpo", "sft")),
    _row("round_data", "latest", "str", ROUNDS, "from what", choices=("latest", "union")),
    _row("round_questions", "fresh", "str", ROUNDS, "which questions it meets", choices=("fresh", "same")),
    _row("n_validation", 800, "int", ROUNDS, "training questions held back to see whether a round paid", low=0),
    _row("stop_early", False, "bool", ROUNDS, "the first round that did not pay is the last"),
    _row("other_seeds", [], "names", ANALYSIS, "finished runs with other seeds, to be pooled with this one"),
    _row("grpo_steps", 25, "int", "grpo", "optimiser steps", low=1),
    _row("grpo_learning_rate", 3e-3, "float", "grpo", "of GRPO", **_RATE),
    _row("grpo_batch_size", 64, "int", "grpo", "sampled reflections in a step", low=2),
    _row("grpo_generations", 8, "int", "grpo", "of them, on one attempt", low=2),
    _row("n_transfer", 450, "int", "transfer", "test questions of the transfer map", low=1),
)
TABLE: dict[str, Parameter] = {p.name: p for p in _ROWS}


def checked(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values as their parameters want them (numbers that YAML read as text are numbers again).

    Raises BadParameter for an unknown name, with the nearest one, and for a value of another type or out of range.
    """
    return {name: _checked(name, value) for name, value in values.items()}


def _checked(name: str, value: Any) -> Any:
    if (p := TABLE.get(name)) is None:
        near = difflib.get_close_matches(name, TABLE, 1, 0.5)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(TABLE)}"
        raise BadParameter(f"no notebook has a parameter {name!r}: {hint}")
    try:
        found = _as_kind(p, value)
    except ValueError as error:
        raise BadParameter(f"{name}: {error}") from None
    if found is None and not (value is None and p.empty):
        said = "null" if value is None else str(value).lower() if isinstance(value, bool) else reprlib.repr(value)
        raise BadParameter(f"{name}: {said} is not {p.range} ({p.help})")
    return found


def _as_kind(p: Parameter, value: Any) -> Any:
    """The value as the parameter's kind; None if it cannot be one or is out of range."""
    if p.kind == "mapping":
        return value if isinstance(value, dict) and value else None
    if p.kind == "bool":
        return value if isinstance(value, bool) else None
    if p.kind == "str":
        return value if isinstance(value, str) and value.strip() and value in (p.choices or [value]) else None
    if p.kind == "names":
        if isinstance(value, str):  # instructions: all
            return value if isinstance(p.default, str) and value.strip() else None
        named = isinstance(value, list) and all(isinstance(v, str) and v.strip() for v in value)
        return value if named and (value or not p.default) else None
    if p.kind == "options" and value is not None:
        ServerOptions.of(value)
        return dict(value)
    if p.kind == "price" and isinstance(value, list | tuple):
        both = [_number(p, v) for v in value]
        return both if len(both) == 2 and None not in both else None
    return _number(p, value)


def _number(p: Parameter, value: Any) -> int | float | None:
    for read in (int, float) if isinstance(value, str) else ():  # YAML 1.1 reads 1e-4 as text
        with contextlib.suppress(ValueError):
            value = read(value)
            break
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    if (p.kind == "int" and value != int(value)) or (p.above is not None and value <= p.above):
        return None
    if (p.low is not None and value < p.low) or (p.high is not None and value > p.high):
        return None
    return int(value) if p.kind == "int" else value


def defaults(notebook: str | None = None) -> dict[str, Any]:
    """Every parameter's default, or those of one notebook."""
    return {name: p.default for name, p in TABLE.items() if notebook in (None, *p.notebooks)}
