"""Which of two reflections is to be preferred: the judges of D^pref (paper, section 3.3).

    gain     how much likelier each reflection makes the gold answer; scored in this process (default)
    self     the log-odds of the model's own verdict "A" over "B"
    server   the verdict in words of any model behind an OpenAI-compatible endpoint; stands for the paper's GPT-4o

The latter two see neither the gold answer nor what the reflections led to. A judge that reads prefers what it reads
first, or last: it is asked in both orders, and if they disagree, the pair is a tie."""

import functools
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .. import generate, prompts
from ..generate import Engine, TransformersEngine
from ..rows import Message
from .cache import Cache, key, scores
from .gain import score_gold
from .sets import Judge, Pair

ANSWER_TOKENS = 512  # at most, of a judge that answers in words
BATCH = 32  # prompts asked of a server at a time
Price = float | Sequence[float]  # US dollars per million tokens: one for all, or [prompt, answer]


def make_judge(
    name: str, engine: Engine | None, *, url: str | None = None, model: str | None = None, options: Any = None,
    cache_dir: str | Path | None = None, usd_per_million_tokens: Price | None = None, max_usd: float | None = None,
) -> Judge:  # fmt: skip
    """The judge called `name`, keeping what it asked in `<cache_dir>/<name>.jsonl`. `engine` scores for "gain" and
    "self". For "server", `model` at the OpenAI-compatible `url` answers (`options`: see
    `generate.ServerOptions`), unless that may cost more than `max_usd`.
    Raises ValueError for an unknown name and for a judge that lacks what it needs."""
    if name not in JUDGES:
        raise ValueError(f"unknown judge {name!r}; there are {', '.join(JUDGES)}")
    cache = Cache(Path(cache_dir) / f"{name}.jsonl" if cache_dir else None)
    if name == "server":
        if not (url and model):
            raise ValueError("judge 'server' needs the name and the address of a model: set judge_model and judge_url")
        if max_usd is not None and usd_per_million_tokens is None:
            raise ValueError("judge_max_usd needs a price: set judge_usd_per_million_tokens as well")
        reader = generate.ServerEngine(url, model, **options or {})
        return functools.partial(server_judge, reader, cache, price=usd_per_million_tokens, max_usd=max_usd)
    if not hasattr(engine, "score"):
        raise ValueError(
            f"judge {name!r} scores text with a model in this process: with server_url set judge to server"
        )
    return functools.partial(JUDGES[name], engine, cache)


def gain_judge(engine: TransformersEngine, cache: Cache | None, pairs: Sequence[Pair]) -> list[float]:
    """Prefers the larger gain, by the difference in nats (the part without a reflection cancels)."""
    asked = [(p.rollout, reflection["text"]) for p in pairs for reflection in (p.a, p.b)]
    return _differences(score_gold(engine, asked, cache))


def self_judge(engine: TransformersEngine, cache: Cache | None, pairs: Sequence[Pair]) -> list[float]:
    """The model's own preference: the log-odds of its verdict "A" over "B", averaged over both orders (nats)."""
    asked = [c for c in _both_orders(pairs, letter_only=True) for _ in "AB"]
    return _agreed("self", _differences(scores(engine, asked, list("AB") * (2 * len(pairs)), cache)))


def server_judge(
    engine: Engine, cache: Cache, pairs: Sequence[Pair], *, price: Price | None = None, max_usd: float | None = None
) -> list[float]:
    """The preference (±1) of a model that compares two reflections in words. Prints what it may cost, then asks
    greedily; an interruption loses at most BATCH answers. A refused prompt counts as a tie and is asked again next
    time. Raises ValueError if the estimate exceeds `max_usd`."""
    tokens = getattr(getattr(engine, "options", None), "max_tokens", None) or ANSWER_TOKENS
    conversations = _both_orders(pairs, letter_only=False)
    keys = [key(engine.name, tokens, c) for c in conversations]
    new = {k: c for k, c in zip(keys, conversations, strict=True) if k not in cache.values}
    read = sum(-(-sum(len(m["content"]) for m in c) // 4) for c in new.values())  # tokens, at 4 characters each
    written = tokens * len(new)
    per_read, per_written = (price, price) if isinstance(price, int | float) else price or (0.0, 0.0)
    usd = (read * per_read + written * per_written) / 1e6
    print(
        f"judge {engine.name}: {len(new):,} prompts for {len(pairs):,} pairs in both orders "
        f"({len(set(keys)) - len(new):,} more are on disk), about {read:,} tokens in and at most {written:,} out"
        + ("" if price is None else f", at most about ${usd:.2f}")
    )
    if max_usd is not None and usd > max_usd:
        raise ValueError(f"the judge may cost ${usd:.2f}, more than judge_max_usd ({max_usd}): nothing was asked")

    troubles: Counter[str] = Counter()

    def ask(places: list[int]) -> list[str | None]:
        found = [c for (c,) in engine.generate([conversations[i] for i in places], max_new_tokens=tokens)]
        troubles.update(c.trouble for c in found if c.trouble)
        return [None if generate.refused(c.lacks) else c.text for c in found]

    verdicts = [parse_verdict(text or "") for text in cache.answers(keys, ask, BATCH)]
    more = "".join(f"; {n:,} × {trouble}" for trouble, n in troubles.most_common(5))
    found = f"; {sum(v is not None for v in verdicts):,} of {len(verdicts):,} answers hold a verdict{more}"
    return _agreed("server", [v or 0.0 for v in verdicts], found)


JUDGES: dict[str, Callable[..., list[float]]] = {"gain": gain_judge, "self": self_judge, "server": server_judge}


def parse_verdict(text: str) -> float | None:
    """1 for A, −1 for B, 0 for a tie, from the last "Verdict: …" in a judge's answer, with the usual decoration, or
    from an answer that is nothing but the letter; None if there is none."""
    text = text.rpartition("</think>")[2].partition("<think>")[0]  # thoughts are no verdict, finished or cut short
    plain = re.sub(r"\\(?:boxed|text|textbf|mathrm)\b|[*_`\"'#(){}\[\]$]", "", text).strip()
    found = [*_VERDICT.finditer(plain)] or [m for m in [_LETTER.fullmatch(plain.rpartition("\n")[2].strip())] if m]
    return {"a": 1.0, "b": -1.0}.get(found[-1]["said"].lower(), 0.0) if found else None


_SAID = (  # a tie in words, or a letter that is not the article "a"
    r"(?:reflection\s+|option\s+|answer\s+)?(?P<said>(?:an?\s+)?(?:tie|tied|draw|equal|neither|both)\b"
    r"|[AB](?=\s*(?:$|[.,;:!–—-]|(?:is|wins|over|because|since|as)\b)))"
)
_VERDICT = re.compile(rf"verdict\s*(?:(?:is\b|[:=–—-])\s*)*{_SAID}", re.IGNORECASE | re.MULTILINE)
_LETTER = re.compile(rf"{_SAID}\s*[.!]?", re.IGNORECASE)


def _both_orders(pairs: Sequence[Pair], *, letter_only: bool) -> list[list[Message]]:
    """Two conversations per pair: (a, b), then (b, a)."""
    ask, asked = functools.partial(prompts.judge_prompt, letter_only=letter_only), []
    for p in pairs:
        problem, attempt, a, b = p.rollout["problem"], p.rollout["turn1"]["completion"], p.a["text"], p.b["text"]
        asked += [ask(problem, attempt, a, b), ask(problem, attempt, b, a)]
    return asked


def _differences(values: Sequence[float]) -> list[float]:
    return [a - b for a, b in zip(values[::2], values[1::2], strict=True)]


def _agreed(name: str, verdicts: Sequence[float], more: str = "") -> list[float]:
    """Preferences for a, from verdicts for what stood first; 0 unless both orders prefer the same reflection."""
    orders = zip(verdicts[::2], verdicts[1::2], strict=True)
    found = [(first - second) / 2 if first * second < 0 else 0.0 for first, second in orders]
    decided = f"{sum(v != 0 for v in found):,} of {len(found):,} pairs"
    print(f"judge {name}: {decided} preferred alike in both orders, the others are ties{more}")
    return found
