"""install.sh picks torch's wheels and the extras by what the machine has; pip, nvidia-smi and uname are stand-ins."""

import os
import stat
import subprocess

import pytest
from conftest import ROOT

PIP = """#!/bin/sh
case "$*" in
  *"-m venv"*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
  *--dry-run*) echo "$PIP_PICKS" ;;
  *"pip "*) echo "pip $*" ;;
esac
"""


def install(tmp_path, card="", picks="2.13.0", system="Linux", **env):
    """What install.sh prints, and what it asks pip for."""
    tools = tmp_path / "bin"
    tools.mkdir()
    stubs = {"python3": PIP, "uname": f"#!/bin/sh\necho {system}\n"}
    stubs["nvidia-smi"] = f"#!/bin/sh\necho '{card}'\n" if card else "#!/bin/sh\nexit 9\n"
    for name, text in stubs.items():
        (tools / name).write_text(text, encoding="utf-8")
        (tools / name).chmod((tools / name).stat().st_mode | stat.S_IEXEC)
    asked = {"PATH": f"{tools}:{os.environ['PATH']}", "PIP_PICKS": f'"version": "{picks}"'} | env
    done = subprocess.run(
        ["sh", "install.sh", str(tmp_path / "venv")],
        cwd=ROOT,
        env=asked,
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    said, asked_of_pip = done.stdout.splitlines()
    return said, asked_of_pip


def test_without_a_card_the_cpu_wheels_and_no_gpu_extra(tmp_path):
    said, pip = install(tmp_path)
    assert "no NVIDIA card is here: torch's CPU wheels" in said and "TORCH_INDEX=URL" in said
    assert "--extra-index-url https://download.pytorch.org/whl/cpu" in pip and pip.endswith("-e .[test]")


def test_no_other_index_is_asked_where_pips_own_serves_cpu_wheels(tmp_path):
    said, pip = install(tmp_path, picks="2.13.0+cpu")
    assert "from pip's own index" in said and "index-url" not in pip


def test_with_a_card_cuda_and_the_gpu_extra(tmp_path):
    said, pip = install(tmp_path, card="GPU 0: Tesla T4 (UUID: GPU-1)")
    assert "an NVIDIA card is here" in said and "index-url" not in pip and pip.endswith("-e .[test,gpu]")


@pytest.mark.parametrize("card", ["", "GPU 0: Tesla T4"])
def test_a_choice_by_hand_wins(tmp_path, card):
    _, pip = install(tmp_path, card, TORCH_INDEX="https://mirror.invalid/cu128", EXTRAS="gpu")
    assert "--extra-index-url https://mirror.invalid/cu128" in pip and pip.endswith("-e .[gpu]")


def test_elsewhere_than_linux_pypis_wheels_are_the_cpus(tmp_path):
    assert "index-url" not in install(tmp_path, system="Darwin")[1]
