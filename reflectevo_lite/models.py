"""Loading a model and its tokenizer; adapters on one shared base.

Generator and Reflector are the same base model: a trained Reflector is a LoRA adapter that is switched on where it
writes and off where the Generator answers, so that weights are in memory once.
"""

from __future__ import annotations

import hashlib
import importlib.util
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TINY = "tiny"  # the embedded model's name in params
TEMPLATE = {"enable_thinking": False}  # what chat templates are told, in generation and in training alike (Qwen-3)


class Loaded(NamedTuple):
    """A base model, its tokenizer, and which backend loaded it and why."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    backend: str


def resolve(name: str) -> str:
    """The hub id or absolute path behind a model name; "tiny" is the embedded model."""
    if name == TINY:
        return str(Path(__file__).parent / "tiny_model")
    return str(Path(name).resolve()) if Path(name).is_dir() else name


def load(name: str, *, dtype: str = "auto", load_in_4bit: bool = False, device: str | None = None) -> Loaded:
    """Load a causal language model for generation or training.

    `dtype` is "float32", "bfloat16", "float16" or "auto" (bf16 where the GPU has it, fp16 on older GPUs, fp32 on CPU).
    Raises ValueError, with the remedy, where the model cannot be found.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()  # of reading a file
    path, device = resolve(name), device or ("cuda" if torch.cuda.is_available() else "cpu")
    kwargs: dict[str, Any] = {"dtype": getattr(torch, pick_dtype(dtype, device))}
    if load_in_4bit:
        kwargs |= {"quantization_config": four_bit(kwargs["dtype"]), "device_map": {"": torch.cuda.current_device()}}
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
        model = AutoModelForCausalLM.from_pretrained(path, **kwargs)
    except OSError as error:
        raise ValueError(
            f"cannot load model {name!r}: {str(error).splitlines()[0]} (a local folder works offline)"
        ) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    if not load_in_4bit:
        model.to(device)
    model.eval()
    model.generation_config.eos_token_id = stop_tokens(model, tokenizer)
    return Loaded(model, tokenizer, name, f"transformers on {device}, {kwargs['dtype']}")


def stop_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Every token that ends a turn: of the generation configuration, the tokenizer, and the chat template.

    Published configurations do not always name the one that the template writes (early Gemma-2: `<eos>` alone, though
    a turn ends with `<end_of_turn>`); without it the model would talk on to the length limit.
    """
    configured = model.generation_config.eos_token_id
    found = configured if isinstance(configured, list) else [configured]
    return sorted({i for i in [*found, tokenizer.eos_token_id, end_of_turn(tokenizer)] if i is not None})


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The special token that follows an assistant's message in the chat template; None where there is none."""
    if not tokenizer.chat_template:
        return None
    turns = [{"role": "user", "content": "question"}, {"role": "assistant", "content": "reply"}]
    after = tokenizer.apply_chat_template(turns, tokenize=False).rpartition("reply")[2]
    added = tokenizer.added_tokens_decoder
    ids = tokenizer(after, add_special_tokens=False)["input_ids"]
    return next((i for i in ids if i in added and added[i].special), None)


def pick_dtype(dtype: str, device: str) -> str:
    """Resolve "auto" for a device: bfloat16 where the GPU computes it natively, float16 on older GPUs, float32 on CPU."""
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
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype,
    )


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

        Where a fully fine-tuned model lies at `path`, that model: its weights cannot be shared, so it is in memory
        beside the base, one such model at a time. Raises ValueError where neither lies at `path`.
        """
        if path is None:
            with self.peft.disable_adapter() if self.peft else nullcontext():
                yield self.peft or self.base
            return
        if (Path(path) / "config.json").exists() and not (Path(path) / "adapter_config.json").exists():
            yield self._whole(path)
            return
        self._load(path)
        self.peft.set_adapter(adapter_name(path))
        yield self.peft

    def _whole(self, path: str | Path) -> PreTrainedModel:
        file = Path(path) / "training.json"
        key = f"{Path(path).resolve()}|{file.stat().st_mtime_ns if file.exists() else 0}"
        if self.whole is None or self.whole[0] != key:
            self.whole = None  # the earlier one goes before the next one comes
            dtype = str(self.base.dtype).removeprefix("torch.")
            self.whole = key, load(str(path), dtype=dtype, device=self.base.device.type).model
        return self.whole[1]

    def _load(self, path: str | Path) -> None:
        from peft import PeftModel

        if not (Path(path) / "adapter_config.json").exists():
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
