"""Made-up copies of the published sets in their original formats, and hub rows as they are exported."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path


def put(path: Path, value: object) -> None:
    """Write text, JSON Lines (.jsonl) or JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(value, str):
        path.write_text(value, encoding="utf-8")
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in value), encoding="utf-8")
    else:
        path.write_text(json.dumps(value), encoding="utf-8")


def logiqa_block(name: str, answer: str = "b") -> str:
    return (
        f"\n{answer}\nEvery lamp in {name} is red or dim.\nWhich of the following follows?\n"
        f"A.{name} is dark.\nB.A lamp in {name} is dim\u2028or red.\nC.No lamp is red.\nD.Nothing.\n"
    )


def logiqa(root: Path) -> None:
    blocks = {"Train": ["t1", "t2", "shared"], "Eval": ["e1", "t2"], "Test": ["s1", "shared", "s2"]}
    for part, names in blocks.items():
        put(root / f"logiqa/{part}.txt", "".join(logiqa_block(name) for name in names))


def math(root: Path) -> None:
    for part, subject, number in [("train", "algebra", 2), ("train", "algebra", 10), ("test", "geometry", 1)]:
        put(
            root / f"math/MATH/{part}/{subject}/{number}.json",
            {
                "problem": f"What is $x + {number}$ in {part}?",
                "level": "Level 2",
                "type": subject.title(),
                "solution": rf"Not \boxed{{0}} but $\boxed{{\frac{{{number}}}{{2}}}}$.",
            },
        )


def gsm8k(root: Path) -> None:
    for part in ("train", "test"):
        put(
            root / f"gsm8k/{part}.jsonl",
            [{"question": f"{part} {i} pens cost?", "answer": f"1*{i}=<<1*{i}={i}>>\n#### 1,{i:03}"} for i in range(4)],
        )


def mbpp_row(task_id: int, name: str, text: str, **more: object) -> dict:
    return {
        "task_id": task_id,
        "code": f"def helper(x):\r\n  return x\r\ndef {name}(a, b):\r\n  return {{a, b}}",
        "test_list": [f"assert set({name}({i}, 2)) == set([{i}, 2])" for i in range(3)],
        "text": text,
        "test_setup_code": "",
        "challenge_test_list": [],
        **more,
    }


def mbpp_files(root: Path) -> None:
    rows = [mbpp_row(id, f"f{id}", f"Write a function, number {id}.") for id in (2, 11, 12, 510, 511, 601, 974)]
    rows += [
        mbpp_row(602, "again", "Write a function, number 12."),
        mbpp_row(13, "g", "Use a root.", test_setup_code="root = 1"),
    ]
    put(root / "mbpp/mbpp.jsonl", rows)
    edited = [
        {**row, "prompt": row["text"], "test_imports": ["import math", "import re"], "source_file": "x"} for row in rows
    ]
    put(
        root / "mbpp/sanitized-mbpp.json",
        [{k: v for k, v in row.items() if k not in ("text", "test_setup_code")} for row in edited],
    )


def talk(name: str, **more: object) -> dict:
    def turns(*texts: str) -> list[dict]:
        return [{"input_text": text, "turn_id": i + 1, "span_start": 0} for i, text in enumerate(texts)]

    return {
        "id": name,
        "source": "mctest",
        "story": f"Mia fed {name} and left.",
        "questions": turns("Who was fed?", "By whom?"),
        "answers": turns(name, "Mia"),
        **({"additional_answers": {"0": turns(f"the {name}", "Mia"), "1": turns(name, "")}} | more),
    }


def coqa_files(root: Path) -> None:
    put(
        root / "coqa/coqa-train-v1.0.json",
        {"version": "1.0", "data": [talk("cat", additional_answers={}), talk("dog")]},
    )
    put(root / "coqa/coqa-dev-v1.0.json", {"version": "1.0", "data": [talk("cow"), talk("dog")]})


def squadshifts(root: Path) -> None:
    paragraphs = [
        {
            "context": f"Kettle {i} boils in two minutes.",
            "qas": [
                {
                    "id": f"q{i}-{j}",
                    "question": f"How fast does it boil, {j}?",
                    "answers": [
                        {"text": "in two minutes", "answer_start": 0},
                        {"text": " two minutes", "answer_start": 3},
                        {"text": "in two minutes", "answer_start": 0},
                    ],
                }
                for j in range(2)
            ],
        }
        for i in range(12)
    ]
    put(
        root / "squadshifts/amazon_reviews_v1.0.json",
        {"data": [{"title": "t", "paragraphs": paragraphs}], "version": "1"},
    )


def social_iqa(root: Path) -> None:
    for part, names in {"train": ["Lou", "Kim"], "dev": ["Ann", "Bo", "Cy"]}.items():
        put(
            root / f"social_iqa/{part}.jsonl",
            [
                {
                    "context": f"{name} lent an umbrella.",
                    "question": "What next?",
                    "answerA": "go",
                    "answerB": "stay",
                    "answerC": "sing",
                }
                for name in names
            ],
        )
        put(root / f"social_iqa/{part}-labels.lst", "".join(f"{i % 3 + 1}\n" for i in range(len(names))))


def strategyqa(root: Path) -> None:
    put(
        root / "strategyqa/strategyqa_train.json",
        [{"qid": f"q{i}", "question": f"Could {i} kettles fly?", "answer": i % 2 == 0, "facts": []} for i in range(40)],
    )


def timedial_row(i: int, **more: str) -> dict:
    return {
        "id": i,
        "conversation": [f"A: Film {i}?", "B: We have <MASK>."],
        "correct1": "half an hour ",
        "correct2": "30 minutes",
        "incorrect1": "eight years",
        "incorrect1_rule": "Rule 1",
        "incorrect2": "nine seconds",
        "incorrect2_rule": "Rule 3",
        **more,
    }


def timedial(root: Path) -> None:
    put(
        root / "timedial/test.json",
        [timedial_row(i) for i in range(30)] + [timedial_row(30, correct2="_none_")],
    )


def vitaminc(root: Path) -> None:
    for part in ("train", "dev", "test"):
        labels = ["SUPPORTS", "REFUTES", "NOT ENOUGH INFO"]
        put(
            root / f"vitaminc/{part}.jsonl",
            [
                {
                    "unique_id": f"{part}_{i}",
                    "page": "Kettle",
                    "claim": f"{part} sold over {i}.",
                    "evidence": f"{part}: 80 sold.",
                    "label": labels[i],
                    "revision_type": "real",
                }
                for i in range(3)
            ],
        )


def bigbench_files(root: Path) -> None:
    for task in ("analytic_entailment", "my_task"):
        put(
            root / f"bigbench/{task}/task.json",
            {
                "canary": "x",
                "task_prefix": "Does it follow?",
                "examples": [
                    {
                        "input": f"Ada owns {i} cats. So Ada owns a pet.",
                        "target_scores": {"entailment": 1, "no-entailment": 0},
                    }
                    for i in range(30)
                ],
            },
        )


def bbh_files(root: Path) -> None:
    named = [
        {"input": f"Ann is taller than Bo{i}. Who is shorter?\nOptions:\n(A) Ann\n(B) Bo{i}", "target": "(B)"}
        for i in range(30)
    ]
    dashed = [{"input": f"Do you return? Take {i} steps.\nOptions:\n- Yes\n- No", "target": "No"} for i in range(30)]
    bare = [{"input": f"not ( {'not ' * i}True ) is", "target": "False"} for i in range(30)]
    words = [{"input": f"Sort: pear apple{i}", "target": f"apple{i} pear"} for i in range(30)]
    sums = [{"input": f"({i} + 1) =", "target": f"-{i}"} for i in range(30)]
    for task, rows in {
        "snarks": named,
        "navigate": dashed,
        "boolean_expressions": bare,
        "word_sorting": words,
        "multistep_arithmetic_two": sums,
    }.items():
        put(root / f"bbh/{task}.json", {"canary": "x", "examples": rows})


WRITERS = [
    logiqa,
    math,
    gsm8k,
    mbpp_files,
    coqa_files,
    squadshifts,
    social_iqa,
    strategyqa,
    timedial,
    vitaminc,
    bigbench_files,
    bbh_files,
]


def export(path: Path, rows: list[dict]) -> None:
    """Hub rows as `datasets` and pandas export them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jsonl":
        put(path, rows)
    elif path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        # parquet has no empty struct; a missing dict is null there
        pq.write_table(
            pa.Table.from_pylist([{k: None if v == {} else v for k, v in row.items()} for row in rows]), path
        )
    else:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            [{k: str(v) if isinstance(v, list | dict | bool) else v for k, v in row.items()} for row in rows]
        )
        path.write_text(text.getvalue(), encoding="utf-8", newline="")


def columns(rows: list[dict]) -> dict:
    return {name: [row[name] for row in rows] for name in rows[0]}
