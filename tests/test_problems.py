"""Sources → Problem rows, from tiny local copies in the original formats. No network; invented rows."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from reflectevo_lite import prompts
from reflectevo_lite.data import load as problems
from reflectevo_lite.data.load import (
    SOURCES,
    SourceMissing,
    describe_sources,
    drop_shared,
    load,
    load_many,
    sources_markdown,
)
from reflectevo_lite.data.sources import base, bbh, bigbench, coqa, files, hendrycks_math, mbpp, own
from reflectevo_lite.embedded import tasks as synthetic

HUB_ROWS = files.hub_rows
CASES = Path(__file__).resolve().parents[2] / "shared" / "cases" / "rows"


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path_factory):
    """Nothing is fetched, and the user's cache is not read."""

    def refuse(*_args, **_kwargs):
        raise OSError("no network in tests")

    monkeypatch.setenv("REFLECTEVO_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr(files, "hub_rows", lambda source, part: refuse() if source.hub else None)


# -- original formats, invented rows --------------------------------------------------------------------
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
NAMES = [
    "logiqa",
    "math",
    "gsm8k",
    "mbpp",
    "mbpp:sanitized",
    "coqa",
    "squadshifts:amazon",
    "social_iqa",
    "strategyqa",
    "timedial",
    "vitaminc",
    "bigbench:analytic_entailment",
    "bigbench:my_task",
    "bbh:snarks",
    "bbh:navigate",
    "bbh:boolean_expressions",
    "bbh:word_sorting",
    "bbh:multistep_arithmetic_two",
]


@pytest.fixture(scope="module")
def mirror(tmp_path_factory) -> Path:
    """A local mirror of every set."""
    root = tmp_path_factory.mktemp("mirror")
    for write in WRITERS:
        write(root)
    return root


def keys(rows: list[dict]) -> set[str]:
    return {base.question_key(row) for row in rows}


# -- every source ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", NAMES)
def test_every_source_gives_valid_problems_and_disjoint_splits(name, mirror):
    train, test = load(name, "train", data_dir=mirror), load(name, "test", data_dir=mirror)
    assert train and test and not keys(train) & keys(test)
    for split, rows in (("train", train), ("test", test)):
        assert len({row["id"] for row in rows}) == len(rows)
        for row in rows:
            assert own.fault(row) == "" and row["task"] == name and row["id"].startswith(f"{name}-{split}-")
            assert {"source", "url", "licence"} <= set(row["meta"]) and row["meta"]["split"] == split
            assert row["question"] in prompts.answer_prompt(row)[0]["content"]


@pytest.mark.parametrize("name", NAMES)
def test_a_draw_is_seeded_nested_and_without_replacement(name, mirror):
    rows = load(name, "test", data_dir=mirror)
    many = load(name, "test", n=len(rows), seed=1, data_dir=mirror)
    assert sorted(r["id"] for r in many) == sorted(r["id"] for r in rows)
    assert load(name, "test", n=1, seed=1, data_dir=mirror) == many[:1]


def test_seeds_differ(mirror):
    assert load("strategyqa", "train", n=8, seed=1, data_dir=mirror) != load(
        "strategyqa", "train", n=8, seed=2, data_dir=mirror
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("ending", ["jsonl", "parquet", "csv"])
def test_an_export_of_hub_rows_gives_the_same_problems(name, ending, mirror, tmp_path):
    source = problems._resolve(name)
    parts = {p: files.local_rows(source, p, mirror) for p in source.parts}
    place = tmp_path / source.folder / source.variant
    for part, rows in parts.items():
        if rows is not None:
            export(place / f"{part}.{ending}", [row for _, row in rows])
    bare = [{k: v for k, v in row.items() if k != "id"} for row in load(name, data_dir=tmp_path)]
    assert bare == [{k: v for k, v in row.items() if k != "id"} for row in load(name, data_dir=mirror)]


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


def test_a_saved_dataset_is_read(mirror, tmp_path):
    datasets = pytest.importorskip("datasets")
    split = {
        part: datasets.Dataset.from_list(files.read_rows(mirror / f"gsm8k/{part}.jsonl")) for part in ("train", "test")
    }
    datasets.DatasetDict(split).save_to_disk(tmp_path / "gsm8k")
    tests = [row for _, row in files.local_rows(SOURCES["bbh:snarks"], "test", mirror)]
    datasets.Dataset.from_list(tests).save_to_disk(tmp_path / "bbh/snarks")
    for name in ("gsm8k", "bbh:snarks"):
        assert load(name, data_dir=tmp_path) == load(name, data_dir=mirror)


def test_math_by_subject_needs_every_subject(tmp_path):
    for subject in hendrycks_math.SUBJECTS[:-1]:
        export(
            tmp_path / f"math/{subject}/test-00000-of-00001.parquet",
            [{"problem": subject, "solution": r"\boxed{1}", "type": "", "level": ""}],
        )
    with pytest.raises(SourceMissing):
        load("math", data_dir=tmp_path)
    export(
        tmp_path / "math/precalculus/test.jsonl",
        [{"problem": "last", "solution": r"\boxed 7.", "type": "", "level": ""}],
    )
    assert [row["id"] for row in load("math", data_dir=tmp_path)][-1] == "math-test-precalculus-0"


# -- the sets one by one --------------------------------------------------------------------------------
def test_logiqa(mirror):
    first, *_ = load("logiqa", data_dir=mirror)
    assert (
        first["id"] == "logiqa-test-0"
        and first["answer"] == "B"
        and first["context"] == "Every lamp in s1 is red or dim."
    )
    assert first["choices"] == [
        "s1 is dark.",
        "A lamp in s1 is dim\u2028or red.",
        "No lamp is red.",
        "Nothing.",
    ]
    assert [row["id"] for row in load("logiqa", "train", data_dir=mirror)] == [
        "logiqa-train-0"
    ]  # t2: Eval, shared: Test
    assert [row["id"] for row in load("logiqa", "validation", data_dir=mirror)] == [
        "logiqa-validation-0",
        "logiqa-validation-1",
    ]


def test_math_and_gsm8k_answers(mirror):
    assert [row["id"] for row in load("math", "train", data_dir=mirror)] == [
        "math-train-algebra-2",
        "math-train-algebra-10",
    ]
    row = load("math", data_dir=mirror)[0]
    assert row["answer"] == r"\frac{1}{2}" and row["meta"]["level"] == "Level 2"
    assert [row["answer"] for row in load("gsm8k", data_dir=mirror)] == ["1000", "1001", "1002", "1003"]


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        (r"so \boxed{\{1,2\}}.", r"\{1,2\}"),
        (r"\fbox{7}", "7"),
        (r"$\boxed 12$", "12"),
        ("none", None),
        (r"\boxed{1} or \boxed{2}", "2"),
        (r"\boxed{\begin{pmatrix} 1 \\ 2 \end{pmatrix}}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"),
        (r"\boxed{open", None),
        (r"\boxed{}", None),
    ],
)
def test_boxed(solution, answer):
    assert hendrycks_math.boxed(solution) == answer


def test_mbpp(mirror):
    rows = load("mbpp", data_dir=mirror)
    assert [row["id"] for row in rows] == ["mbpp-test-11", "mbpp-test-12", "mbpp-test-510", "mbpp-test-13"]
    first, rooted = rows[0], rows[3]
    assert first["question"].endswith("Name the function `f11`; it is called with 2 arguments.")
    assert first["shown_tests"] == first["tests"] and len(first["tests"]) == 3 and "\r" not in first["answer"]
    assert rooted["setup"] == "root = 1" and "setup" not in first
    assert load("mbpp:sanitized", data_dir=mirror)[0]["setup"] == "import math\nimport re"
    assert [row["id"] for row in load("mbpp", "train", data_dir=mirror)] == [
        "mbpp-train-601",
        "mbpp-train-974",
    ]  # 602 repeats 12
    assert [load("mbpp", split, data_dir=mirror)[0]["id"] for split in ("validation", "prompt")] == [
        "mbpp-validation-511",
        "mbpp-prompt-2",
    ]


@pytest.mark.parametrize("shown", [0, 1, 3, 9])
def test_mbpp_shows_as_many_tests_as_asked_and_grades_by_all(shown, mirror):
    row = load("mbpp", n=1, data_dir=mirror, shown_tests=shown)[0]
    text = prompts.answer_prompt(row)[0]["content"]
    assert sum(test in text for test in row["tests"]) == min(shown, 3) and len(row["tests"]) == 3


@pytest.mark.parametrize(
    ("test", "code", "called"),
    [
        ("assert f(1, 2) == 3", "def f(a, b): pass", ("f", 2)),
        ("assert sorted(f([1])) == [1]", "f = lambda a: a", ("f", 1)),
        ("assert math.isclose(f(1), 2)", "import math\ndef f(a): pass", ("f", 1)),
        ("assert f(g(1), k=2)", "def g(a): pass\ndef f(a, k): pass", ("f", None)),
        ("assert f(1 == 2", "def f(a): pass", ("f", None)),
        ("assert f(1)", "broken code(", ("f", 1)),
    ],
)
def test_the_function_that_a_test_calls(test, code, called):
    assert mbpp.called(test, code) == called


def test_coqa_turns(mirror):
    first, second = load("coqa", data_dir=mirror)[:2]
    assert (
        first["id"] == "coqa-test-cow-1"
        and first["answer"] == ["cow", "the cow"]
        and "conversation" not in first["context"]
    )
    assert second["context"].endswith("The conversation so far:\nQ: Who was fed?\nA: cow") and second["answer"] == [
        "Mia"
    ]
    assert {row["id"] for row in load("coqa", "train", data_dir=mirror)} == {
        "coqa-train-cat-1",
        "coqa-train-cat-2",
    }


def test_coqa_with_columns_for_lists():
    row = talk("cow")
    hub = {
        **row,
        "questions": columns(row["questions"]),
        "answers": columns(row["answers"]),
        "additional_answers": {k: columns(v) for k, v in row["additional_answers"].items()},
    }
    assert list(coqa.unfold(hub)) == list(coqa.unfold(row))


def columns(rows: list[dict]) -> dict:
    return {name: [row[name] for row in rows] for name in rows[0]}


def test_squadshifts_keeps_a_passage_on_one_side(mirror):
    train, test = (load("squadshifts:amazon", split, data_dir=mirror) for split in ("train", "test"))
    assert not {row["context"] for row in train} & {row["context"] for row in test} and len(train + test) == 24
    assert test[0]["answer"] == ["in two minutes", "two minutes"]


def test_timedial_has_one_right_option(mirror):
    rows = load("timedial", "train", data_dir=mirror) + load("timedial", data_dir=mirror)
    assert all(row["choices"]["ABC".index(row["answer"])] == "half an hour" for row in rows)
    assert len({row["answer"] for row in rows}) == 3 and sum("also_correct" in row["meta"] for row in rows) == 30


def test_fixed_options(mirror):
    assert {row["answer"] for row in load("social_iqa", data_dir=mirror)} == {"A", "B", "C"}
    assert [row["answer"] for row in load("vitaminc", data_dir=mirror)] == ["A", "B", "C"]
    row = load("strategyqa", data_dir=mirror)[0]
    assert row["choices"] == ["Yes", "No"] and row["answer"] == "AB"[int(row["id"].split("q")[-1]) % 2]


def test_bbh_answer_kinds(mirror):
    graders = {
        name: load(f"bbh:{name}", data_dir=mirror)[0]
        for name in ("navigate", "boolean_expressions", "word_sorting", "multistep_arithmetic_two")
    }
    assert [row["grader"] for row in graders.values()] == ["choice", "choice", "exact", "math"]
    assert graders["navigate"]["choices"] == ["Yes", "No"] and graders["navigate"]["answer"] == "B"
    assert (
        graders["boolean_expressions"]["choices"] == ["True", "False"]
        and "Options" not in graders["navigate"]["question"]
    )
    assert bbh.right_option("Monsters", ["Up", "Monsters"]) == "B" and bbh.right_option("(C)", ["a", "b"]) is None


def test_bigbench_hub_rows_lose_what_the_harness_wrote_in():
    inputs = "Does it follow?\n\nQ: Ada owns a cat. So Ada owns a pet.\n  choice: yes\n  choice: no\nA:"
    assert bigbench.question(inputs, ["yes", "no"]) == "Does it follow?\nAda owns a cat. So Ada owns a pet."
    assert bigbench.question("He said: choice: yes or no?", ["yes"]) == "He said: choice: yes or no?"
    both = {
        "inputs": "x",
        "targets": [],
        "multiple_choice_targets": ["a", "b"],
        "multiple_choice_scores": [1, 1],
    }
    assert bigbench.to_problem(both) is None
    free = bigbench.to_problem(
        {
            "inputs": "Capital?",
            "targets": ["Cardiff"],
            "multiple_choice_targets": [],
            "multiple_choice_scores": [],
        }
    )
    assert (free["grader"], free["answer"]) == ("text", ["Cardiff"])


def test_bigbench_options_are_shuffled(mirror):
    rows = load("bigbench:my_task", data_dir=mirror)
    assert {row["answer"] for row in rows} == {"A", "B"} and all(
        row["choices"]["AB".index(row["answer"])] == "entailment" for row in rows
    )


def test_rows_without_an_answer_are_counted_and_left_out(tmp_path):
    put(
        tmp_path / "gsm8k/test.jsonl",
        [{"question": "a", "answer": "none"}, {"question": "b", "answer": "#### 2"}],
    )
    with pytest.warns(UserWarning, match="1 of 2 rows left out"):
        assert len(load("gsm8k", data_dir=tmp_path)) == 1


# -- synthetic, mixtures --------------------------------------------------------------------------------
def test_synthetic():
    rows = load("synthetic", "train", n=9, seed=3)
    assert [row["id"] for row in rows] == [row["id"] for row in synthetic.problems(9, "train", 3)]
    assert {row["task"] for row in load("synthetic:lists,arithmetic", n=4)} == {"lists", "arithmetic"}
    assert not keys(load("synthetic", "train", n=200)) & keys(load("synthetic", "test", n=200))
    for bad in ({"n": None}, {"n": 2, "split": "validation"}):
        with pytest.raises(ValueError, match="synthetic has no"):
            load("synthetic", **bad)


def test_load_many_takes_n_of_each_with_unique_ids(mirror):
    names = ["mbpp", "mbpp:sanitized", "synthetic", "synthetic:arithmetic", "timedial"]
    rows = load_many(names, "test", n=2, seed=5, data_dir=mirror)
    assert len(rows) == 10 and len({row["id"] for row in rows}) == 10
    assert rows == load_many(names, "test", n=2, seed=5, data_dir=mirror)
    with pytest.raises(ValueError, match="named twice"):
        load_many(["gsm8k", "gsm8k"], n=1, data_dir=mirror)


def test_load_many_keeps_train_free_of_every_sources_test(tmp_path):
    def rows(*names: str) -> list[dict]:
        return [{"question": name, "answer": "#### 1"} for name in names]

    put(tmp_path / "gsm8k/train.jsonl", rows("a", "b"))
    put(tmp_path / "gsm8k/test.jsonl", rows("c"))
    put(tmp_path / "math/train.jsonl", [{"problem": p, "solution": r"\boxed{1}"} for p in ("d", "C ")])
    put(tmp_path / "math/test.jsonl", [{"problem": "A", "solution": r"\boxed{1}"}])
    assert [row["question"] for row in load_many(["gsm8k", "math"], "train", data_dir=tmp_path)] == ["b", "d"]
    assert [
        row["question"]
        for row in drop_shared(load("math", "train", data_dir=tmp_path), load("gsm8k", data_dir=tmp_path))
    ] == ["d"]


def test_the_head_of_a_mixture_holds_every_source(mirror):
    names = ["gsm8k", "strategyqa", "bbh:snarks", "mbpp"]
    rows = load_many(names, "train", n=4, data_dir=mirror)
    assert [row["task"] for row in rows[:5]] == [*names, "gsm8k"]
    assert [row["task"] for row in rows[-2:]] == [
        "strategyqa",
        "bbh:snarks",
    ]  # the two with four rows to give, mbpp has 2


def test_the_draw_does_not_depend_on_the_order_of_a_copy(mirror, tmp_path):
    rows = files.read_rows(mirror / "gsm8k/test.jsonl")
    put(tmp_path / "gsm8k/test.jsonl", rows[::-1])
    questions = [[row["question"] for row in load("gsm8k", n=3, data_dir=d)] for d in (mirror, tmp_path)]
    assert questions[0] == questions[1]


def test_fewer_rows_than_asked_for_is_said(mirror):
    with pytest.warns(UserWarning, match="gsm8k has 4 test questions, fewer than the 500"):
        assert len(load("gsm8k", n=500, data_dir=mirror)) == 4


# -- errors ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("logicqa", "logiqa"),
        ("bbh:snark", "bbh:snarks"),
        ("squadshifts", "squadshifts:nyt"),
        ("synthetic:arithmetics", "synthetic:arithmetic"),
        ("bigbench:causal_judgement", "bigbench:causal_judgment"),
        ("mbpp:sanitised", "mbpp:sanitized"),
        ("math:", "math"),
        ("json", "jsonl:PATH"),
    ],
)
def test_unknown_sources_name_the_nearest(name, near):
    with pytest.raises(ValueError, match=f"^unknown source .*; did you mean '{near}'\\?$"):
        load(name, n=1)


@pytest.mark.parametrize("name", NAMES)
def test_without_a_copy_one_line_says_which_file_to_put_where(name, tmp_path):
    with pytest.raises(SourceMissing) as caught:
        load(name, data_dir=tmp_path)
    text, folder = str(caught.value), name.split(":")[0]
    assert "\n" not in text and str(tmp_path / folder) in text and "https://" in text and text.startswith(name)


def test_train_needs_the_test_part_too(mirror, tmp_path):
    put(tmp_path / "gsm8k/train.jsonl", (mirror / "gsm8k/train.jsonl").read_text())
    with pytest.raises(SourceMissing, match=r"gsm8k/test\.jsonl"):
        load("gsm8k", "train", data_dir=tmp_path)
    put(tmp_path / "mbpp/train.jsonl", [mbpp_row(601, "f", "Only train.")])
    with pytest.raises(SourceMissing, match="no test questions"):
        load("mbpp", "train", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("file", "text", "name", "says"),
    [
        ("logiqa/Test.txt", logiqa_block("a")[1:], "logiqa", "line 1: not a blank line"),
        ("gsm8k/test.jsonl", '{"question": 1\n', "gsm8k", r"test\.jsonl, line 1: not a JSON row"),
        ("gsm8k/test.jsonl", '{"problem": "x"}\n', "gsm8k", "gsm8k, row 0: not of the form .*answer"),
        ("gsm8k/test.jsonl", '"x"\n', "gsm8k", "gsm8k, row 0: not of the form"),
        ("gsm8k/test.parquet", "no parquet", "gsm8k", r"test\.parquet.*Parquet"),
        ("bigbench/t/task.json", "{", "bigbench:t", r"task\.json: cannot be read"),
        ("social_iqa/dev.jsonl", '{"context": "c"}\n', "social_iqa", r"put dev-labels\.lst beside it"),
    ],
)
def test_a_bad_file_is_named_in_one_line(file, text, name, says, tmp_path):
    put(tmp_path / file, text)
    with pytest.raises(ValueError, match=says) as caught:
        load(name, data_dir=tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("bad", [{"n": 0}, {"n": 2.5}, {"n": True}, {"shown_tests": -1}, {"split": "dev"}])
def test_bad_arguments(bad, mirror):
    with pytest.raises(ValueError):
        load("mbpp", **{"data_dir": mirror, **bad})


def test_a_download_leaves_no_half_file(monkeypatch, tmp_path):
    class Answer(io.BytesIO):
        headers = {"Content-Length": "9"}

    monkeypatch.setattr(urllib.request, "urlopen", lambda *_a, **_k: Answer(b"half"))
    with pytest.raises(OSError, match="ended after 4 of 9 bytes"):
        files.download("https://example.org/x", tmp_path / "x")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="not https"):
        files.download("file:///etc/hostname", tmp_path / "x")


def test_the_hub_is_asked_for_the_right_parts(monkeypatch, mirror):
    datasets = pytest.importorskip("datasets")
    asked = []

    def load_dataset(hub, config, split):
        asked.append((hub, config, split))
        return [mbpp_row({"test": 11, "train": 601}.get(split, 511), split, f"Write {split}.")]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(files, "hub_rows", HUB_ROWS)
    assert [row["id"] for row in load("mbpp", "train")] == ["mbpp-train-601"]
    hub = "google-research-datasets/mbpp"
    assert asked == [(hub, "full", part) for part in ("train", "validation", "test", "prompt")]


def test_a_set_without_a_hub_copy_is_downloaded_once(monkeypatch):
    asked = []

    class Answer(io.BytesIO):
        headers = {}

    def answer(url, timeout):
        asked.append(url)
        return Answer("".join(logiqa_block(name) for name in "abc").encode())

    monkeypatch.setattr(urllib.request, "urlopen", answer)
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    assert load("logiqa") == load("logiqa") and len(load("logiqa")) == 3
    assert asked == ["https://raw.githubusercontent.com/lgw863/LogiQA-dataset/master/Test.txt"]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(SourceMissing, match="offline mode"):
        load("timedial")


# -- your own rows --------------------------------------------------------------------------------------
GOOD = {
    "id": "q",
    "task": "t",
    "question": "Which?",
    "grader": "choice",
    "choices": ["x", "y"],
    "answer": "B",
}


def test_jsonl_is_split_by_hash_or_as_the_rows_say(tmp_path):
    put(tmp_path / "a.jsonl", [GOOD | {"id": f"q{i}", "question": f"Which {i}?"} for i in range(40)])
    train, test, every = (load(f"jsonl:{tmp_path}/a.jsonl", split) for split in ("train", "test", "all"))
    assert len(train) > len(test) > 0 and len(train + test) == len(every) == 40 and not keys(train) & keys(test)
    put(
        tmp_path / "b.jsonl",
        [
            GOOD | {"meta": {"split": "train"}},
            GOOD | {"id": "r", "question": "And?", "meta": {"split": "test"}},
        ],
    )
    assert [row["id"] for row in load(f"jsonl:{tmp_path}/b.jsonl", "test")] == ["r"]


def test_jsonl_files_by_split_share_no_question(tmp_path):
    put(tmp_path / "train.jsonl", [GOOD, GOOD | {"id": "r", "question": "And?"}])
    put(tmp_path / "test.jsonl", [GOOD | {"choices": ["y", "x"], "answer": "A"}])
    path = f"jsonl:{tmp_path}/{{split}}.jsonl"
    assert [row["id"] for row in load(path, "train")] == ["r"] and len(load(path, "test")) == 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"answer": None}, "'answer' is of the wrong type"),
        ({"answer": "C"}, "'C' is not a letter from A to B"),
        ({"answer": "y"}, "not a letter"),
        ({"grader": "llm"}, "unknown grader 'llm'"),
        ({"gold": "x"}, "unknown field 'gold'"),
        ({"choices": ["x"]}, "two or more 'choices'"),
        ({"choices": [1, 2]}, "'choices' is of the wrong type"),
        ({"grader": "code"}, "needs a list of 'tests'"),
        ({"grader": "math", "answer": ["1"]}, "only text questions"),
        ({"grader": "text", "answer": []}, "cannot be empty"),
        ({"grader": "exact", "answer": ""}, "an empty answer"),
        ({"question": " "}, "an empty id or question"),
        ({"choices": [str(i) for i in range(27)]}, "only 26 letters"),
        ({"grader": "text", "answer": ["x", " "]}, "an empty string among the answers"),
        ({"meta": {"split": "dev"}}, "meta.split is 'dev'; there are train, validation, test"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(change, says, tmp_path):
    put(tmp_path / "bad.jsonl", [GOOD, GOOD | {"id": "r"} | change])
    with pytest.raises(ValueError, match=r"bad\.jsonl, line 2: .*" + says) as caught:
        load(f"jsonl:{tmp_path}/bad.jsonl", "all")
    assert "\n" not in str(caught.value)


def test_jsonl_missing_fields_duplicates_and_files(tmp_path):
    put(tmp_path / "a.jsonl", [{k: v for k, v in GOOD.items() if k != "task"}])
    put(tmp_path / "b.jsonl", [GOOD, GOOD])
    put(tmp_path / "c.jsonl", json.dumps(GOOD) + "\n\n[1]\n")
    for file, says in [
        ("a", "line 1: the field 'task' is missing"),
        ("b", "line 2: the id 'q' occurs twice"),
        ("c", "line 3: not a JSON object"),
    ]:
        with pytest.raises(ValueError, match=says):
            load(f"jsonl:{tmp_path}/{file}.jsonl", "all")
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        load(f"jsonl:{tmp_path}/none.jsonl", "all")
    with pytest.raises(FileNotFoundError, match="a folder, not a file"):
        load(f"jsonl:{tmp_path}", "all")
    (tmp_path / "latin.jsonl").write_bytes('{"id": "Käse"}'.encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin\.jsonl: not UTF-8 text \(byte 9\)"):
        load(f"jsonl:{tmp_path}/latin.jsonl", "all")


def test_relative_paths_are_meant_from_the_projects_root(tmp_path, monkeypatch):
    for folder in ("notebooks", "params", "copies"):
        (tmp_path / folder).mkdir()
    gsm8k(tmp_path / "copies")
    put(tmp_path / "mine.jsonl", [GOOD])
    monkeypatch.chdir(tmp_path / "notebooks")
    assert len(load("gsm8k", data_dir="copies")) == 4 and load("jsonl:mine.jsonl", "all")[0]["id"] == "q"


GRADERS = {
    "letter": "choice",
    "number": "math",
    "boxed_math": "math",
    "code_tests": "code",
    "free_text": "text",
}


@pytest.mark.skipif(not CASES.exists(), reason="no ../shared/cases")
@pytest.mark.parametrize(
    "file", ["bbh_snarks", "gsm8k", "logiqa", "math", "mbpp", "squadshifts_reddit", "strategyqa", "timedial"]
)
def test_real_rows_pass_through_jsonl(file, tmp_path):
    raw = [json.loads(line) for line in (CASES / f"{file}.jsonl").read_text(encoding="utf-8").split("\n") if line]
    kept = {"id", "task", "question", "answer", "choices", "context"}
    rows = [{k: v for k, v in row.items() if k in kept} | {"grader": GRADERS[row["answer_type"]]} for row in raw]
    rows = [
        row
        | ({"tests": r["test_list"]} if "test_list" in r else {})
        | ({"answer": r["answers"]} if "answers" in r else {})
        for row, r in zip(rows, raw, strict=True)
    ]
    put(tmp_path / "real.jsonl", rows)
    train, test = (load(f"jsonl:{tmp_path}/real.jsonl", split) for split in ("train", "test"))
    assert len(train + test) == len(rows) and train and test and not keys(train) & keys(test)


@pytest.mark.skipif(not CASES.exists(), reason="no ../shared/cases")
def test_answers_are_read_off_real_solutions_as_the_cases_say():
    def rows(name: str) -> list[dict]:
        return [json.loads(line) for line in (CASES / f"{name}.jsonl").read_text(encoding="utf-8").split("\n") if line]

    assert all(hendrycks_math.boxed(row["solution"]) == row["answer"] for row in rows("math") if row["solution"])
    for row in rows("mbpp"):
        name, count = mbpp.called(row["test_list"][0], row["answer"])
        assert f"def {name}" in row["answer"] and count is not None


# -- the module -----------------------------------------------------------------------------------------
def test_every_page_names_its_origin_and_shows_a_row():
    for source in SOURCES.values():
        page = sys.modules[source.to_problem.__module__].__doc__
        assert "https://" in page and ("{" in page or "⏎" in page), source.name
    table = describe_sources()
    assert list(table.columns) == ["source", "origin", "hub", "licence", "splits", "grader", "rows", "tested"]
    assert len(table) == 15 and (table.drop(columns="hub") != "").all(axis=None)


def test_the_readme_shows_the_table_of_sources():
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    shown = readme.partition("## Sources\n")[2].partition("\n## ")[0]
    table = [line for line in shown.split("\n") if line.startswith("|")]
    assert "\n".join(table) == sources_markdown()
    assert len(table) == 2 + len(describe_sources()) and {line.count("|") for line in table} == {8}


def test_importing_is_light():
    heavy = "{'datasets', 'pandas', 'pyarrow', 'torch'}"
    code = f"import sys, reflectevo_lite.data.load; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
