"""One process of generation, to be killed, starved or measured by what stands beside it (not a test itself).

    python tests/worker.py PROBLEMS.jsonl OUT.jsonl [--engine fake|tiny] [--limit BYTES] [--curate] …

It says "ready" once it can be disturbed, and at its end one line of JSON: rows, seconds, peak memory in KiB. The fake
engine keeps nothing between calls: what it says hangs on the conversation and the seed alone.
"""

import argparse
import json
import random
import resource
import signal
import sys
import time
from pathlib import Path

from reflectevo_lite import prompts, store
from reflectevo_lite.generate import rollouts
from reflectevo_lite.generate.engines import Completion


class FakeEngine:
    """Right at once on every third question; a reflection names a step, and the right step (2) mends the answer."""

    name = "fake"

    def __init__(self, delay=0.0):
        self.delay = delay

    def generate(self, conversations, *, n=1, temperature=0.0, max_new_tokens=512, seed=0, adapter=None):
        time.sleep(self.delay)
        return [[Completion(text, len(text.split()), False)] for text in (self._one(c, seed) for c in conversations)]

    def _one(self, conversation, seed):
        number = int(conversation[0]["content"].split()[1])
        asked = conversation[-1]["content"]
        if len(conversation) == 1:
            return f"Answer: {number if number % 3 == 0 else 'unsure'}"
        if prompts.RETRY_WITH_REFLECTION in asked:
            return f"Answer: {number if 'Step 2' in asked else 'still unsure'}"
        rng = random.Random(f"{seed}/{conversation}")
        return f"Step {rng.randint(1, 4)} is wrong: " + " ".join(str(rng.randint(0, 99)) for _ in range(20))


def fake_problems(n, padding=0):
    """`n` questions for the fake engine, one by one; `padding` characters of context make each as long as a real one."""
    for i in range(n):
        yield {
            "id": f"fake-{i}",
            "task": "fake",
            "question": f"Name {i} once.",
            "answer": str(i),
            "grader": "exact",
            "meta": {"context": "x" * padding},
        }


def load_engine(name, delay):
    """The fake engine, or the one of a model by name."""
    if name == "fake":
        return FakeEngine(delay)
    from reflectevo_lite.generate import engines, models

    return engines.TransformersEngine(models.load(name))


def by_length(pairs):
    """A judge that prefers the longer reflection."""
    return [float(len(p.a["text"]) - len(p.b["text"])) for p in pairs]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("problems", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--engine", default="fake")
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--chunk-size", type=int, default=10)
    parser.add_argument("--k", type=int, default=3)
    parser.add_argument("--max-new-tokens", type=int, default=96)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--curate", action="store_true")
    args = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore it
    engine = load_engine(args.engine, args.delay)
    if args.limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (args.limit, args.limit))
    print("ready", flush=True)
    started = time.perf_counter()
    settings = {"k": args.k, "max_new_tokens": args.max_new_tokens, "chunk_size": args.chunk_size}
    try:
        rows = rollouts.generate_rollouts(
            engine, args.problems, args.out, temperature=1.0, seed=5, progress=False, **settings
        )
    except (store.NoRoom, store.InUse) as error:
        sys.exit(str(error))
    if args.curate:
        from reflectevo_lite.curate import write_curated

        write_curated(rows, args.out.parent / "curated", by_length)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"rows": len(rows), "seconds": time.perf_counter() - started, "peak_kib": peak}))


if __name__ == "__main__":
    main()
