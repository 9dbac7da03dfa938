"""Sizes of models from their configuration alone, and what follows for a batch of generation. Nothing is loaded."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .models import resolve

GIB = 1 << 30
BATCH_TOKENS = {"cpu": 65_536, "cuda": 131_072}  # rows × (prompt + new tokens) of a batch in generation
CPU_CACHE = 4 * GIB  # for their keys and values there: a real model gets fewer tokens than a small one


class Counted(NamedTuple):
    """What a model's modules hold."""

    parameters: int  # tied ones once
    linear: int  # those of linear layers, the output head left out
    ends: int  # inputs + outputs of these layers


class Shape(NamedTuple):
    """A decoder's dimensions. Its weights are `counted`, or else worked out for a Llama-like decoder."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    tied: bool
    qkv_bias: bool = False
    qk_norm: bool = False
    norms: int = 2  # RMS norms per layer
    counted: Counted | None = None

    @property
    def linear(self) -> int:
        """Weights of the layers' matrices: what LoRA adapts and NF4 quantises."""
        return self.counted.linear if self.counted else self.layers * sum(a * b for a, b in self._matrices())

    @property
    def parameters(self) -> int:
        """All weights, tied ones once."""
        if self.counted:
            return self.counted.parameters
        small = self.norms * self.hidden + self.qk_norm * 2 * self.head_dim
        small += self.qkv_bias * (self.heads + 2 * self.kv_heads) * self.head_dim
        embeddings = self.vocab * self.hidden * (1 if self.tied else 2)
        return embeddings + self.linear + self.layers * small + self.hidden

    @property
    def cache(self) -> int:
        """Numbers that a token's keys and values are."""
        return 2 * self.layers * self.kv_heads * self.head_dim

    def lora(self, r: int) -> int:
        """Weights of a rank-`r` adapter on every linear layer."""
        return r * (self.counted.ends if self.counted else self.layers * sum(a + b for a, b in self._matrices()))

    def _matrices(self) -> list[tuple[int, int]]:
        h, attention, kv = self.hidden, self.heads * self.head_dim, self.kv_heads * self.head_dim
        return [(h, attention), (h, kv), (h, kv), (attention, h)] + 3 * [(h, self.intermediate)]


KNOWN = {
    "meta-llama/Meta-Llama-3-8B-Instruct": Shape(4096, 32, 32, 8, 128, 14336, 128256, False),
    "meta-llama/Llama-3.1-8B-Instruct": Shape(4096, 32, 32, 8, 128, 14336, 128256, False),
    "meta-llama/Llama-3.2-1B-Instruct": Shape(2048, 16, 32, 8, 64, 8192, 128256, True),
    "meta-llama/Llama-3.2-3B-Instruct": Shape(3072, 28, 24, 8, 128, 8192, 128256, True),
    "mistralai/Mistral-7B-Instruct-v0.2": Shape(4096, 32, 32, 8, 128, 14336, 32000, False),
    "google/gemma-2-2b-it": Shape(2304, 26, 8, 4, 256, 9216, 256000, True, norms=4),
    "google/gemma-2-9b-it": Shape(3584, 42, 16, 8, 256, 14336, 256000, True, norms=4),
    "Qwen/Qwen2.5-0.5B-Instruct": Shape(896, 24, 14, 2, 64, 4864, 151936, True, qkv_bias=True),
    "Qwen/Qwen2.5-1.5B-Instruct": Shape(1536, 28, 12, 2, 128, 8960, 151936, True, qkv_bias=True),
    "Qwen/Qwen2.5-3B-Instruct": Shape(2048, 36, 16, 2, 128, 11008, 151936, True, qkv_bias=True),
    "Qwen/Qwen2.5-7B-Instruct": Shape(3584, 28, 28, 4, 128, 18944, 152064, False, qkv_bias=True),
    "Qwen/Qwen3-0.6B": Shape(1024, 28, 16, 8, 128, 3072, 151936, True, qk_norm=True),
    "Qwen/Qwen3-1.7B": Shape(2048, 28, 16, 8, 128, 6144, 151936, True, qk_norm=True),
    "Qwen/Qwen3-4B": Shape(2560, 36, 32, 8, 128, 9728, 151936, True, qk_norm=True),
    "Qwen/Qwen3-8B": Shape(4096, 36, 32, 8, 128, 12288, 151936, False, qk_norm=True),
}


def shape_of(name: str) -> Shape:
    """The shape of a model by name. Raises ValueError if no folder, table entry or hub cache has it."""
    path = resolve(name)
    if name in KNOWN and not Path(path).is_dir():
        return KNOWN[name]
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError) as error:  # offline, gated, no such model, nothing that transformers knows
        remedy = f"give a folder with the config.json of a model that transformers knows, or one of {', '.join(KNOWN)}"
        raise ValueError(f"the size of model {name!r} is not known: {remedy}") from error
    return shape_from_config(config.to_dict())


def shape_from_config(config: Mapping[str, Any]) -> Shape:
    """The shape in a decoder's config.json, its weights counted on torch's meta device, which takes no memory.

    Raises ValueError for an architecture that is not a decoder of attention and linear layers.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = dict(config.get("text_config") or config)
    kind = config.pop("model_type", "?")
    try:
        read = AutoConfig.for_model(kind, **config)
        found = _dimensions(read)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(read)
    except (AttributeError, TypeError, ValueError) as error:
        why = str(error).split(". ")[0]
        raise ValueError(f"no size is known for models of type {kind!r}: {why}") from error
    head = model.get_output_embeddings()
    linear = [m.weight for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head]
    if not linear:
        raise ValueError(f"no size is known for models of type {kind!r}: it has no linear layers that LoRA could adapt")
    ends = sum(sum(w.shape) for w in linear)
    return found._replace(counted=Counted(model.num_parameters(), sum(w.numel() for w in linear), ends))


def _dimensions(config: Any) -> Shape:
    # read off the class, which knows each dimension under one name; AttributeError if one is missing
    h, heads = config.hidden_size, config.num_attention_heads
    kv_heads, head_dim = (getattr(config, name, None) for name in ("num_key_value_heads", "head_dim"))
    sizes = (config.intermediate_size, config.vocab_size, bool(config.tie_word_embeddings))
    return Shape(h, config.num_hidden_layers, heads, kv_heads or heads, head_dim or h // heads, *sizes)


def default_batch_tokens(shape: Shape, bytes_per_weight: int, device: str) -> int:
    """Tokens of a batch in generation if the engine is not told how many."""
    if device != "cpu":
        return BATCH_TOKENS["cuda"]
    return min(BATCH_TOKENS["cpu"], CPU_CACHE // (shape.cache * bytes_per_weight))


def fitting_batch_tokens(model: Any) -> int:
    """`default_batch_tokens` of a loaded model; one whose dimensions cannot be read is taken for an 8B one."""
    try:
        shape = _dimensions(model.config.get_text_config())
    except AttributeError:
        shape = KNOWN["meta-llama/Llama-3.1-8B-Instruct"]
    return default_batch_tokens(shape, model.dtype.itemsize, model.device.type)
