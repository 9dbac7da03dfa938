"""Anyone's own questions: files, folders, hub sets, tables; what is understood, and what is refused in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import owned
import pytest
from conftest import ROOT
from copies import gsm8k, put

from reflectevo_lite.data import check, load, own
from reflectevo_lite.data.base import question_key
from reflectevo_lite.data.sources import hendrycks_math, mbpp
from reflectevo_lite.run import cli, open_run, params

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


@pytest.mark.parametrize(
    ("make", "grader", "first"),
    [
        (owned.lettered_csv, "choice", {"question": "No. 0: capital of France?", "answer": "A", "task": "capitals"}),
        (owned.nested_json, "choice", {"question": "No. 0: capital of France?", "answer": "A", "id": "quiz-0"}),
        (owned.parquet, "math", {"question": "What is 0 + 0?", "answer": "0"}),
        (owned.code_gz, "code", {"shown_tests": ["assert add_0(0) == 0", "assert add_0(3) == 3"]}),
        (
            owned.hub_folder,
            "text",
            {"answer": ["Paris", "Paris city"], "context": "Note 0. The capital of France is Paris."},
        ),
    ],
)
def test_five_shapes_are_understood_and_split(make, grader, first, tmp_path, recwarn):
    name = make(tmp_path)
    every, train, test = (load(name, split) for split in ("all", "train", "test"))
    assert {row["grader"] for row in every} == {grader} and every[0] | first == every[0]
    assert len(every) == len(train) + len(test) >= 79 and len(train) > len(test) > 10
    assert not keys(train) & keys(test) and len(keys(every)) == len(every)
    assert {row["meta"]["licence"] for row in every} == {"yours"}
    said, fine = check({"sources": [name], "model": "tiny", "max_new_tokens": 96})
    assert fine and f"guessed: {grader}" in said and "unreadable" not in said and "too long" not in said


@pytest.mark.parametrize("case", owned.BROKEN)
def test_a_broken_file_gets_one_line(case, tmp_path):
    file, content, says = owned.BROKEN[case]
    (tmp_path / file).write_bytes(content)
    with pytest.raises((ValueError, FileNotFoundError), match=says) as caught:
        load(str(tmp_path / file), "all")
    print(f"{case:24s}{str(caught.value).replace(str(tmp_path), '')}")
    assert "\n" not in str(caught.value) and file in str(caught.value)
    assert cli.main(["check", str(tmp_path / file)]) == 2


def test_places_without_questions_get_one_line(tmp_path):
    for place, says in owned.strange_places(tmp_path).items():
        with pytest.raises((ValueError, FileNotFoundError), match=says) as caught:
            load(place if place.startswith("~") else str(tmp_path / place), "all")
        assert place in str(caught.value) and "\n" not in str(caught.value)


def test_a_run_refuses_broken_data_before_it_begins(tmp_path, capsys):
    put(tmp_path / "mine.csv", "question,answer\na,\nb,2\n")
    run_dir = ["-p", "run_dir", str(tmp_path / "run")]
    command = ["run", str(ROOT / "params" / "tiny_cpu.yaml"), "-p", "sources", f"[{tmp_path}/mine.csv]", *run_dir]
    assert cli.main([*command, "--notebooks", str(ROOT / "notebooks")]) == 2
    caught = capsys.readouterr()
    assert "line 2: an empty answer" in caught.out and caught.err.count("\n") == 1
    assert "these data cannot be used" in caught.err and not (tmp_path / "run").exists()


def test_the_check_counts_what_is_wrong(tmp_path, capsys):
    rows = [f"What is {i} + 1?,{i + 1}" for i in range(60)] + [
        "What is 3 + 1?,4.0",
        "What is 3 + 1?,5",
        "What is this?,7$",
    ]
    put(tmp_path / "mine.csv", "\n".join(["Question,Gold,note", *rows, f"{'long ' * 300}?,1"]).replace(",", "\t"))
    args = ["-p", "n_train", "99", "-p", "model", "tiny"]
    assert cli.main(["check", str(tmp_path / "mine.csv"), *args]) == 2  # no third column
    put(tmp_path / "mine.csv", "\n".join(["Question,Gold,note", *(f"{row}," for row in rows), f"{'long ' * 300}?,1,"]))
    capsys.readouterr()
    assert cli.main(["check", str(tmp_path / "mine.csv"), *args]) == 0
    said = capsys.readouterr().out
    for line in (
        "question    Question",
        "grader      guessed: math",
        "faults      2 left out",
        "line 62: the question of line 5 again, with another answer",
        "too few     99 train questions asked for",
        "too long    1 with two answers and a reflection of 96 tokens each, over the 1,024 tokens of tiny: line 65",
    ):
        assert line in said, said


def test_a_misspelt_source_is_no_source_without_faults(capsys):
    assert cli.main(["check", "gsm9k"]) == 2
    assert "unknown source 'gsm9k'; did you mean 'gsm8k'?" in capsys.readouterr().err
    assert cli.main(["check", "gsm8k"]) == 0 and "nothing to check" in capsys.readouterr().out


def test_a_windows_locale_reads_utf8_and_shows_what_it_can(tmp_path):
    rows = ["frage,antwort", *(f"北京 {i}?,Δ{i}" for i in range(30)), "", "北京 99?,"]
    (tmp_path / "mine.csv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(rows).encode())
    command = ["-m", "reflectevo_lite.run.cli", "check", str(tmp_path / "mine.csv"), "-p", "columns"]
    command = [sys.executable, *command, "{question: frage, answer: antwort, grader: text}"]
    env = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "cp1252"}
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, timeout=120)
    assert done.returncode == 0 and b"line 33: an empty answer" in done.stdout, done


def test_columns_say_otherwise(tmp_path):
    put(tmp_path / "a.csv", "Frage,x,y,Antwort,label\nWer?,ich,du,2,z\nWo?,hier,da,1,z\n")
    columns = {"question": "Frage", "choices": ["x", "y"], "answer": "Antwort"}
    rows = load(str(tmp_path / "a.csv"), "all", columns=columns)
    assert [row["answer"] for row in rows] == ["B", "A"] and rows[0]["choices"] == ["ich", "du"]
    by_name = {str(tmp_path / "a.csv"): columns | {"choices": None, "grader": "exact"}}
    assert [row["answer"] for row in load(str(tmp_path / "a.csv"), "all", columns=by_name)] == ["2", "1"]
    for wrong, says in {
        "qestion": "no field 'qestion'; did you mean 'question'",
        "context": "has no column 'there' for context; it has 'Frage', 'x'",
        "first": "first is 'there'; it is the number",
    }.items():
        with pytest.raises(ValueError, match=says):
            load(str(tmp_path / "a.csv"), "all", columns=columns | {wrong: "there"})


def test_answers_come_in_many_forms(tmp_path):
    def answers(*rows: dict) -> list:
        put(tmp_path / "a.jsonl", [{"question": f"Which {i}?"} | row for i, row in enumerate(rows)])
        return [row["answer"] for row in load(str(tmp_path / "a.jsonl"), "all")]

    abc = {"choices": ["x", "y", "z"]}
    assert answers(abc | {"answer": "(c)"}, abc | {"answer": "Y"}, {"choices": "x|y", "answer": "x"}) == ["C", "B", "A"]
    assert answers(abc | {"label": 0}, abc | {"label": 2.0}, abc | {"label": "1"}) == ["A", "C", "B"]
    assert answers(abc | {"label": 3}, abc | {"label": 1}) == ["C", "A"]
    assert answers({"choices": [1, 2, 3], "answer": 3}, {"choices": [3, 4], "answer": 3}) == ["C", "A"]
    arc = {"choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answerKey": "2"}
    assert answers(arc, {"choices": {"B": "y", "A": "x"}, "answerKey": "x"}) == ["B", "A"]
    assert answers({"choices": ["A) five", "B) six"], "answer": "six"}) == ["B"]
    assert answers({"answer": "So 2 + 2.\n#### 4"}, {"answer": r"It is $\boxed{\frac12}$."}) == ["4", r"\frac12"]
    assert answers({"answer": True}, {"answer": "no"}) == ["True", "no"]
    assert answers({"answer": 3.0}, {"answer": -0.5}, {"answer": "1,000"}) == ["3", "-0.5", "1,000"]
    mixed = answers({"grader": "exact", "answer": "abc"}, {"grader": "math", "answer": 1}, GOOD | {"id": "m"})
    assert mixed == ["abc", "1", "B"]


def test_a_table_or_a_list_of_dicts_is_a_source(tmp_path, monkeypatch):
    import pandas as pd

    monkeypatch.setenv("REFLECTEVO_CACHE", str(tmp_path))
    table = pd.DataFrame({"Problem": [f"{i} + 1?" for i in range(20)], "gold": [1.0 + i for i in range(20)]})
    for source in (table, table.to_dict("records")):
        rows = load(source, "all")
        assert [row["answer"] for row in rows] == [str(i + 1) for i in range(20)] and rows[0]["grader"] == "math"
    given = params.defaults("01_data") | {"sources": [table], "run_dir": str(tmp_path / "run")}
    run, p = open_run("01_data", given)
    assert p.sources == run.params()["01_data"]["sources"] and load(p.sources[0], "all") == rows


def test_splits_by_column_by_file_by_part_and_whole(tmp_path, monkeypatch):
    put(tmp_path / "a.jsonl", [GOOD | {"id": f"q{i}", "question": f"Which {i}?"} for i in range(40)])
    train, test, every = (load(f"jsonl:{tmp_path}/a.jsonl", split) for split in ("train", "test", "all"))
    assert len(train) > len(test) > 0 and len(train + test) == len(every) == 40 and not keys(train) & keys(test)
    assert keys(load(f"{tmp_path}/a.jsonl", "test", seed=1)) != keys(test)
    assert len(load(f"{tmp_path}/a.jsonl", "test", divide=False)) == 40
    split = [GOOD | {"meta": {"split": "train"}}, GOOD | {"id": "r", "question": "And?", "meta": {"split": "test"}}]
    put(tmp_path / "b.jsonl", split)
    assert [row["id"] for row in load(f"{tmp_path}/b.jsonl", "test")] == ["r"]
    put(tmp_path / "c" / "x_train.jsonl", [GOOD, GOOD | {"id": "r", "question": "And?"}])
    put(tmp_path / "c" / "dev.json", [GOOD | {"choices": ["y", "x"], "answer": "A"}])
    put(tmp_path / "c" / "notes.csv", "nothing\nof use\n")
    for name in (f"{tmp_path}/c", f"jsonl:{tmp_path}/c/{{split}}.jsonl"):
        assert [row["id"] for row in load(name, "train")] == ["r"] and len(load(name, "test")) == 1
        put(tmp_path / "c" / "train.jsonl", [GOOD, GOOD | {"id": "r", "question": "And?"}])
        put(tmp_path / "c" / "test.jsonl", [GOOD])
        (tmp_path / "c" / "x_train.jsonl").unlink(missing_ok=True)
    put(tmp_path / "d.json", {"train": [GOOD], "test": [GOOD | {"question": "And?"}]})
    assert len(load(f"{tmp_path}/d.json", "train")) == len(load(f"{tmp_path}/d.json", "test")) == 1

    hub = {"train": [GOOD], "validation": [GOOD | {"question": "And?"}]}
    monkeypatch.setattr(own, "from_hub", lambda name, config, part: hub[part] if part else hub)
    assert [row["question"] for row in load("hub:a/b:main", "test")] == ["And?"]
    assert len(load("hub:a/b:main@train", "train")) == 1
    monkeypatch.setattr(own, "from_hub", lambda *asked: 1 / 0)
    with pytest.raises(FileNotFoundError, match=r"hub:a/b: ZeroDivisionError: .* name a folder that holds its files"):
        load("hub:a/b")


def test_hostile_but_readable_files(tmp_path):
    wide = [f"c{i}" for i in range(5000)]
    put(
        tmp_path / "wide.csv",
        ",".join(["question", "answer", *wide]) + "\n" + ",".join(["a", "1", *("x" for _ in wide)]),
    )
    assert load(f"{tmp_path}/wide.csv", "all")[0]["answer"] == "1"
    put(tmp_path / "huge.csv", f'question,answer\n"{"a" * 2_000_000}",1\n"two\r\nlines; ""quoted""",2\n')
    assert [len(row["question"]) for row in load(f"{tmp_path}/huge.csv", "all")] == [2_000_000, 20]
    put(tmp_path / "ids.csv", "id,question,answer\n1,a,1\n1,b,2\n")
    assert [row["id"] for row in load(f"{tmp_path}/ids.csv", "all")] == ["1", "1~2"]
    put(tmp_path / "lists.csv", "question;options;answer\nWhich?;\"['x', 'y']\";y\n")
    assert load(f"{tmp_path}/lists.csv", "all")[0]["answer"] == "B"


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
