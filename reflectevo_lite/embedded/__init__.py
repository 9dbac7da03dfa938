"""The embedded world: tasks whose mistakes are known, and the small model that was made on them."""

from .making import GATES, KINDS, RECIPE, build_tokenizer, encode, gate_table, gates, phrases, pretrain, write_card
from .tasks import ANSWER, FAMILIES, blamed, diagnose, problems, sample_task, to_task

__all__ = [
    "ANSWER",
    "FAMILIES",
    "GATES",
    "KINDS",
    "RECIPE",
    "blamed",
    "build_tokenizer",
    "diagnose",
    "encode",
    "gate_table",
    "gates",
    "phrases",
    "pretrain",
    "problems",
    "sample_task",
    "to_task",
    "write_card",
]
