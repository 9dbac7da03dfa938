"""Models that answer: loading them, engines that batch, and the rollouts that reflection learning starts from."""

from .engines import TransformersEngine, open_engine
from .models import (
    TEMPLATE,
    TINY,
    Loaded,
    choose_backend,
    fingerprint,
    free,
    is_unsloth,
    load,
    pick_dtype,
    resolve,
)
from .protocol import Adapter, Completion, Engine
from .rollouts import RolloutParams, answer, chunk_seed, generate_rollouts, graded, tally
from .server import ServerEngine
from .sizes import GIB, KNOWN, Shape, default_batch_tokens, shape_of

__all__ = [
    "GIB",
    "KNOWN",
    "TEMPLATE",
    "TINY",
    "Adapter",
    "Completion",
    "Engine",
    "Loaded",
    "RolloutParams",
    "ServerEngine",
    "Shape",
    "TransformersEngine",
    "answer",
    "choose_backend",
    "chunk_seed",
    "default_batch_tokens",
    "fingerprint",
    "free",
    "generate_rollouts",
    "graded",
    "is_unsloth",
    "load",
    "open_engine",
    "pick_dtype",
    "resolve",
    "shape_of",
    "tally",
]
