"""What judges asked before, kept on disk, so that nothing is computed or paid for twice."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .. import store
from ..generate import TransformersEngine, fingerprint
from ..rows import Message


class Cache:
    """Answers (text or numbers) by key, in memory and, if a path is given, in a JSON Lines file that only grows."""

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = Path(path) if path else None
        rows = store.iter_jsonl(self.path) if self.path and self.path.exists() else ()
        # an answer that was refused is asked for again
        self.values: dict[str, Any] = {row["key"]: row["value"] for row in rows if row["value"] is not None}

    def answers(self, keys: Sequence[str], ask: Callable[[list[int]], list[Any]], batch: int = 512) -> list[Any]:
        """The answer to every key. `ask` gets the places of up to `batch` new keys at a time; its answers are kept."""
        from tqdm.auto import tqdm

        new = list({key: i for i, key in enumerate(keys) if key not in self.values}.values())
        name = f"judge {self.path.stem}" if self.path else "judge"
        for start in tqdm(range(0, len(new), batch), desc=name, unit="batch", disable=not new):
            places = new[start : start + batch]
            found = {keys[i]: answer for i, answer in zip(places, ask(places), strict=True)}
            if self.path:
                store.append_line(self.path, *({"key": key, "value": value} for key, value in found.items()))
            self.values |= found
        return [self.values[key] for key in keys]


def key(*parts: Any) -> str:
    """A cache key: the hash of all that an answer depends on (JSON values)."""
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False, sort_keys=True).encode()).hexdigest()


def scores(
    engine: TransformersEngine, conversations: Sequence[list[Message]], texts: Sequence[str], cache: Cache | None
) -> list[float]:
    """log p(text | conversation) in nats for each pair, from `cache` if the same weights scored it before."""
    weights = fingerprint(engine.name)
    keys = [key(weights, c, text) for c, text in zip(conversations, texts, strict=True)]
    ask = lambda places: engine.score([conversations[i] for i in places], [texts[i] for i in places])
    return (cache or Cache()).answers(keys, ask)
