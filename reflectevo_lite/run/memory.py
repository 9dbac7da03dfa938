"""GPU memory of generation and training, counted tensor by tensor, and the cards that it has to fit.

Times divide operations and bytes by what a card can do, times an assumed efficiency: an order of magnitude, no promise.
"""

import csv
import json
from pathlib import Path
from typing import NamedTuple

from ..generate import GIB, Shape

OVERHEAD = 0.8 * GIB  # CUDA context, cuBLAS workspaces, what the caching allocator cannot use (seen sizes: 0.5–1 GiB)
USABLE = 0.95  # of a card's memory
NF4_BYTES = 0.516  # per weight: 4 bits and double-quantised scales (arXiv 2305.14314, section 3)
TRAIN_EFFICIENCY, PREFILL_EFFICIENCY, READ_EFFICIENCY = 0.35, 0.4, 0.5  # assumed shares of peak
NF4_SLOWER = 1.3  # assumed: weights are dequantised at every use
LAYER_SECONDS = 0.00076  # to launch one layer's kernels in a decoding step; measured on an H200, Qwen3-1.7B's shape


class Card(NamedTuple):
    """A GPU: memory in GiB, dense 16-bit tensor TFLOP/s, memory bandwidth in GB/s, native bfloat16. Makers' data sheets."""

    memory: float
    tflops: float
    bandwidth: float
    bf16: bool


_LINES = Path(__file__).with_name("cards.csv").read_text(encoding="utf-8").splitlines()[1:]
CARDS = {name: Card(*map(json.loads, cells)) for name, *cells in csv.reader(_LINES)}


def card(name: str) -> Card | None:
    """The card of a device name as torch reports it ("NVIDIA H100 80GB HBM3") or a person writes it ("t4"); else None."""
    squeezed = name.lower().replace("-", " ").replace("geforce ", "").replace("tesla ", "").replace("nvidia ", "")
    words = set(squeezed.replace("gb", "gb ").split())
    fitting = [known for known in CARDS if set(known.lower().split()) <= words]
    if not fitting and (family := squeezed.split()[:1]):
        fitting = [known for known in CARDS if known.lower().split()[0] == family[0]]
    return CARDS[max(fitting, key=len)] if fitting else None


class Setup(NamedTuple):
    """How a model is held and trained; lengths in tokens."""

    shape: Shape
    bytes_per_weight: int = 2
    load_in_4bit: bool = False
    lora_r: int = 16
    full_finetuning: bool = False
    gradient_checkpointing: bool = False
    max_length: int = 1024


def weights(setup: Setup) -> float:
    """Bytes of the base model. bitsandbytes leaves embeddings, head and norms in 16 bits; full fine-tuning is in fp32."""
    shape = setup.shape
    if setup.load_in_4bit and not setup.full_finetuning:
        return shape.linear * NF4_BYTES + (shape.parameters - shape.linear) * setup.bytes_per_weight
    return shape.parameters * (4 if setup.full_finetuning else setup.bytes_per_weight)


def optimiser(setup: Setup) -> float:
    """Bytes of what AdamW updates: fp32 weights (an adapter's), gradients and two moments; 16-bit copies of full weights."""
    return setup.shape.parameters * (12 + 2) if setup.full_finetuning else setup.shape.lora(setup.lora_r) * 16


def activations(setup: Setup, tokens: int) -> float:
    """Bytes kept for the backward pass over `tokens` of a batch."""
    return tokens * setup.shape.kept(setup.bytes_per_weight, setup.lora_r, setup.gradient_checkpointing)


def train_memory(setup: Setup, kind: str, batch: int) -> float:
    """Peak bytes of a training step whose rows are all `max_length` long: the most it can be. SFT's loss goes over the
    vocabulary in chunks of 256 tokens. DPO holds the logits of chosen and rejected five times in the model's precision:
    measured on an H200 at Qwen3-1.7B's shape, 28.3 GiB for 16 rows of up to 1,050 tokens."""
    tokens = batch * setup.max_length * (2 if kind == "dpo" else 1)
    logits = tokens * 5 * setup.bytes_per_weight if kind == "dpo" else 256 * 3 * 4
    return weights(setup) + optimiser(setup) + activations(setup, tokens) + logits * setup.shape.vocab + OVERHEAD


def generation_memory(setup: Setup, batch_tokens: int) -> float:
    """Peak bytes of generation: weights, the KV cache of a full batch, and one layer's activations of its prompts."""
    cache = batch_tokens * setup.shape.cache * setup.bytes_per_weight
    layer = batch_tokens / 2 * 6 * setup.shape.hidden
    return weights(setup._replace(full_finetuning=False)) + cache + layer + OVERHEAD


def training_seconds(setup: Setup, device: Card, tokens: int, *, dpo: bool = False, processes: int = 1) -> float:
    """Rough seconds of training on so many tokens, on each of `processes` cards."""
    full = setup.full_finetuning  # forward 2, backward 2 or 4; DPO's reference forward 2; recomputation 2
    passes = (6 if full else 4) + 2 * dpo + 2 * setup.gradient_checkpointing
    slower = NF4_SLOWER if setup.load_in_4bit and not full else 1
    return slower * passes * _multiplied(setup.shape) * tokens / (device.tflops * 1e12 * TRAIN_EFFICIENCY) / processes


def generation_seconds(
    setup: Setup, device: Card, prompts: int, tokens: int, *, rows: int, prompt: int, longest: int
) -> float:
    """Rough seconds of generating `tokens` for `prompts`, `rows` at a time; `prompt` and `longest` in tokens each."""
    rows = max(1, min(rows, prompts))
    cache = rows * (prompt + tokens / max(1, prompts) / 2) * setup.shape.cache * setup.bytes_per_weight
    step = (weights(setup) + cache) / (device.bandwidth * 1e9 * READ_EFFICIENCY)
    decode = -(-prompts // rows) * longest * max(step, setup.shape.layers * LAYER_SECONDS)
    return decode + 2 * _multiplied(setup.shape) * prompts * prompt / (device.tflops * 1e12 * PREFILL_EFFICIENCY)


def _multiplied(shape: Shape) -> int:
    """Weights that a token is multiplied with: an untied input embedding is a look-up."""
    return shape.parameters - (0 if shape.tied else shape.vocab * shape.hidden)
