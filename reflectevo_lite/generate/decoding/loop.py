"""Decoding for batches of many short completions, in which no work is done twice or for nothing.

Prompts that begin alike (samples of one prompt, reflections on one attempt) share one run over their beginning.
Finished rows leave the batch. If most rows repeat what they have read, as second attempts do, what followed there is
guessed and checked in one pass: prompt lookup decoding (https://github.com/apoorvumang/prompt-lookup-decoding) for
whole batches. Each token of a row has its own uniform number, so that neither batches nor guesses change a sample."""

from collections.abc import Iterator, Sequence
from itertools import accumulate, takewhile
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from ..protocol import Sampling
from . import cpu
from .cache import Layer

SHARED_TOKENS = 16  # a shorter common beginning is not worth a forward pass of its own
PREFILL_TOKENS = {"cpu": 3_072, "cuda": 32_768}  # prompt tokens a pass; few stay in a processor's caches
NGRAM, DRAFT = 4, 3  # what followed the row's last NGRAM tokens when it had them before: so many tokens are guessed
DRAFTED_SHARE = 0.5  # of the rows, for a pass with guesses to pay: all rows of a pass are equally long

Prompts = Sequence[Sequence[int]]


class Group(NamedTuple):
    """Rows that begin alike, and how many tokens they share (at least one of each row is left over)."""

    rows: list[int]
    shared: int


def group(prompts: Prompts) -> list[Group]:
    """Put prompts together that share at least half their tokens, and `SHARED_TOKENS`: samples, reflections on one
    attempt, questions after the same worked examples. Rows that share more among themselves stay apart (`_read` sees to
    what all begin with)."""
    groups: list[Group] = []
    for i in sorted(range(len(prompts)), key=prompts.__getitem__):
        prompt, (rows, shared) = prompts[i], groups[-1] if groups else ([i], 0)
        common = _common(prompts[rows[0]][:shared], prompt[:-1])
        lost = (len(rows) - 1) * (shared - common)  # what the rows so far would share no more
        if common >= max(SHARED_TOKENS, len(prompt) // 2) and lost * 8 <= common:
            groups[-1] = Group([*rows, i], common)
        else:
            groups.append(Group([i], len(prompt) - 1))
    return groups


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))


def fill(groups: Sequence[Group], room: int) -> tuple[Sequence[Group], Sequence[Group]]:
    """As many of the first groups as fit in `room` rows, and the rest; a group that is too large is cut."""
    first = groups[0]
    if len(first.rows) > room:
        return [first._replace(rows=first.rows[:room])], [first._replace(rows=first.rows[room:]), *groups[1:]]
    at = sum(rows <= room for rows in accumulate(len(g.rows) for g in groups))
    return groups[:at], groups[at:]


def misfit(model: Any) -> str | None:
    """Why this loop cannot run the model; None if it can: plain attention layers, whose mask may hide any token."""
    asked, attention = model.generation_config, model.config._attn_implementation
    if asked.suppress_tokens or asked.begin_suppress_tokens or asked.bad_words_ids:
        return "its generation configuration forbids tokens"
    if attention not in (None, "sdpa", "eager"):
        return f"its attention is {attention}"
    if other := {type(layer) for layer in DynamicCache(config=model.config).layers} - {DynamicLayer}:
        return f"its cache has layers of type {', '.join(sorted(kind.__name__ for kind in other))}"
    return cpu.misfit() if model.device.type == "cpu" else None


def decode(
    model: Any, prompts: Prompts, groups: Sequence[Group], how: Sampling, stops: Sequence[int], draws: Tensor | None
) -> dict[int, list[int]]:
    """New token ids of each prompt named in `groups`; those after the first of `stops` are left over from a guess.
    Above temperature 0, `draws` (prompts × `max_new_tokens`) holds a uniform number in [0, 1) for each new token."""
    with cpu.faster(model):
        groups = sorted(groups, key=lambda g: prompts[g.rows[0]])  # those that begin alike, side by side
        order, on = [i for g in groups for i in g.rows], {"device": model.device}
        cache, logits, mask = _prefill(model, prompts, groups)
        found: dict[int, list[int]] = {}
        stop_ids = torch.tensor(list(stops), dtype=torch.long, **on)
        rows = torch.tensor(order, **on)  # whose row stands where
        start = torch.tensor([len(prompts[i]) for i in order], **on)
        length, width = start.clone(), int(start.max()) + how.max_new_tokens + DRAFT
        text = torch.tensor([[*prompts[i], *[-1] * (width - len(prompts[i]))] for i in order], **on)
        draft = text[:, :0]
        while True:
            ahead = torch.arange(draft.shape[1] + 1, **on)
            turns = ((length - start)[:, None] + ahead).clamp(max=how.max_new_tokens - 1)
            picked = pick(logits, how.temperature, None if draws is None else draws[rows[:, None], turns])
            agreed = (picked[:, :-1] == draft).long().cumprod(1).sum(1)[:, None]
            mask[:, mask.shape[1] - draft.shape[1] :] = ahead[1:] <= agreed  # wrong guesses stay in the cache, unseen
            text.scatter_(1, length[:, None] + ahead, picked)  # what lies beyond the length is written over later
            length += agreed[:, 0] + 1
            done = (torch.isin(picked, stop_ids) & (ahead <= agreed)).any(1) | (length - start >= how.max_new_tokens)
            if bool(done.any()):
                for i, ids, end in zip(rows[done].tolist(), text[done].tolist(), length[done].tolist(), strict=True):
                    found[i] = ids[len(prompts[i]) : end][: how.max_new_tokens]
                if len(found) == len(order):
                    return found
                n = len(done) - int(done.sum())
                free, moved = done[:n].nonzero()[:, 0], (~done[n:]).nonzero()[:, 0] + n
                for x in (rows, start, length, text, mask):
                    x[free] = x[moved]
                rows, start, length, text, mask = rows[:n], start[:n], length[:n], text[:n], mask[:n]
                for layer in cache.layers:
                    layer.keep(n, free, moved)
            draft = look_up(text, length)
            block = torch.cat([text.gather(1, length[:, None] - 1), draft.clamp(min=0)], dim=1)
            mask = torch.cat([mask, mask.new_ones(block.shape)], dim=1)
            logits = _forward(model, cache, block, mask, block.shape[1])


def look_up(text: Tensor, length: Tensor) -> Tensor:
    """What followed each row's last `NGRAM` tokens when it last had them before, as guesses of its next tokens. Of
    `text` (token ids, rows × width) the first `length` (rows) count. Returns rows × `DRAFT`, -1 where there is no
    guess, or rows × 0 if fewer than `DRAFTED_SHARE` of the rows have one."""
    end = int(length.max()) - NGRAM
    if int(length.min()) <= NGRAM:
        return text[:, :0]
    places = torch.arange(end, device=text.device)
    same = places < length[:, None] - NGRAM
    for j in range(NGRAM):
        same = same & (text[:, j : j + end] == text.gather(1, length[:, None] - NGRAM + j))
    last = torch.where(same, places, -1).max(1, keepdim=True).values
    if float((last >= 0).float().mean()) < DRAFTED_SHARE:
        return text[:, :0]
    return torch.where(last < 0, -1, text.gather(1, last + NGRAM + torch.arange(DRAFT, device=text.device)))


def pick(logits: Tensor, temperature: float, uniform: Tensor | None) -> Tensor:
    """A token for each of `logits` (… × vocabulary): the likeliest, or where `uniform` (…) falls among them."""
    if temperature <= 0 or uniform is None:
        return logits.argmax(-1)
    mass = (logits.float() / temperature).softmax(-1).cumsum(-1)
    drawn = torch.searchsorted(mass, uniform[..., None] * mass[..., -1:], right=True)[..., 0]
    return drawn.clamp(max=logits.shape[-1] - 1)


def pad(rows: Prompts, device: Any) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, padded on the left (with 0, which the mask hides) to the longest row."""
    width = max(map(len, rows))
    ids = [[0] * (width - len(row)) + list(row) for row in rows]
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def _prefill(model: Any, prompts: Prompts, groups: Sequence[Group]) -> tuple[Any, Tensor, Tensor]:
    """Cache, logits of the last token (rows × 1 × vocabulary) and mask, a row per prompt in the groups' order."""
    parts = [_read(model, [prompts[i] for g in part for i in g.rows]) for part in _parts(prompts, groups, model)]
    caches, masks, logits = zip(*parts, strict=True)
    width = max(m.shape[1] for m in masks)
    mask = torch.cat([torch.nn.functional.pad(m, (width - m.shape[1], 0)) for m in masks])
    whole = DynamicCache()  # with layers of our own
    while caches[0].layers:  # what is joined goes at once
        whole.layers.append(Layer([cache.layers.pop(0) for cache in caches]))
    return whole, torch.cat(logits), mask


def _read(model: Any, texts: Prompts) -> tuple[DynamicCache, Tensor, Tensor]:
    """Cache, mask and the last token's logits of texts, of which each beginning that several have is read once."""
    groups, cache, begun = group(texts), DynamicCache(config=model.config), []
    order, shared = [i for g in groups for i in g.rows], [0] * len(groups)
    if len(groups) < len(texts):
        shared = [g.shared for g in groups]
        cache, mask, _ = _read(model, [texts[g.rows[0]][: g.shared] for g in groups])
        spread = torch.tensor([j for j, g in enumerate(groups) for _ in g.rows], device=model.device)
        cache.batch_select_indices(spread)
        begun = [mask[spread]]
    ids, mask = pad([texts[i][n:] for g, n in zip(groups, shared, strict=True) for i in g.rows], model.device)
    mask = torch.cat([*begun, mask], dim=1)
    logits, back = _forward(model, cache, ids, mask), torch.tensor(order, device=model.device).argsort()
    cache.batch_select_indices(back)
    return cache, mask[back], logits[back]


def _parts(prompts: Prompts, groups: Sequence[Group], model: Any) -> Iterator[list[Group]]:
    """The groups, as many at a time as a pass takes."""
    part: list[Group] = []
    size, most = 0, PREFILL_TOKENS.get(model.device.type, PREFILL_TOKENS["cuda"])
    for g in groups:
        known = _common(prompts[part[-1].rows[0]], prompts[g.rows[0]][: g.shared]) if part else 0
        tokens = g.shared + sum(len(prompts[i]) - g.shared for i in g.rows)
        if part and size + tokens - known > most:
            yield part
            part, size, known = [], 0, 0
        part, size = [*part, g], size + tokens - known
    yield part


def _forward(model: Any, cache: DynamicCache, ids: Tensor, mask: Tensor, keep: int = 1) -> Tensor:
    """Logits after the last `keep` of `ids` (rows × new tokens); `mask` covers what the cache holds as well."""
    places = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
    inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": places, "past_key_values": cache}
    return model(**inputs, use_cache=True, logits_to_keep=keep).logits[:, -keep:]
