"""CoQA: questions in a conversation about a story, short free answers.

https://stanfordnlp.github.io/coqa/ · hub EleutherAI/coqa

Original files coqa-train-v1.0.json and coqa-dev-v1.0.json, {"data": [conversation, …]}:

    {"id": "s1", "source": "mctest", "story": "Mia fed the cat and left.",
     "questions": [{"input_text": "Who was fed?", "turn_id": 1}, {"input_text": "By whom?", "turn_id": 2}],
     "answers": [{"input_text": "the cat", "turn_id": 1}, {"input_text": "Mia", "turn_id": 2}],
     "additional_answers": {"0": [{"input_text": "a cat", "turn_id": 1},
                                  {"input_text": "by Mia", "turn_id": 2}]}}

Hub rows hold the same with columns for lists. Each turn is a problem: the story and the turns before it, with their
gold answers, are the context; all annotators' answers are golds (only the dev file has several).
"""

from collections.abc import Iterator
from typing import Any

from ..base import Row, Source, fields


def texts(turns: Any) -> list[str]:
    """`input_text` of each turn, from a list of dicts or a dict of lists."""
    return list(turns["input_text"]) if isinstance(turns, dict) else [turn["input_text"] for turn in turns]


def unfold(row: Row) -> Iterator[Row]:
    """A conversation as its turns."""
    turns = list(zip(texts(row["questions"]), texts(row["answers"]), strict=True))
    more = [texts(others) for others in (row.get("additional_answers") or {}).values() if others]
    for i, (question, answer) in enumerate(turns):
        golds = [answer, *(others[i] for others in more if i < len(others))]
        yield {
            "native": f"{row['id']}-{i + 1}",
            "story": row["story"],
            "question": question,
            "domain": row.get("source"),
            "golds": list(dict.fromkeys(gold.strip() for gold in golds if gold and gold.strip())),
            "before": turns[:i],
        }


def to_problem(row: Row) -> Row | None:
    """A turn → problem; None if it has no answer."""
    if not row["golds"]:
        return None
    talk = "\n".join(f"Q: {question}\nA: {answer}" for question, answer in row["before"])
    context = row["story"].strip() + (f"\n\nThe conversation so far:\n{talk}" if talk else "")
    meta = {"turn": len(row["before"]) + 1, "domain": row["domain"]}
    return fields(row["question"], row["golds"], "text", native=row["native"], context=context, meta=meta)


SOURCE = Source(
    name="coqa", url="https://stanfordnlp.github.io/coqa/", grader="text",
    licence="by passage: CC BY-SA 4.0, MSR-LA, RACE's own, Apache-2.0",
    published="7,199 train and 500 dev conversations (108,647 and 7,983 turns)", to_problem=to_problem, unfold=unfold,
    rule="train as published; test is the dev set, as the test set is kept by its authors",
    hub="EleutherAI/coqa", raw="https://nlp.stanford.edu/data/coqa",
    parts={"train": ["coqa-train-v1.0.json"], "validation": ["coqa-dev-v1.0.json"]},
    splits={"train": "train", "test": "validation"},
)  # fmt: skip
