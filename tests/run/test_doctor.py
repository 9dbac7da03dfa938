"""`reflectevo doctor` says what is there, what is not, and what would help."""

import importlib.util

from reflectevo_lite import generate, store
from reflectevo_lite.generate import GIB
from reflectevo_lite.run import cli, doctor


def test_it_names_every_subject_on_a_machine_without_a_gpu(capsys):
    assert cli.main(["doctor"]) == 0
    lines = {line[:18].strip(): line[18:] for line in capsys.readouterr().out.splitlines()}
    assert list(lines) == [
        "packages", "device", "precision", "Unsloth", "bitsandbytes", "sandbox", "disk", "servers", "embedded model",
    ]  # fmt: skip
    assert "torch " in lines["packages"] and lines["embedded model"] == generate.fingerprint("tiny")
    assert "GiB free at" in lines["disk"] and lines["precision"] in ("float32", "float16", "bfloat16")


def pretend(monkeypatch, installed, cuda):
    import torch

    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n: object() if n in installed else None if n in KNOWN else real(n)
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)


KNOWN = {"unsloth", "bitsandbytes", "vllm", "sglang", "ray"}


def test_unsloth_is_usable_or_not_and_why(monkeypatch):
    pretend(monkeypatch, set(), cuda=True)
    assert "not installed" in doctor.unsloth() and "pip install" in doctor.unsloth()
    pretend(monkeypatch, {"unsloth"}, cuda=False)
    assert "not used: no CUDA device" in doctor.unsloth()
    pretend(monkeypatch, {"unsloth"}, cuda=True)
    assert "used for training" in doctor.unsloth()


def test_four_bits_need_the_package_and_a_card(monkeypatch):
    pretend(monkeypatch, set(), cuda=True)
    assert "load_in_4bit is refused" in doctor.bitsandbytes()
    pretend(monkeypatch, {"bitsandbytes"}, cuda=False)
    assert "no CUDA device" in doctor.bitsandbytes()
    pretend(monkeypatch, {"bitsandbytes"}, cuda=True)
    assert "refused" not in doctor.bitsandbytes()


def test_the_card_and_its_free_memory_are_named(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (14 * GIB, 15 * GIB))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda i: "Tesla T4")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    assert doctor.device().startswith("Tesla T4, Tesla T4; 14.0 of 15.0 GiB free") and doctor.precision() == "float16"


def test_little_room_on_disk_is_said(monkeypatch, tmp_path):
    usage = type("Usage", (), {"free": 3 * GIB})
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: usage)
    assert "3.0 GiB free" in doctor.disk(tmp_path) and "want 20 GiB" in doctor.disk(tmp_path)


def test_servers_found_are_named(monkeypatch):
    pretend(monkeypatch, set(), cuda=False)
    served = f"transformers serve {store.version('transformers')}"
    monkeypatch.setattr(doctor.shutil, "which", lambda tool: None)
    assert doctor.servers() == f"{served} (for real models: pip install vllm)"
    monkeypatch.setattr(doctor.shutil, "which", lambda tool: "/bin/x" if tool == "ollama" else None)
    assert doctor.servers() == f"ollama, {served}"
