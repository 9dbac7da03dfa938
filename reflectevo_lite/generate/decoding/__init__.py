"""The padded batches' decoding loop, on a processor and on a card; it knows plain attention layers only.

It rests on what transformers and torch do not promise to keep (cache layers, attention functions, oneDNN's operator), so
`misfit` says beforehand where it cannot work: transformers' own `generate` takes its place there. Nothing of the package
comes in but `Sampling`.
"""

from .loop import Group, decode, group, misfit, pad

__all__ = ["Group", "decode", "group", "misfit", "pad"]
