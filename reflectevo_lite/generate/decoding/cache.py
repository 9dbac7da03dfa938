"""A layer of the decoding loop's key-value cache, in buffers that are written in place.

transformers' `DynamicCache` copies all it holds at every token; its `StaticCache` attends over all it may ever hold.
This one has room for a few tokens to come, which the mask hides, and grows. Attention is shown whole buffers: a
processor reads at full speed only if there are no gaps between rows."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

ROOM = 16  # tokens to come: with fewer more is copied, with more more is read for nothing


class Layer(DynamicLayer):
    """Keys and values (rows × heads × tokens × head dimension), of which the first `end` tokens are filled."""

    def __init__(self, parts: Sequence[Any]) -> None:
        """The rows of `parts` one below the other, all prompts ending at the same token."""
        super().__init__()
        self.end, self.is_initialized = max(p.keys.shape[2] for p in parts), True
        self.keys = _joined([p.keys for p in parts], self.end)
        self.values = _joined([p.values for p in parts], self.end)

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Append new tokens; the keys and values of all tokens and of those to come."""
        new = key_states.shape[2]
        if more := self.get_mask_sizes(new)[0] - self.keys.shape[2]:
            self.keys, self.values = (torch.nn.functional.pad(x, (0, 0, 0, more)) for x in (self.keys, self.values))
        at, self.end = self.end, self.end + new
        self.keys[:, :, at : self.end], self.values[:, :, at : self.end] = key_states, value_states
        return self.keys, self.values

    def keep(self, n: int, free: Tensor, moved: Tensor) -> None:
        """Keep `n` rows: the first ones, those at `free` among them replaced by those at `moved`."""
        for held in (self.keys, self.values):
            held[free] = held[moved]
        self.keys, self.values = self.keys[:n], self.values[:n]

    def get_seq_length(self) -> int:
        return self.end

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Tokens that attention is shown once `query_length` more are in, and the first one's place."""
        end, held = self.end + query_length, self.keys.shape[2]
        return held if end <= held else end + ROOM, 0


def _joined(parts: Sequence[Tensor], width: int) -> Tensor:
    # what the mask hides, left of a prompt and right of all, must be finite: zeros
    _, heads, _, size = parts[0].shape
    found, at = parts[0].new_zeros(sum(map(len, parts)), heads, width + ROOM, size), 0
    for part in parts:
        found[at : at + len(part), :, width - part.shape[2] : width] = part
        at += len(part)
    return found
