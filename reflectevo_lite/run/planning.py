"""What a run will take: prompts, tokens, optimiser steps, GPU memory, time. Nothing is loaded.

Sizes come from a model's configuration alone: a local folder's config.json, the table of known models, or a hub's cached
file. Memory is counted tensor by tensor: weights, adapters and their optimiser states, the activations that the backward
pass keeps, logits, the KV cache of generation. Times divide operations and bytes by what the card can do, times an
assumed efficiency: an order of magnitude, not a promise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..generate import GIB, Shape, default_batch_tokens, shape_of

OVERHEAD = 0.8 * GIB  # CUDA context, cuBLAS workspaces, what the caching allocator cannot use (seen sizes: 0.5–1 GiB)
USABLE = 0.95  # of a card's memory
NF4_BYTES = 0.516  # per weight: 4 bits and double-quantised scales (arXiv 2305.14314, section 3)
TRAIN_EFFICIENCY, PREFILL_EFFICIENCY, READ_EFFICIENCY = 0.35, 0.4, 0.5  # assumed shares of peak
NF4_SLOWER = 1.3  # assumed: weights are dequantised at every use
LAYER_SECONDS = 0.001  # assumed: what Python takes to launch one layer's kernels in a decoding step


class Card(NamedTuple):
    """A GPU: memory in GiB, dense 16-bit tensor TFLOP/s, memory bandwidth in GB/s, native bfloat16. Makers' data sheets."""

    memory: float
    tflops: float
    bandwidth: float
    bf16: bool


CARDS = {
    "T4": Card(15, 65, 320, False),
    "P100": Card(16, 19, 732, False),
    "V100": Card(16, 125, 900, False),
    "RTX 3090": Card(24, 71, 936, True),
    "RTX 4090": Card(24, 165, 1008, True),
    "A10": Card(24, 125, 600, True),
    "L4": Card(22.5, 121, 300, True),
    "L40S": Card(45, 362, 864, True),
    "A100 40GB": Card(40, 312, 1555, True),
    "A100 80GB": Card(80, 312, 2039, True),
    "H100 PCIe": Card(80, 756, 2000, True),
    "H100": Card(80, 989, 3350, True),
    "H200": Card(140, 989, 4800, True),
    "B200": Card(178, 2250, 8000, True),
}


def card(name: str) -> Card | None:
    """The card of a device name as torch reports it ("NVIDIA H100 80GB HBM3") or a person writes it ("t4"); else None."""
    squeezed = name.lower().replace("-", " ").replace("geforce ", "").replace("tesla ", "").replace("nvidia ", "")
    words = set(squeezed.replace("gb", "gb ").split())
    fitting = [known for known in CARDS if set(known.lower().split()) <= words]
    if not fitting and (family := squeezed.split()[:1]):
        fitting = [known for known in CARDS if known.lower().split()[0] == family[0]]
    return CARDS[max(fitting, key=len)] if fitting else None


# -- Memory -----------------------------------------------------------------------------------------------------------------
class Setup(NamedTuple):
    """How a model is held and trained; lengths in tokens."""

    shape: Shape
    bytes_per_weight: int = 2
    load_in_4bit: bool = False
    lora_r: int = 16
    full: bool = False
    gradient_checkpointing: bool = False
    max_length: int = 1024


def weights(setup: Setup) -> float:
    """Bytes of the base model. bitsandbytes leaves embeddings, head and norms in 16 bits; full fine-tuning is in fp32."""
    shape = setup.shape
    if setup.load_in_4bit and not setup.full:
        return shape.linear * NF4_BYTES + (shape.parameters - shape.linear) * setup.bytes_per_weight
    return shape.parameters * (4 if setup.full else setup.bytes_per_weight)


def optimiser(setup: Setup) -> float:
    """Bytes of what AdamW updates: fp32 weights (an adapter's), gradients and two moments; 16-bit copies of full weights."""
    if setup.full:
        return setup.shape.parameters * (12 + 2)
    return setup.shape.lora(setup.lora_r) * 16


def activations(setup: Setup, tokens: int) -> float:
    """Bytes kept for the backward pass over `tokens` of a batch.

    Per token and layer 19 h + 6.3 a + 4.3 k + 8.4 i + 14 r + 16 bytes in 16 bits (h hidden, a attention width, k key
    width, i intermediate, r LoRA rank): fitted to what autograd saved in PEFT Llama layers of seven shapes with sdpa, to
    0.1 %. With checkpointing a layer keeps its input only, and one layer at a time is recomputed.
    """
    s = setup.shape
    layer = 19 * s.hidden + 6.3 * s.heads * s.head_dim + 4.3 * s.kv_heads * s.head_dim + 8.4 * s.intermediate
    layer = (layer + 14 * setup.lora_r + 16) * setup.bytes_per_weight / 2
    if setup.gradient_checkpointing:
        return tokens * (s.layers * s.hidden * setup.bytes_per_weight + layer)
    return tokens * s.layers * layer


def train_memory(setup: Setup, kind: str, batch: int) -> float:
    """Peak bytes of a training step whose rows are all `max_length` long: the most it can be.

    SFT's loss goes over the vocabulary in chunks of 256 tokens; DPO holds the logits of chosen and rejected, in the
    model's precision, with their gradient and an fp32 row.
    """
    rows = 2 * batch if kind == "dpo" else batch
    tokens = rows * setup.max_length
    per_logit = 2 * setup.bytes_per_weight
    logits = tokens * per_logit if kind == "dpo" else 256 * 3 * 4
    return weights(setup) + optimiser(setup) + activations(setup, tokens) + logits * setup.shape.vocab + OVERHEAD


def generation_memory(setup: Setup, batch_tokens: int) -> float:
    """Peak bytes of generation: weights, the KV cache of a full batch, and one layer's activations of its prompts."""
    s = setup.shape
    cache = batch_tokens * s.cache * setup.bytes_per_weight
    return weights(setup._replace(full=False)) + cache + batch_tokens / 2 * 6 * s.hidden + OVERHEAD


# -- Work -------------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Assumed:
    """What a plan cannot know: shares in 0..1, lengths in tokens (defaults: means of the paper's data, rounded up)."""

    wrong: float = 0.5  # of first answers
    corrected: float = 0.25  # of second answers, and so the share of reflections in D+
    prompt: int = 200
    answer: int = 240
    reflection: int = 270


class Work(NamedTuple):
    """What one part of a run does. `tokens`: generated, or trained on (prompts included)."""

    stage: str
    what: str
    prompts: int
    tokens: int
    steps: int = 0


def work(params: Mapping[str, Mapping[str, Any]], assumed: Assumed | None = None) -> list[Work]:
    """Prompts, tokens and steps by notebook, from each notebook's own parameters (`pipeline.Plan.params`)."""
    a = assumed or Assumed()
    flat = {name: value for values in params.values() for name, value in values.items()}
    found = [*_generation_work(params, flat, a), *_training_work(params, flat, a)]
    return sorted(found, key=lambda w: w.stage)


def _cut(flat: Mapping[str, Any], tokens: int) -> int:
    return min(tokens, flat.get("max_new_tokens", tokens))


def _turns(n: float, turns: int, a: Assumed) -> float:
    """Problems that go on to turns 2, 3, …: each turn mends a share of what was still wrong."""
    return sum(n * a.wrong * (1 - a.corrected) ** t for t in range(max(0, turns - 1)))


def _generation_work(params: Mapping[str, Any], flat: Mapping[str, Any], a: Assumed) -> list[Work]:
    answer, reflection = _cut(flat, a.answer), _cut(flat, a.reflection)
    n, n_test, turns = flat.get("n_rollout", 0), flat.get("n_test", 0), flat.get("turns", 2)
    wrong, sampled = n_test * a.wrong, n * a.wrong * flat.get("k", 0)

    def part(stage: str, what: str, answers: float, reflections: float) -> Work:
        return Work(stage, what, round(answers + reflections), round(answers * answer + reflections * reflection))

    multi = _turns(n_test, turns, a)
    evaluations = {  # (answers, reflections): settings over several turns, pairs of controls, intrinsic mode
        "02_reflection_generation": (n_test + multi + 3 * wrong + n_test, multi + 2 * wrong + n_test),
        "03_sft": (multi + 5 * wrong + n_test, multi + 4 * wrong + n_test),
        "04_dpo": (2 * wrong, 2 * wrong),
    }
    found = [part(stage, "evaluation", *counts) for stage, counts in evaluations.items() if stage in params]
    if "02_reflection_generation" in params:
        found.append(part("02_reflection_generation", "rollouts", n + sampled, sampled))
    if rounds := flat.get("rounds", 1) - 1:
        found.append(part("05_iteration", "rollouts", rounds * (n + sampled), rounds * sampled))
        found.append(part("05_iteration", "evaluation", rounds * multi, rounds * multi))
    return found


def _training_work(params: Mapping[str, Any], flat: Mapping[str, Any], a: Assumed) -> list[Work]:
    prompt, answer, reflection = a.prompt + _cut(flat, a.answer), _cut(flat, a.answer), _cut(flat, a.reflection)
    failed = flat.get("n_rollout", 0) * a.wrong
    k, share = flat.get("k", 0), a.corrected
    plus = failed * k * share
    mixed, both = 1 - share**k - (1 - share) ** k, 1 - (1 - share) ** k - k * share * (1 - share) ** (k - 1)

    def part(stage: str, what: str, kind: str, rows: float, length: int) -> Work:
        batch = flat.get(f"{kind}_batch_size", 1) * flat.get("grad_accum", 1)
        epochs = flat.get(f"{kind}_epochs", 1)
        steps = int(-(-round(rows) // batch) * epochs)
        return Work(stage, what, round(rows), round(rows * epochs * length), steps)

    found = []
    if "03_sft" in params:
        found.append(part("03_sft", "SFT: reflector, unfiltered", "sft", 2 * plus, prompt + reflection))
        found.append(part("03_sft", "SFT: corrector, one-stage", "sft", 2 * plus, prompt + reflection + answer))
    if "04_dpo" in params:
        pairs = failed * (4 * mixed + both)
        found.append(part("04_dpo", "DPO: D±, D^pref (at most)", "dpo", pairs, 2 * (prompt + reflection)))
    if (rounds := flat.get("rounds", 1)) > 1:
        times = sum(range(2, rounds + 1)) if flat.get("round_data") == "union" else rounds - 1
        if flat.get("round_training") == "dpo":
            pairs = failed * 4 * mixed * times
            found.append(part("05_iteration", "DPO: rounds (at most)", "dpo", pairs, 2 * (prompt + reflection)))
        else:
            found.append(part("05_iteration", "SFT: rounds", "sft", plus * times, prompt + reflection))
    return found


# -- Time -------------------------------------------------------------------------------------------------------------------
def seconds(part: Work, setup: Setup, device: Card, flat: Mapping[str, Any], prompt: int, batch_tokens: int) -> float:
    """Rough seconds of a part on a card (training: on each of `processes` cards)."""
    shape = setup.shape
    n = shape.parameters - (0 if shape.tied else shape.vocab * shape.hidden)  # an input embedding is a look-up
    peak = device.tflops * 1e12
    if part.steps:
        passes = 6 if setup.full else 4  # forward 2, backward 2 or 4; DPO's reference forward 2; recomputation 2
        passes += 2 * ("DPO" in part.what) + 2 * setup.gradient_checkpointing
        slower = NF4_SLOWER if setup.load_in_4bit and not setup.full else 1
        return slower * passes * n * part.tokens / (peak * TRAIN_EFFICIENCY) / (flat.get("processes") or 1)
    longest, mean = flat.get("max_new_tokens", 512), part.tokens / max(1, part.prompts)
    rows = max(1, min(batch_tokens // (prompt + longest), flat.get("chunk_size", 250), part.prompts))
    cache = rows * (prompt + mean / 2) * shape.cache * setup.bytes_per_weight
    step = (weights(setup) + cache) / (device.bandwidth * 1e9 * READ_EFFICIENCY)
    decode = -(-part.prompts // rows) * longest * max(step, shape.layers * LAYER_SECONDS)
    return decode + 2 * n * part.prompts * prompt / (peak * PREFILL_EFFICIENCY)


# -- The plan ---------------------------------------------------------------------------------------------------------------
class Estimate(NamedTuple):
    """A run's plan: its work, peak bytes by what needs them, seconds (None without a known card), remedies if too big."""

    setup: Setup
    work: list[Work]
    memory: dict[str, float]
    seconds: dict[str, float] | None
    limit: float | None
    remedies: list[str]

    @property
    def fits(self) -> bool | None:
        """Whether the peak fits into the card; None where no card is known."""
        return None if self.limit is None else max(self.memory.values()) <= self.limit * USABLE


def estimate(
    params: Mapping[str, Mapping[str, Any]],
    *,
    memory: float | None = None,
    device: Card | None = None,
    assumed: Assumed | None = None,
) -> Estimate:
    """Plan a run from its parameters by notebook. `memory` in GiB overrides the card's.

    Raises ValueError where the model's size is not known.
    """
    flat = {name: value for values in params.values() for name, value in values.items()}
    flat["generates_in_4bit"] = params.get("02_reflection_generation", {}).get("load_in_4bit", False)
    setup = _setup(flat, memory is not None or device is not None)
    limit = memory * GIB if memory else device.memory * GIB if device else None
    parts, peaks, times = work(params, assumed), _peaks(setup, flat, limit), None
    if device:
        prompt, batch = (assumed or Assumed()).prompt, _batch_tokens(setup, flat, limit)
        times = {f"{p.stage} {p.what}": seconds(p, setup, device, flat, prompt, batch) for p in parts}
    found = Estimate(setup, parts, peaks, times, limit, [])
    return found if found.fits is not False else found._replace(remedies=_remedies(setup, flat, limit))


def _setup(flat: Mapping[str, Any], on_gpu: bool) -> Setup:
    shape = shape_of(flat["model"])
    checkpointing = flat.get("gradient_checkpointing", False)
    return Setup(
        shape,
        bytes_per_weight=2 if on_gpu else 4,
        load_in_4bit=flat.get("load_in_4bit", False),
        lora_r=flat.get("lora_r", 16),
        full=flat.get("full_finetuning", False),
        gradient_checkpointing=shape.parameters >= 1e9 if checkpointing is None else checkpointing,
        max_length=flat.get("max_length", 1024),
    )


def _generating(setup: Setup, flat: Mapping[str, Any]) -> Setup:
    return setup._replace(load_in_4bit=setup.load_in_4bit and bool(flat["generates_in_4bit"]), full=False)


def _batch_tokens(setup: Setup, flat: Mapping[str, Any], limit: float | None) -> int:
    """The engine halves its batches until they fit; below a few rows it would not run."""
    batch = default_batch_tokens(setup.shape, setup.bytes_per_weight, "cuda" if limit else "cpu")
    while limit and batch > 4096 and generation_memory(_generating(setup, flat), batch) > limit * USABLE:
        batch //= 2
    return batch


def _peaks(setup: Setup, flat: Mapping[str, Any], limit: float | None) -> dict[str, float]:
    found = {"generation": generation_memory(_generating(setup, flat), _batch_tokens(setup, flat, limit))}
    for kind in ("sft", "dpo"):
        if f"{kind}_batch_size" in flat:
            each = -(-flat[f"{kind}_batch_size"] // (flat.get("processes") or 1))  # a batch is shared by the processes
            found[kind] = train_memory(setup, kind, each)
    return found


def _remedies(setup: Setup, flat: Mapping[str, Any], limit: float) -> list[str]:
    """The usual changes, in the order of what they cost, up to the first with which the run fits."""
    said, flat = [], dict(flat)

    def fits() -> bool:
        return max(_peaks(setup, flat, limit).values()) <= limit * USABLE

    for kind in ("sft", "dpo"):  # the same training, in smaller steps
        name = f"{kind}_batch_size"
        before = flat.get(name, 1)
        while flat.get(name, 1) > 1 and _peaks(setup, flat, limit)[kind] > limit * USABLE:
            flat[name] //= 2
        if flat.get(name, 1) < before:
            said.append(f"{name}: {flat[name]} and grad_accum × {before // flat[name]}")
    for line, change in (
        ("gradient_checkpointing: true", {"gradient_checkpointing": True}),
        ("full_finetuning: false", {"full": False}),
        ("load_in_4bit: true", {"load_in_4bit": True}),
    ):
        if fits():
            return said
        if any(getattr(setup, name) != value for name, value in change.items()):
            setup = setup._replace(**change)
            said.append(line)
    return said if fits() else [*said, "and that is not enough: a smaller model, a shorter max_length or a larger card"]


def report(found: Estimate) -> str:
    """The plan as text: a line per part of the run, the memory table, the verdict."""
    lines = [f"{'':42s}{'prompts or rows':>16s}{'tokens':>14s}{'steps':>8s}{'about':>10s}"]
    for part in found.work:
        name = f"{part.stage} {part.what}"
        about = _duration(found.seconds[name]) if found.seconds else "?"
        steps = f"{part.steps:,}" if part.steps else ""
        lines.append(f"{name:42s}{part.prompts:16,}{part.tokens:14,}{steps:>8s}{about:>10s}")
    if found.seconds:
        lines.append(f"{'in all, estimated, not measured':80s}{_duration(sum(found.seconds.values())):>10s}")
    shape = found.setup.shape
    held = "NF4" if found.setup.load_in_4bit else f"{8 * found.setup.bytes_per_weight} bits"
    lines.append(
        f"\n{shape.parameters:,} parameters, {shape.lora(found.setup.lora_r):,} in a LoRA adapter; trained on {held}"
    )
    lines += [f"peak memory of {name:12s}{_gib(value):>10s}" for name, value in found.memory.items()]
    return "\n".join([*lines, verdict(found)])


def verdict(found: Estimate) -> str:
    """One line: fits, does not fit and what would help, or which card to name."""
    what, most = max(found.memory.items(), key=lambda item: item[1])
    need = f"{_gib(most)} ({what})"
    if found.fits is None:
        return f"needs at most {need}; no GPU here: name one with --gpu T4 or --gpu-memory 16"
    if found.fits:
        return f"fits: at most {need} of {_gib(found.limit)}"
    return f"does not fit: up to {need}, and {_gib(found.limit)} are there; set {', '.join(found.remedies)}"


def _gib(value: float) -> str:
    return f"{value / GIB:.1f} GiB"


def _duration(value: float) -> str:
    units: Sequence[tuple[float, str]] = ((86400, "d"), (3600, "h"), (60, "min"))
    return next((f"{value / size:.1f} {unit}" for size, unit in units if value >= size), f"{value:.0f} s")
