"""Loading a model and its tokenizer, through Unsloth or plain transformers; adapters on one shared base.

Generator and Reflector are the same base model: a trained Reflector is a LoRA adapter that is switched on where it
writes and off where the Generator answers, so that weights are in memory once. Of Unsloth
(https://github.com/unslothai/unsloth) this module knows what loading takes; what training takes is in `train`.
"""

from __future__ import annotations

import functools
import gc
import hashlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import store
from . import sizes
from .chat import stop_tokens, tokenizer
from .weights import remedy, resolve

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SMALL = 50_000_000  # parameters up to which weights stay in a processor's caches: bfloat16 would only round
BACKENDS = ("auto", "unsloth", "transformers")
_print_once = functools.cache(print)


class Loaded(NamedTuple):
    """A base model, its tokenizer, and which backend loaded it and why."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    backend: str


class LoadParams(NamedTuple):
    """How a model is loaded; the names are those of a run's parameters."""

    dtype: str = "auto"  # see `pick_dtype`
    load_in_4bit: bool = False
    backend: str = "auto"
    chat_template: str | None = None  # see `chat.tokenizer`
    system_prompt: str | None = None

    @classmethod
    def of(cls, p: Any) -> LoadParams:
        """From a run's parameters, or whatever has some of the fields."""
        return cls(**{name: getattr(p, name) for name in cls._fields if hasattr(p, name)})


class Choice(NamedTuple):
    """Whether Unsloth trains models in this process, and why."""

    unsloth: bool
    why: str


def choose_backend(backend: str = "auto") -> Choice:
    """Choose between Unsloth ("auto": if CUDA and it work) and plain transformers + PEFT, and import Unsloth if chosen.

    Call it before trl, transformers or peft are imported: Unsloth patches them. ValueError if `backend` does not work.
    """
    if backend not in BACKENDS:
        raise ValueError(f"unknown backend {backend!r}; there are {', '.join(BACKENDS)}")
    if backend == "transformers":
        return Choice(False, "as asked for")
    found = _unsloth(need_cuda=backend == "auto")
    if backend == "unsloth" and not found.unsloth:
        raise ValueError(f"backend unsloth: {found.why}; set backend: auto, or pip install 'reflectevo_lite[gpu]'")
    return found


@functools.cache
def _unsloth(need_cuda: bool) -> Choice:
    if "unsloth" not in sys.modules and importlib.util.find_spec("unsloth") is None:
        return Choice(False, "Unsloth is not installed")
    if need_cuda:
        import torch

        if not torch.cuda.is_available():
            return Choice(False, "no CUDA device")
    late = [name for name in ("trl", "transformers", "peft") if name in sys.modules and "unsloth" not in sys.modules]
    os.environ.setdefault("UNSLOTH_DISABLE_STATISTICS", "1")  # a call home, and a wait if there is no network
    os.environ.setdefault("UNSLOTH_COMPILE_LOCATION", str(store.cache_dir() / "unsloth"))  # else the working directory
    try:
        import unsloth
    except Exception as error:  # whatever its many checks raise, training goes on without it
        reason = (str(error).splitlines() or [""])[0]
        return Choice(False, f"Unsloth cannot be imported here ({type(error).__name__}: {reason})")
    slow = f", imported after {', '.join(late)}: restart the kernel for its full speed" if late else ""
    return Choice(True, f"Unsloth {getattr(unsloth, '__version__', '?')}{slow}")


def load(
    name: str,
    how: LoadParams | None = None,
    *,
    device: str | None = None,
    max_length: int = 4096,
    for_training: bool = False,
    full_finetuning: bool = False,
    **settings: Any,
) -> Loaded:
    """Load a causal language model to generate with, or to train: LoRA adapters, or all weights by `full_finetuning`.

    `settings` are fields of `how`. dtype "auto" is `pick_dtype`'s, but float32 for full fine-tuning, since steps of
    1e-6 vanish in 16 bits. Unsloth is for training alone, of `max_length` tokens: its models fill no cache they are
    handed. Prints the backend and why. Raises ValueError for a missing model or a backend that does not work.
    """
    how = (how or LoadParams())._replace(**settings)
    if full_finetuning and how.load_in_4bit:
        raise ValueError("full_finetuning cannot hold its weights in 4 bits: set load_in_4bit: false")
    choice = choose_backend("transformers" if device == "cpu" and how.backend == "auto" else how.backend)
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()  # of reading a file
    path, device = resolve(name), device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        words = tokenizer(path, how, name)
        small = for_training or device != "cpu" or sizes.about(path) <= SMALL
        dtype = "float32" if full_finetuning and how.dtype == "auto" else pick_dtype(how.dtype, device, small)
        number = getattr(torch, dtype)
        if choice.unsloth and for_training:
            used, why = "Unsloth", choice.why
            model = _load_unsloth(path, number, how.load_in_4bit, max_length, full_finetuning)
        else:
            used, why = "transformers", f"{choice.why} trains" if choice.unsloth else choice.why
            model = _load_plain(path, number, how.load_in_4bit, device)
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"cannot load model {name!r}: {reason} ({remedy(name)})") from error
    if not for_training:
        model.eval()
    model.generation_config.eos_token_id = stop_tokens(model, words)
    says = f"{used} on {device}, {'NF4, computing in ' if how.load_in_4bit else ''}{dtype} ({why})"
    _print_once(f"{name}: {says}", flush=True)
    return Loaded(model, words, name, says)


def _load_plain(path: str, dtype: Any, load_in_4bit: bool, device: str) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    # of several processes that train together, each has a GPU of its own
    place = int(os.environ.get("LOCAL_RANK", "0")) if device == "cuda" else device
    if not load_in_4bit:
        return AutoModelForCausalLM.from_pretrained(path, dtype=dtype).to(place)
    if importlib.util.find_spec("bitsandbytes") is None:
        remedy = "pip install 'reflectevo_lite[gpu]', or set load_in_4bit: false"
        raise ValueError(f"load_in_4bit needs bitsandbytes and a GPU: {remedy}")
    # the paper's NF4 quantisation (QLoRA, arXiv 2305.14314)
    nf4 = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True, "bnb_4bit_compute_dtype": dtype}
    how = {"quantization_config": BitsAndBytesConfig(load_in_4bit=True, **nf4), "device_map": {"": place}}
    return AutoModelForCausalLM.from_pretrained(path, dtype=dtype, **how)


def _load_unsloth(path: str, dtype: Any, load_in_4bit: bool, max_length: int, full: bool) -> PreTrainedModel:
    from unsloth import FastLanguageModel

    # the exact name, else Unsloth takes its own upload; `train` decides on checkpointing; vLLM runs as a server
    own = {"use_exact_model_name": True, "use_gradient_checkpointing": False, "fast_inference": False}
    size = {"dtype": dtype, "load_in_4bit": load_in_4bit, "max_seq_length": max_length, "full_finetuning": full}
    return FastLanguageModel.from_pretrained(model_name=path, **size, **own)[0]


def is_unsloth(loaded: Loaded) -> bool:
    """Whether a model was loaded through Unsloth."""
    return loaded.backend.startswith("Unsloth")


def free() -> None:
    """Give the GPU memory of dropped models back to the card: between stages, after `del model, trainer`."""
    gc.collect()
    if (torch := sys.modules.get("torch")) and torch.cuda.is_available():
        torch.cuda.empty_cache()


def pick_dtype(dtype: str, device: str, small: bool = True) -> str:
    """Resolve "auto" for a device: on a GPU bfloat16 if it computes it natively, float16 if it is older; on a CPU
    float32, but bfloat16 to generate with a model that is not `small`, where the processor computes in it."""
    import torch

    if dtype != "auto":
        return dtype
    if device != "cpu":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    able = {"avx512_bf16", "amx_bf16"} & {name for name, there in torch.cpu.get_capabilities().items() if there}
    return "bfloat16" if able and not small else "float32"


class Adapters:
    """LoRA adapters on one base model. By PEFT: transformers' `load_adapter` silently makes earlier adapters fresh."""

    def __init__(self, base: PreTrainedModel) -> None:
        self.base = base
        self.peft: PeftModel | None = None
        self.whole: tuple[str, PreTrainedModel] | None = None  # the fully fine-tuned model that was used last

    @contextmanager
    def use(self, path: str | Path | None) -> Iterator[PreTrainedModel | PeftModel]:
        """For the length of a block, the model with the adapter at `path` switched on, or the bare base for None.

        A fully fine-tuned model at `path` is in memory beside the base, one at a time. ValueError without either.
        """
        if path is None:
            with self.peft.disable_adapter() if self.peft else nullcontext():
                yield self.peft or self.base
        elif (Path(path) / "config.json").exists() and not (Path(path) / "adapter_config.json").exists():
            yield self._whole(Path(path))
        else:
            yield self._adapted(Path(path))

    def _whole(self, path: Path) -> PreTrainedModel:
        file = path / "training.json"
        key = f"{path.resolve()}|{file.stat().st_mtime_ns if file.exists() else 0}"
        if self.whole is None or self.whole[0] != key:
            self.whole = None  # the earlier one goes before the next one comes
            dtype = str(self.base.dtype).removeprefix("torch.")
            self.whole = key, load(str(path), dtype=dtype, device=self.base.device.type).model
        return self.whole[1]

    def _adapted(self, path: Path) -> PeftModel:
        from peft import PeftModel

        if not (path / "adapter_config.json").exists():
            raise ValueError(f"no adapter at {path}: train that setting first")
        name = adapter_name(path)
        if self.peft is None:
            self.peft = PeftModel.from_pretrained(self.base, str(path), adapter_name=name)
        elif name not in self.peft.peft_config:
            self.peft.load_adapter(str(path), adapter_name=name)
        self.peft.eval()
        self.peft.set_adapter(name)
        return self.peft


def adapter_name(path: str | Path) -> str:
    """A name for an adapter directory that PEFT accepts and that changes with the weights."""
    stamp = (Path(path) / "adapter_model.safetensors").stat()
    return "a" + hashlib.sha256(f"{Path(path).resolve()}|{stamp.st_mtime_ns}|{stamp.st_size}".encode()).hexdigest()[:12]
