"""Published sources → Problem rows, from made-up copies in the original formats (`copies.py`). No network."""

from __future__ import annotations

import dataclasses
import http.server
import json
import re
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import httpx
import pytest
from conftest import ROOT
from copies import WRITERS, columns, export, logiqa_block, mbpp_row, put, talk

from reflectevo_lite import grading, prompts, store
from reflectevo_lite.data import (
    SOURCES,
    SourceMissing,
    describe,
    drop_shared,
    files,
    load,
    load_many,
    loading,
    own,
    sources,
    sources_markdown,
)
from reflectevo_lite.data.base import question_key
from reflectevo_lite.data.sources import bbh, bigbench, coqa, hendrycks_math, mbpp
from reflectevo_lite.embedded import tasks as synthetic

HUB_ROWS, HTTPX_GET = files.hub_rows, httpx.get


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path_factory):
    """Nothing is fetched, and the user's cache is not read."""

    def refuse(*_args, **_kwargs):
        raise httpx.ConnectError("no network in tests")

    monkeypatch.setenv("REFLECTEVO_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr(httpx, "get", refuse)
    monkeypatch.setattr(httpx, "head", refuse)
    monkeypatch.setattr(files, "hub_rows", lambda source, part: refuse() if source.hub else None)


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
    return {question_key(row) for row in rows}


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
    source = loading._resolve(name)
    parts = {p: files.local_rows(source, p, mirror) for p in source.parts}
    place = tmp_path / source.folder / name.partition(":")[2]
    for part, rows in parts.items():
        if rows is not None:
            export(place / f"{part}.{ending}", [row for _, row in rows])
    bare = [{k: v for k, v in row.items() if k != "id"} for row in load(name, data_dir=tmp_path)]
    assert bare == [{k: v for k, v in row.items() if k != "id"} for row in load(name, data_dir=mirror)]


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
    assert list(coqa.to_problem(hub)) == list(coqa.to_problem(row))


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
    assert bigbench.to_problem(both) == "several options score highest"
    assert bigbench.to_problem(both | {"multiple_choice_targets": ["3", "three"], "multiple_choice_scores": [1, 0]})
    free = bigbench.to_problem(
        {
            "inputs": "Capital?",
            "targets": ["Cardiff"],
            "multiple_choice_targets": [],
            "multiple_choice_scores": [],
        }
    )
    assert (free["grader"], free["answer"]) == ("text", ["Cardiff"])


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        (["(a)", "(b)"], ["(a)", "(b)"]),
        (["b", "a"], ["a", "b"]),
        (["1", "2", "3"], ["1", "2", "3"]),
        (["Passage B", "Passage A"], ["Passage A", "Passage B"]),
        (["False", "True", "Neither"], ["True", "False", "Neither"]),
        (["no", "yes"], ["yes", "no"]),
        (["T", "F"], ["T", "F"]),
        (["13", "4", "6"], None),
        (["a dog", "a cat"], None),
    ],
)
def test_bigbench_options_that_are_marks_or_poles_stay_in_their_order(options, kept):
    assert bigbench.in_order(options) == kept


def bigbench_task(root, path, examples, **more):
    put(root / "bigbench" / path / "task.json", {"examples": examples, **more})


def test_bigbench_subfolders_load_alone_and_whole(tmp_path):
    for sub in ("three_objects", "five_objects"):
        rows = [{"input": f"{sub} {i}?", "target_scores": {"x": 1, "y": 0}} for i in range(20)]
        bigbench_task(tmp_path, f"logical_deduction/{sub}", rows)
    put(tmp_path / "bigbench/logical_deduction/task.json", {"name": "logical_deduction"})
    alone = load("bigbench:logical_deduction/three_objects", data_dir=tmp_path)
    whole = load("bigbench:logical_deduction", data_dir=tmp_path)
    assert {p["question"] for p in alone} < {p["question"] for p in whole}
    assert {p["meta"]["subtask"] for p in whole} == {"three_objects", "five_objects"}
    found = describe("bigbench:logical_deduction", tmp_path)
    assert (found["rows"], found["kept"], found["dropped"], found["options"]) == (40, 40, {}, [2])


def test_bigbench_text_around_a_question_stays_and_bare_cues_go(tmp_path):
    example = {"input": "Allt är inte guld.", "target_scores": {f"proverb {i}": int(i == 29) for i in range(30)}}
    around = {"example_input_prefix": "\nSwedish proverb: ", "example_output_prefix": "\nGerman equivalent: "}
    bigbench_task(tmp_path, "t", [example, {"input": "No. 2", "target_scores": {"a": 1, "b": 1}}], **around)
    rows = [p for split in ("train", "test") for p in pooled("bigbench:t", split, tmp_path)]
    assert [p["question"] for p in rows] == ["Swedish proverb: Allt är inte guld.\nGerman equivalent:"]
    p = rows[0]
    assert p["choices"][prompts.LABELS.index(p["answer"])] == "proverb 29" and "(AD) " in prompts.question_text(p)
    assert grading.extract_choice("The answer is (AD).", p["choices"]) == "AD"
    assert describe("bigbench:t", tmp_path)["dropped"] == {"several options score highest": 1}


def pooled(name, split, data_dir):
    """A split that may be empty."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return load(name, split, data_dir=data_dir)
    except SourceMissing:
        return []


def test_a_bigbench_row_without_a_field_is_named(tmp_path):
    bigbench_task(tmp_path, "t", [{"target_scores": {"x": 1, "y": 0}}])
    with pytest.raises(ValueError, match=r"task\.json.*no field 'input'"):
        load("bigbench:t", data_dir=tmp_path)


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
    put(tmp_path / "gsm8k/train.jsonl", (mirror / "gsm8k/train.jsonl").read_text(encoding="utf-8"))
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


def test_a_download_that_breaks_off_leaves_no_half_file(monkeypatch):
    class Half(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "9")
            self.end_headers()
            self.wfile.write(b"half")

        def log_message(self, *_args):
            pass

    monkeypatch.setattr(httpx, "get", HTTPX_GET)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with http.server.HTTPServer(("127.0.0.1", 0), Half) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        here = dataclasses.replace(SOURCES["logiqa"], raw=f"http://127.0.0.1:{server.server_port}")
        with pytest.raises(SourceMissing, match="received 4 bytes, expected 9"):
            files.rows_of(here, "test")
        server.shutdown()
    assert not list(store.cache_dir().rglob("*"))


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

    def get(url, **_how):
        asked.append(url)
        text = "".join(logiqa_block(name) for name in "abc")
        return httpx.Response(200, text=text, request=httpx.Request("GET", url))

    monkeypatch.setattr(httpx, "get", get)
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    assert load("logiqa") == load("logiqa") and len(load("logiqa")) == 3
    assert asked == ["https://raw.githubusercontent.com/lgw863/LogiQA-dataset/master/Test.txt"]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(SourceMissing, match="offline mode"):
        load("timedial")


# -- the module -----------------------------------------------------------------------------------------
def test_every_page_names_its_origin_and_shows_a_row():
    for source in SOURCES.values():
        page = sys.modules[source.to_problem.__module__].__doc__
        assert source.url.startswith("https://") and "https://" in page, source.name
        assert "{" in page or "⏎" in page, source.name
        assert not source.raw or source.raw.startswith("https://")


def test_the_table_of_sources_is_in_the_documents():
    shown = (ROOT / "docs" / "sources.md").read_text(encoding="utf-8").split("\n")
    table = [line for line in shown if line.startswith("|")]
    assert "\n".join(table) == sources_markdown()
    families = {source.pattern or source.name for source in SOURCES.values()}
    assert len(table) == 5 + len(families) and {line.count("|") for line in table} == {8}


def test_a_source_is_added_as_the_documents_say(monkeypatch, tmp_path):
    section = (ROOT / "docs" / "adding.md").read_text(encoding="utf-8").partition("## Add a source\n")[2]
    page = re.search(r"```python\n(.*?)```", section, re.S)[1]
    assert page.count("\n") <= 20
    put(tmp_path / "pages" / "aqua.py", page)
    monkeypatch.setattr(sources, "__path__", [*sources.__path__, str(tmp_path / "pages")])
    added = sources.collect()
    monkeypatch.delitem(sys.modules, "reflectevo_lite.data.sources.aqua")
    assert set(added) == {*SOURCES, "aqua"}
    monkeypatch.setitem(SOURCES, "aqua", added["aqua"])

    def row(name: str, i: int) -> dict:
        options = [f"{letter}){number}" for number, letter in enumerate("ABCDE")]
        return {"question": f"{name} {i}?", "options": options, "rationale": "", "correct": "ABCDE"[i % 5]}

    for part in ("train", "dev", "test"):  # original files, one row a line
        text = "".join(json.dumps(row(part, i)) + "\n" for i in range(6))
        put(tmp_path / "original" / "aqua" / f"{part}.json", text)
    for part, name in (("train", "train"), ("validation", "dev"), ("test", "test")):
        export(tmp_path / "exported" / "aqua" / "raw" / f"{part}.parquet", [row(name, i) for i in range(6)])
    for split, part in (("train", "train"), ("validation", "dev"), ("test", "test")):
        rows = load("aqua", split, n=6, data_dir=tmp_path / "original")
        assert {row["question"] for row in rows} == {f"{part} {i}?" for i in range(6)}
        assert all(own.fault(row) == "" and row["choices"] == list("01234") for row in rows)
        assert load("aqua", split, n=6, data_dir=tmp_path / "exported") == rows
    assert "| `aqua` | hub [deepmind/aqua_rat]" in sources_markdown()


def test_importing_is_light():
    heavy = "{'datasets', 'httpx', 'pandas', 'pyarrow', 'torch'}"
    code = f"import sys, reflectevo_lite.data; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
