"""SQuADShifts: SQuAD's way of asking, on new Wikipedia articles, New York Times, Reddit and Amazon reviews.

https://modestyachts.github.io/squadshifts-website/ (its hub copy is a script, which datasets ≥ 4 does not

Original files new_wiki_v1.0.json, nyt_v1.0.json, reddit_v1.0.json, amazon_reviews_v1.0.json, in SQuAD's form:

    {"data": [{"title": "t", "paragraphs": [{"context": "The kettle boils in two minutes.", "qas": [
        {"id": "q1", "question": "How fast does the kettle boil?",
         "answers": [{"text": "in two minutes", "answer_start": 17}, …]}]}]}]}

Hub rows, in exports: id, title, context, question, answers {text, answer_start}; the hub's copy is a script, which
datasets ≥ 4 refuses. All answers are golds.
"""

from pathlib import Path

from ..base import REAL, Row, Source, fields, hash_split
from ..files import read_rows


def read(path: Path) -> list[Row]:
    """SQuAD's nesting as rows of the hub's form."""
    articles = read_rows(path)
    if any("paragraphs" not in article for article in articles):  # rows already
        return articles
    both = [(article.get("title", ""), paragraph) for article in articles for paragraph in article["paragraphs"]]
    return [q | {"title": title, "context": part["context"]} for title, part in both for q in part["qas"]]


def to_problem(row: Row) -> Row | None:
    """Row → problem; None for a question without an answer."""
    answers = row["answers"]
    golds = answers["text"] if isinstance(answers, dict) else [answer["text"] for answer in answers]
    golds = list(dict.fromkeys(gold.strip() for gold in golds if gold.strip()))
    return fields(row["question"], golds, "text", native=row["id"], context=row["context"]) if golds else None


SOURCES = [
    Source(
        name=f"squadshifts:{domain}", pattern="squadshifts:<domain>", licence="CC BY 4.0", grader="text",
        url="https://modestyachts.github.io/squadshifts-website/", tested=REAL,
        published="new_wiki 7,938; nyt 10,065; reddit 9,803; amazon 9,885", to_problem=to_problem, read=read,
        rule="published as test only; passages are halved by their hash, so that no passage is on both sides",
        assign=hash_split(0.5, of=lambda problem: problem["context"]),
        raw="https://raw.githubusercontent.com/modestyachts/squadshifts-website/master/datasets",
        parts={"test": [f"{'amazon_reviews' if domain == 'amazon' else domain}_v1.0.json"]},
    )
    for domain in ("new_wiki", "nyt", "reddit", "amazon")
]  # fmt: skip
