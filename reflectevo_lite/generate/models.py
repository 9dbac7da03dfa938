"""Loading a model and its tokenizer; adapters on one shared base; Unsloth where it works, plain transformers elsewhere.

Generator and Reflector are the same base model: a trained Reflector is a LoRA adapter that is switched on where it
writes and off where the Generator answers, so that weights are in memory once.

Unsloth (https://github.com/unslothai/unsloth) replaces kernels and also the defaults of TRL's configs. This module is
the only one that knows of it: `choose_backend` decides and imports it, `load` and `trainable` take the same parameters
on both paths, `explicit` holds every trainer argument that Unsloth would otherwise change.
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
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peft import LoraConfig, PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TINY = "tiny"  # the embedded model's name in params
TEMPLATE = {"enable_thinking": False}  # what chat templates are told, in generation and in training alike (Qwen-3)
BACKENDS = ("auto", "unsloth", "transformers")
LARGE = 1_000_000_000  # parameters from which on activations, not weights, decide whether a training step fits


class Loaded(NamedTuple):
    """A base model, its tokenizer, and which backend loaded it and why."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    backend: str


def resolve(name: str) -> str:
    """The hub id or absolute path behind a model name; "tiny" is the embedded model."""
    if name == TINY:
        return str(Path(__file__).parents[1] / "embedded" / "model")
    return str(Path(name).resolve()) if Path(name).is_dir() else name


class Choice(NamedTuple):
    """Which library loads and trains models in this process, and why."""

    unsloth: bool
    why: str


def choose_backend(backend: str = "auto") -> Choice:
    """Decide between Unsloth and plain transformers + PEFT, and import Unsloth where it is chosen.

    "auto": Unsloth where CUDA and the package work. "unsloth": Unsloth or an error (it also has a CPU backend).
    "transformers": never Unsloth. Call it before anything imports trl, transformers or peft: Unsloth patches them while
    they are imported. Raises ValueError for another name, and for "unsloth" where it does not work.
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
    os.environ.setdefault("UNSLOTH_DISABLE_STATISTICS", "1")  # a call home, and a wait where there is no network
    os.environ.setdefault("UNSLOTH_COMPILE_LOCATION", str(cache_dir() / "unsloth"))  # else the working directory
    try:
        import unsloth
    except Exception as error:  # whatever its many checks raise, training goes on without it
        reason = (str(error).splitlines() or [""])[0]
        return Choice(False, f"Unsloth cannot be imported here ({type(error).__name__}: {reason})")
    why = f"Unsloth {getattr(unsloth, '__version__', '?')}"
    return Choice(
        True, why + (f", imported after {', '.join(late)}: restart the kernel for its full speed" * bool(late))
    )


def cache_dir() -> Path:
    """Where this package keeps what it can make again; `XDG_CACHE_HOME` moves it."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "reflectevo_lite"


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

    `dtype` is "float32", "bfloat16", "float16" or "auto" (bf16 where the GPU has it, fp16 on older GPUs, fp32 on CPU;
    fp32 for full fine-tuning, since steps of 1e-6 vanish in 16 bits). `max_length`: tokens of prompt and completion that
    Unsloth prepares for. Says once, in one line, which backend it is and why. Raises ValueError, with the remedy, where
    the model cannot be found or the backend does not work.
    """
    if full_finetuning and load_in_4bit:
        raise ValueError("full_finetuning cannot hold its weights in 4 bits: set load_in_4bit: false")
    choice = choose_backend("transformers" if device == "cpu" and backend == "auto" else backend)
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()  # of reading a file
    path, device = resolve(name), device or ("cuda" if torch.cuda.is_available() else "cpu")
    number = getattr(torch, "float32" if full_finetuning and dtype == "auto" else pick_dtype(dtype, device))
    tokenizer = _tokenizer(name, path)  # transformers' own on both paths: Unsloth's mends chat templates
    unsloth = (
        choice.unsloth and for_training
    )  # its models fill no cache that is handed to them and know no paged attention
    if unsloth:
        model = _load_unsloth(path, number, load_in_4bit, max_length, full_finetuning)
    else:
        model = _load_plain(name, path, number, load_in_4bit, device)
    if not for_training:
        model.eval()
    model.generation_config.eos_token_id = stop_tokens(model, tokenizer)
    kind = "NF4, computing in " if load_in_4bit else ""
    used = "Unsloth" if unsloth else "transformers"
    why = f"{choice.why} trains" if choice.unsloth and not unsloth else choice.why
    loaded = Loaded(model, tokenizer, name, f"{used} on {device}, {kind}{str(number)[6:]} ({why})")
    _say(f"{name}: {loaded.backend}")
    return loaded


@functools.cache
def _say(line: str) -> None:
    print(line, flush=True)


def _tokenizer(name: str, path: str) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
    except OSError as error:
        raise _not_found(name, error) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    return tokenizer


def _not_found(name: str, error: OSError) -> ValueError:
    return ValueError(f"cannot load model {name!r}: {str(error).splitlines()[0]} (a local folder works offline)")


def _load_plain(name: str, path: str, dtype: Any, load_in_4bit: bool, device: str) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    kwargs: dict[str, Any] = {"dtype": dtype}
    if load_in_4bit:
        kwargs |= {"quantization_config": four_bit(dtype), "device_map": {"": _local_device(device)}}
    try:
        model = AutoModelForCausalLM.from_pretrained(path, **kwargs)
    except OSError as error:
        raise _not_found(name, error) from error
    return model if load_in_4bit else model.to(_local_device(device))


def _local_device(device: str) -> Any:
    """The device of this process: its own GPU where several processes train together."""
    return int(os.environ.get("LOCAL_RANK", 0)) if device == "cuda" else device


def _load_unsloth(path: str, dtype: Any, load_in_4bit: bool, max_length: int, full: bool) -> PreTrainedModel:
    from unsloth import FastLanguageModel

    model, _ = FastLanguageModel.from_pretrained(
        model_name=path,
        max_seq_length=max_length,
        dtype=dtype,
        load_in_4bit=load_in_4bit,
        full_finetuning=full,
        use_exact_model_name=True,  # else a name is replaced by Unsloth's own quantised upload of it
        use_gradient_checkpointing=False,  # `trainable` decides
        fast_inference=False,  # vLLM is reached through a server instead
    )
    return model


def is_unsloth(loaded: Loaded) -> bool:
    """Whether a model was loaded through Unsloth."""
    return loaded.backend.startswith("Unsloth")


def trainable(
    loaded: Loaded,
    *,
    r: int,
    alpha: int,
    dropout: float,
    gradient_checkpointing: bool = False,
    max_length: int = 4096,
    seed: int = 0,
    full_finetuning: bool = False,
    start: str | Path | None = None,
) -> tuple[Any, LoraConfig | None]:
    """(model, peft_config) as any TRL trainer takes them, the same training on both backends.

    Plain: the base model and the LoRA configuration that the trainer applies. Unsloth: a model that already carries the
    adapter, and None. Full fine-tuning: the base model and None. `start`: the adapter to go on training, on the model, and
    None. LoRA goes on every linear layer but the head. Call `settle` on the trainer built with them.
    """
    if full_finetuning:
        return loaded.model, None
    if start is not None:
        from peft import PeftModel

        return PeftModel.from_pretrained(loaded.model, str(start), is_trainable=True), None
    shared = {"r": r, "lora_alpha": alpha, "lora_dropout": dropout, "bias": "none", "use_rslora": False}
    shared |= {"target_modules": linear_layers(loaded.model), "init_lora_weights": True, "modules_to_save": None}
    if is_unsloth(loaded):
        from unsloth import FastLanguageModel

        checkpointing: Literal["unsloth", False] = "unsloth" if gradient_checkpointing else False
        model = FastLanguageModel.get_peft_model(
            loaded.model,
            **shared,
            use_gradient_checkpointing=checkpointing,
            random_state=seed,
            max_seq_length=max_length,
        )
        return model, None
    from peft import LoraConfig

    return loaded.model, LoraConfig(**shared, task_type="CAUSAL_LM")


def linear_layers(model: Any) -> list[str]:
    """The names of a model's linear layers, the output head left out: what LoRA adapts."""
    import torch

    head = model.get_output_embeddings()
    return sorted(
        {
            name.rsplit(".", 1)[-1]
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear) and module is not head
        }
    )


def settle(trainer: Any, *, fresh: bool = True) -> None:
    """Undo, right after a TRL trainer is built, what its constructor did to the adapters.

    TRL turns the adapters of a 4-bit model to bf16, which a gradient scaler (fp16, a T4) refuses and small steps vanish
    in: they go back to fp32, as PEFT makes them. For a `fresh` adapter that was on the model before the trainer was,
    DPOTrainer keeps a copy named "ref"; the base model is that same reference without the copy.
    """
    import torch

    for name, weight in trainer.model.named_parameters():
        if "lora_" in name and weight.dtype in (torch.float16, torch.bfloat16):
            weight.data = weight.data.float()
    if fresh and "ref" in getattr(trainer.model, "peft_config", {}):
        trainer.model.delete_adapter("ref")


def wants_checkpointing(asked: bool | None, model: Any) -> bool:
    """Gradient checkpointing as asked for; for None, by size: on for a billion parameters and more."""
    return model.num_parameters() >= LARGE if asked is None else asked


EXPLICIT: dict[str, Any] = {  # arguments that Unsloth's trainers change, with transformers' and TRL's own values
    "auto_find_batch_size": False,
    "average_tokens_across_devices": True,
    "dataloader_num_workers": 0,
    "eval_accumulation_steps": None,
    "include_num_input_tokens_seen": "no",
    "label_smoothing_factor": 0.0,
    "logging_nan_inf_filter": True,
    "optim": "adamw_torch",
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "adam_epsilon": 1e-8,
    "per_device_eval_batch_size": 8,
    "torch_empty_cache_steps": None,
    "report_to": "none",
    "tf32": None,
}
EXPLICIT_BY_KIND: dict[str, dict[str, Any]] = {
    "sft": {"packing": False, "padding_free": False, "loss_type": "chunked_nll"},
    "dpo": {
        "padding_free": False,
        "loss_type": ["sigmoid"],
        "disable_dropout": True,
        "precompute_ref_log_probs": False,
    },
    "grpo": {
        "beta": 0.0,
        "epsilon_high": 0.2,  # TRL's None means epsilon; Unsloth would make 0.28 of it
        "loss_type": "dapo",
        "mask_truncated_completions": False,
        "num_generations": 8,
        "scale_rewards": "group",
        "use_vllm": False,
    },
}


def explicit(kind: Literal["sft", "dpo", "grpo"], *, unsloth: bool = False) -> dict[str, Any]:
    """The trainer arguments to start from, so that no default of TRL's or Unsloth's is relied on; put yours on top.

    The one that differs is how SFT's loss is computed, not what it is: TRL goes over the tokens in chunks, under Unsloth
    its own kernel does, which TRL's chunks would bypass.
    """
    same = EXPLICIT | EXPLICIT_BY_KIND[kind]
    same = same | {
        "dataset_num_proc": 1 if unsloth else None
    }  # in this process: Unsloth makes of None workers, datasets of 1
    return same | {"loss_type": "nll"} if unsloth and kind == "sft" else same


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
