"""Sizes of models from their configuration alone, and what follows for a batch of generation. Nothing is loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GIB = 1 << 30
BATCH_TOKENS = {"cpu": 65_536, "cuda": 131_072}  # rows × (prompt + new tokens) of a batch in generation
CPU_CACHE = 4 * GIB  # and what their keys and values may take there: a real model gets fewer tokens than a small one


@dataclass(frozen=True)
class Shape:
    """A decoder's dimensions; what its size and memory follow from."""

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

    @property
    def linear(self) -> int:
        """Weights of the layers' matrices: what LoRA adapts and NF4 quantises."""
        return self.layers * sum(a * b for a, b in self._matrices())

    @property
    def parameters(self) -> int:
        """All weights, tied ones once."""
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
        return self.layers * r * sum(a + b for a, b in self._matrices())

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
    """The shape of a model by name. Raises ValueError where neither a folder, the table nor the hub's cache knows it."""
    from ..generate import resolve

    folder = Path(resolve(name))
    if (folder / "config.json").exists():
        return shape_from_config(json.loads((folder / "config.json").read_text()))
    if name in KNOWN:
        return KNOWN[name]
    if (config := _hub_config(name)) is not None:
        return shape_from_config(config)
    raise ValueError(
        f"the size of model {name!r} is not known: give a local folder with its config.json, or one of {', '.join(KNOWN)}"
    )


def _hub_config(name: str) -> dict[str, Any] | None:
    from huggingface_hub import hf_hub_download

    try:
        return json.loads(Path(hf_hub_download(name, "config.json", etag_timeout=5)).read_text())
    except Exception:  # offline, gated, no such model: the caller has one line for all of them
        return None


def shape_from_config(config: Mapping[str, Any]) -> Shape:
    """The shape in a config.json of a Llama-like decoder (llama, mistral, qwen2, qwen3, gemma2, gemma3_text, phi3).

    Raises ValueError for another architecture, since a guess would be worth nothing.
    """
    config = config.get("text_config", config)
    kind = config.get("model_type", "?")
    if kind not in ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi3", "smollm3"):
        raise ValueError(f"no size is known for models of type {kind!r}: the plan counts Llama-like decoders only")
    heads = config["num_attention_heads"]
    return Shape(
        hidden=config["hidden_size"],
        layers=config["num_hidden_layers"],
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or config["hidden_size"] // heads,
        intermediate=config["intermediate_size"],
        vocab=config["vocab_size"],
        tied=config.get("tie_word_embeddings", kind in ("gemma2", "gemma3_text")),
        qkv_bias=kind == "qwen2" or bool(config.get("attention_bias")),
        qk_norm=kind in ("qwen3", "gemma3_text"),
        norms=4 if kind.startswith("gemma") else 2,
    )


def default_batch_tokens(shape: Shape, bytes_per_weight: int, device: str) -> int:
    """Tokens of a batch in generation where the engine is not told how many."""
    if device != "cpu":
        return BATCH_TOKENS["cuda"]
    return min(BATCH_TOKENS["cpu"], CPU_CACHE // (shape.cache * bytes_per_weight))
