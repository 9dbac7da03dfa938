"""Offline and read-only: a wheel installed without an index, package, reference run and home not to be written.

Root may write anything, so as root the commands run without its capabilities (setpriv).
"""

import os
import shutil
import stat
import subprocess
import sys
import sysconfig

import pytest
from conftest import ROOT

pytest.importorskip("setuptools", minversion="77")  # builds the wheel without an index
ORDINARY = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.name == "posix" and os.getuid() == 0 else []
SMALL = {"n_train": 24, "n_test": 8, "n_rollout": 12, "k": 2, "turns": 2}

if ORDINARY and not shutil.which("setpriv"):
    pytest.skip("as root without setpriv everything can be written", allow_module_level=True)


def read_only(folder):
    for path in (*folder.rglob("*"), folder):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with `venv` (the wheel), `reference` and `home`, which are read-only, and `own`, which is not."""
    there = tmp_path_factory.mktemp("offline")
    source = shutil.copytree(ROOT / "reflectevo_lite", there / "source" / "reflectevo_lite").parent
    shutil.copytree(ROOT / "notebooks" / "beyond", source / "notebooks" / "beyond")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    wheel = ["wheel", "-q", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*pip, *wheel, "-w", there / "wheels", source], check=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", there / "venv"], check=True)
    [packages] = (there / "venv" / "lib").glob("*/site-packages")
    (packages / "rest.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    install = ["install", "-q", "--no-deps", "--ignore-installed", "--no-index", "--find-links", there / "wheels"]
    subprocess.run([there / "venv" / "bin" / "python", "-m", "pip", *install, "reflectevo_lite"], check=True)
    kept = ROOT / "artifacts" / "reference" / "tiny_cpu"
    leave = shutil.ignore_patterns("evals", "data", "rollouts", "curated", "rounds", "adapters", "before", ".lock")
    shutil.copytree(kept, there / "reference", ignore=leave)
    for name in ("home", "own", "empty"):
        (there / name).mkdir()
    for name in ("venv", "reference", "home"):
        read_only(there / name)
    return there


def call(place, *words, env=(), home=True):
    """(exit status, stdout, stderr) in a shell without settings, in an encoding that knows ASCII only."""
    given = {"PATH": "/usr/bin:/bin", "TMPDIR": str(place / "own"), "LC_ALL": "C", "PYTHONUTF8": "0"} | dict(env)
    given |= {"HOME": str(place / "home")} if home else {}
    command = [*ORDINARY, place / "venv" / "bin" / words[0], *words[1:]]
    done = subprocess.run(command, cwd=place / "empty", env=given, capture_output=True, timeout=120)
    return (
        done.returncode,
        done.stdout.decode("utf-8", "replace").strip(),
        done.stderr.decode("utf-8", "replace").strip(),
    )


def test_the_reference_run_is_read_where_nothing_can_be_written(place):
    before = {path: path.stat().st_mtime_ns for path in (place / "reference").rglob("*")}
    for name in ("reflectevo_lite", "notebooks.beyond.evidence"):
        assert call(place, "python", "-c", f"import {name} as found; print(found.__file__)")[1].startswith(str(place))
    status, said, error = call(place, "reflectevo", "report", place / "reference", "--out", place / "own" / "r.html")
    assert (status, said, error) == (0, str(place / "own" / "r.html"), "")
    status, said, error = call(place, "reflectevo", "report", place / "reference")
    assert status == 0 and said.startswith(str(place / "own")) and said.endswith("report.html"), error
    code = (
        f"from reflectevo_lite.read.explorer import Explorer\nprint(len(Explorer({str(place / 'reference')!r}).frame))"
    )
    assert int(call(place, "python", "-c", code)[1]) > 1000
    assert {path: path.stat().st_mtime_ns for path in (place / "reference").rglob("*")} == before


def test_the_cache_may_be_elsewhere_and_the_home_unset(place):
    two = ["compare", place / "reference", place / "reference", "--setting", "reflector_only"]
    status, said, error = call(place, "reflectevo", *two, env={"XDG_CACHE_HOME": str(place / "own" / "x")}, home=False)
    assert status == 0 and "1200" in said, error
    assert (place / "own" / "x" / "reflectevo_lite" / "runs").is_dir()


def test_a_run_from_the_wheel(place):
    words = [str(word) for name, value in SMALL.items() for word in ("-p", name, value)]
    asked = ["run", str(ROOT / "params" / "tiny_cpu.yaml"), "--only", "01,02", *words, "-p", "run_dir"]
    status, _, error = call(place, "reflectevo", *asked, place / "own" / "run")
    assert status == 2 and "the package comes without them: get the repository" in error and "\n" not in error
    asked[2:2] = ["--notebooks", str(ROOT / "notebooks")]
    status, _, error = call(place, "reflectevo", *asked, place / "home" / "run")
    assert (status, error) == (2, f"reflectevo: {place / 'home'} cannot be written: choose another run_dir")
    status, said, error = call(place, "reflectevo", *asked, place / "own" / "run")
    assert status == 0 and "Executed notebooks" in said and (place / "own" / "run" / "curated").is_dir(), error


def test_what_cannot_be_written_is_named_in_one_line(place):
    asked = ["report", place / "reference", "--out", place / "home" / "r.html"]
    status, _, error = call(place, "reflectevo", *asked)
    assert status == 2 and "\n" not in error and "Permission denied" in error and str(place / "home") in error
