"""Which of two reflections is to be preferred: the judges of D^pref (paper, section 3.3), and how far they agree.

    gain     how much likelier each reflection makes the gold answer; scored in this process, no other model (default)
    self     the model itself: the log-odds of its verdict "A" over "B", asked in both orders
    server   any model behind an OpenAI-compatible endpoint: compares the two in words, asked in both orders

What a judge sees: `gain` the gold answer, but never shows it to anybody, for only the preference is kept. `self` and
`server` see the question, the failed attempt and the two reflections, neither the gold answer nor what the reflections
led to; nothing stops a strong judge from working the answer out. The paper asks GPT-4o, which `server` stands for.

A judge that reads prefers what it reads first, or last: so it is asked in both orders, and where they disagree, the
pair is a tie. Whatever was scored or answered is kept on disk where a cache file is given, and not asked again.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pandas as pd

from .. import generate, prompts, store
from ..generate import Engine
from ..rows import Message, Problem, Reflection, Rollout

JUDGES = ("gain", "self", "server")
Price = float | Sequence[float]  # US dollars per million tokens: one for all, or [prompt, answer]


class Pair(NamedTuple):
    """Two reflections on the same failed attempt."""

    rollout: Rollout
    a: Reflection
    b: Reflection


Judge = Callable[[Sequence[Pair]], list[float]]  # one preference per pair: above 0 for a, below 0 for b, 0 for a tie


class Scorer(Protocol):
    """An engine that can score a given completion (`engines.TransformersEngine`)."""

    name: str

    def score(self, conversations: Sequence[list[Message]], completions: Sequence[str]) -> list[float]:
        """log p(completion | conversation) in nats for each pair."""
        ...


def make_judge(
    name: str,
    engine: Scorer,
    *,
    url: str | None = None,
    model: str | None = None,
    cache_dir: str | Path | None = None,
    usd_per_million_tokens: Price | None = None,
    max_usd: float | None = None,
) -> Judge:
    """The judge called `name`, keeping what it asked in `<cache_dir>/<name>.jsonl`.

    `engine` scores for "gain" and "self". For "server", `model` at the OpenAI-compatible `url` answers (prices as in
    `server_judge`). Raises ValueError for an unknown name, and where a judge lacks what it needs.
    """
    if name not in JUDGES:
        raise ValueError(f"unknown judge {name!r}; there are {', '.join(JUDGES)}")
    cache = Cache(Path(cache_dir) / f"{name}.jsonl" if cache_dir else None)
    if name == "server":
        if not (url and model):
            raise ValueError("judge 'server' needs the name and the address of a model: set judge_model and judge_url")
        from ..generate import ServerEngine

        reader = ServerEngine(url, model)
        return server_judge(reader, cache, usd_per_million_tokens=usd_per_million_tokens, max_usd=max_usd)
    if not hasattr(engine, "score"):
        raise ValueError(f"judge {name!r} scores text with a model in this process; choose 'server' for a remote one")
    return gain_judge(engine, cache) if name == "gain" else self_judge(engine, cache)


# -- Gain ----------------------------------------------------------------------------------------------------------------
def gain(
    engine: Scorer, items: Sequence[tuple[Rollout, Reflection]], cache: Cache | None = None, *, progress: bool = True
) -> list[float]:
    """The gain of each reflection: log p(gold answer | q, attempt, r) − log p(gold answer | q, attempt), in nats.

    Needs no sampling and no other model. The gold answer is scored right after a prompt that asks for the bare answer, so
    gain tells helpful reflections from others as far as the model can answer without writing its steps down;
    `calibration` measures how far that is.
    """
    asked = [_bare(r, reflection["text"]) for r, reflection in items] + [_bare(r, None) for r, _ in items]
    gold = [f"Answer: {gold_answer(r['problem'])}" for r, _ in items]
    scores = _scores(engine, asked, gold * 2, cache, "gain", progress)
    return [after - before for after, before in zip(scores[: len(items)], scores[len(items) :], strict=True)]


def gain_judge(engine: Scorer, cache: Cache | None = None, *, progress: bool = True) -> Judge:
    """Prefers the reflection of the larger gain, by the difference in nats (the part without a reflection cancels)."""

    def judge(pairs: Sequence[Pair]) -> list[float]:
        asked = [_bare(p.rollout, r["text"]) for p in pairs for r in (p.a, p.b)]
        gold = [f"Answer: {gold_answer(p.rollout['problem'])}" for p in pairs for _ in "ab"]
        scores = _scores(engine, asked, gold, cache, "judge gain", progress)
        return [a - b for a, b in zip(scores[::2], scores[1::2], strict=True)]

    return judge


def gold_answer(problem: Problem) -> str:
    """The gold answer as a model would state it (the first where several are accepted)."""
    answer = problem["answer"]
    return answer if isinstance(answer, str) else answer[0]


def _bare(rollout: Rollout, reflection: str | None) -> list[Message]:
    return prompts.answer_only_prompt(rollout["problem"], rollout["turn1"]["completion"], reflection)


# -- Judges that read ----------------------------------------------------------------------------------------------------
def self_judge(
    engine: Scorer, cache: Cache | None = None, *, progress: bool = True, say: Callable[[str], None] = print
) -> Judge:
    """The model's own preference: log p("A") − log p("B") as its verdict, in both orders.

    No prose is written, so nothing has to be parsed, and any model can be asked. The preference is the mean log-odds in
    nats where both orders prefer the same reflection, else a tie.
    """

    def judge(pairs: Sequence[Pair]) -> list[float]:
        asked = [c for c in _both_orders(pairs, letter_only=True) for _ in "AB"]
        scores = _scores(engine, asked, list("AB") * (2 * len(pairs)), cache, "judge self", progress)
        odds = [a - b for a, b in zip(scores[::2], scores[1::2], strict=True)]
        found = [
            (first - second) / 2 if first * second < 0 else 0.0
            for first, second in zip(odds[::2], odds[1::2], strict=True)
        ]
        say(_summary("self", found))
        return found

    return judge


def server_judge(
    engine: Engine,
    cache: Cache | None = None,
    *,
    max_new_tokens: int = 512,
    usd_per_million_tokens: Price | None = None,
    max_usd: float | None = None,
    batch: int = 32,
    progress: bool = True,
    say: Callable[[str], None] = print,
) -> Judge:
    """The preference of a model that compares two reflections in words (`engine`: a ServerEngine, or any other).

    Says what it will cost, then asks greedily, `batch` prompts at a time; an interruption loses at most one batch of
    answers. The preference is ±1 where both orders name the same reflection, else a tie. Raises ValueError, before
    anything is asked, where the estimate exceeds `max_usd`, and for a `max_usd` without a price to reckon it with.
    """
    cache = cache or Cache(None)
    if max_usd is not None and usd_per_million_tokens is None:
        raise ValueError("judge_max_usd needs a price: set judge_usd_per_million_tokens as well")

    def judge(pairs: Sequence[Pair]) -> list[float]:
        conversations = _both_orders(pairs, letter_only=False)
        keys = [_key(engine.name, max_new_tokens, c) for c in conversations]
        cost = _estimate(conversations, keys, cache, max_new_tokens, usd_per_million_tokens)
        say(f"judge {engine.name}: {cost.describe(len(pairs))}")
        if max_usd is not None and cost.usd > max_usd:
            raise ValueError(
                f"the judge may cost ${cost.usd:.2f}, more than judge_max_usd ({max_usd}): nothing was asked"
            )

        def ask(part: list[int]) -> list[str]:
            found = engine.generate([conversations[i] for i in part], max_new_tokens=max_new_tokens)
            return [completions[0].text for completions in found]

        verdicts = [parse_verdict(text) for text in _through(cache, keys, ask, "judge server", batch, progress)]
        found = [_agreed(first, second) for first, second in zip(verdicts[::2], verdicts[1::2], strict=True)]
        read = sum(v is not None for v in verdicts)
        say(f"{_summary('server', found)}; {read:,} of {len(verdicts):,} answers hold a verdict")
        return found

    return judge


def parse_verdict(text: str) -> float | None:
    """1 for A, −1 for B, 0 for a tie, as the last verdict in a judge's answer says; None where there is none.

    Understands "Verdict: A" with the usual decoration (bold, brackets, \\boxed, quotes, "Reflection A"), and an answer
    that is nothing but the letter.
    """
    text = text.rpartition("</think>")[2].partition("<think>")[0]  # thoughts are no verdict, finished or cut short
    plain = re.sub(r"\\(?:boxed|text|textbf|mathrm)\b|[*_`\"'#(){}\[\]$]", "", text).strip()
    found = [*_VERDICT.finditer(plain)] or [m for m in [_LETTER.fullmatch(plain.rpartition("\n")[2].strip())] if m]
    if not found:
        return None
    return {"a": 1.0, "b": -1.0}.get(found[-1]["said"].lower(), 0.0)


_SAID = (  # a tie in words, or a letter that is not the article "a"
    r"(?:reflection\s+|option\s+|answer\s+)?(?P<said>(?:an?\s+)?(?:tie|tied|draw|equal|neither|both)\b"
    r"|[AB](?=\s*(?:$|[.,;:!–—-]|(?:is|wins|over|because|since|as)\b)))"
)
_VERDICT = re.compile(rf"verdict\s*(?:(?:is\b|[:=–—-])\s*)*{_SAID}", re.IGNORECASE | re.MULTILINE)
_LETTER = re.compile(rf"{_SAID}\s*[.!]?", re.IGNORECASE)


def _agreed(first: float | None, second: float | None) -> float:
    """The preference for a, when a stood first and then second; 0 unless both verdicts name the same reflection."""
    return first if first and second == -first else 0.0


def _both_orders(pairs: Sequence[Pair], *, letter_only: bool) -> list[list[Message]]:
    """Two conversations per pair: (a, b), then (b, a)."""
    return [
        prompts.judge_prompt(
            p.rollout["problem"], p.rollout["turn1"]["completion"], x["text"], y["text"], letter_only=letter_only
        )
        for p in pairs
        for x, y in ((p.a, p.b), (p.b, p.a))
    ]


def _summary(name: str, found: Sequence[float]) -> str:
    decided = sum(v != 0 for v in found)
    return f"judge {name}: {decided:,} of {len(found):,} pairs preferred alike in both orders, the others are ties"


# -- What it costs ---------------------------------------------------------------------------------------------------------
class Cost(NamedTuple):
    """What a judge on a server will be asked. Tokens are estimates: 4 characters each, and answers of full length."""

    prompts: int  # still to be asked
    cached: int  # answered before, free
    prompt_tokens: int
    answer_tokens: int
    usd: float | None  # None without a price

    def describe(self, pairs: int) -> str:
        """One line for people."""
        price = "" if self.usd is None else f", at most about ${self.usd:.2f}"
        return (
            f"{self.prompts:,} prompts for {pairs:,} pairs in both orders ({self.cached:,} more are on disk), "
            f"about {self.prompt_tokens:,} tokens in and at most {self.answer_tokens:,} out{price}"
        )


def estimate(
    pairs: Sequence[Pair],
    engine: Engine,
    cache: Cache | None = None,
    *,
    max_new_tokens: int = 512,
    usd_per_million_tokens: Price | None = None,
) -> Cost:
    """What `server_judge` would cost on these pairs; nothing is asked."""
    conversations = _both_orders(pairs, letter_only=False)
    keys = [_key(engine.name, max_new_tokens, c) for c in conversations]
    return _estimate(conversations, keys, cache or Cache(None), max_new_tokens, usd_per_million_tokens)


def _estimate(
    conversations: Sequence[list[Message]], keys: Sequence[str], cache: Cache, max_new_tokens: int, price: Price | None
) -> Cost:
    missing = {key: c for key, c in zip(keys, conversations, strict=True) if key not in cache}
    said = sum(-(-sum(len(m["content"]) for m in c) // 4) for c in missing.values())
    answers = max_new_tokens * len(missing)
    usd = None
    if price is not None:
        into, out = (price, price) if isinstance(price, int | float) else price
        usd = (said * into + answers * out) / 1e6
    return Cost(len(missing), len(set(keys)) - len(missing), said, answers, usd)


# -- What was asked before -----------------------------------------------------------------------------------------------
class Cache:
    """Answers (text or numbers) by key, in memory and, where a path is given, in a JSON Lines file that only grows.

    A last line that a killed process left unfinished is cut off.
    """

    def __init__(self, path: str | Path | None) -> None:
        self.path = Path(path) if path else None
        self.values: dict[str, Any] = {}
        if self.path and self.path.exists():
            self.values = {row["key"]: row["value"] for row in store.iter_jsonl(self.path)}
            self._cut_off_unfinished()

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def add(self, found: Mapping[str, Any]) -> None:
        """Keep answers; on disk when this returns."""
        self.values |= found
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a", encoding="utf-8") as handle:
            handle.write(
                "".join(json.dumps({"key": k, "value": v}, ensure_ascii=False) + "\n" for k, v in found.items())
            )
            handle.flush()
            os.fsync(handle.fileno())

    def _cut_off_unfinished(self) -> None:
        whole = self.path.read_bytes().rpartition(b"\n")
        os.truncate(self.path, len(whole[0]) + len(whole[1]))


def _key(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False, sort_keys=True).encode()).hexdigest()


def _through(
    cache: Cache, keys: Sequence[str], ask: Callable[[list[int]], list[Any]], label: str, batch: int, progress: bool
) -> list[Any]:
    """The answer to every key: from `cache`, or by `ask(indices)`, which is called with `batch` new ones at a time."""
    from tqdm.auto import tqdm

    missing = list({key: i for i, key in enumerate(keys) if key not in cache}.values())
    with tqdm(total=len(missing), desc=label, unit="prompt", disable=not progress or not missing) as bar:
        for start in range(0, len(missing), batch):
            part = missing[start : start + batch]
            cache.add(dict(zip((keys[i] for i in part), ask(part), strict=True)))
            bar.update(len(part))
    return [cache.values[key] for key in keys]


def _scores(
    engine: Scorer,
    conversations: Sequence[list[Message]],
    texts: Sequence[str],
    cache: Cache | None,
    label: str,
    progress: bool,
    batch: int = 512,
) -> list[float]:
    weights = generate.fingerprint(engine.name)
    keys = [_key(weights, c, text) for c, text in zip(conversations, texts, strict=True)]
    return _through(
        cache or Cache(None),
        keys,
        lambda part: engine.score([conversations[i] for i in part], [texts[i] for i in part]),
        label,
        batch,
        progress,
    )


# -- Agreement -------------------------------------------------------------------------------------------------------------
def agreement(
    verdicts: Mapping[str, Sequence[float]], problems: Sequence[str], *, seed: int = 0, resamples: int = 10_000
) -> pd.DataFrame:
    """How far judges agree on the same pairs: one row for every two judges.

    `verdicts`: by judge, one preference per pair; `problems`: the problem's id of each pair. Columns: judge, other, pairs;
    `decides`, `other decides`: shares without a tie; `both decide`: pairs where neither ties, on which the rest rests:
    `agree` (share), `kappa` (Cohen 1960: agreement beyond that of chance) with its 95 % percentile interval (`low`,
    `high`) from resampling problems. NaN where it is not defined.
    """
    columns = ["judge", "other", "pairs", "decides", "other decides", "both decide", "agree", "kappa", "low", "high"]
    rows = [
        _agreement(one, other, np.sign(verdicts[one]), np.sign(verdicts[other]), problems, seed, resamples)
        for one, other in itertools.combinations(verdicts, 2)
    ]
    return pd.DataFrame(rows, columns=columns)


def _agreement(
    one: str, other: str, x: np.ndarray, y: np.ndarray, problems: Sequence[str], seed: int, resamples: int
) -> dict[str, Any]:
    cells = np.stack([(x == s) & (y == t) for s in (1, -1) for t in (1, -1)], axis=1).reshape(-1, 4).astype(float)
    table = cells.sum(0)
    both = int(table.sum())
    draws = [kappa(sums) for sums in resampled_sums(cells, problems, seed, resamples)] if both else []
    spread = np.concatenate(draws) if draws else np.array([np.nan])
    low, high = (np.nan, np.nan) if np.isnan(spread).all() else np.nanpercentile(spread, [2.5, 97.5])
    return {
        "judge": one,
        "other": other,
        "pairs": len(x),
        "decides": float(np.mean(x != 0)) if len(x) else np.nan,
        "other decides": float(np.mean(y != 0)) if len(y) else np.nan,
        "both decide": both,
        "agree": (table[0] + table[3]) / both if both else np.nan,
        "kappa": float(kappa(table[None])[0]),
        "low": float(low),
        "high": float(high),
    }


def kappa(tables: np.ndarray) -> np.ndarray:
    """Cohen's kappa of 2 × 2 tables given as rows [both first, first/second, second/first, both second]; NaN if undefined."""
    n = tables.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        a, b, c, d = (tables / n[:, None]).T
        chance = (a + b) * (a + c) + (c + d) * (b + d)
        return np.where(chance < 1 - 1e-12, (a + d - chance) / (1 - chance), np.nan)


def resampled_sums(values: np.ndarray, groups: Sequence[Any], seed: int, resamples: int) -> Iterator[np.ndarray]:
    """Column sums of `values` (n × m) over resamples of whole groups with replacement, in blocks of (≤ resamples) × m."""
    sums = pd.DataFrame(values).groupby(np.asarray(groups), sort=False).sum().to_numpy()
    for counts in resampled_counts(len(sums), seed, resamples):
        yield counts @ sums


def resampled_counts(n: int, seed: int, resamples: int) -> Iterator[np.ndarray]:
    """How often each of `n` groups (problems) is drawn in each resample, in blocks of (≤ resamples) × n.

    Rows of one group depend on each other, so groups are resampled, not rows (cluster bootstrap, Davison & Hinkley 1997,
    section 3.8).
    """
    rng, block = np.random.default_rng(seed), max(1, 1_000_000 // max(1, n))
    for start in range(0, resamples, block):
        yield rng.multinomial(n, np.full(n, 1 / n), size=min(block, resamples - start))
