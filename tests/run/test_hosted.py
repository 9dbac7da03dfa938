"""Colab and Kaggle: the notebooks' first cell keeps the host's torch and kernel; the newest Unsloth is let in."""

import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from conftest import ROOT
from packaging.requirements import Requirement

NOTEBOOKS = [p for folder in ("notebooks", "notebooks/beyond") for p in sorted((ROOT / folder).glob("*.ipynb"))]
NOTEBOOKS = [path for path in NOTEBOOKS if path.stem != "quickstart"]  # has its own: test_quickstart.py
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
COLAB = {  # googlecolab/backend-info, pip-freeze.gpu.txt of 2026-08-19 (Python 3.13): what its kernel and card stand on
    "torch": "2.11.0+cu128", "transformers": "5.15.0", "numpy": "2.1.3", "pandas": "2.2.3", "scipy": "1.16.3",
    "ipykernel": "6.17.1", "ipywidgets": "7.7.1", "httpx": "0.28.1", "pyyaml": "6.0.3", "jinja2": "3.1.6",
}  # fmt: skip


def install_cell(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    found = ["".join(c["source"]) for c in cells if c["cell_type"] == "code" and "REFLECTEVO_SOURCE" in str(c)]
    assert len(found) == 1
    return found[0]


def installed(monkeypatch, folder, card, source=None):
    """What the cell would give to pip: run in `folder`, with or without a card, on a host that lacks the package."""
    calls = []
    monkeypatch.chdir(folder)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "reflectevo_lite" else True)
    monkeypatch.setattr(importlib.metadata, "version", COLAB.get)
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/nvidia-smi" if card else None)
    monkeypatch.setattr(subprocess, "call", calls.append)
    if source:
        monkeypatch.setenv("REFLECTEVO_SOURCE", source)
    exec(compile(install_cell(NOTEBOOKS[0]), "cell", "exec"), {})
    [[python, *pip, package, torch, torchao]] = calls
    assert (python, pip) == (sys.executable, ["-m", "pip", "install", "-q", "--retries", "1"])
    assert (torch, torchao) == ("torch==2.11.0+cu128", "torchao>=0.16")  # PEFT stops at Colab's torchao 0.10
    return Requirement(package)


def test_every_notebook_has_the_same_install_cell_and_it_does_nothing_where_the_package_is(monkeypatch):
    assert len({install_cell(path) for path in NOTEBOOKS}) == 1
    monkeypatch.setattr(subprocess, "call", lambda command: pytest.fail(str(command)))
    exec(install_cell(NOTEBOOKS[0]), {})


def test_the_hosts_torch_is_kept_and_a_card_brings_unsloth(monkeypatch, tmp_path):
    clone = installed(monkeypatch, ROOT / "notebooks", card=True)
    assert (clone.name, clone.extras) == ("reflectevo_lite", {"gpu"})
    built = Path(clone.url.removeprefix("file://"))  # a copy: an attached one is read-only, and pip builds in place
    assert built != ROOT and (built / "pyproject.toml").read_bytes() == (ROOT / "pyproject.toml").read_bytes()
    address = "git+https://example.org/reflectevo_lite.git"
    far = installed(monkeypatch, tmp_path, card=False, source=address)
    assert (far.extras, far.url) == (set(), address)


def test_without_a_source_or_with_a_failing_pip_there_is_one_line(monkeypatch, tmp_path):
    with pytest.raises(SystemExit, match="set `source`, above, to the repository's address"):
        installed(monkeypatch, tmp_path, card=False)
    monkeypatch.setattr(subprocess, "call", lambda command: 1)
    monkeypatch.setenv("REFLECTEVO_SOURCE", "git+https://example.org/x.git")
    with pytest.raises(SystemExit, match="needs a folder `wheels`"):
        exec(install_cell(NOTEBOOKS[0]), {})


def test_nothing_that_colab_stands_on_is_replaced():
    for asked in map(Requirement, PROJECT["dependencies"]):
        if asked.name in COLAB:
            assert asked.specifier.contains(COLAB[asked.name]), asked


@pytest.mark.parametrize("torch", ["2.6.0", "2.9.1", "2.11.0+cu128", "2.13.0", "2.13.0+cpu"])
def test_torch_2_6_to_2_13_are_let_in(torch):
    [asked] = [r for r in map(Requirement, PROJECT["dependencies"]) if r.name == "torch"]
    assert asked.specifier.contains(torch)


def test_the_tested_set_lets_the_newest_unsloth_in():
    """Unsloth 2026.10.9 wants a newer certifi than was pinned, and pip then took 2026.10.7, which needs a card."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.lower().split("==") for line in lines if "==" in line and not line.startswith("#"))
    assert Requirement("certifi>=2026.10.19").specifier.contains(pinned["certifi"])
    found = list(importlib.metadata.distributions(path=[*sys.path, os.environ.get("UNSLOTH_PATH", "")]))
    asked = [r for d in found if (d.metadata["Name"] or "").startswith("unsloth") for r in d.requires or []]
    for needed in map(Requirement, asked):
        name = needed.name.lower()
        if name in pinned and not (needed.marker and not needed.marker.evaluate({"extra": ""})):
            assert needed.specifier.contains(pinned[name]), needed
