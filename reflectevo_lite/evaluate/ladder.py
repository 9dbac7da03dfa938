"""The elicitation ladder: how far does the *untrained* model get by better prompts alone (notebooks/beyond/ladder.ipynb)?

What training is worth is its gain over the best of these, not over the first prompt that came to mind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from .. import embedded, prompts, store
from ..generate import Completion, Engine
from ..rows import EvalRow, Message
from .carryover import swap
from .evaluation import Asked, read_rows, row_of
from .metrics import compare
from .settings import BASELINE, Evaluation, files, label, setting
from .stats import wilson
from .truth import whole

Written = list[tuple[str, int]]  # a reflection and its tokens, for each question
FOLDER = "ladder"
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
            rows = [row_of(q, a) for q, a in zip(part.problems, part.first, strict=True)]
            drawn = prompts.draw_instructions(len(places), p.seed + i)
            for j, (text, tokens) in zip(places, _write(engine, name, part.at(places), best, drawn, p), strict=True):
                rows[j] |= {"reflection": text, "tokens": tokens}
            return rows

        written = asked.keep(f"{FOLDER}/{name}.reflections.jsonl", make)
        swap(engine, asked, written, None, f"{FOLDER}/{Evaluation(name).file}")


def best_instruction(rollouts: Any) -> str:
    """The instruction whose sampled reflections led to a right second answer most often, in share."""
    drawn, helped = Counter[str](), Counter[str]()
    for x in (x for r in rollouts for x in r["reflections"]):
        drawn[x["instruction"]] += 1
        helped[x["instruction"]] += x["turn2"]["correct"]
    return max(sorted(drawn), key=lambda name: helped[name] / drawn[name], default="generic")


def _write(engine: Engine, name: str, now: Asked, best: str, drawn: Sequence[str], p: Any) -> Written:
    def said(conversations: Sequence[list[Message]], **how: Any) -> list[Completion]:
        found = engine.generate(conversations, max_new_tokens=now.max_new_tokens, **how)
        return [completions[0] for completions in found]

    def under(instructions: Sequence[str], **how: Any) -> Written:
        triples = zip(now.problems, now.first, instructions, strict=True)
        found = said([prompts.reflection_prompt(q, a["completion"], one) for q, a, one in triples], **how)
        return [(c.text, c.tokens) for c in found]

    def asking(words: str) -> list[list[Message]]:
        pairs = zip(now.problems, now.first, strict=True)
        return [prompts.asking(q, a["completion"], words) for q, a in pairs]

    if name == "audit":
        return [(c.text, c.tokens) for c in said(asking(f"{prompts.VERDICT['oracle']} {prompts.AUDIT}"))]
    if name == "own":
        return [(embedded.with_plan(c.text), c.tokens) for c in said(asking(embedded.OWN_WORDS))]
    if name == "two_calls":
        first = asking(f"{prompts.VERDICT['oracle']} {prompts.FIND}")
        found = said(first)
        plans = said(
            [prompts.going_on(asked, c.text, prompts.THEN_PLAN) for asked, c in zip(first, found, strict=True)]
        )
        return [(f"{a.text.strip()} {b.text.strip()}", a.tokens + b.tokens) for a, b in zip(found, plans, strict=True)]
    if name == "sampled":
        return under(["generic"] * len(now.first), temperature=p.temperature, seed=now.seed)
    return under(drawn if name == "pool" else [best] * len(now.first))


def rungs(run: store.Run) -> Iterator[tuple[str, list[Any]]]:
    """(name in words, eval rows with first answers) of prompted reflection and of every rung that a run has."""
    yield label(BASELINE), read_rows(run, Evaluation(BASELINE))
    first = {r["id"]: r["turn1"] for r in read_rows(run, Evaluation(BASELINE))}
    for name, said in RUNGS.items():
        if run.path("evals", FOLDER, Evaluation(name).file).exists():
            rows = run.read("evals", FOLDER, Evaluation(name).file)
            spent = {r["id"]: r["tokens"] for r in run.rows("evals", FOLDER, f"{name}.reflections.jsonl")}
            yield said, [r | {"turn1": first[r["id"]], "tokens": r["tokens"] + spent[r["id"]]} for r in rows]


def ladder_table(run: store.Run) -> pd.DataFrame:
    """Each rung: n, Acc@t2 and its Wilson interval, the share of reflections true in every part (NaN where unknown),
    tokens per question after turn 1. Fractions."""
    problems, rows = run.read("data", "test.jsonl"), []
    for said, found in rungs(run):
        right = sum(r["turn2_correct"] for r in found)
        spent = sum(r["tokens"] for r in found) / max(1, len(found))
        rows.append(
            (said, len(found), right / max(1, len(found)), *wilson(right, len(found)), whole(problems, found), spent)
        )
    return pd.DataFrame(rows, columns=["prompt", "n", "acc_t2", "low", "high", "true", "tokens"]).astype(
        {"true": float}
    )


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
