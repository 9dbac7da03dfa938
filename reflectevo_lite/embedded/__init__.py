"""The embedded world: tasks whose mistakes are known, and the small model that was made on them."""

from .corpus import KINDS, reflection_text
from .making import GATES, RECIPE, gate_table, gates, pretrain, write_card
from .tasks import ANSWER, FAMILIES, blamed, diagnose, problems, sample_task, to_task
from .tokenizer import build_tokenizer, encode, phrases

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
    "reflection_text",
    "sample_task",
    "to_task",
    "write_card",
]
