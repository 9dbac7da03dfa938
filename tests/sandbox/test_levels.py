"""What holds on a machine is found out, and a weak one is refused."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from programs import contained, on_linux, passes, returns

from reflectevo_lite.sandbox import SandboxError, level, parent, run_tests, seccomp

pytestmark = on_linux


@pytest.fixture
def layers(monkeypatch):
    """Sets the layers to try, as if the machine had no others."""

    def only(*names):
        monkeypatch.setattr(parent, "LAYERS", names)
        parent._probed.cache_clear()

    yield only
    monkeypatch.undo()
    parent._probed.cache_clear()


@contained
def test_the_level_names_what_holds():
    assert "seccomp" in level() and ("uid" in level()) == (os.geteuid() == 0)


def test_a_weak_machine_is_refused_unless_allowed(layers, monkeypatch):
    layers("uid")
    monkeypatch.delenv("ALLOW_WEAK_SANDBOX", raising=False)
    assert {"files-read", "processes", "syscalls"} <= set(level().split("not contained: ")[1].split(", "))
    with pytest.raises(SandboxError, match=r"cannot contain.*files-read"):
        run_tests(returns("x"), ["assert f(1) == 1"])
    monkeypatch.setenv("ALLOW_WEAK_SANDBOX", "1")
    assert passes(returns("x"), "assert f(1) == 1")


@contained
def test_a_layer_that_fails_later_stops_the_program(monkeypatch):
    assert "seccomp" in level()
    monkeypatch.setattr(parent, "make_filter", lambda: b"")
    with pytest.raises(SandboxError, match="not run"):
        run_tests(returns("x"), ["assert f(1) == 1"])


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_other_systems_are_refused(platform, monkeypatch):
    parent._probed.cache_clear()
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setenv("ALLOW_WEAK_SANDBOX", "1")
    with pytest.raises(SandboxError, match="Linux"):
        run_tests(returns("x"), ["assert f(1) == 1"])
    assert "not contained: files-read" in level()
    parent._probed.cache_clear()


@pytest.mark.parametrize("machine", ["aarch64", "x86_64", "riscv64"])
def test_a_filter_for_each_known_machine(machine, monkeypatch):
    seccomp.make_filter.cache_clear()
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert len(seccomp.make_filter()) % 8 == 0 and bool(seccomp.make_filter()) == (machine in seccomp.MACHINES)
    seccomp.make_filter.cache_clear()


@contained
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="root becomes another user here")
def test_an_ordinary_user_is_contained_too():
    code = (
        "import os; from reflectevo_lite import sandbox as s; print(os.getuid(), s.level());"
        "print(s.run_tests('def f(x): return open(x)', ['assert not f(\"/etc/passwd\")']).reason)"
    )
    top = Path(tempfile.mkdtemp())  # pytest's own directories are closed to other users
    top.chmod(0o755)
    (top / "reflectevo_lite").mkdir()
    try:
        shutil.copytree(parent.CHILD.parent, top / "reflectevo_lite" / "sandbox")
        out = _as_nobody(["-c", code], top)
    finally:
        shutil.rmtree(top)
    assert "65534" in out and "not contained" not in out and "PermissionError" in out


def _as_nobody(arguments, directory):
    for python in (sys.executable, "/usr/bin/python3"):
        with contextlib.suppress(OSError):  # an interpreter in root's home
            return subprocess.run(
                [python, *arguments],
                cwd=directory,
                user=65534,
                group=65534,
                extra_groups=[],
                capture_output=True,
                text=True,
                env={},
                timeout=60,
            ).stdout
    pytest.skip("no interpreter that another user may run")
