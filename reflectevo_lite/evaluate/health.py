"""The health of a run: what the reflections of real models, and the answers after them, do instead of helping; where
that is too much, and what to do."""

from collections import Counter
from typing import Any

import pandas as pd

from .. import curate, prompts, store
from ..grading import UNREAD
from .collapse import triples
from .reading import FEWEST

SIGNS = {  # column → (what it is, the share above which it warns, what to do)
    "empty": ("reflections are empty", 0.1, "look at the chat template and the end token"),
    "cut off": ("reflections are cut off", 0.2, "raise max_new_tokens"),
    "loops": ("reflections repeat themselves", 0.1, "raise the temperature, or take a larger model"),
    "echo": ("reflections copy the question, the attempt or a worked example", 0.2, "read some; try other shots"),
    "leaks": ("reflections state the answer, or name another option", 0.1, "leave drop_leaks true"),
    "unmoved": ("second answers repeat the first", 0.8, "try other instructions, or worked second answers (shots)"),
    "unread": ("second answers could not be read", 0.1, "read some (`read.unread`); try worked examples (shots)"),
}
YIELD = 0.05  # share of second answers that are right below which there is little to learn from


def health(run: store.Run) -> pd.DataFrame:
    """Shares of the run's reflections on training questions, and of the second answers after them, that show each of
    `SIGNS`: over all tasks, then by task. Columns: task, reflections (their number), the signs, helped (a right second
    answer); fractions. Empty if there are none."""
    path, taken = run.path("rollouts", "train.jsonl"), run.params().get("02_reflection_generation", {})
    rollouts, limit = store.iter_jsonl(path) if path.exists() else (), taken.get("max_new_tokens", float("inf"))
    rows = [(r["problem"]["task"], 1, *_signs(r, x, limit)) for r in rollouts for x in r["reflections"]]
    frame = pd.DataFrame(rows, columns=["task", "reflections", *SIGNS, "helped"])
    both = pd.concat([frame.assign(task="all"), frame] if frame["task"].nunique() > 1 else [frame])
    shares = dict.fromkeys([*SIGNS, "helped"], "mean")
    return both.groupby("task", sort=False).agg({"reflections": "sum"} | shares).reset_index()  # type: ignore[arg-type]


def health_warnings(table: pd.DataFrame) -> list[str]:
    """A sentence with its remedy for each sign that is too frequent, about the task where it is worst."""
    some, said = table[table["reflections"] >= FEWEST], list[str]()
    for sign, (what, most, remedy) in SIGNS.items() if len(some) else ():
        worst: Any = some.sort_values(sign).iloc[-1]
        if worst[sign] > most:
            said.append(f"{worst[sign]:.0%} of {worst['reflections']:,} {what} ({worst['task']}): {remedy}.")
    if len(some) and (best := some["helped"].max()) < YIELD:
        remedy = "look for tasks between too easy and too hard (`reflectevo calibrate`), or take a larger model"
        said.append(
            f"In no task more than {best:.1%} of the reflections helped, so there is little to learn from: {remedy}."
        )
    return said


def _signs(row: Any, reflection: Any, limit: float) -> tuple[bool, ...]:
    text, first, second = reflection["text"], row["turn1"], reflection["turn2"]
    shown = [shot["reflection"] for shot in row["problem"].get("reflection_shots", ())]
    known = {
        t for s in (prompts.question_text(row["problem"]), first["completion"], *shown) for t in triples(s.lower())
    }
    own, leaks = triples(text.lower()), curate.leaks(row["problem"], first, text)
    loops = sum(n - 1 for n in Counter(own).values()) > 0.3 * len(own)
    echo = sum(t in known for t in own) > 0.6 * len(own)
    again = second["answer"] is not None and second["answer"] == first["answer"]
    unread = second.get("read") in UNREAD
    return not text.strip(), reflection["tokens"] >= limit, loops, echo, leaks, again, unread, second["correct"]
