"""Passes of few tokens on a processor: attention as two matrix products, and linear layers by oneDNN.

torch's `scaled_dot_product_attention` takes rows and heads one by one and copies grouped-query keys and values for each
head: 10 to 15 times the time for 16 heads that share 8 (two cores, float32, 128 to 4,096 tokens held). Its float32
linear layers go to MKL, which uses no AVX-512 on AMD processors: oneDNN took 0.4 to 0.7 of the time for 256 rows."""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, eager_mask

ATTENTION = "reflectevo_cpu"  # its name at https://huggingface.co/docs/transformers/attention_interface
CELLS = 32 << 10  # new × held tokens of a row; with more, torch's own is the faster (512 × 512: 1.4 to 3.6 times)
WORTH = 2 << 20  # multiplications of a linear layer below which oneDNN's preparations take longer than they save


@contextlib.contextmanager
def faster(model: Any) -> Iterator[None]:
    """Run the model's passes of few tokens this way if it is on a processor; its weights stay as they are."""
    here = model.device.type == "cpu" and isinstance(model, nn.Module)
    layers = [m for m in model.modules() if _plain(m)] if here and torch.backends.mkldnn.is_available() else []
    lent = here and model.config._attn_implementation == "sdpa"
    try:
        for layer in layers:
            layer.forward = functools.partial(_linear, layer)
        if lent:
            model.set_attn_implementation(ATTENTION)
        yield
    finally:
        if lent:
            model.set_attn_implementation("sdpa")
        for layer in layers:
            vars(layer).pop("forward", None)


def misfit() -> str | None:
    """Why oneDNN's operator, no part of torch's API, cannot be used; None if it can, or torch has no oneDNN."""
    x, weight = torch.eye(2), torch.ones(3, 2)
    try:
        works = not torch.backends.mkldnn.is_available() or torch.equal(_onednn(x, weight, None), x @ weight.T)
        return None if works else "oneDNN's linear layers compute something else in this torch"
    except (AttributeError, NotImplementedError, RuntimeError, TypeError) as error:
        return f"oneDNN's linear layers are called otherwise in this torch: {type(error).__name__}"


def attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Rows × new tokens × heads × head dimension, from query, key and value (rows × heads × tokens × head dimension).
    `attention_mask` (rows × 1 × new tokens × tokens) is added to the scores. `options` are those of torch's own."""
    rows, heads, new, size = query.shape
    kv_heads, tokens = key.shape[1:3]
    scaling, more = options.get("scaling"), options.get("dropout") or options.get("position_bias") is not None
    if attention_mask is None or scaling is None or more or new * tokens > CELLS:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    grouped = (query * scaling).reshape(rows * kv_heads, -1, size)  # heads with the same keys, one below the other
    scores = torch.bmm(grouped, key.flatten(0, 1).transpose(1, 2)).view(rows, heads, new, tokens)
    weights = scores.add_(attention_mask).softmax(-1, dtype=torch.float32).to(value.dtype)
    found = torch.bmm(weights.view(*grouped.shape[:2], tokens), value.flatten(0, 1))
    return found.view(rows, heads, new, -1).transpose(1, 2).contiguous(), None


def _plain(module: nn.Module) -> bool:
    """Whether it is a linear layer in float32 that neither quantisation nor offloading has changed."""
    plain = type(module) is nn.Linear and "forward" not in vars(module)
    return plain and type(module.weight.data) is Tensor and module.weight.dtype == torch.float32


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    few = x.numel() * layer.out_features < WORTH
    return (nn.functional.linear if few else _onednn)(x, layer.weight, layer.bias)


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise.default(x, weight, bias, "none", [], "")


AttentionInterface.register(ATTENTION, attention)
AttentionMaskInterface.register(ATTENTION, eager_mask)
