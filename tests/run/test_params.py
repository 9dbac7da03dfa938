"""The one table of parameters: impossible values get one line before anything is made; possible ones become what they mean."""

import shutil

import pytest
from conftest import ROOT

from reflectevo_lite import store
from reflectevo_lite.run import cli, open_run, params
from reflectevo_lite.run.params import BadParameter, checked

IMPOSSIBLE = {
    "k": (0, -1, "many", None, True, 2.5, float("nan")),
    "n_train": (-5, 0, "1e9"),
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
    assert said.startswith(f"{name}: ") and repr(value) in said and "\n" not in said


@pytest.mark.parametrize(
    ("name", "value", "meant"),
    [
        ("sft_learning_rate", "1e-4", 1e-4),
        ("k", "3", 3),
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
    with pytest.raises(store.ChangedParameters, match=r"seed was 5, is 6.*--force"):
        open_run("01_data", one | {"seed": 6})


def test_every_parameter_has_help_a_fitting_default_and_a_notebook():
    for p in params.TABLE.values():
        assert p.help and p.notebooks and checked({p.name: p.default}) == {p.name: p.default}, p.name
