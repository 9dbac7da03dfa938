"""A decoding loop for batches of many short completions, in which no work is done twice or for nothing.

Prompts that begin alike (the samples of one prompt, the reflections on one attempt) share one run over what they have
in common; rows that are finished leave the batch; and where most rows repeat what they have read (a second attempt is
much like the first), the tokens that followed there are guessed and checked in one pass: prompt lookup decoding
(https://github.com/apoorvumang/prompt-lookup-decoding), here for whole batches. Sampling takes one uniform number per
token that belongs to the row, so that what is drawn depends neither on which rows travel together nor on the guesses.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch
    from transformers import DynamicCache

    from . import cache

SHARED_TOKENS = 16  # a shorter common beginning is not worth a forward pass of its own
PREFILL_TOKENS = {"cpu": 3_072, "cuda": 32_768}  # prompt tokens a pass; few stay in a processor's caches
NGRAM, DRAFT = 4, 3  # what followed the row's last NGRAM tokens when it had them before: so many tokens are guessed
DRAFTED_SHARE = 0.5  # of the rows, for a pass with guesses to pay: all rows of a pass are equally long


class Group(NamedTuple):
    """Neighbouring rows that begin alike, and how many tokens they share (at least one of each row is left over)."""

    rows: list[int]
    shared: int


def group(prompts: Sequence[Sequence[int]]) -> list[Group]:
    """Put neighbours together that share at least half their tokens, and `SHARED_TOKENS`; the others stay alone."""
    groups: list[Group] = []
    for i, prompt in enumerate(prompts):
        if groups:
            rows, shared = groups[-1]
            common = min(_common(prompts[rows[0]], prompt), len(prompt) - 1, shared)
            if common >= max(SHARED_TOKENS, len(prompt) // 2):
                groups[-1] = Group([*rows, i], common)
                continue
        groups.append(Group([i], len(prompt) - 1))
    return groups


def can_decode(model: Any) -> bool:
    """Whether this loop knows the model's cache: plain attention layers (no sliding windows, no recurrent state).

    A generation configuration that forbids tokens is left to transformers' `generate`.
    """
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    asked = model.generation_config
    if asked.suppress_tokens or asked.begin_suppress_tokens or asked.bad_words_ids:
        return False
    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=model.config).layers)


def decode(
    model: Any,
    prompts: Sequence[Sequence[int]],
    groups: Sequence[Group],
    *,
    max_new_tokens: int,
    stops: Sequence[int],
    temperature: float = 0.0,
    draws: torch.Tensor | None = None,
    memory: cache.Memory | None = None,
) -> list[list[int]]:
    """New token ids of each prompt, up to and with the first of `stops`.

    `groups` covers all of `prompts` (see `group`). Greedy at temperature 0; above it, `draws` holds a uniform number in
    [0, 1) for each row and new token, shape (rows, max_new_tokens), and decides. `memory` is that of earlier calls.
    """
    import torch

    order = [i for g in groups for i in g.rows]
    batch, logits, mask = _prefill(model, prompts, groups, max_new_tokens, memory)
    cache = batch.whole()
    on = {"device": model.device}
    stop_ids = torch.tensor(list(stops), dtype=torch.long, **on)
    rows = torch.tensor(order, **on)  # whose row stands where
    start = torch.tensor([len(prompts[i]) for i in order], **on)
    length, width = start.clone(), int(start.max()) + max_new_tokens + DRAFT
    text = torch.tensor([[*prompts[i], *[-1] * (width - len(prompts[i]))] for i in order], **on)
    draft, found = text[:, :0], [[] for _ in prompts]
    while True:
        ahead = torch.arange(draft.shape[1] + 1, **on)
        turns = ((length - start)[:, None] + ahead).clamp(max=max_new_tokens - 1)
        picked = pick(logits, temperature, None if draws is None else draws[rows[:, None], turns])
        agreed = (picked[:, :-1] == draft).long().cumprod(1).sum(1)[:, None]
        mask[:, mask.shape[1] - draft.shape[1] :] = ahead[1:] <= agreed  # wrong guesses stay in the cache, unseen
        text.scatter_(1, length[:, None] + ahead, picked)  # what lies beyond the length is written over later
        length += agreed[:, 0] + 1
        done = (torch.isin(picked, stop_ids) & (ahead <= agreed)).any(1) | (length - start >= max_new_tokens)
        if bool(done.any()):
            for i, ids, end in zip(rows[done].tolist(), text[done].tolist(), length[done].tolist(), strict=True):
                found[i] = _up_to(ids[len(prompts[i]) : end], stops)[:max_new_tokens]
            n = len(done) - int(done.sum())
            if n == 0:
                batch.close()
                return found
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


def look_up(text: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
    """What followed each row's last `NGRAM` tokens where it had them last before, as guesses of its next tokens.

    `text`: token ids, rows × width, of which the first `length` (rows) count. Returns rows × `DRAFT` with -1 where there
    is no guess, or rows × 0 where fewer than `DRAFTED_SHARE` of the rows have one.
    """
    import torch

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


def _up_to(ids: list[int], stops: Sequence[int]) -> list[int]:
    """The ids up to and with the first stop."""
    return ids[: next((i + 1 for i, token in enumerate(ids) if token in stops), len(ids))]


def pick(logits: torch.Tensor, temperature: float, uniform: torch.Tensor | None) -> torch.Tensor:
    """A token for each of `logits` (… × vocabulary): the likeliest, or where `uniform` (…) falls in the distribution."""
    import torch

    if temperature <= 0:
        return logits.argmax(-1)
    mass = (logits.float() / temperature).softmax(-1).cumsum(-1)
    return torch.searchsorted(mass, uniform[..., None] * mass[..., -1:], right=True)[..., 0].clamp(
        max=logits.shape[-1] - 1
    )


def pad(rows: Sequence[Sequence[int]], device: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask, padded on the left (with 0, which the mask hides) to the longest row."""
    import torch

    width = max(map(len, rows))
    ids = [[0] * (width - len(row)) + list(row) for row in rows]
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def _prefill(
    model: Any, prompts: Sequence[Sequence[int]], groups: Sequence[Group], room: int, memory: cache.Memory | None
) -> tuple[cache.Batch, torch.Tensor, torch.Tensor]:
    """Keys and values, logits of the last token (rows × 1 × vocabulary) and mask, a row per prompt in the groups' order.

    `room`: the tokens that will follow.
    """
    import torch
    from transformers import DynamicCache

    from . import cache

    pieces = list(_pieces(prompts, groups, PREFILL_TOKENS.get(model.device.type, PREFILL_TOKENS["cuda"])))
    layers, rows = len(DynamicCache(config=model.config).layers), sum(len(g.rows) for g in groups)
    width = max(_width(prompts, piece) for piece in pieces)
    batch = cache.Batch(layers, rows, width, room, memory or cache.Memory())
    parts, at = [], 0
    for piece in pieces:
        n = sum(len(g.rows) for g in piece)
        cache = batch.part(slice(at, at + n), _width(prompts, piece))
        parts, at = [*parts, _prefill_piece(model, prompts, piece, cache)], at + n
    mask = torch.cat([torch.nn.functional.pad(mask, (width - mask.shape[1], 0)) for _, mask in parts])
    return batch, torch.cat([logits for logits, _ in parts]), mask


def _pieces(prompts: Sequence[Sequence[int]], groups: Sequence[Group], room: int) -> Iterator[list[Group]]:
    piece, size = [], 0
    for g in groups:
        tokens = g.shared + sum(len(prompts[i]) - g.shared for i in g.rows)
        if piece and size + tokens > room:
            yield piece
            piece, size = [], 0
        piece, size = [*piece, g], size + tokens
    yield piece


def _width(prompts: Sequence[Sequence[int]], piece: Sequence[Group]) -> int:
    """Tokens that a piece's prompts take with their padding: what they share, and then what each has for itself."""
    if all(len(g.rows) == 1 for g in piece):
        return max(len(prompts[g.rows[0]]) for g in piece)
    return max(g.shared for g in piece) + max(len(prompts[i]) - g.shared for g in piece for i in g.rows)


def _prefill_piece(
    model: Any, prompts: Sequence[Sequence[int]], piece: Sequence[Group], cache: DynamicCache
) -> tuple[torch.Tensor, torch.Tensor]:
    """Fill the cache of a piece's rows; logits of the last token and mask."""
    import torch
    from transformers import DynamicCache

    if len(piece) == sum(len(g.rows) for g in piece):
        ids, mask = pad([prompts[i] for g in piece for i in g.rows], model.device)
        return _forward(model, cache, ids, mask), mask
    shared = DynamicCache(config=model.config)
    ids, mask = pad([prompts[g.rows[0]][: g.shared] for g in piece], model.device)
    _forward(model, shared, ids, mask)
    spread = torch.tensor([j for j, g in enumerate(piece) for _ in g.rows], device=model.device)
    for i, layer in enumerate(shared.layers):
        cache.update(layer.keys[spread], layer.values[spread], i)
    ids, rest = pad([prompts[i][g.shared :] for g in piece for i in g.rows], model.device)
    mask = torch.cat([mask[spread], rest], dim=1)
    return _forward(model, cache, ids, mask), mask


def _forward(model: Any, cache: Any, ids: torch.Tensor, mask: torch.Tensor, keep: int = 1) -> torch.Tensor:
    """Logits after the last `keep` of `ids` (rows × new tokens); `mask` covers what the cache holds as well."""
    places = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
    out = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=places,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=keep,
    )
    return out.logits[:, -keep:]


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
