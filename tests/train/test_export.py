"""Exports: what is reloaded answers as the trained model did; cards hold the run's numbers; refusals say the remedy."""

import importlib
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from conftest import ScriptedEngine

from reflectevo_lite import curate, generate, store
from reflectevo_lite.curate import sets
from reflectevo_lite.embedded import tasks as synthetic
from reflectevo_lite.generate import engines, models, rollouts
from reflectevo_lite.run import cli
from reflectevo_lite.train import training

export = importlib.import_module("reflectevo_lite.train.export")  # the door has a function of this name
ROWS = [
    {"setting": s, "mode": "oracle", "control": None, "task": "all", "n": 500, "acc_t1": 0.5, "acc_t2": 0.7125,
     "delta": 0.2125, "delta_ci": [0.19, 0.2375], "flips": {}, "tokens": 1}
    for s in ("reflector_only", "one_stage")
]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run with a trained Reflector, and its greedy texts on questions it was not trained on."""
    run = store.Run(tmp_path_factory.mktemp("run"))
    problems = synthetic.problems(60, "train", seed=21)
    rows = rollouts.generate_rollouts(
        ScriptedEngine(problems), problems, run.path("r.jsonl"), k=4, temperature=1.0, progress=False
    )
    data = curate.examples("reflector", sets.unfiltered(rows, 48))
    params = training.TrainParams(learning_rate=5e-3, epochs=2, batch_size=8, backend="transformers")
    training.train_sft(data, run.path("adapters", "reflector"), model="tiny", params=params)
    store.write_json(run.path("metrics.json"), {"rows": ROWS})
    store.write_json(run.path("env.json"), {"versions": {"trl": "9.9"}, "data": {"train.jsonl": "abc123"}})
    prompts = [row["prompt"] for row in data[:12]]
    return run, prompts, texts("tiny", prompts, run.path("adapters", "reflector"))


def texts(model, prompts, adapter=None):
    engine = engines.TransformersEngine(models.load(str(model), backend="transformers"))
    return [c[0].text for c in engine.generate(prompts, max_new_tokens=48, adapter=adapter)]


@pytest.fixture(scope="module")
def exported(trained):
    assert cli.main(["export", str(trained[0].directory), "--merged"]) == 0
    assert cli.main(["export", str(trained[0].directory), "--setting", "reflector_only"]) == 0  # of that adapter
    return trained[0].path("exports", "reflector")


def test_the_adapter_answers_as_it_was_trained(trained, exported):
    _, prompts, said = trained
    assert texts("tiny", prompts) != said  # the training left its mark, else nothing is shown
    assert texts("tiny", prompts, exported / "adapter") == said


def test_the_merged_model_answers_as_the_adapter_did(trained, exported):
    _, prompts, said = trained
    assert texts(exported / "merged", prompts) == said
    assert not list(exported.glob(".*.part")) and (exported / "merged" / "model.safetensors").exists()


def test_the_adapter_loads_with_peft_alone(exported):
    from peft import AutoPeftModelForCausalLM

    model = AutoPeftModelForCausalLM.from_pretrained(str(exported / "adapter"))
    assert model.active_adapters == ["default"]


@pytest.mark.parametrize("form", ["adapter", "merged"])
def test_the_card_holds_the_runs_numbers_and_data(exported, form):
    card = (exported / form / "README.md").read_text()
    assert "| reflector_only | 50.0 | 71.2 | 21.2 | 19.0 to 23.8 | 500 |" in card and "one_stage" not in card
    assert "48 rows, 12 steps" in card and "| learning_rate | 0.005 |" in card and "| trl | 9.9 |" in card
    assert "abc123" in card and generate.fingerprint("tiny") in card and "stay under its licence" in card
    assert card.startswith("---\n") and f"library_name: {'peft' if form == 'adapter' else 'transformers'}\n" in card


def test_a_run_without_that_adapter_says_which_there_are(trained, capsys):
    assert cli.main(["export", str(trained[0].directory), "--setting", "dpo_pm"]) == 2
    assert "no trained adapter 'dpo_pm'; there are reflector" in capsys.readouterr().err


@pytest.fixture
def converter(tmp_path, monkeypatch):
    """llama.cpp's converter as far as its command line goes."""
    script = tmp_path / "llama.cpp" / "convert_hf_to_gguf.py"
    script.parent.mkdir()
    script.write_text(
        "import json, sys, pathlib\n"
        "model, args = pathlib.Path(sys.argv[1]), dict(zip(sys.argv[2::2], sys.argv[3::2]))\n"
        "kind = json.loads((model / 'config.json').read_text())['architectures'][0]\n"
        "if args['--outtype'] == 'bf16': sys.exit('Model ' + kind + ' is not supported')\n"
        "pathlib.Path(args['--outfile']).write_bytes(b'GGUF' + kind.encode())\n"
    )
    monkeypatch.setenv("LLAMA_CPP", str(script.parent))
    monkeypatch.setenv("PATH", os.path.dirname(sys.executable))


def test_gguf_goes_through_llama_cpps_converter(trained, exported, converter):
    path = export.to_gguf(exported / "merged", exported / "gguf", "q8_0")
    assert path.name == "model-q8_0.gguf" and path.read_bytes() == b"GGUFLlamaForCausalLM"
    with pytest.raises(ValueError, match=r"cannot convert .*: Model LlamaForCausalLM is not supported"):
        export.to_gguf(exported / "merged", exported / "gguf", "bf16")


def test_a_missing_converter_is_said_before_anything_is_merged(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("LLAMA_CPP", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(export, "_write", lambda *args: pytest.fail("written first"))
    assert cli.main(["export", str(trained[0].directory), "--gguf"]) == 2
    assert "git clone https://github.com/ggml-org/llama.cpp" in capsys.readouterr().err
    with pytest.raises(ValueError, match="unknown GGUF precision 'q4'; the converter writes f32, f16, bf16, q8_0"):
        export.export(trained[0].directory, gguf="q4")


def test_k_quants_take_llama_quantize_and_leave_no_half_way_file(exported, converter):
    with pytest.raises(ValueError, match=r"q4_k_m needs llama\.cpp's llama-quantize"):
        export.to_gguf(exported / "merged", exported / "k", "q4_k_m")
    tool = Path(export.llama_cpp("q8_0")[0]).parent / "build" / "bin" / "llama-quantize"
    tool.parent.mkdir(parents=True)
    tool.write_text('#!/bin/sh\nprintf "%s:" "$3" > "$2"; /bin/cat "$1" >> "$2"\n')
    tool.chmod(0o755)
    path = export.to_gguf(exported / "merged", exported / "k", "q4_k_m")
    assert path.read_bytes() == b"Q4_K_M:GGUFLlamaForCausalLM" and [p.name for p in path.parent.iterdir()] == [
        path.name
    ]


def test_a_push_sends_the_merged_model_to_a_private_repository(exported, monkeypatch):
    import huggingface_hub

    calls = []
    monkeypatch.setattr(huggingface_hub, "create_repo", lambda repo, **kw: calls.append((repo, kw)))
    monkeypatch.setattr(huggingface_hub, "upload_folder", lambda **kw: calls.append(kw))
    assert export.push_to_hub(exported / "merged", "me/model") == "https://huggingface.co/me/model"
    assert calls[0] == ("me/model", {"private": True, "exist_ok": True})
    assert calls[1]["repo_id"] == "me/model" and calls[1]["folder_path"] == str(exported / "merged")


def test_a_push_that_fails_is_one_line(trained, monkeypatch):
    import huggingface_hub

    def offline(*args, **kwargs):
        raise huggingface_hub.errors.LocalTokenNotFoundError("Token is required\nmore")

    monkeypatch.setattr(huggingface_hub, "create_repo", offline)
    with pytest.raises(
        ValueError, match=r"^cannot push to me/model: Token is required \(log in with `hf auth login`\)$"
    ):
        export.push_to_hub("x", "me/model")
    with pytest.raises(ValueError, match="'model' is no repository on the Hub: write owner/name"):
        export.export(trained[0].directory, push="model")


def test_a_re_export_replaces_the_old_one_whole(trained, tmp_path):
    first = export.export(trained[0].directory, out=tmp_path / "x").paths["adapter"]
    (first / "stale").write_text("x")
    again = export.export(trained[0].directory, out=tmp_path / "x").paths["adapter"]
    assert again == first and not (first / "stale").exists()
    assert json.loads((first / "adapter_config.json").read_text())["base_model_name_or_path"] == models.resolve("tiny")
