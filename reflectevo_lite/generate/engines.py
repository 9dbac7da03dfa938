"""Batched generation behind one protocol.

`TransformersEngine` runs a loaded model: prompts are sorted by length and padded on the left into batches that share
a token budget, so short prompts travel many at a time and long ones do not run out of memory. `server.ServerEngine`
asks a server instead. `open_engine` gives either.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from ..rows import Message
from . import decoding, models, sizes

if TYPE_CHECKING:
    import torch

Adapter = str | Path | None
Batching = Literal["auto", "padded", "continuous", "generate"]
BATCHING = ("auto", "padded", "continuous", "generate")


class Completion(NamedTuple):
    """One generated turn: its text, the tokens it took (end of turn included), and whether the length limit cut it."""

    text: str
    tokens: int
    truncated: bool


class Engine(Protocol):
    """Anything that answers conversations."""

    name: str
    backend: str  # how, in words

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


def refuse_copies(n: int, temperature: float) -> None:
    """Raise ValueError where `n` greedy completions are asked for."""
    if n > 1 and temperature <= 0:
        raise ValueError(f"n={n} greedy completions would be {n} copies: set temperature above 0, or n to 1")


class TransformersEngine:
    """Generation with a model in this process.

    `batching` is "padded" (the loop of `decoding`: shared beginnings are computed once, finished rows leave the batch,
    repeated text is guessed and checked), "continuous" (transformers' paged attention: rows come and go, nothing is
    padded), "generate" (transformers' plain `generate`, for models that the others do not know) or "auto": continuous on
    CUDA, padded elsewhere, generate where neither fits.

    `batch_tokens` bounds rows × (prompt + new tokens) of a batch (`sizes.default_batch_tokens` where it is not given);
    when a GPU runs out of memory the batch is halved and tried again. Sampling is seeded per call: the same call gives
    the same rows on the same machine, and with "padded" whatever the batches were.
    """

    def __init__(self, loaded: models.Loaded, *, batch_tokens: int | None = None, batching: Batching = "auto") -> None:
        from .cache import Memory

        if batching not in BATCHING:
            raise ValueError(f"unknown batching {batching!r}; there are {', '.join(BATCHING)}")
        self.model, self.tokenizer, self.name, self.backend = loaded
        self.adapters = models.Adapters(self.model)
        self.batch_tokens = batch_tokens or self._fitting()
        self.fallback = "padded" if decoding.can_decode(self.model) else "generate"
        self.batching = self._choose() if batching == "auto" else batching
        self.strict = batching != "auto"
        self.memory = Memory()

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

        refuse_copies(n, temperature)
        if not conversations:
            return []
        once = self.tokenizer([self._text(c) for c in conversations], add_special_tokens=False)["input_ids"]
        prompts = [ids for ids in once for _ in range(n)]
        with self.adapters.use(adapter) as model:
            ids = self._continuous(model, prompts, temperature, max_new_tokens, seed)
            if ids is None:
                with torch.inference_mode():  # not around the above: it works on its tensors from another thread
                    ids = self._in_batches(model, prompts, temperature, max_new_tokens, seed)
        stops = set(self._stops())
        found = [self._completion(row, stops, max_new_tokens) for row in ids]
        return [found[i : i + n] for i in range(0, len(found), n)]

    def encode(self, conversation: list[Message], completion: str | None = None) -> list[int]:
        """Token ids of a prompt as the model's chat template lays it out, thinking modes switched off."""
        return self.tokenizer(self._text(conversation) + (completion or ""), add_special_tokens=False)["input_ids"]

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
        with self.adapters.use(adapter) as model, torch.inference_mode():  # adapters are loaded outside
            while order:
                batch = order[: max(1, self.batch_tokens // (len(pairs[order[-1]][0]) + 64))]
                for i, value in zip(batch, self._score(model, [pairs[i] for i in batch]), strict=True):
                    scores[i] = value
                order = order[len(batch) :]
        return scores

    def _text(self, conversation: list[Message]) -> str:
        return self.tokenizer.apply_chat_template(
            conversation, tokenize=False, add_generation_prompt=True, **models.TEMPLATE
        )

    def _score(self, model: Any, pairs: list[tuple[list[int], list[int]]]) -> list[float]:
        import torch

        ids, mask = decoding.pad([prompt + completion for prompt, completion in pairs], self.model.device)
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

    def _fitting(self) -> int:
        """Tokens of a batch where nobody says how many; a model that `planning` does not know is taken for an 8B one."""
        try:
            shape = sizes.shape_from_config(self.model.config.to_dict())
        except ValueError:
            shape = sizes.KNOWN["meta-llama/Llama-3.1-8B-Instruct"]
        return sizes.default_batch_tokens(shape, self.model.dtype.itemsize, self.model.device.type)

    def _choose(self) -> Batching:
        """What "auto" stands for here."""
        paged = self.model.device.type == "cuda" and hasattr(self.model, "generate_batch")
        return "continuous" if paged else self.fallback

    def _in_batches(
        self, model: Any, prompts: list[list[int]], temperature: float, max_new_tokens: int, seed: int
    ) -> list[list[int]]:
        """New ids of each prompt, by batches under the token budget, the longest first: memory peaks at once."""
        import torch

        plain = "generate" in (self.batching, self.fallback)
        groups = decoding.group(prompts) if not plain else [decoding.Group([i], 0) for i in range(len(prompts))]
        groups.sort(key=lambda g: -max(len(prompts[i]) for i in g.rows))
        width = max_new_tokens if temperature > 0 else 0  # greedy decoding draws nothing
        draws = torch.rand(len(prompts), width, generator=torch.Generator().manual_seed(seed)).to(self.model.device)
        run = self._plain if plain else self._padded
        found: list[list[int]] = [[] for _ in prompts]
        with torch.random.fork_rng([self.model.device] if self.model.device.type == "cuda" else [], enabled=plain):
            if plain:
                torch.manual_seed(seed)
            while groups:
                batch, rest = self._fill(groups, prompts, max_new_tokens)
                rows = [i for g in batch for i in g.rows]
                out = self._unless_out_of_memory(
                    run, model, [prompts[i] for i in rows], batch, temperature, max_new_tokens, draws[rows]
                )
                if out is None:
                    self.batch_tokens = len(rows) * (max(len(prompts[i]) for i in rows) + max_new_tokens) // 2
                    continue
                for i, ids in zip(rows, out, strict=True):
                    found[i] = ids
                groups = rest
        return found

    def _fill(
        self, groups: list[decoding.Group], prompts: list[list[int]], max_new_tokens: int
    ) -> tuple[list[decoding.Group], list[decoding.Group]]:
        """As many of the first groups as fit the budget, and the rest; a group that is too large is cut."""
        room = max(1, self.batch_tokens // (max(len(prompts[i]) for i in groups[0].rows) + max_new_tokens))
        rows, shared = groups[0]
        if len(rows) > room:
            return [decoding.Group(rows[:room], shared)], [decoding.Group(rows[room:], shared), *groups[1:]]
        size = 0
        for at, g in enumerate(groups):
            size += len(g.rows)
            if size > room:
                return groups[:at], groups[at:]
        return groups, []

    @staticmethod
    def _unless_out_of_memory(run: Any, model: Any, prompts: list[list[int]], *args: Any) -> Any:
        """The result, or None where a batch of several rows does not fit the GPU's memory."""
        import torch

        try:
            return run(model, prompts, *args)
        except torch.cuda.OutOfMemoryError:
            if len(prompts) == 1:
                raise
        torch.cuda.empty_cache()  # here, where the exception no longer holds the failed batch's tensors
        return None

    def _padded(
        self,
        model: Any,
        prompts: list[list[int]],
        groups: list[decoding.Group],
        temperature: float,
        max_new_tokens: int,
        draws: torch.Tensor,
    ) -> list[list[int]]:
        from . import cpu

        at = iter(range(len(prompts)))
        here = [decoding.Group([next(at) for _ in g.rows], g.shared) for g in groups]
        with cpu.faster(model):
            return decoding.decode(
                model,
                prompts,
                here,
                max_new_tokens=max_new_tokens,
                stops=self._stops(),
                temperature=temperature,
                draws=draws if temperature > 0 else None,
                memory=self.memory,
            )

    def _plain(
        self, model: Any, prompts: list[list[int]], _: Any, temperature: float, max_new_tokens: int, __: Any
    ) -> list[list[int]]:
        ids, mask = decoding.pad(prompts, self.model.device)
        out = model.generate(
            input_ids=ids, attention_mask=mask, generation_config=self._settings(temperature, max_new_tokens)
        )
        return out[:, ids.shape[1] :].tolist()

    def _continuous(
        self, model: Any, prompts: list[list[int]], temperature: float, max_new_tokens: int, seed: int
    ) -> list[list[int]] | None:
        """New ids of each prompt by transformers' continuous batching; None where that is not asked for, or failed.

        A manager serves one call: kept longer, its shared prefixes would mix what different adapters computed.
        """
        if self.batching != "continuous":
            return None
        from transformers import ContinuousBatchingConfig

        base, room = getattr(model, "get_base_model", lambda: model)(), {}
        if self.model.device.type == "cpu":  # left alone, its cache takes most of the memory there is
            pages = [-(-(len(p) + max_new_tokens) // 32) for p in prompts]
            fit = max(max(pages), min(sum(pages), self.batch_tokens // 32))
            room = {"block_size": 32, "num_blocks": fit, "max_batch_tokens": 1024}
        out = base.generate_batch(
            prompts,
            generation_config=self._settings(temperature, max_new_tokens),
            continuous_batching_config=ContinuousBatchingConfig(seed=seed, **room),
        )
        results = list(out.values())
        if len(results) == len(prompts) and not any(r.error for r in results):
            return [r.generated_tokens for r in results]
        why = next((r.error for r in results if r.error), "it stopped early")
        if self.strict:
            raise RuntimeError(f"continuous batching failed ({why}); set batching to padded")
        warnings.warn(f"continuous batching failed ({why}): going on with batching={self.fallback}", stacklevel=3)
        self.batching = self.fallback
        return None

    def _settings(self, temperature: float, max_new_tokens: int) -> Any:
        """Plain greedy or plain sampling, whatever the model's own generation config would add to it."""
        from transformers import GenerationConfig

        sampling = {"do_sample": True, "temperature": temperature} if temperature > 0 else {"do_sample": False}
        return GenerationConfig(
            max_new_tokens=max_new_tokens,
            eos_token_id=self._stops() or None,
            pad_token_id=self.tokenizer.pad_token_id,
            top_k=0 if temperature > 0 else None,
            top_p=1.0 if temperature > 0 else None,
            repetition_penalty=1.0,
            **sampling,
        )

    def _stops(self) -> list[int]:
        """Every token that ends a turn: the tokenizer's and those of the model's generation config."""
        configured = self.model.generation_config.eos_token_id
        extra = configured if isinstance(configured, list) else [configured]
        return sorted({i for i in [self.tokenizer.eos_token_id, *extra] if i is not None})

    def _completion(self, ids: list[int], stops: set[int], limit: int) -> Completion:
        end = next((i for i, token in enumerate(ids) if token in stops), None)
        text = self.tokenizer.decode(ids if end is None else ids[:end], skip_special_tokens=True)
        return Completion(text.strip(), limit if end is None else end + 1, end is None)


def open_engine(
    model: str,
    *,
    server_url: str | None = None,
    load_in_4bit: bool = False,
    backend: str = "auto",
    batching: Batching = "auto",
    batch_tokens: int | None = None,
    concurrency: int = 32,
) -> Engine:
    """The engine that a run's parameters name: `model` loaded here, or, with `server_url`, asked of that server.

    `load_in_4bit` and `backend` are `models.load`'s. Raises ValueError for a URL that is none.
    """
    if server_url:
        from .server import ServerEngine

        return ServerEngine(server_url, model, concurrency=concurrency)
    loaded = models.load(model, load_in_4bit=load_in_4bit, backend=backend)
    return TransformersEngine(loaded, batching=batching, batch_tokens=batch_tokens)
