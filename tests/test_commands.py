"""Every shell command of README.md and docs/ as it stands there: the cheap ones are run, the dear ones read closely."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

from reflectevo_lite.run import cli, pipeline

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
CHEAP = ("doctor", "plan", "report", "compare", "check", "sources")
OTHERS = ("pip", "make", "ray", "vllm", "bash", "python", "sh", "export", "ollama", "transformers", "llama-server")


def commands(page):
    """Shell commands of a page: lines of fenced blocks, and what stands in `…` and begins like one."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```(?:sh|bash|console)\n(.*?)^```", text, re.M | re.S)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    lines += re.findall(r"`((?:reflectevo|pip install|make|python) [^`\n]+)`", prose)
    parts = [part for line in lines if "…" not in line for part in re.split(r"\s&&\s|;\s", line.split(" #")[0])]
    found = [shlex.split(re.sub(r"^(\s*[A-Z_]+=\S+\s)+", "", part), comments=True) for part in parts]
    return [words for words in found if words]


def typed(words):
    """Whether it can be typed as it stands: it is more than a name, and holds no placeholder in capitals."""
    return words[1:] == ["doctor"] or (len(words) > 2 and not any(re.fullmatch("[A-Z_.]{3,}", word) for word in words))


ALL = [(page, words) for page in PAGES for words in commands(page)]
OURS = [(page, words) for page, words in ALL if words[0] == "reflectevo" and len(words) > 1]


def test_there_are_some_and_no_line_is_of_an_unknown_kind():
    assert len(OURS) > 15 and {words[1] for _, words in OURS} >= {"run", *CHEAP[:5]}
    assert not {words[0] for _, words in ALL} - {"reflectevo", *OTHERS}


@pytest.mark.parametrize("words", [w for _, w in OURS], ids=" ".join)
def test_a_command_is_known_with_its_options_files_and_parameters(words):
    if words[1:] in (["run"], ["plan"], ["check"], ["report"], ["compare"], ["calibrate"]):
        return  # the command's name, not a call of it
    args = cli._parser().parse_args(words[1:])
    if hasattr(args, "params") and hasattr(args, "notebooks"):
        path = Path(args.params)
        if path.parts[0] == "params":
            assert (ROOT / path).is_file(), path
            asked = pipeline.load_params(ROOT / path, {n: yaml.safe_load(v) for n, v in args.overrides})
            pipeline.make_plan(asked, ROOT / "notebooks")
        else:
            assert path.stem.isupper(), f"{path}: a file of the repository, or a name in capitals"
        assert pipeline.choose(getattr(args, "only", None), args.beyond)


@pytest.mark.parametrize("words", [w for _, w in ALL if w[0] != "reflectevo"], ids=" ".join)
def test_what_other_tools_are_asked_for_is_there(words):
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    for word in words:
        for extra in re.findall(r"(?:reflectevo_lite|^\.)\[([\w,]+)\]", word):
            assert set(extra.split(",")) <= set(EXTRAS), word
        if word.endswith((".py", ".sh", ".txt", ".yaml")) and "/" in word:
            assert (ROOT / word).exists(), word
    if words[0] == "make":
        assert {word for word in words[1:] if "=" not in word} <= set(targets)


def test_the_cheap_ones_work_in_a_fresh_shell(tmp_path):
    """Typed as they stand, in a copy of the repository in which `make run` and `-p k 8` have gone before."""
    for name in ("params", "notebooks", "docs"):
        shutil.copytree(ROOT / name, tmp_path / name)
    kept = ROOT / "artifacts" / "reference" / "tiny_cpu"
    leave = shutil.ignore_patterns("evals", "data", "rollouts", "curated", "rounds", "adapters", "before", ".lock")
    for run in ("tiny_cpu", "k8"):
        shutil.copytree(kept, tmp_path / "artifacts" / run, ignore=leave)
    rows = "".join(f"What is {i} + {i}?,{2 * i},Was ist {i} + {i}?,{2 * i}\n" for i in range(40))
    (tmp_path / "mine.csv").write_text(f"question,answer,Frage,Antwort\n{rows}", encoding="utf-8")
    tool = tmp_path / "bin" / "reflectevo"
    tool.parent.mkdir()
    call = f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m reflectevo_lite.run.cli "$@"\n'
    tool.write_text(call, encoding="utf-8")
    tool.chmod(0o755)
    env = {"PATH": f"{tool.parent}:{os.environ['PATH']}", "HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = {}
    for _, words in OURS:
        if words[1] in CHEAP and typed(words):
            ran = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, encoding="utf-8", timeout=120)
            done[words[1]] = ran.returncode, ran.stdout, ran.stderr
            assert "Traceback" not in ran.stderr and (ran.stdout or ran.stderr), words
            assert ran.returncode == 0 or "params/colab_t4.yaml" in words, (words, ran.stderr)  # its model is on a hub
    assert set(done) >= set(CHEAP[:5])
    assert "Acc@t2" in done["compare"][1] and done["report"][1].strip().endswith("report.html")
    assert "prompts" in done["plan"][1], done["plan"]
