"""The decoding loop's key-value cache: one buffer a layer, written in place.

transformers' `DynamicCache` concatenates at every token, which copies all that is held; its `StaticCache` attends over
all that may ever be held. This one grows by `ROOM` tokens at a time and shows attention the part that is filled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

ROOM = 48  # tokens a buffer has to spare when it is made


class Layer(DynamicLayer):
    """Keys and values of one layer, each rows × heads × tokens × head dimension, joined from caches of some rows each.

    The parts are padded on the left to `width` tokens, and emptied.
    """

    def __init__(self, parts: Sequence[DynamicLayer], width: int) -> None:
        super().__init__()
        self.dtype, self.device, self.is_initialized = parts[0].keys.dtype, parts[0].keys.device, True
        self.buffers = [_joined([p.keys for p in parts], width), _joined([p.values for p in parts], width)]
        for part in parts:
            part.keys = part.values = None
        self._show(width)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append new tokens; the keys and values of all tokens, as views."""
        start = self.keys.shape[2]
        end = start + key_states.shape[2]
        if end > self.buffers[0].shape[2]:
            self.buffers = [_joined([self.keys], start, end), _joined([self.values], start, end)]
        for held, new in zip(self.buffers, (key_states, value_states), strict=True):
            held[:, :, start:end] = new
        self._show(end)
        return self.keys, self.values

    def keep(self, n: int, free: torch.Tensor, moved: torch.Tensor) -> None:
        """Keep `n` rows: the first ones, those at `free` among them replaced by those at `moved`."""
        width = self.keys.shape[2]
        for held in self.buffers:
            held[free, :, :width] = held[moved, :, :width]
        self.buffers = [held[:n] for held in self.buffers]
        self._show(width)

    def _show(self, width: int) -> None:
        self.keys, self.values = (held[:, :, :width] for held in self.buffers)


def join(parts: Sequence[DynamicCache], width: int) -> DynamicCache:
    """One cache of all the parts' rows, `width` tokens wide."""
    whole = DynamicCache()
    whole.layers = [Layer(layers, width) for layers in zip(*(part.layers for part in parts), strict=True)]
    return whole


def _joined(parts: Sequence[torch.Tensor], width: int, needed: int | None = None) -> torch.Tensor:
    """The parts below one another, each ending at `width`, with room for `needed` tokens (`width`) and `ROOM` more."""
    _, heads, _, size = parts[0].shape
    held = parts[0].new_empty(sum(map(len, parts)), heads, (needed or width) + ROOM, size)
    for rows, part in zip(held.split([len(part) for part in parts]), parts, strict=True):
        left = width - part.shape[2]
        rows[:, :, :left] = 0  # hidden by the mask, but what is hidden may not be infinite
        rows[:, :, left:width] = part
    return held
