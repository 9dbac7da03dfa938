"""reasoning_gym:TASK — questions that reasoning-gym's generators make, graded by their own scorers (an optional extra).

    reasoning_gym:chain_sum?min_terms=2&max_terms=2      a difficulty: fields of the generator's configuration

A quarter of the questions is test by the question's hash, so none is in both splits, whatever the seed. Apache-2.0,
https://github.com/open-thought/reasoning-gym (arXiv 2505.24760).
"""

import importlib.util
import itertools
import json
import random
from difflib import get_close_matches
from typing import Any

import yaml

from .base import Row, check_split, fields, hash_split, question_key

NAME, URL = "reasoning_gym", "https://github.com/open-thought/reasoning-gym"
BLOCK = 200  # entries of a generator: some make all at once
BY_HASH = hash_split(0.25)


def problems(name: str, split: str, n: int | None, seed: int) -> list[Row]:
    """`n` different questions of a split, fewer if the task has no more; a smaller draw is the head of a larger one.

    Raises ValueError for an unknown task or field, and for a task that refuses its own gold answers.
    """
    check_split(name, split, ("train", "test"))
    if n is None:
        raise ValueError(f"{name} has no end; say how many problems with n")
    rng, found, fruitless = random.Random(f"{name}/{split}/{seed}"), dict[str, Row](), 0
    task, _, rest = name.partition(":")[2].partition("?")
    config = {key: yaml.safe_load(value) for key, _, value in (part.partition("=") for part in rest.split("&") if part)}
    blocks = (_generator(name, task, config | {"seed": rng.randrange(1 << 31)}) for _ in itertools.count())
    meta = {"source": name, "url": URL, "licence": "Apache-2.0", "split": split, "generator": [task, config]}
    for made, entry in ((block, entry) for block in blocks for entry in block):
        # as it comes back from disk; a few tasks state no gold answer, and their scorers alone decide
        entry = json.loads(json.dumps(entry, default=lambda x: x.tolist() if hasattr(x, "tolist") else str(x)))
        answer, more = str(entry["answer"] or ""), {"meta": meta | {"entry": entry["metadata"]}}
        row = {"task": f"{task} {rest}".strip(), **fields(entry["question"], answer, "scored", **more)}
        fresh, fruitless = BY_HASH(row) == split and question_key(row) not in found, fruitless + 1
        if fresh and (not answer or made.score_answer(answer, entry) == 1.0):
            found[question_key(row)], fruitless = row | {"id": f"{name}-{split}-{len(found)}"}, 0
        if len(found) == n or fruitless > 200 + 20 * len(found):  # a small space is used up
            break
    if not found:
        raise ValueError(f"{name}: its scorer refuses its own gold answers once they were on disk; choose another task")
    return [{key: value for key, value in row.items() if key != "native"} for row in found.values()]


def _generator(name: str, task: str, config: dict[str, Any]) -> Any:
    if importlib.util.find_spec(NAME) is None:
        raise ValueError(f"{name} needs the package reasoning-gym: pip install 'reflectevo_lite[reasoning]'")
    import reasoning_gym
    from reasoning_gym.factory import DATASETS

    if task not in DATASETS:
        near = get_close_matches(task, DATASETS, 1, cutoff=0.0)[0]
        raise ValueError(f"unknown source {name!r}; did you mean '{NAME}:{near}'?")
    try:
        return reasoning_gym.create_dataset(task, **config, size=BLOCK)
    except (AssertionError, AttributeError, TypeError, ValueError) as error:
        known = ", ".join(key for key in vars(DATASETS[task][1]()) if key not in ("seed", "size"))
        raise ValueError(f"{name}: {str(error).splitlines()[0]} (its fields: {known})") from error
