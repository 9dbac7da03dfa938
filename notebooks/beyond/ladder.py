"""The elicitation ladder: how far does the *untrained* model get by better prompts alone (ladder.ipynb)?

What training is worth is its gain over the best of these, not over the first prompt that came to mind.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from reflectevo_lite import embedded, prompts, store
from reflectevo_lite.evaluate import (
    BASELINE, SHARE, Asked, Evaluation, compare, files, label, read_rows, row_of, setting, share, whole,
)  # fmt: skip
from reflectevo_lite.generate import Completion, Engine
from reflectevo_lite.rows import EvalRow, Message

from .transfer import swap

Written = list[tuple[str, int]]  # a reflection and its tokens, for each question
FOLDER = "ladder"
AUDIT = (
    "Audit your solution: say of every step in turn whether it is right or wrong, and stop at the first wrong one. "
    f"Say why it is wrong and what to do there instead. {prompts.LIMITS}"
)
FIND = "Name the first mistake in your solution and its cause, and nothing else."
THEN_PLAN = f"Now devise a short plan to mend that mistake. {prompts.LIMITS}"
# the embedded model's corpus asks so for the first wrong place, and it is answered truly
OWN_WORDS = f"{embedded.MARK} {prompts.VERIFY[2]}"
RUNGS = {  # in the order of what they ask of the prompter
    "sampled": "generic instruction, sampled",
    "pool": "the pool's, drawn at random",
    "best": "the pool's best on training questions",
    "audit": "audit every step",
    "two_calls": "two calls: find, then plan",
    "own": "the words of its own pre-training",
}


def climb(engine: Engine, run: store.Run, asked: Asked, p: Any) -> None:
    """Evaluate the untrained model under every rung, in oracle mode; kept in `evals/ladder/`. Resumable. `p`: the run's
    parameters. The last rung is the embedded model's alone: nobody knows what others were trained to be asked."""
    best = best_instruction(run.rows("rollouts", "train.jsonl"))
    for name in RUNGS if p.model == "tiny" else [name for name in RUNGS if name != "own"]:

        def make(part: Asked, i: int, name: str = name) -> list[EvalRow]:
            places = [j for j, a in enumerate(part.first) if not a["correct"]]
            rows = [row_of(*pair) for pair in part.pairs()]
            drawn = prompts.draw_instructions(len(places), p.seed + i)
            for j, (text, tokens) in zip(places, _write(engine, name, part.at(places), best, drawn, p), strict=True):
                rows[j] |= {"reflection": text, "tokens": tokens}
            return rows

        written = asked.keep(f"{FOLDER}/{name}.reflections.jsonl", make)
        swap(engine, asked, written, None, f"{FOLDER}/{Evaluation(name).file}")


def best_instruction(rollouts: Any) -> str:
    """The instruction whose sampled reflections led to a right second answer most often, in share."""
    sampled = [(x["instruction"], x["turn2"]["correct"]) for r in rollouts for x in r["reflections"]]
    return str(pd.DataFrame(sampled).groupby(0)[1].mean().idxmax()) if sampled else "generic"


def _write(engine: Engine, name: str, now: Asked, best: str, drawn: Sequence[str], p: Any) -> Written:
    pairs = [(q, a["completion"]) for q, a in now.pairs()]

    def said(conversations: Sequence[list[Message]], **how: Any) -> list[Completion]:
        return [found[0] for found in engine.generate(conversations, max_new_tokens=now.max_new_tokens, **how)]

    told = prompts.VERDICT["oracle"]
    words = {"audit": f"{told} {AUDIT}", "two_calls": f"{told} {FIND}", "own": OWN_WORDS}
    if name in words:
        asked = [prompts.asking(*pair, words[name]) for pair in pairs]
        found = [(c.text, c.tokens) for c in said(asked)]
        if name == "own":
            return [(with_plan(text), tokens) for text, tokens in found]
        if name == "audit":
            return found
        further = [_going_on(a, text, THEN_PLAN) for a, (text, _) in zip(asked, found, strict=True)]
        plans = zip(found, said(further), strict=True)
        return [(f"{text.strip()} {c.text.strip()}", tokens + c.tokens) for (text, tokens), c in plans]
    how = {"temperature": p.temperature, "seed": now.seed} if name == "sampled" else {}
    instructions = drawn if name == "pool" else ["generic" if name == "sampled" else best] * len(pairs)
    asked = [prompts.reflection_prompt(*pair, one) for pair, one in zip(pairs, instructions, strict=True)]
    return [(c.text, c.tokens) for c in said(asked, **how)]


def _going_on(prompt: list[Message], reply: str, words: str) -> list[Message]:
    """A prompt with its reply and a further request."""
    return [*prompt, {"role": "assistant", "content": reply}, {"role": "user", "content": words}]


def with_plan(found: str) -> str:
    """A first wrong place, as `OWN_WORDS` gets it, made a reflection by a plan that says nothing new."""
    if (place := embedded.blamed(found)) is None:
        return found
    how = (
        "state the answer with care"
        if place == embedded.ANSWER
        else f"redo step {place} with care and go on from there"
    )
    return f"{found.strip()} Plan: {how}."


def rungs(run: store.Run) -> Iterator[tuple[str, list[Any]]]:
    """(name in words, eval rows with first answers) of prompted reflection and of every rung that a run has."""
    prompted = read_rows(run, Evaluation(BASELINE))
    yield label(BASELINE), prompted
    first = {r["id"]: r["turn1"] for r in prompted}
    for name, said in RUNGS.items():
        if (path := run.path("evals", FOLDER, Evaluation(name).file)).exists():
            spent = {r["id"]: r["tokens"] for r in run.rows("evals", FOLDER, f"{name}.reflections.jsonl")}
            more = lambda r, spent=spent: {"turn1": first[r["id"]], "tokens": r["tokens"] + spent[r["id"]]}
            yield said, [r | more(r) for r in store.iter_jsonl(path)]


def ladder_table(run: store.Run) -> pd.DataFrame:
    """Each rung: n, Acc@t2 and its Wilson interval, the share of reflections true in every part (NaN where unknown),
    tokens per question after turn 1. Fractions."""
    problems, rows = run.read("data", "test.jsonl"), []
    for said, found in rungs(run):
        spent = sum(r["tokens"] for r in found) / max(1, len(found))
        rows.append((said, *share(found), whole(problems, found), spent))
    return pd.DataFrame(rows, columns=["prompt", *SHARE, "true", "tokens"]).astype({"true": float})


def learned_table(run: store.Run, *, seed: int = 0) -> pd.DataFrame:
    """What each trained setting gains over the best untrained rung, paired by question: difference, its interval and
    McNemar's p; fractions. The best rung is chosen on these very questions, so the test is hard on training."""
    best, rows = max(rungs(run), key=lambda rung: sum(r["turn2_correct"] for r in rung[1])), []
    for e in sorted(files(run), key=lambda e: e.order):
        trained = setting(e.setting).family != "prompted" and not setting(e.setting).answers
        if e.mode == "oracle" and not e.control and trained:
            c = compare(e.stem, run.read("evals", e.file), best[0], best[1], seed)
            verdict = "learned" if c["ci"][0] > 0 else "elicited" if c["ci"][1] < 0 else "not told apart"
            rows.append((e.label, best[0], c["n"], c["diff"], *c["ci"], c["p_mcnemar"], verdict))
    columns = ["setting", "best untrained prompt", "n", "difference", "low", "high", "p", "verdict"]
    return pd.DataFrame(rows, columns=columns)
