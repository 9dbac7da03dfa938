"""The padded batches' decoding loop, for models of plain attention layers, on a processor or a card.

It rests on what transformers and torch do not promise to keep (cache layers, attention functions, oneDNN's operator).
Ask `misfit` first: if it gives a reason, use transformers' own `generate` instead."""

from .loop import Group, decode, fill, group, misfit, pad
