"""The quickstart, executed whole on machines made to look like Colab and Kaggle: nothing installed, nothing set.

A kernel of its own venv sees this environment's packages but for this one; pip may reach no index.
"""

import contextlib
import importlib.metadata
import json
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from conftest import ROOT
from packaging.requirements import Requirement
from test_hosted import PROJECT

pytest.importorskip("setuptools", minversion="77")  # builds the package without an index
SMALL = {"n_train": 40, "n_test": 16, "n_rollout": 24, "k": 2, "rounds": 1, "turns": 2, "sft_epochs": 1}
SMALL |= {"corrector_epochs": 1, "dpo_epochs": 1, "judge_pairs": 4, "n_validation": 8, "chunk_size": 24}
EXECUTE = """
import json, sys, papermill
notebook, out, parameters = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
papermill.execute_notebook(notebook, out, parameters=parameters, kernel_name="python3", progress_bar=False)
"""


class Host:
    """A hosted machine: its own folder to work in, a home, a Python with packages; no variable but PATH and HOME."""

    def __init__(self, base, name):
        self.cwd, self.home = base / name, base / f"{name}_home"
        self.cwd.mkdir(parents=True)
        (self.home / ".config" / "pip").mkdir(parents=True)
        # as on a machine whose network is off; what builds the package is among the host's packages
        pip = "[global]\nno-index = true\ndisable-pip-version-check = true\nno-build-isolation = false\n"
        (self.home / ".config" / "pip" / "pip.conf").write_text(pip, encoding="utf-8")
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", base / f"{name}_venv"], check=True)
        self.python = base / f"{name}_venv" / "bin" / "python"
        self.packages = next((base / f"{name}_venv" / "lib").glob("*/site-packages"))
        for path in Path(sysconfig.get_path("purelib")).iterdir():
            if "reflectevo" not in path.name and not (self.packages / path.name).exists():
                (self.packages / path.name).symlink_to(path)
        for asked in map(Requirement, PROJECT["dependencies"]):  # an environment that lacks one runs the rest
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                importlib.metadata.version(asked.name)
                continue
            (self.packages / f"{asked.name}-99.dist-info").mkdir()
            said = f"Metadata-Version: 2.1\nName: {asked.name}\nVersion: 99\n"
            (self.packages / f"{asked.name}-99.dist-info" / "METADATA").write_text(said, encoding="utf-8")

    def quickstart(self, notebook=ROOT / "notebooks" / "quickstart.ipynb", **parameters):
        """(exit status, what was printed, the executed notebook)."""
        out = self.cwd / "out.ipynb"
        command = [self.python, "-c", EXECUTE, notebook, out, json.dumps(parameters)]
        env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(self.home)}
        done = subprocess.run(command, cwd=self.cwd, env=env, capture_output=True, encoding="utf-8", timeout=300)
        return done.returncode, done.stderr, json.loads(out.read_text(encoding="utf-8"))


def printed(notebook):
    outputs = [o for cell in notebook["cells"] for o in cell.get("outputs", [])]
    return "".join("".join(o.get("text", [])) for o in outputs), str(outputs)


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The repository as somebody gets it: what git tracks, and what is new here."""
    there = tmp_path_factory.mktemp("copy") / "reflectevo_lite"
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", ":!artifacts", ":!tests"]
    for name in subprocess.run(listed, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (there / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, there / name)
    return there


@pytest.fixture(scope="module")
def colab(tmp_path_factory, copy):
    """Colab after the quickstart: cloned from an address, results on the drive."""
    host = Host(tmp_path_factory.mktemp("colab"), "content")
    stub = "import pathlib\n\n\ndef mount(place):\n    pathlib.Path(place, 'MyDrive').mkdir(parents=True)\n"
    google = host.packages / "google"
    google.unlink(missing_ok=True)  # another package of that name
    (google / "colab").mkdir(parents=True)
    (google / "colab" / "__init__.py").touch()
    (google / "colab" / "drive.py").write_text(stub, encoding="utf-8")
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    for words in (["init", "-q"], ["add", "-A"], [*who, "commit", "-qm", "all"]):
        subprocess.run(["git", *words], cwd=copy, check=True, stdout=subprocess.DEVNULL)
    return host, host.quickstart(source=f"git+file://{copy}", run_dir="drive/MyDrive/run", changes=SMALL)


def test_colab_from_an_address_to_the_table_and_report_on_the_drive(colab):
    host, (status, said, notebook) = colab
    assert status == 0, said[-3000:]
    text, shown = printed(notebook)
    assert "sandbox" in text and "embedded model" in text  # doctor
    assert "[6/6] 06_analysis: " in text and "prompts" in text
    assert "Acc@t2" in shown and "srcdoc" in shown
    assert (host.cwd / "drive" / "MyDrive" / "run" / "report.html").exists()
    assert (host.packages / "reflectevo_lite").is_dir() and not (host.packages / "reflectevo_lite").is_symlink()


def test_kaggle_without_internet_from_a_read_only_copy_and_an_earlier_run(colab, copy, tmp_path):
    kaggle, earlier = Host(tmp_path, "working"), colab[0].cwd / "drive" / "MyDrive" / "run"
    attached = tmp_path / "input" / "reflectevo"
    shutil.copytree(copy, attached, ignore=shutil.ignore_patterns(".git"))
    wheel = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*wheel, "-w", attached / "wheels", copy], check=True)
    for path in (attached, *attached.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = sorted(attached.rglob("*"))
    status, said, notebook = kaggle.quickstart(source=str(attached), earlier=str(earlier), changes=SMALL)
    assert status == 0, said[-3000:]
    text, shown = printed(notebook)
    assert text.count("finished before") == 6 and "Acc@t2" in shown  # as after a disconnect
    assert sorted(attached.rglob("*")) == before and (kaggle.cwd / "artifacts" / "tiny_cpu" / "metrics.json").exists()


def test_what_is_missing_is_said_in_one_line(copy, tmp_path):
    host = Host(tmp_path, "working")
    alone = shutil.copy(ROOT / "notebooks" / "quickstart.ipynb", tmp_path)
    for given, remedy in (
        ({}, "`source`, above, is empty"),
        ({"source": f"file://{tmp_path}/nothing"}, "could not be cloned"),
        ({"source": str(tmp_path)}, "the folder of the whole repository"),
    ):
        status, said, _ = host.quickstart(alone, **given)
        assert status and "SystemExit: " in said and remedy in said


def test_pip_without_an_index_and_without_wheels_gets_its_remedy(copy, tmp_path):
    host = Host(tmp_path, "working")
    for path in host.packages.glob("trl-*.dist-info"):  # as on Kaggle, which has no TRL
        path.unlink()
    status, said, _ = host.quickstart(source=str(copy))
    assert status and "SystemExit: pip could not install from" in said and "pip wheel -w wheels ." in said
