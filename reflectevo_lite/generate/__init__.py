"""Models that answer: loading them, engines that batch, and the rollouts that reflection learning starts from."""
# ruff: noqa: I001 - long imports are wrapped by hand

from .engines import TransformersEngine, check_answer_by, open_engine
from .models import TEMPLATE, TINY, Loaded, choose_backend, fingerprint, free, is_unsloth, load, pick_dtype, resolve
from .protocol import Adapter, AnswerBy, Completion, Engine, refused
from .rollouts import (
    RolloutParams, answer, chunk_seed, generate_rollouts, graded, likeliest, scores_options, tally,
)  # fmt: skip
from .server import ServerEngine, ServerOptions
from .sizes import GIB, KNOWN, Shape, default_batch_tokens, shape_of
