"""Sizes of models from their configuration alone, and what follows for a batch of generation. Nothing is loaded."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .weights import at_hand, resolve

GIB = 1 << 30
BATCH_TOKENS = {"cpu": 65_536, "cuda": 131_072}  # rows × (prompt + new tokens) of a batch in generation
CPU_CACHE = 4 * GIB  # for their keys and values there: a real model gets fewer tokens than a small one


class Shape(NamedTuple):
    """A decoder's dimensions and numbers of weights (0: not counted)."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    tied: bool
    parameters: int = 0  # tied ones once
    linear: int = 0  # in the layers' matrices: what LoRA adapts and NF4 quantises
    ends: int = 0  # inputs + outputs of these matrices

    @property
    def cache(self) -> int:
        """Numbers that a token's keys and values are."""
        return 2 * self.layers * self.kv_heads * self.head_dim

    def lora(self, r: int) -> int:
        """Weights of a rank-`r` adapter on every linear layer."""
        return r * self.ends

    def kept(self, bytes_per_weight: int, lora_r: int, checkpointing: bool = False) -> float:
        """Bytes kept for the backward pass over a token. A layer's, in 16 bits, are fitted to what autograd saved in PEFT
        Llama layers of seven shapes with sdpa, to 0.1 %. With checkpointing a layer keeps its input only, and one layer
        at a time is recomputed."""
        layer = 19 * self.hidden + 6.3 * self.heads * self.head_dim + 4.3 * self.kv_heads * self.head_dim
        layer = (layer + 8.4 * self.intermediate + 14 * lora_r + 16) * bytes_per_weight / 2
        return self.layers * self.hidden * bytes_per_weight + layer if checkpointing else self.layers * layer


_LINES = Path(__file__).with_name("shapes.csv").read_text(encoding="utf-8").splitlines()[1:]
KNOWN = {name: Shape(*map(json.loads, cells)) for name, *cells in csv.reader(_LINES)}


def shape_of(name: str) -> Shape:
    """The shape of a model by name. Raises ValueError if no folder, table entry or hub cache has it."""
    path = resolve(name)
    if path in KNOWN and not Path(path).is_dir():
        return KNOWN[path]
    from transformers import AutoConfig

    try:
        if not at_hand(name):
            raise OSError(name)
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError) as error:  # offline, gated, no such model, nothing that transformers knows
        remedy = f"give a folder with the config.json of a model that transformers knows, or one of {', '.join(KNOWN)}"
        raise ValueError(f"the size of model {name!r} is not known: {remedy}") from error
    return shape_from_config(config.to_dict())


def about(path: str) -> float:
    """Roughly how many weights a model has, by its configuration; infinity if its dimensions cannot be read."""
    from transformers import AutoConfig

    try:
        s = _dimensions(AutoConfig.from_pretrained(path).get_text_config())
        return s.hidden * (s.layers * (4 * s.hidden + 3 * s.intermediate) + s.vocab)
    except AttributeError:
        return float("inf")


def shape_from_config(config: Mapping[str, Any]) -> Shape:
    """The shape in a decoder's config.json, its weights counted on torch's meta device, which takes no memory. Raises
    ValueError for an architecture that is not a decoder of attention and linear layers."""
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
    return found._replace(parameters=model.num_parameters(), linear=sum(w.numel() for w in linear), ends=ends)


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


def dimensions_of(model: Any) -> Shape:
    """The dimensions of a loaded model, no weights counted; one whose cannot be read is taken for an 8B one."""
    try:
        return _dimensions(model.config.get_text_config())
    except AttributeError:
        return KNOWN["meta-llama/Llama-3.1-8B-Instruct"]


def fitting_batch_tokens(model: Any) -> int:
    """`default_batch_tokens` of a loaded model."""
    return default_batch_tokens(dimensions_of(model), model.dtype.itemsize, model.device.type)
