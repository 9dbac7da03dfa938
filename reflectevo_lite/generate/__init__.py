"""Models that answer: loading them, engines that batch, and the rollouts that reflection learning starts from."""
# ruff: noqa: I001 - long imports are wrapped by hand

from .chat import TEMPLATE, tokenizer
from .engines import TransformersEngine, check_answer_by, open_engine
from .models import SMALL, Loaded, LoadParams, choose_backend, free, is_unsloth, load, pick_dtype
from .protocol import Adapter, AnswerBy, Completion, Engine, refused
from .rollouts import (
    RolloutParams, answer, chunk_seed, generate_rollouts, graded, likeliest, scores_options, tally,
)  # fmt: skip
from .server import ServerEngine, ServerOptions
from .sizes import GIB, KNOWN, Shape, default_batch_tokens, dimensions_of, shape_of
from .weights import SMOLLM2, SMOLLM2_HUB, TINY, at_hand, check_model, fingerprint, resolve
