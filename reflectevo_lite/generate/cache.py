"""The decoding loop's key-value cache: one buffer a layer, written in place, and kept for the next batch.

transformers' `DynamicCache` concatenates at every token, which copies all that is held; its `StaticCache` attends over
all that may ever be held. This one has room for a few tokens to come, which the mask hides, and grows. Attention is
shown whole buffers: a processor reads on at full speed only where there are no gaps between one row and the next.
Prompts that are run piece by piece write into one buffer. On a CPU its memory is kept: what is new to a process is
handed out by the system page by page, which takes longer than to fill it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

ROOM = 16  # tokens to come: fewer mean more copies, more mean more that is read for nothing
KEPT = 512 << 20  # bytes that are kept from batch to batch at most


class Memory:
    """Pieces of memory between batches, one-dimensional. A batch has those that it takes until it gives them back."""

    def __init__(self) -> None:
        self.free: list[torch.Tensor] = []

    def take(self, size: int, most: int, like: torch.Tensor) -> torch.Tensor:
        """At least `size` numbers of the kind of `like`, on a CPU `most`; what they are is anything."""
        with contextlib.suppress(IndexError):
            found = self.free.pop()
            if len(found) >= size and (found.dtype, found.device) == (like.dtype, like.device):
                return found
        return like.new_empty(max(size, most) if like.device.type == "cpu" else size)  # untouched, it costs nothing

    def give(self, piece: torch.Tensor) -> None:
        """Keep it for the next that asks, where it is worth it."""
        if piece.device.type == "cpu" and piece.nbytes + sum(p.nbytes for p in self.free) <= KEPT:
            self.free.append(piece)


class Buffer:
    """Keys or values of a layer: `view` is rows × heads × tokens × head dimension."""

    def __init__(self, memory: Memory, shape: Sequence[int], most: int, like: torch.Tensor) -> None:
        self.memory, self.most = memory, most
        self.piece = memory.take(prod(shape), most, like)
        self.view = self.piece[: prod(shape)].view(*shape)

    def grown(self, filled: int, tokens: int) -> Buffer:
        """A longer one, the first `filled` tokens of this one in it; this one's memory is given back."""
        rows, heads, _, size = self.view.shape
        longer = Buffer(self.memory, (rows, heads, tokens, size), self.most, self.view)
        longer.view[:, :, :filled] = self.view[:, :, :filled]
        longer.view[:, :, filled:] = 0
        self.close()
        return longer

    def close(self) -> None:
        """Give the memory back."""
        self.memory.give(self.piece)


class Batch:
    """The keys and values of a batch, two buffers a layer. All prompts end at token `width`; `room` more may follow."""

    def __init__(self, layers: int, rows: int, width: int, room: int, memory: Memory) -> None:
        self.layers, self.rows, self.width, self.room, self.memory = layers, rows, width, room, memory
        self.buffers: dict[int, list[Buffer]] = {}

    def part(self, rows: slice, width: int) -> DynamicCache:
        """The cache of some rows, still empty, whose prompts are `width` tokens long at most."""
        return _cache(Part(self, i, rows, self.width - width) for i in range(self.layers))

    def whole(self) -> DynamicCache:
        """The cache of all rows, once every one is in a part that was filled."""
        return _cache(Whole(self.buffers[i], self.width) for i in range(self.layers))

    def of_layer(self, layer: int, states: Sequence[torch.Tensor]) -> list[Buffer]:
        """A layer's buffers, made at the first call to hold what is shaped like `states`."""
        if layer not in self.buffers:
            self.buffers[layer] = [self._buffer(s) for s in states]
        return self.buffers[layer]

    def close(self) -> None:
        """Give the memory back: the batch's caches are not used any more."""
        for buffer in (b for pair in self.buffers.values() for b in pair):
            buffer.close()

    def _buffer(self, states: torch.Tensor) -> Buffer:
        _, heads, _, size = states.shape
        most = self.rows * heads * (self.width + self.room) * size
        made = Buffer(self.memory, (self.rows, heads, self.width + ROOM, size), most, states)
        made.view[:, :, self.width :] = 0
        return made


class Part(DynamicLayer):
    """One layer of some of a batch's rows, to be filled from token `start` on."""

    def __init__(self, batch: Batch, index: int, rows: slice, start: int) -> None:
        super().__init__()
        self.batch, self.index, self.rows, self.start, self.end = batch, index, rows, start, start

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Open the rows' buffers; what lies left of their prompts is hidden, but may not be infinite."""
        self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True
        self.views = [b.view[self.rows] for b in self.batch.of_layer(self.index, (key_states, value_states))]
        for view in self.views:
            view[:, :, : self.start] = 0

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append tokens of a prompt; the keys and values of all of them, as views."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        at, self.end = self.end, self.end + key_states.shape[2]
        for view, new in zip(self.views, (key_states, value_states), strict=True):
            view[:, :, at : self.end] = new
        self.keys, self.values = (view[:, :, self.start : self.end] for view in self.views)
        return self.keys, self.values


class Whole(DynamicLayer):
    """One layer of a batch, of which the first `end` tokens are filled."""

    def __init__(self, buffers: list[Buffer], end: int) -> None:
        super().__init__()
        self.buffers, self.end, self.is_initialized = buffers, end, True
        self._show(len(buffers[0].view))

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append new tokens; the keys and values of all tokens and of those to come."""
        width, _ = self.get_mask_sizes(key_states.shape[2])
        if width > self.keys.shape[2]:
            self.buffers[:] = [b.grown(self.end, width) for b in self.buffers]  # in place: the batch closes them
            self._show(len(self.keys))
        at, self.end = self.end, self.end + key_states.shape[2]
        self.keys[:, :, at : self.end], self.values[:, :, at : self.end] = key_states, value_states
        return self.keys, self.values

    def keep(self, n: int, free: torch.Tensor, moved: torch.Tensor) -> None:
        """Keep `n` rows: the first ones, those at `free` among them replaced by those at `moved`."""
        for held in (self.keys, self.values):
            held[free] = held[moved]
        self._show(n)

    def get_seq_length(self) -> int:
        """Tokens that are filled."""
        return self.end

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Tokens that attention is shown once `query_length` more are in, and the first one's place."""
        end, width = self.end + query_length, self.keys.shape[2]
        return width if end <= width else end + ROOM, 0

    def _show(self, rows: int) -> None:
        for b in self.buffers:
            b.view = b.view[:rows]
        self.keys, self.values = (b.view for b in self.buffers)


def _cache(layers: Any) -> DynamicCache:
    cache = DynamicCache()
    cache.layers = list(layers)
    return cache
