"""The one table of parameters: impossible values get one line before anything is made; possible ones become what they mean."""

import re
import shutil

import pytest
import yaml
from conftest import ROOT

from reflectevo_lite import store
from reflectevo_lite.run import cli, open_run, params, pipeline
from reflectevo_lite.run.params import BadParameter, checked

IMPOSSIBLE = {
    "k": (0, -1, "many", None, True, 2.5, float("nan")),
    "n_train": (-5, 0, "1e-1", "1,000", "0x10"),
    "columns": ("question", ["question"], {}),
    "n_test": (0,),
    "n_rollout": (0,),
    "temperature": (float("nan"), float("inf"), 0, -1, "hot"),
    "turns": (0, 1, 999),
    "rounds": (0, -2),
    "max_new_tokens": (0,),
    "chunk_size": (0,),
    "sft_learning_rate": (0, -1e-3, 2, "fast", None),
    "sft_epochs": (0, -1),
    "sft_batch_size": (0,),
    "lora_dropout": (1, -0.1),
    "validation_share": (1, -0.1),
    "dpo_beta": (0, -1),
    "sources": ([], "synthetic", [3], [""]),
    "judge": ("oracle", ""),
    "round_training": ("ppo",),
    "packing": ("yes", 1, None),
    "seed": (-1, 1.5, 2**40),
    "run_dir": (3, "", None),
    "judge_usd_per_million_tokens": ([1], -1, "free"),
}


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, values in IMPOSSIBLE.items() for v in values])
def test_an_impossible_value_gets_one_line_that_names_it(name, value):
    with pytest.raises(BadParameter) as caught:
        checked({name: value})
    said = str(caught.value)
    shown = {None: "null", True: "true"}.get(value) if value is None or value is True else repr(value)
    assert said.startswith(f"{name}: ") and shown in said and "\n" not in said


@pytest.mark.parametrize(
    ("name", "value", "meant"),
    [
        ("sft_learning_rate", "1e-4", 1e-4),
        ("k", "3", 3),
        ("k", "09", 9),
        ("n_train", "1e4", 10_000),
        ("n_train", "1_000", 1000),
        ("k", 4.0, 4),
        ("corrector_epochs", None, None),
        ("instructions", ["1-*-*"], ["1-*-*"]),
        ("judge_usd_per_million_tokens", [2.5, 10], [2.5, 10]),
        ("n_train", 1_000, 1000),
    ],
)
def test_a_possible_value_becomes_what_it_means(name, value, meant):
    found = checked({name: value})[name]
    assert found == meant and type(found) is type(meant)


@pytest.mark.parametrize("place", [".", "", "notebooks", "artifacts/{x}", "notebooks/x", "..", "~"])
def test_a_run_directory_that_would_overwrite_the_project_is_refused(place, capsys, monkeypatch, tmp_path):
    project = tmp_path / "project"
    for folder in ("notebooks", "params"):
        shutil.copytree(ROOT / folder, project / folder)
    monkeypatch.chdir(project)
    before = sorted(tmp_path.rglob("*"))
    assert cli.main(["run", "params/tiny_cpu.yaml", "-p", "run_dir", repr(place), "--force"]) == 2
    said = capsys.readouterr().err.strip()
    assert "run_dir" in said and "\n" not in said and sorted(tmp_path.rglob("*")) == before


def test_a_notebook_gets_its_own_and_the_earlier_ones_parameters(tmp_path):
    one = params.defaults("01_data") | {"run_dir": str(tmp_path / "run"), "seed": 5}
    open_run("01_data", one | {"unrelated": object()})
    run, p = open_run("02_reflection_generation", {"run_dir": str(tmp_path / "run"), "k": "3"})
    assert (p.seed, p.k, p.model) == (5, 3, "tiny") and run.params()["02_reflection_generation"]["k"] == 3
    with pytest.raises(AttributeError, match="sft_epochs is a parameter of notebook 03_sft: run that one first"):
        _ = p.sft_epochs
    store.write_text(run.path("data", "train.jsonl"), "")
    with pytest.raises(store.ChangedParameters, match=r"seed was 5, is 6.*--force"):
        open_run("01_data", one | {"seed": 6})


def test_every_parameter_has_help_a_fitting_default_and_a_notebook():
    for p in params.TABLE.values():
        assert p.help and p.notebooks and checked({p.name: p.default}) == {p.name: p.default}, p.name


# what a params file holds, and what is said of it
BROKEN = {
    "empty": (b"", "p.yaml is empty: a params file maps names to values"),
    "only a comment": (b"# k: 6\n", "is empty"),
    "a list": (b"- k: 6\n", "is a list: a params file maps names to values, a line each, such as k: 6"),
    "a text": (b"k 6\n", "is a text"),
    "unknown": (b"sft_lerning_rate: 1e-4\n", "'sft_lerning_rate': did you mean sft_learning_rate?"),
    "a number for a name": (b"3: 4\n", "no notebook has a parameter '3'"),
    "twice": (b"k: 6\nseed: 1\nk: 8\n", "p.yaml, line 3: k is there twice"),
    "twice inside": (b"columns: {answer: a, answer: b}\n", "line 1: answer is there twice"),
    "a tab": (b"k:\n\t6\n", r"line 2: .*found character .* indent with spaces"),
    "unclosed": (b"sources: [a.csv\nk: 6\n", "line 2: "),
    "a colon in a text": (b"run_dir: a: b\n", "line 1: mapping values are not allowed here"),
    "two documents": (b"k: 6\n---\nk: 8\n", "but found another document"),
    "an unknown alias": (b"k: *six\n", "undefined alias 'six'"),
    "a tag": (b"k: !!python/name:os.system\n", "could not determine a constructor"),
    "a list for a key": (b"[k]: 6\n", "found unhashable key"),
    "nested without end": (b"k: " + b"[" * 5000, "nested too deeply"),
    "octal": (b"k: 010\n", "line 1: YAML reads 010 as 8: write 8, or 010 without its 0"),
    "base 60": (b"k: 1:30\n", "YAML reads 1:30 as 90"),
    "a bad date": (b"k: 2026-13-45\n", "month must be in 1..12"),
    "a date": (b"run_dir: 2026-11-26\n", "run_dir: datetime.date.* is not a text"),
    "null": (b"k: null\n", "k: null is not a whole number from 1"),
    "left open": (b"k:\n", "k: null is not"),
    "yes for a number": (b"k: yes\n", "k: true is not a whole number"),
    "a number for yes": (b"packing: 1\n", "packing: 1 is not true or false"),
    "a comma": (b"n_train: 1,000\n", "n_train: '1,000' is not a whole number"),
    "half": (b"k: 2.5\n", "k: 2.5 is not a whole number"),
    "infinite": (b"temperature: .inf\n", "temperature: inf is not a number"),
    "too large a rate": (b"sft_learning_rate: 2e+0\n", "is not a number above 0 to 1"),
    "a text for a list": (b"sources: mine.csv\n", "sources: 'mine.csv' is not a list of names"),
    "a list for a mapping": (b"columns: [question]\n", "columns: .* is not a mapping"),
    "UTF-16": ("k: 6\n".encode("utf-16"), "is not UTF-8 text .byte 0.: save it as UTF-8"),
    "UTF-16 unmarked": ("k: 6\n".encode("utf-16-le"), "special characters are not allowed"),
    "latin-1": ("run_dir: Käse\n".encode("latin-1"), "is not UTF-8 text .byte 10."),
    "laughs": (b"a: &a [x,x,x]\nb: &b [*a,*a,*a]\nk: [*b,*b,*b]\n", "no notebook has a parameter 'a'"),
    "a notebook": (b'{"cells": [], "nbformat": 4}', "no notebook has a parameter 'cells'"),
    "of no such data": (b"sources: [none.csv]\n", "none.csv: there is no such file"),
}


def refused(capsys, tmp_path, *args):
    """The one line with which `reflectevo run` refuses, before it has written anything."""
    assert cli.main(["run", *args, "--notebooks", str(ROOT / "notebooks")]) == 2
    caught = capsys.readouterr()
    assert (
        caught.err.count("\n") == 1 and caught.err.startswith("reflectevo: ") and not (tmp_path / "artifacts").exists()
    )
    return caught.err


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_params_file_gets_one_line(case, capsys, tmp_path, monkeypatch):
    content, says = BROKEN[case]
    (tmp_path / "p.yaml").write_bytes(content)
    monkeypatch.chdir(tmp_path)
    said = refused(capsys, tmp_path, "p.yaml")
    print(f"{case:24s}{said.strip()}")
    assert re.search(says, said)
    alone = yaml_of(content)
    if isinstance(alone, dict) and len(alone) == 1 and "sources" not in alone:  # the command line reads as a file does
        (tmp_path / "p.yaml").write_bytes(b"seed: 0\n")
        name, value = content.decode().strip().split(":", 1)
        there = refused(capsys, tmp_path, "p.yaml", "-p", name, value.strip())
        assert re.search(says.replace("line 1: ", "").replace("p.yaml, ", ""), there)


def yaml_of(content):
    try:
        return yaml.safe_load(content.decode())
    except (ValueError, yaml.YAMLError, RecursionError):
        return None


def test_a_folder_a_missing_file_and_a_doubled_override(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.yaml").write_text("\ufeffk: 6\r\nn_train: 1_000\r\nsft_learning_rate: 1e-4\r\n", encoding="utf-8")
    assert "is a folder, not a params file; there are" in refused(capsys, tmp_path, str(tmp_path))
    assert "q.yaml is no params file; there are p.yaml" in refused(capsys, tmp_path, "q.yaml")
    assert "-p k is there twice" in refused(capsys, tmp_path, "p.yaml", "-p", "k", "3", "-p", "k", "4")
    found = checked(pipeline.load_params("p.yaml"))  # a byte order mark, CRLF, and numbers as people write them
    assert (found["k"], found["n_train"], found["sft_learning_rate"]) == (6, 1000, 1e-4)
