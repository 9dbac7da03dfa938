"""`reflectevo doctor`: what this machine can do, and what would help where it cannot. Nothing is loaded or changed."""

import importlib.util
import os
import shutil
from pathlib import Path

import torch

from .. import generate, sandbox, store

SERVERS = {"vllm": "vLLM", "sglang": "SGLang", "ray": "Ray", "transformers": "transformers serve"}
ROOM = 20 * generate.GIB  # a 16-bit 8B model, its merged copy and a run's rows do not fit into less


def examine() -> dict[str, str]:
    """One line per subject, in the order of importance."""
    return {
        "packages": ", ".join(f"{name} {version}" for name, version in store.environment()["versions"].items()),
        "device": device(),
        "precision": precision(),
        "Unsloth": unsloth(),
        "bitsandbytes": bitsandbytes(),
        "sandbox": sandbox.level(),
        "disk": disk(Path.cwd()),
        "servers": servers(),
        "embedded model": generate.fingerprint(generate.TINY),
    }


def device() -> str:
    """The GPUs and their free memory, or why there are none; CPUs."""
    cuda, cpus = f"CUDA {torch.version.cuda}", f"{os.cpu_count()} CPUs"
    if not torch.cuda.is_available():
        return f"no GPU (torch is built for {cuda if torch.version.cuda else 'CPUs only'}), {cpus}"
    cards = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    free, total = (size / generate.GIB for size in torch.cuda.mem_get_info())
    return f"{cards}; {free:.1f} of {total:.1f} GiB free; {cuda}; {cpus}"


def precision() -> str:
    """What models are loaded as with dtype "auto"."""
    return generate.pick_dtype("auto", "cuda" if torch.cuda.is_available() else "cpu")


def unsloth() -> str:
    """Whether Unsloth is used here, or why not. It is not imported: that takes a GPU's memory."""
    used = ", used for training (backend: transformers switches it off)"
    unused = ", not used: no CUDA device (backend: unsloth asks for its CPU backend)"
    return _extra("unsloth", "plain transformers + PEFT train", used, unused)


def bitsandbytes() -> str:
    """Whether models can be loaded in 4 bits, or why not."""
    return _extra("bitsandbytes", "load_in_4bit is refused", "", ", but no CUDA device: load_in_4bit is refused")


def _extra(package: str, without: str, on_gpu: str, on_cpu: str) -> str:
    if importlib.util.find_spec(package) is None:
        return f"not installed ({without}): pip install 'reflectevo_lite[gpu]'"
    return f"{store.version(package)}{on_gpu if torch.cuda.is_available() else on_cpu}"


def disk(folder: Path) -> str:
    """Free space where runs are written."""
    free = shutil.disk_usage(folder).free
    note = "" if free >= ROOM else f"; an 8B model and its exports want {ROOM / generate.GIB:.0f} GiB"
    return f"{free / generate.GIB:.1f} GiB free at {folder}{note}"


def servers() -> str:
    """Tools that serve a model to ServerEngine or a judge."""
    found = [tool for tool in ("ollama", "llama-server") if shutil.which(tool)]
    found += [f"{label} {store.version(name)}" for name, label in SERVERS.items() if importlib.util.find_spec(name)]
    return ", ".join(found) + (" (for real models: pip install vllm)" if len(found) == 1 else "")
