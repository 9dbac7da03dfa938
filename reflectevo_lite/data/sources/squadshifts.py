"""SQuADShifts: SQuAD's way of asking, on new Wikipedia articles, New York Times, Reddit and Amazon reviews.

https://modestyachts.github.io/squadshifts-website/ (its hub copy is a script, which datasets ≥ 4 does not
run)

Original files new_wiki_v1.0.json, nyt_v1.0.json, reddit_v1.0.json, amazon_reviews_v1.0.json, in SQuAD's form:

    {"data": [{"title": "t", "paragraphs": [{"context": "The kettle boils in two minutes.", "qas": [
        {"id": "q1", "question": "How fast does the kettle boil?",
         "answers": [{"text": "in two minutes", "answer_start": 17},
                     {"text": "two minutes", "answer_start": 20}]}]}]}]}

Hub rows, in exports: id, title, context, question, answers {text, answer_start}. All answers are golds.
"""

from __future__ import annotations

import json
from pathlib import Path

from .base import REAL, Part, Row, Source, fields, hash_split
from .files import read_rows

RAW = "https://raw.githubusercontent.com/modestyachts/squadshifts-website/master/datasets"
FILES = {
    "new_wiki": "new_wiki_v1.0.json",
    "nyt": "nyt_v1.0.json",
    "reddit": "reddit_v1.0.json",
    "amazon": "amazon_reviews_v1.0.json",
}
ROWS = {"new_wiki": "7,938", "nyt": "10,065", "reddit": "9,803", "amazon": "9,885"}


def read(path: Path) -> list[Row]:
    """SQuAD's nesting as rows of the hub's form."""
    try:
        articles = json.loads(path.read_text(encoding="utf-8"))["data"]
    except (json.JSONDecodeError, KeyError, TypeError):
        return read_rows(path)
    return [
        {**question, "title": article.get("title", ""), "context": paragraph["context"]}
        for article in articles
        for paragraph in article["paragraphs"]
        for question in paragraph["qas"]
    ]


def to_problem(row: Row) -> Row | None:
    """Row → problem; None for a question without an answer."""
    answers = row["answers"]
    golds = answers["text"] if isinstance(answers, dict) else [answer["text"] for answer in answers]
    golds = list(dict.fromkeys(gold.strip() for gold in golds if gold.strip()))
    return fields(row["question"], golds, "text", native=row["id"], context=row["context"]) if golds else None


def source(domain: str) -> Source:
    """One of the four domains."""
    return Source(
        name=f"squadshifts:{domain}",
        pattern="squadshifts:<domain>",
        folder="squadshifts",
        variant=domain,
        url="https://modestyachts.github.io/squadshifts-website/",
        licence="CC BY 4.0",
        grader="text",
        published=f"{ROWS[domain]} test",
        family_rows="; ".join(f"{d} {n}" for d, n in ROWS.items()),
        to_problem=to_problem,
        tested=REAL,
        read=read,
        rule="published as test only; passages are halved by their hash, so that no passage is on both sides",
        assign=hash_split(0.5, of=lambda problem: problem["context"]),
        parts={"test": Part((FILES[domain],), f"{RAW}/{FILES[domain]}")},
    )


FAMILY = {f"squadshifts:{domain}": source(domain) for domain in FILES}
