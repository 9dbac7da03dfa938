"""Batched generation behind one protocol.

`TransformersEngine` runs a loaded model: prompts are sorted by length and padded on the left into batches that share
a token budget, so short prompts travel many at a time and long ones do not run out of memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from . import models
from .rows import Message

if TYPE_CHECKING:
    import torch

Adapter = str | Path | None


class Completion(NamedTuple):
    """One generated turn: its text, the tokens it took (end of turn included), and whether the length limit cut it."""

    text: str
    tokens: int
    truncated: bool


class Engine(Protocol):
    """Anything that answers conversations."""

    name: str

    def generate(
        self,
        conversations: Sequence[list[Message]],
        *,
        n: int = 1,
        temperature: float = 0.0,
        max_new_tokens: int = 512,
        seed: int = 0,
        adapter: Adapter = None,
    ) -> list[list[Completion]]:
        """`n` completions for each conversation, in order; temperature 0 is greedy, and then `n` must be 1."""
        ...


class TransformersEngine:
    """Generation with a model in this process.

    `batch_tokens` bounds rows × (prompt + new tokens) of a batch; when a GPU runs out of memory it is halved and the
    batch is tried again. Sampling is seeded per call, so the same call gives the same rows on the same machine.
    """

    def __init__(self, loaded: models.Loaded, *, batch_tokens: int | None = None) -> None:
        self.model, self.tokenizer, self.name, self.backend = loaded
        self.adapters = models.Adapters(self.model)
        self.batch_tokens = batch_tokens or 65_536

    def generate(
        self,
        conversations: Sequence[list[Message]],
        *,
        n: int = 1,
        temperature: float = 0.0,
        max_new_tokens: int = 512,
        seed: int = 0,
        adapter: Adapter = None,
    ) -> list[list[Completion]]:
        """See `Engine.generate`. Raises ValueError for more than one greedy completion."""
        import torch

        if n > 1 and temperature <= 0:
            raise ValueError(f"n={n} greedy completions would be {n} copies: set temperature above 0, or n to 1")
        prompts = [self.encode(conversation) for conversation in conversations]
        order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))  # longest first: memory peaks at once
        results: list[list[Completion]] = [[] for _ in prompts]
        torch.manual_seed(seed)
        with torch.inference_mode(), self.adapters.use(adapter) as model:
            while order:
                batch = order[: self._rows(len(prompts[order[0]]) + max_new_tokens, n)]
                try:
                    completions = self._generate(model, [prompts[i] for i in batch], n, temperature, max_new_tokens)
                except torch.cuda.OutOfMemoryError:
                    if len(batch) == 1:
                        raise
                    torch.cuda.empty_cache()
                    self.batch_tokens //= 2
                    continue
                for i, found in zip(batch, completions, strict=True):
                    results[i] = found
                order = order[len(batch) :]
        return results

    def encode(self, conversation: list[Message], completion: str | None = None) -> list[int]:
        """Token ids of a prompt as the model's chat template lays it out, thinking modes switched off."""
        text = self.tokenizer.apply_chat_template(
            conversation, tokenize=False, add_generation_prompt=True, **models.TEMPLATE
        )
        return self.tokenizer(text + (completion or ""), add_special_tokens=False)["input_ids"]

    def score(
        self, conversations: Sequence[list[Message]], completions: Sequence[str], *, adapter: Adapter = None
    ) -> list[float]:
        """log p(completion | prompt) in nats for each pair, summed over the completion's tokens."""
        import torch

        pairs = [
            (p := self.encode(c), self.encode(c, text)[len(p) :])
            for c, text in zip(conversations, completions, strict=True)
        ]
        order = sorted(range(len(pairs)), key=lambda i: len(pairs[i][0]))
        scores = [0.0] * len(pairs)
        with torch.inference_mode(), self.adapters.use(adapter) as model:
            while order:
                batch = order[: self._rows(len(pairs[order[-1]][0]) + 64, 1)]
                for i, value in zip(batch, self._score(model, [pairs[i] for i in batch]), strict=True):
                    scores[i] = value
                order = order[len(batch) :]
        return scores

    def _score(self, model: Any, pairs: list[tuple[list[int], list[int]]]) -> list[float]:
        import torch

        ids, mask = self._pad([prompt + completion for prompt, completion in pairs])
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        longest = max(len(completion) for _, completion in pairs)
        logits = model(input_ids=ids, attention_mask=mask, position_ids=positions, logits_to_keep=longest + 1).logits[
            :, :-1
        ]
        taken = logits.float().log_softmax(-1).gather(-1, ids[:, -longest:, None])[..., 0]
        kept = torch.arange(longest, 0, -1, device=ids.device) <= torch.tensor(
            [[len(c)] for _, c in pairs], device=ids.device
        )
        return (taken * kept).sum(-1).tolist()

    def _rows(self, width: int, n: int) -> int:
        return max(1, self.batch_tokens // (width * n))

    def _generate(
        self, model: Any, prompts: list[list[int]], n: int, temperature: float, max_new_tokens: int
    ) -> list[list[Completion]]:
        ids, mask = self._pad(prompts)
        sampling = (
            {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
            if temperature > 0
            else {"do_sample": False}
        )
        out = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=max_new_tokens,
            num_return_sequences=n,
            pad_token_id=self.tokenizer.pad_token_id,
            eos_token_id=self._stops(),
            **sampling,
        )
        new = out[:, ids.shape[1] :].tolist()
        stops, size = set(self._stops()), max_new_tokens
        return [[self._completion(row, stops, size) for row in new[i : i + n]] for i in range(0, len(new), n)]

    def _pad(self, prompts: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        import torch

        width, device = max(map(len, prompts)), self.model.device
        ids = [[self.tokenizer.pad_token_id] * (width - len(p)) + p for p in prompts]
        mask = [[0] * (width - len(p)) + [1] * len(p) for p in prompts]
        return torch.tensor(ids, device=device), torch.tensor(mask, device=device)

    def _stops(self) -> list[int]:
        """Every token that ends a turn: the tokenizer's and those of the model's generation config."""
        configured = self.model.generation_config.eos_token_id
        extra = configured if isinstance(configured, list) else [configured]
        return sorted({i for i in [self.tokenizer.eos_token_id, *extra] if i is not None})

    def _completion(self, ids: list[int], stops: set[int], limit: int) -> Completion:
        end = next((i for i, token in enumerate(ids) if token in stops), None)
        text = self.tokenizer.decode(ids if end is None else ids[:end], skip_special_tokens=True)
        return Completion(text.strip(), limit if end is None else end + 1, end is None)
