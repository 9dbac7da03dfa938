"""A decoding loop for batches of many short completions, in which no work is done twice or for nothing.

Prompts that begin alike (the samples of one prompt, the reflections on one attempt) share one run over what they have
in common; rows that are finished leave the batch; and sampling takes one uniform number per token that belongs to the
row, so that what is drawn does not depend on which rows travel together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch

SHARED_TOKENS = 16  # a shorter common beginning is not worth a forward pass of its own
FINISHED_SHARE = 0.1  # finished rows leave once they are this share of the batch: leaving copies the cache


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
) -> list[list[int]]:
    """New token ids of each prompt, up to and with the first of `stops`.

    `groups` covers all of `prompts` (see `group`). Greedy at temperature 0; above it, `draws` holds a uniform number in
    [0, 1) for each row and new token, shape (rows, max_new_tokens), and decides.
    """
    import torch

    device = model.device
    cache, logits, mask = _prefill(model, prompts, groups)
    stop_ids = torch.tensor(list(stops), dtype=torch.long, device=device)
    rows = torch.tensor([i for g in groups for i in g.rows], device=device)  # whose row stands where
    done = torch.zeros(len(rows), dtype=torch.bool, device=device)
    found = torch.full((len(prompts), max_new_tokens), -1, device=device)
    for step in range(max_new_tokens):
        token = pick(logits, temperature, None if draws is None else draws[rows, step])
        found[rows, step] = torch.where(done, -1, token)
        done |= torch.isin(token, stop_ids)
        finished = int(done.sum())
        if finished == len(done) or step + 1 == max_new_tokens:
            break
        if finished >= FINISHED_SHARE * len(done):
            kept = (~done).nonzero()[:, 0]
            rows, mask, token, done = rows[kept], mask[kept], token[kept], done[kept]
            cache.batch_select_indices(kept)
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        logits = _forward(model, cache, token[:, None], mask)
    return [[token for token in row if token >= 0] for row in found.tolist()]


def pick(logits: torch.Tensor, temperature: float, uniform: torch.Tensor | None) -> torch.Tensor:
    """One token per row of `logits` (rows × vocabulary): the likeliest, or where `uniform` falls in the distribution."""
    import torch

    if temperature <= 0:
        return logits.argmax(-1)
    mass = (logits.float() / temperature).softmax(-1).cumsum(-1)
    return torch.searchsorted(mass, uniform[:, None] * mass[:, -1:], right=True)[:, 0].clamp(max=logits.shape[-1] - 1)


def pad(rows: Sequence[Sequence[int]], device: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask, padded on the left (with 0, which the mask hides) to the longest row."""
    import torch

    width = max(map(len, rows))
    ids = [[0] * (width - len(row)) + list(row) for row in rows]
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def _prefill(model: Any, prompts: Sequence[Sequence[int]], groups: Sequence[Group]) -> tuple[Any, Any, Any]:
    """Cache, logits of the last token and mask, a row per prompt in the groups' order."""
    import torch
    from transformers import DynamicCache

    cache, ordered = DynamicCache(config=model.config), [i for g in groups for i in g.rows]
    if len(groups) == len(ordered):
        ids, mask = pad([prompts[i] for i in ordered], model.device)
        return cache, _forward(model, cache, ids, mask), mask
    ids, mask = pad([prompts[g.rows[0]][: g.shared] for g in groups], model.device)
    _forward(model, cache, ids, mask)
    spread = torch.tensor([j for j, g in enumerate(groups) for _ in g.rows], device=model.device)
    cache.batch_select_indices(spread)
    ids, rest = pad([prompts[i][g.shared :] for g in groups for i in g.rows], model.device)
    mask = torch.cat([mask[spread], rest], dim=1)
    return cache, _forward(model, cache, ids, mask), mask


def _forward(model: Any, cache: Any, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Logits after the last of `ids` (rows × new tokens); `mask` covers what the cache holds as well."""
    places = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
    out = model(
        input_ids=ids, attention_mask=mask, position_ids=places, past_key_values=cache, use_cache=True, logits_to_keep=1
    )
    return out.logits[:, -1]


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
