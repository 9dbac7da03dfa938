"""A batch in parts: what the optimiser takes a step on need not be in memory at once.

TRL's trainers compute a batch as it comes, every row as long as the longest. Here its rows go through the model in parts
of like length, in as many as memory asks for; loss and gradients are those of the whole batch."""

import contextlib
from pathlib import Path
from typing import Any

from .. import generate
from .backend import checkpointing
from .params import Job

CPU_BYTES = 2 << 30  # for a part there: more is not faster, and a kernel without memory kills without a word
SHARE = 0.5, 0.8  # of free memory for a part, on CPU and GPU (where running out is noticed)
CGROUP = Path("/sys/fs/cgroup")


def free_memory(device: str) -> float:
    """Bytes that can be had now: the GPU's, or the machine's within its container's limit (cgroup v2)."""
    if device != "cpu":
        import torch

        return torch.cuda.mem_get_info()[0]
    import psutil

    free = float(psutil.virtual_memory().available)
    with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
        limit, used = (int((CGROUP / f"memory.{name}").read_text()) for name in ("max", "current"))
        free = min(free, limit - used)
    return free


def part_tokens(job: Job, loaded: generate.Loaded) -> int:
    """Tokens, padding included, of a part that fits: what a step keeps of each, by `Shape.kept`, and DPO's logits."""
    model, device = loaded.model, loaded.model.device.type
    room = SHARE[device != "cpu"] * free_memory(device) / (job.params.processes if device == "cpu" else 1)
    shape, width = generate.dimensions_of(model), model.dtype.itemsize
    each = shape.kept(width, job.params.lora_r, checkpointing(job.params, model))
    each += 5 * width * shape.vocab * (job.kind == "dpo")
    return int(min(room, CPU_BYTES if device == "cpu" else room) / each)


def split(inputs: dict[str, Any], tokens: int) -> list[dict[str, Any]]:
    """A collated batch in parts of at most `tokens` (or one row, or pair), longest rows first; itself if it fits."""
    import torch

    ids, mask = inputs["input_ids"], inputs.get("attention_mask")
    if mask is None or ids.numel() <= tokens:  # packed rows are one sequence already
        return [inputs]
    halves = 1 if "labels" in inputs else 2  # DPO's chosen ones are above their rejected ones
    lengths = mask.sum(1).view(halves, -1).amax(0)
    order, parts = lengths.argsort(descending=True, stable=True).tolist(), []
    while order:
        size = max(1, tokens // (halves * int(lengths[order[0]])))
        rows = torch.tensor(order[:size], device=ids.device)
        rows, order = torch.cat([rows + half * len(lengths) for half in range(halves)]), order[size:]
        kept = mask[rows].any(0)
        parts.append({name: value[rows][:, kept] for name, value in inputs.items()})
    return parts


def in_parts(trainer: Any) -> Any:
    """A TRL trainer class whose training step goes through `split`; `tokens` is to be set on what is made of it."""

    class InParts(trainer):  # type: ignore[misc]
        tokens, most, weight = 1 << 62, 1, 1.0

        def training_step(self, model: Any, inputs: dict[str, Any], *rest: Any, **more: Any) -> Any:
            parts = split(inputs, self.tokens)
            self.most = max(self.most, len(parts))
            if len(parts) == 1:
                return super().training_step(model, inputs, *rest, **more)
            losses, given = 0.0, getattr(self, "loss_weights", None)
            count = [(len(part["input_ids"]), int(_bears_loss(part).sum())) for part in parts]
            rows, words = (sum(column) for column in zip(*count, strict=True))
            for i, part in enumerate(parts):
                of_rows, of_words = count[i][0] / rows, count[i][1] / words
                self.weight = of_words if "labels" in part else of_rows  # SFT's mean is over tokens, DPO's over pairs
                if given and len(given) > 1:  # but that of the chosen texts' likelihood over tokens
                    self.loss_weights = [given[0], given[1] * of_words / of_rows]
                # several processes put their gradients together once a batch
                with self.accelerator.no_sync(model) if i + 1 < len(parts) else contextlib.nullcontext():
                    losses = losses + super().training_step(model, part, *rest, **more)
            self.weight = 1.0
            if given:
                self.loss_weights = given
            return losses

        def compute_loss(self, *args: Any, num_items_in_batch: Any = None, **more: Any) -> Any:
            loss = super().compute_loss(*args, num_items_in_batch=num_items_in_batch, **more)
            summed = num_items_in_batch is not None and self.model_accepts_loss_kwargs  # over the batch's tokens
            return loss if summed or self.weight == 1.0 else loss * self.weight

    return InParts


def _bears_loss(part: dict[str, Any]) -> Any:
    if "labels" in part:
        return part["labels"][:, 1:] != -100
    return part["completion_mask"].chunk(2)[0][:, 1:]  # of the chosen texts
