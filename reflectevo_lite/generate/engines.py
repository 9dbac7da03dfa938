"""Generation with a model in this process, in batches under a token budget; `open_engine` gives this or a server."""

import sys
from collections.abc import Sequence
from typing import Any, Literal, get_args

from ..rows import Message
from . import models, sizes
from .chat import TEMPLATE, stop_tokens
from .protocol import FEW, MOST_REFUSED, NOT_ASKED, REFUSED, Adapter, AnswerBy, Completion, Engine, Sampling
from .server import ServerEngine

Batching = Literal["padded", "generate"]
TOO_LONG = Completion("", 0, False, f"{REFUSED}, too long for the context")
LOGITS = 1 << 27  # scores over the vocabulary that a pass of `score` keeps: half a GiB
SIGNATURES = (AttributeError, NotImplementedError, TypeError)  # raised if a version's or model's signature differs


class TransformersEngine(Engine):
    """Generation with a model in this process.

    `batching` is "padded" (the loop of `decoding`; on an H200 70 times the rate of single prompts) or "generate"
    (transformers' own, for models that the loop does not know).
    `batch_tokens` bounds rows × (prompt + new tokens) of a batch (default: `sizes.default_batch_tokens`); if a GPU runs
    out of memory, the batch is halved and tried again. Sampling is seeded per call: the same call gives the same rows
    on the same machine, with "padded" whatever the batches were.
    """

    def __init__(
        self, loaded: models.Loaded, *, batch_tokens: int | None = None, batching: Batching = "padded"
    ) -> None:
        from . import decoding

        if batching not in get_args(Batching):
            raise ValueError(f"unknown batching {batching!r}; there are {', '.join(get_args(Batching))}")
        self.model: Any = loaded.model
        self.tokenizer: Any = loaded.tokenizer
        self.name, self.backend = loaded.name, loaded.backend
        self.dtype = str(self.model.dtype).removeprefix("torch.")
        self.adapters = models.Adapters(self.model)
        self.stops = stop_tokens(self.model, self.tokenizer)
        self.batch_tokens = batch_tokens or sizes.fitting_batch_tokens(self.model)
        self.batching = batching
        if batching == "padded" and (misfit := decoding.misfit(self.model)):
            self._go_on(f"its padded batches cannot run here ({misfit})")

    def encode(self, conversation: list[Message], completion: str | None = None) -> list[int]:
        """Token ids of a prompt as the model's chat template lays it out, thinking modes switched off."""
        options: dict[str, Any] = {"tokenize": False, "add_generation_prompt": True, **TEMPLATE}
        text = self.tokenizer.apply_chat_template(conversation, **options)
        return self.tokenizer(text + (completion or ""), add_special_tokens=False)["input_ids"]

    def score(
        self, conversations: Sequence[list[Message]], completions: Sequence[str], *, adapter: Adapter = None
    ) -> list[float]:
        """log p(completion | prompt) in nats for each pair, summed over the completion's tokens."""
        said = zip(conversations, completions, strict=True)
        pairs = [(p := self.encode(c), self.encode(c, text)[len(p) :]) for c, text in said]
        return [found[0] for found in self._scores(pairs, [completion[-1:] for _, completion in pairs], adapter)]

    def score_options(
        self, asked: Sequence[tuple[list[Message], str]], options: Sequence[Sequence[str]], adapter: Adapter = None
    ) -> list[list[float]]:
        """log p(option | conversation, what its answer began with) in nats for each of the options after each of `asked`.

        Options that differ in their last token only, such as letters, share one pass.
        """
        jobs: dict[tuple[Any, ...], list[tuple[int, int]]] = {}  # what goes through the model → options, last tokens
        for i, (start, texts) in enumerate(zip(asked, options, strict=True)):
            prompt = self.encode(*start)
            for j, text in enumerate(texts):
                ids, n = self.encode(start[0], start[1] + text), len(prompt)
                while ids[:n] != prompt[:n]:  # a tokenizer may join what begins the option to what stands before
                    n -= 1
                jobs.setdefault((i, tuple(ids[:n]), tuple(ids[n:-1])), []).append((j, ids[-1]))
        lasts = [[last for _, last in own] for own in jobs.values()]
        pairs = [(list(prompt), [*stem, own[0]]) for (_, prompt, stem), own in zip(jobs, lasts, strict=True)]
        found: list[dict[int, float]] = [{} for _ in options]
        for (i, *_), own, values in zip(jobs, jobs.values(), self._scores(pairs, lasts, adapter), strict=True):
            found[i] |= zip((j for j, _ in own), values, strict=True)
        return [[scores[j] for j in range(len(scores))] for scores in found]

    def _scores(
        self, pairs: Sequence[tuple[list[int], list[int]]], lasts: Sequence[list[int]], adapter: Adapter
    ) -> list[list[float]]:
        """log p of each completion (prompt, completion) with each of its possible last tokens, in batches."""
        import torch

        order = sorted(range(len(pairs)), key=lambda i: len(pairs[i][0]))
        cells = len(self.tokenizer) * (1 + max((len(completion) for _, completion in pairs), default=0))  # logits a row
        scores: dict[int, list[float]] = {}
        with self.adapters.use(adapter) as model, torch.inference_mode():  # adapters are loaded outside
            while order:
                longest = len(pairs[order[-1]][0]) + max(64, cells // len(self.tokenizer))
                batch = order[: max(1, min(self.batch_tokens // longest, LOGITS // cells))]
                found = self._score(model, [pairs[i] for i in batch], [lasts[i] for i in batch])
                scores |= zip(batch, found, strict=True)
                del order[: len(batch)]
        return [scores[i] for i in range(len(pairs))]

    def _complete(self, conversations: list[list[Message]], how: Sampling, adapter: Adapter) -> list[Completion]:
        prompts = [self.encode(c) if c else [] for c in conversations]
        room = (getattr(self.model.config, "max_position_embeddings", None) or sys.maxsize) - how.max_new_tokens
        fit = [i for i, ids in enumerate(prompts) if 0 < len(ids) <= room]
        long = [len(ids) for ids in prompts if len(ids) > room]
        if len(long) > max(FEW, MOST_REFUSED * len(prompts)):
            said = f"{len(long):,} of {len(prompts):,} prompts, up to {max(long):,} tokens long, leave no room for"
            left = f"{said} {how.max_new_tokens:,} new ones in the context of {self.name}"
            raise ValueError(f"{left}: leave long questions out, or lower shots or max_new_tokens")
        with self.adapters.use(adapter) as model:
            found = dict(zip(fit, self._new_ids(model, [prompts[i] for i in fit], how), strict=True))
        lost = lambda i: TOO_LONG if prompts[i] else NOT_ASKED
        ids = range(len(prompts))
        return [self._completion(found[i], how.max_new_tokens) if i in found else lost(i) for i in ids]

    def _score(self, model: Any, pairs: list[tuple[list[int], list[int]]], lasts: list[list[int]]) -> list[list[float]]:
        import torch

        from .decoding import pad

        ids, mask = pad([prompt + completion for prompt, completion in pairs], self.model.device)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        longest = max(len(completion) for _, completion in pairs)
        out = model(input_ids=ids, attention_mask=mask, position_ids=positions, logits_to_keep=longest + 1)
        logs = out.logits[:, :-1].float().log_softmax(-1)
        taken = logs.gather(-1, ids[:, -longest:, None])[..., 0]
        lengths = torch.tensor([[len(completion)] for _, completion in pairs], device=ids.device)
        sums = (taken * (torch.arange(longest, 0, -1, device=ids.device) <= lengths)).sum(-1)
        rows = zip(sums, logs[:, -1], taken[:, -1], lasts, strict=True)
        return [(total + (ends[last] - own)).tolist() for total, ends, own, last in rows]

    def _go_on(self, why: str) -> None:
        self.batching = "generate"
        print(f"{self.name}: {why}, going on with batching=generate", flush=True)

    def _new_ids(self, model: Any, prompts: list[list[int]], how: Sampling) -> list[list[int]]:
        """New ids of each prompt, the end of turn included; what comes after it does not count."""
        import torch

        with torch.inference_mode():
            if self.batching == "padded":
                try:
                    return self._in_batches(model, prompts, how)
                except SIGNATURES as error:
                    self._go_on(f"its padded batches failed ({error!r:.200})")
            return self._in_batches(model, prompts, how)

    def _in_batches(self, model: Any, prompts: list[list[int]], how: Sampling) -> list[list[int]]:
        """By batches under the token budget, the longest prompts first: memory peaks at once."""
        import torch

        from . import decoding

        plain, draws, device = self.batching != "padded", None, self.model.device
        groups = [decoding.Group([i], 0) for i in range(len(prompts))] if plain else decoding.group(prompts)
        groups.sort(key=lambda g: -max(len(prompts[i]) for i in g.rows))
        if how.temperature > 0 and not plain:
            generator = torch.Generator().manual_seed(how.seed)
            draws = torch.rand(len(prompts), how.max_new_tokens, generator=generator).to(device)
        found: dict[int, list[int]] = {}
        with torch.random.fork_rng([device] if device.type == "cuda" else [], enabled=plain):
            if plain:
                torch.manual_seed(how.seed)
            while groups:
                longest = max(len(prompts[i]) for i in groups[0].rows) + how.max_new_tokens
                batch, rest = decoding.fill(groups, max(1, self.batch_tokens // longest))
                rows = [i for g in batch for i in g.rows]
                try:
                    if plain:
                        ids, mask = decoding.pad([prompts[i] for i in rows], device)
                        out = model.generate(input_ids=ids, attention_mask=mask, generation_config=self._settings(how))
                        found |= zip(rows, out[:, ids.shape[1] :].tolist(), strict=True)
                    else:
                        found |= decoding.decode(model, prompts, batch, how, self.stops, draws)
                    groups = rest
                    continue
                except torch.cuda.OutOfMemoryError:
                    if len(rows) == 1:
                        raise
                torch.cuda.empty_cache()  # out here, where no exception holds the failed batch's tensors any more
                self.batch_tokens = len(rows) * longest // 2
        return [found[i] for i in range(len(prompts))]

    def _settings(self, how: Sampling) -> Any:
        """Plain greedy or plain sampling, whatever the model's own generation config would add to it."""
        from transformers import GenerationConfig

        sampled = {"do_sample": True, "temperature": how.temperature, "top_k": 0, "top_p": 1.0}
        options = sampled if how.temperature > 0 else {"do_sample": False}
        options |= {"max_new_tokens": how.max_new_tokens, "repetition_penalty": 1.0}
        ends = {"eos_token_id": self.stops or None, "pad_token_id": self.tokenizer.pad_token_id}
        return GenerationConfig(**options, **ends)

    def _completion(self, ids: list[int], limit: int) -> Completion:
        end = next((i for i, token in enumerate(ids) if token in self.stops), None)
        text = self.tokenizer.decode(ids if end is None else ids[:end], skip_special_tokens=True)
        return Completion(text.strip(), limit if end is None else end + 1, end is None)


def open_engine(model: str, p: Any = None, **settings: Any) -> Engine:
    """An engine for `model`, loaded here (see `load`), or asked of the server at `server_url` (`server_options`: a
    mapping, see `ServerOptions`). `p`: a run's parameters, of which `answer_by` (see `answer`) and those of `LoadParams`
    count; `settings` are other values of these. ValueError for a bad address or option, and for a server that should
    answer by likelihood."""
    answer_by: AnswerBy = settings.pop("answer_by", getattr(p, "answer_by", "text"))
    url, options = settings.pop("server_url", None), settings.pop("server_options", None)
    check_answer_by(answer_by, url)
    server = ServerEngine(url, model, **options or {}) if url else None
    engine = server or TransformersEngine(models.load(model, models.LoadParams.of(p), **settings))
    engine.answer_by = answer_by
    return engine


def check_answer_by(answer_by: str, server_url: str | None) -> None:
    """Raise ValueError if choices are to be answered by likelihood, which the chat protocol cannot ask a server for."""
    if server_url and answer_by != "text":
        raise ValueError(f"answer_by: {answer_by} needs the model in this process: leave server_url out, or set text")
