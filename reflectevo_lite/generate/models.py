"""Loading a model and its tokenizer, through Unsloth or plain transformers; adapters on one shared base.

Generator and Reflector are the same base model: a trained Reflector is a LoRA adapter that is switched on where it
writes and off where the Generator answers, so that weights are in memory once.

Of Unsloth (https://github.com/unslothai/unsloth) this module knows what loading takes: `choose_backend` decides and
imports it, `load` gives a model from either. What training takes is in `train`.
"""

from __future__ import annotations

import functools
import gc
import hashlib
import importlib.util
import os
import sys
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TINY = "tiny"  # the embedded model's name in params
TEMPLATE = {"enable_thinking": False}  # what chat templates are told, in generation and in training alike (Qwen-3)
BACKENDS = ("auto", "unsloth", "transformers")


class Loaded(NamedTuple):
    """A base model, its tokenizer, and which backend loaded it and why."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    backend: str


class Choice(NamedTuple):
    """Whether Unsloth trains models in this process, and why."""

    unsloth: bool
    why: str


def resolve(name: str) -> str:
    """The hub id or absolute path behind a model name; "tiny" is the embedded model."""
    if name == TINY:
        return str(Path(__file__).parents[1] / "embedded" / "model")
    return str(Path(name).resolve()) if Path(name).is_dir() else name


def choose_backend(backend: str = "auto") -> Choice:
    """Decide between Unsloth and plain transformers + PEFT, and import Unsloth if it is chosen.

    "auto": Unsloth if CUDA and the package work. "unsloth": Unsloth or an error (it also has a CPU backend).
    "transformers": never Unsloth. Call it before anything imports trl, transformers or peft: Unsloth patches them while
    they are imported. Raises ValueError for another name, and for "unsloth" if it does not work.
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
    *,
    dtype: str = "auto",
    load_in_4bit: bool = False,
    device: str | None = None,
    backend: str = "auto",
    max_length: int = 4096,
    for_training: bool = False,
    full_finetuning: bool = False,
) -> Loaded:
    """Load a causal language model for generation, or for training with LoRA adapters or (`full_finetuning`) of all weights.

    `dtype` is "float32", "bfloat16", "float16" or "auto" (see `pick_dtype`; float32 for full fine-tuning, since steps of
    1e-6 vanish in 16 bits). Unsloth is for training alone: its models fill no cache that is handed to them and know no
    paged attention. `max_length`: tokens of prompt and completion that it prepares for. Says once, in one line, which
    backend it is and why. Raises ValueError, with the remedy, if there is no such model or the backend does not work.
    """
    if full_finetuning and load_in_4bit:
        raise ValueError("full_finetuning cannot hold its weights in 4 bits: set load_in_4bit: false")
    choice = choose_backend("transformers" if device == "cpu" and backend == "auto" else backend)
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()  # of reading a file
    path, device = resolve(name), device or ("cuda" if torch.cuda.is_available() else "cpu")
    number = getattr(torch, "float32" if full_finetuning and dtype == "auto" else pick_dtype(dtype, device))
    try:
        tokenizer = _tokenizer(path)
        if choice.unsloth and for_training:
            used, why = "Unsloth", choice.why
            model = _load_unsloth(path, number, load_in_4bit, max_length, full_finetuning)
        else:
            used, why = "transformers", f"{choice.why} trains" if choice.unsloth else choice.why
            model = _load_plain(path, number, load_in_4bit, device)
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"cannot load model {name!r}: {reason} (a local folder works offline)") from error
    if not for_training:
        model.eval()
    model.generation_config.eos_token_id = stop_tokens(model, tokenizer)
    precision = f"{'NF4, computing in ' if load_in_4bit else ''}{str(number).removeprefix('torch.')}"
    loaded = Loaded(model, tokenizer, name, f"{used} on {device}, {precision} ({why})")
    _say(f"{name}: {loaded.backend}")
    return loaded


@functools.cache
def _say(line: str) -> None:
    print(line, flush=True)


def _tokenizer(path: str) -> PreTrainedTokenizerBase:
    """transformers' own tokenizer on both backends: Unsloth's mends chat templates."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    return tokenizer


def _load_plain(path: str, dtype: Any, load_in_4bit: bool, device: str) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    # of several processes that train together, each has a GPU of its own
    place = int(os.environ.get("LOCAL_RANK", "0")) if device == "cuda" else device
    if load_in_4bit:
        quantised = {"quantization_config": four_bit(dtype), "device_map": {"": place}}
        return AutoModelForCausalLM.from_pretrained(path, dtype=dtype, **quantised)
    return AutoModelForCausalLM.from_pretrained(path, dtype=dtype).to(place)


def _load_unsloth(path: str, dtype: Any, load_in_4bit: bool, max_length: int, full: bool) -> PreTrainedModel:
    from unsloth import FastLanguageModel

    own = {"use_exact_model_name": True}  # else a name is replaced by Unsloth's own quantised upload of it
    own |= {"use_gradient_checkpointing": False}  # `train` decides
    own |= {"fast_inference": False}  # vLLM is reached through a server instead
    size = {"dtype": dtype, "load_in_4bit": load_in_4bit, "max_seq_length": max_length, "full_finetuning": full}
    return FastLanguageModel.from_pretrained(model_name=path, **size, **own)[0]


def is_unsloth(loaded: Loaded) -> bool:
    """Whether a model was loaded through Unsloth."""
    return loaded.backend.startswith("Unsloth")


def free() -> None:
    """Give the GPU memory of dropped models back to the card: between stages, after `del model, trainer`."""
    gc.collect()
    if "torch" in sys.modules:
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def stop_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Every token that ends a turn: of the generation configuration, the tokenizer, and the chat template.

    Published configurations do not always name the one that the template writes (early Gemma-2: `<eos>` alone, though
    a turn ends with `<end_of_turn>`); without it the model would talk on to the length limit.
    """
    configured = model.generation_config.eos_token_id
    found = configured if isinstance(configured, list) else [configured]
    return sorted({i for i in [*found, tokenizer.eos_token_id, end_of_turn(tokenizer)] if i is not None})


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The special token that follows an assistant's message in the chat template; None if there is none."""
    if not tokenizer.chat_template:
        return None
    turns = [{"role": "user", "content": "question"}, {"role": "assistant", "content": "reply"}]
    after = tokenizer.apply_chat_template(turns, tokenize=False).rpartition("reply")[2]
    added = tokenizer.added_tokens_decoder
    ids = tokenizer(after, add_special_tokens=False)["input_ids"]
    return next((i for i in ids if i in added and added[i].special), None)


def pick_dtype(dtype: str, device: str) -> str:
    """Resolve "auto" for a device: bfloat16 if the GPU computes it natively, float16 on older GPUs, float32 on CPU."""
    import torch

    if dtype != "auto":
        return dtype
    if device == "cpu":
        return "float32"
    return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"


def four_bit(compute_dtype: Any) -> Any:
    """The paper's NF4 quantisation (QLoRA, arXiv 2305.14314). Raises ValueError without bitsandbytes."""
    from transformers import BitsAndBytesConfig

    if importlib.util.find_spec("bitsandbytes") is None:
        raise ValueError(
            "load_in_4bit needs bitsandbytes and a GPU: pip install 'reflectevo_lite[gpu]', or set load_in_4bit: false"
        )
    nf4 = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True, "bnb_4bit_compute_dtype": compute_dtype}
    return BitsAndBytesConfig(load_in_4bit=True, **nf4)


class Adapters:
    """The LoRA adapters on one base model: loaded once each, switched on where asked.

    PEFT's own model class does it. (transformers' `model.load_adapter` fills in freshly initialised weights for the
    adapters that were loaded before, without an error.)
    """

    def __init__(self, base: PreTrainedModel) -> None:
        self.base = base
        self.peft: PeftModel | None = None
        self.whole: tuple[str, PreTrainedModel] | None = None  # the fully fine-tuned model that was used last

    @contextmanager
    def use(self, path: str | Path | None) -> Iterator[PreTrainedModel | PeftModel]:
        """The model with the adapter at `path` switched on, or the bare base for None, for the length of a block.

        If a fully fine-tuned model lies at `path`, that model: its weights cannot be shared, so it is in memory beside
        the base, one such model at a time. Raises ValueError if neither lies at `path`.
        """
        if path is None:
            with self.peft.disable_adapter() if self.peft else nullcontext():
                yield self.peft or self.base
        elif (Path(path) / "config.json").exists() and not (Path(path) / "adapter_config.json").exists():
            yield self._whole(Path(path))
        else:
            self._load(Path(path))
            self.peft.set_adapter(adapter_name(path))
            yield self.peft

    def _whole(self, path: Path) -> PreTrainedModel:
        file = path / "training.json"
        key = f"{path.resolve()}|{file.stat().st_mtime_ns if file.exists() else 0}"
        if self.whole is None or self.whole[0] != key:
            self.whole = None  # the earlier one goes before the next one comes
            dtype = str(self.base.dtype).removeprefix("torch.")
            self.whole = key, load(str(path), dtype=dtype, device=self.base.device.type).model
        return self.whole[1]

    def _load(self, path: Path) -> None:
        from peft import PeftModel

        if not (path / "adapter_config.json").exists():
            raise ValueError(f"no adapter at {path}: train that setting first")
        name = adapter_name(path)
        if self.peft is None:
            self.peft = PeftModel.from_pretrained(self.base, str(path), adapter_name=name)
        elif name not in self.peft.peft_config:
            self.peft.load_adapter(str(path), adapter_name=name)
        self.peft.eval()


def adapter_name(path: str | Path) -> str:
    """A name for an adapter directory that PEFT accepts and that changes with the weights."""
    stamp = (Path(path) / "adapter_model.safetensors").stat()
    return "a" + hashlib.sha256(f"{Path(path).resolve()}|{stamp.st_mtime_ns}|{stamp.st_size}".encode()).hexdigest()[:12]


def fingerprint(name: str) -> str:
    """A short hash of a local model's configuration and weights; a hub id is returned as it is."""
    folder = Path(resolve(name))
    if not folder.is_dir():
        return name
    digest = hashlib.sha256()
    for file in sorted([*folder.glob("config.json"), *folder.glob("*.safetensors"), *folder.glob("tokenizer.json")]):
        digest.update(file.name.encode())
        with file.open("rb") as handle:
            while block := handle.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:16]
