"""CoQA: questions in a conversation about a story, short free answers.

https://stanfordnlp.github.io/coqa/ · hub EleutherAI/coqa

Original files coqa-train-v1.0.json and coqa-dev-v1.0.json, {"data": [conversation, …]}:

    {"id": "s1", "source": "mctest", "story": "Mia fed the cat and left.",
     "questions": [{"input_text": "Who was fed?", "turn_id": 1}], "answers": [{"input_text": "the cat", "turn_id": 1}],
     "additional_answers": {"0": [{"input_text": "a cat", "turn_id": 1}]}}

Hub rows hold the same with columns for lists. Each turn is a problem: the story and the turns before it, with their
gold answers, are the context; all annotators' answers are golds (only the dev file has several).
"""

from typing import Any

from ..base import Row, Source, fields


def _texts(turns: Any) -> list[str]:
    return list(turns["input_text"]) if isinstance(turns, dict) else [turn["input_text"] for turn in turns]


def to_problem(row: Row) -> list[Row | None]:
    """A conversation → a problem a turn; None for a turn without an answer."""
    turns = list(zip(_texts(row["questions"]), _texts(row["answers"]), strict=True))
    others = [_texts(answers) for answers in (row.get("additional_answers") or {}).values() if answers]
    problems: list[Row | None] = []
    for i, (question, answer) in enumerate(turns):
        said_by_all = (answer, *(texts[i] for texts in others if i < len(texts)))
        golds = list(dict.fromkeys(gold.strip() for gold in said_by_all if gold and gold.strip()))
        before = "\n".join(f"Q: {asked}\nA: {said}" for asked, said in turns[:i])
        context = row["story"].strip() + (f"\n\nThe conversation so far:\n{before}" if before else "")
        own = {"native": f"{row['id']}-{i + 1}", "meta": {"turn": i + 1, "domain": row.get("source")}}
        problems.append(fields(question, golds, "text", context=context, **own) if golds else None)
    return problems


SOURCE = Source(
    name="coqa", url="https://stanfordnlp.github.io/coqa/", grader="text",
    licence="by passage: CC BY-SA 4.0, MSR-LA, RACE's own, Apache-2.0",
    published="7,199 train and 500 dev conversations (108,647 and 7,983 turns)", to_problem=to_problem,
    rule="train as published; test is the dev set, as the test set is kept by its authors",
    hub="EleutherAI/coqa", raw="https://nlp.stanford.edu/data/coqa",
    parts={"train": ["coqa-train-v1.0.json"], "validation": ["coqa-dev-v1.0.json"]},
    splits={"train": "train", "test": "validation"})  # fmt: skip
