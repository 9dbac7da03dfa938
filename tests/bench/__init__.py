"""`reflectevo bench`: what this package's ways of working bring, measured side by side on the machine at hand."""

from pathlib import Path

import torch

from .cpu import measure
from .gpu import generation, training


def run(out: str | Path, *, gpu: bool = False, rounds: int = 5, size: int = 256, seconds: float = 1800) -> str:
    """Measure, write every table to `out` (JSON and Markdown), and return the tables as Markdown. On the CPU, `rounds`
    comparisons each, `size` problems at a time. With `gpu`, also generation and training steps, for at most `seconds`.
    Raises ValueError for `gpu` without CUDA, and if `out` holds figures of another card."""
    if gpu and not torch.cuda.is_available():
        raise ValueError("bench --gpu needs a CUDA device: there is none here (leave --gpu out for the CPU's table)")
    tables = [measure(out, rounds=rounds, size=size)]
    if gpu:
        first = min(120, seconds / 3)
        tables += [generation(out, seconds=first), training(out, seconds=seconds - first)]
    return "\n".join(tables)
