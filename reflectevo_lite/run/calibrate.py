"""`reflectevo calibrate`: how a model does on each source, which is what every user of a new model needs first."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from .. import data, generate, prompts

GOOD = (0.2, 0.6)  # right at once: enough mistakes to learn from, of questions that are within reach
HEADS = ("n", "Acc@t1", "unreadable", "cut off", "tokens", "tokens/s")


def calibrate(values: dict[str, Any], n: int = 30) -> Iterator[str]:
    """Sample each source of a run's parameters (`Plan.values`) at `n` training questions: a line each, then advice."""
    p, asked, good = SimpleNamespace(**values), {}, []
    for source in p.sources:  # all of them before the model is loaded: a wrong name costs nothing
        how = {name: values[name] for name in ("seed", "data_dir", "shown_tests", "columns")}
        drawn = data.load(source, "train", n=n + p.shots, divide=p.test_sources is None, **how)
        asked[source] = data.with_shots(drawn, [], p.shots, p.shots_from)[0][:n]
    engine = generate.open_engine(p.model, p, server_url=p.server_url, server_options=p.server_options)
    wide = max(map(len, asked))
    yield f"{'source':{wide}s}" + "".join(f"{head:>12s}" for head in HEADS)
    for source, rows in asked.items():
        started = time.perf_counter()
        found = generate.answer(engine, rows, [prompts.answer_prompt(q) for q in rows], max_new_tokens=p.max_new_tokens)
        took, tokens = time.perf_counter() - started, sum(a["tokens"] for a in found)
        so = [(a["correct"], a["answer"] is None, a["truncated"]) for a in found]
        shares = [sum(kind) / len(found) for kind in zip(*so, strict=True)]
        good += [source] * (GOOD[0] <= shares[0] <= GOOD[1])
        cells = "".join(f"{share:12.0%}" for share in shares)
        yield f"{source:{wide}s}{len(found):12d}{cells}{tokens / len(found):12.0f}{tokens / took:12.0f}"
    yield f"right at once in {GOOD[0]:.0%} to {GOOD[1]:.0%}: " + (", ".join(good) or "none: try other difficulties")
