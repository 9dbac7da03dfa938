"""Models that answer: loading them, engines that batch, and the rollouts that reflection learning starts from."""

from .engines import TransformersEngine, open_engine
from .models import TEMPLATE, TINY, Loaded, choose_backend, fingerprint, free, is_unsloth, load, pick_dtype, resolve
from .protocol import Adapter, Completion, Engine
from .rollouts import RolloutParams, answer, chunk_seed, generate_rollouts, graded, tally
from .server import ServerEngine
from .sizes import GIB, KNOWN, Shape, default_batch_tokens, shape_of
