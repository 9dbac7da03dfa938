"""The commands that README and docs show are understood as they are written, and the cheap ones run in a fresh shell."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from conftest import ROOT

from reflectevo_lite.run import cli

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CHEAP = ("plan", "compare", "check")  # nothing is loaded, and nothing of the user's is needed


def commands():
    for page in PAGES:
        for block in re.findall(r"^```(?:sh|bash|console)\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
            for line in block.replace("\\\n", " ").splitlines():
                for one in re.split(r"\s+&&\s+|;\s", line.split(" #")[0].strip()):
                    if one and not one.startswith("#"):
                        yield pytest.param(one, id=f"{page.stem}: {one[:60]}")


COMMANDS = list(commands())


def test_there_are_commands_to_test():
    assert {c.values[0].split()[0] for c in COMMANDS} >= {"reflectevo", "make"}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_known_with_its_options_files_and_extras(command):
    words = shlex.split(command)
    while "=" in words[0]:  # NAME=value before the command
        words.pop(0)
    if words[0] == "reflectevo":
        cli._parser().parse_args(words[1:])  # exits for an unknown option
    if words[0] == "make":
        targets = re.findall(r"^([a-z0-9]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
        assert {w for w in words[1:] if "=" not in w} <= set(targets)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    asked = {
        extra for group in re.findall(r"(?:reflectevo_lite|\.)\[([\w,]+)\]", command) for extra in group.split(",")
    }
    assert asked <= set(extras)
    for file in re.findall(r"\bparams/[\w./]+\.yaml", command):
        assert (ROOT / file).is_file(), file


def runs(command):
    words = shlex.split(command)
    if words[:1] != ["reflectevo"] or words[1] not in CHEAP:
        return False
    wanted = [
        w for w in words[2:] if w.startswith(("params/", "artifacts/")) or w.endswith((".csv", ".jsonl", ".json"))
    ]
    return all((ROOT / w).exists() for w in wanted)


@pytest.mark.parametrize("command", [c for c in COMMANDS if runs(c.values[0])])
def test_a_cheap_command_runs_in_a_fresh_shell(command, tmp_path):
    (tmp_path / "reflectevo").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m reflectevo_lite.run.cli "$@"\n')
    (tmp_path / "reflectevo").chmod(0o755)
    fresh = {
        "PATH": f"{tmp_path}:{Path(sys.executable).parent}:/usr/bin:/bin",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    fresh |= {"REFLECTEVO_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": os.environ.get("HF_HUB_OFFLINE", "1")}
    ran = subprocess.run(["bash", "-c", command], cwd=ROOT, env=fresh, capture_output=True, text=True, timeout=120)
    assert "Traceback" not in ran.stderr and ran.returncode == 0, ran.stderr
