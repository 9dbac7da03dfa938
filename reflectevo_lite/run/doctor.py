"""`reflectevo doctor`: what this machine can do, and what would help where it cannot. Nothing is loaded or changed."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from .. import generate, sandbox, store

SERVERS = {"vllm": "vLLM", "sglang": "SGLang", "ray": "Ray"}
ROOM = 20 * generate.GIB  # a 16-bit 8B model, its merged copy and a run's rows do not fit into less


def examine() -> dict[str, str]:
    """One line per subject, in the order of importance."""
    import torch  # noqa: F401 - store.environment names the GPU of an imported torch only

    env = store.environment()
    return {
        "python, packages": ", ".join(f"{k} {v}" for k, v in env["versions"].items()),
        "device": device(env),
        "Unsloth": unsloth(),
        "bitsandbytes": bitsandbytes(),
        "sandbox": sandbox.level(),
        "disk": disk(Path.cwd()),
        "servers": servers(),
        "embedded model": generate.fingerprint(generate.TINY),
    }


def device(env: Mapping[str, Any]) -> str:
    """The GPUs, their memory and what torch can do with them, or why there are none; CPUs and the precision of loading."""
    import torch

    loads = generate.pick_dtype("auto", "cuda" if torch.cuda.is_available() else "cpu")
    tail = f"{env['cpus']} CPUs; models load as {loads}"
    if not torch.cuda.is_available():
        built = (
            f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch is built for CPUs only"
        )
        return f"no GPU ({built}), {tail}"
    free, total = torch.cuda.mem_get_info()
    cards = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    memory = f"{free / generate.GIB:.1f} of {total / generate.GIB:.1f} GiB free"
    return f"{cards}; {memory}; CUDA {torch.version.cuda}; {tail}"


def unsloth() -> str:
    """Whether Unsloth is used here, or why not. It is not imported: that takes a GPU's memory."""
    import torch

    if importlib.util.find_spec("unsloth") is None:
        return "not installed (plain transformers + PEFT are used): pip install 'reflectevo_lite[gpu]'"
    version = _version("unsloth")
    if not torch.cuda.is_available():
        return f"{version} installed, not used: no CUDA device (backend: unsloth asks for its CPU backend)"
    return f"{version} installed, used for loading and training (backend: transformers switches it off)"


def bitsandbytes() -> str:
    """Whether models can be loaded in 4 bits, or why not."""
    import torch

    if importlib.util.find_spec("bitsandbytes") is None:
        return "not installed (load_in_4bit is refused): pip install 'reflectevo_lite[gpu]'"
    return f"{_version('bitsandbytes')}" + (
        "" if torch.cuda.is_available() else ", but no CUDA device: load_in_4bit is refused"
    )


def disk(folder: Path) -> str:
    """Free space where runs are written."""
    free = shutil.disk_usage(folder).free
    note = "" if free >= ROOM else f"; an 8B model and its exports want {ROOM / generate.GIB:.0f} GiB"
    return f"{free / generate.GIB:.1f} GiB free at {folder}{note}"


def servers() -> str:
    """Tools that serve a model to ServerEngine or a judge."""
    found = [f"{label} {_version(name)}" for name, label in SERVERS.items() if importlib.util.find_spec(name)]
    found += [tool for tool in ("ollama", "llama-server") if shutil.which(tool)]
    always = "transformers serve" if importlib.util.find_spec("transformers") else ""
    return ", ".join([*found, always]).strip(", ") + ("" if found else " (for real models: pip install vllm)")


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "of unknown version"
