"""Anyone's own rows: jsonl:PATH."""

from __future__ import annotations

import json

import pytest
from conftest import ROOT
from copies import gsm8k, put

from reflectevo_lite.data import load
from reflectevo_lite.data.base import question_key
from reflectevo_lite.data.sources import hendrycks_math, mbpp

CASES = ROOT.parent / "shared" / "cases" / "rows"


def keys(rows: list[dict]) -> set[str]:
    return {question_key(row) for row in rows}


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
        ({"grader": "text", "answer": []}, "an empty answer"),
        ({"grader": "exact", "answer": ""}, "an empty answer"),
        ({"question": " "}, "an empty id or question"),
        ({"choices": [str(i) for i in range(703)]}, "only 702 labels"),
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
