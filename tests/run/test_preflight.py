"""What would stop a run after an hour is said in a line before it begins, and a wrong choice locks no run directory."""

import json
import shutil
from collections import namedtuple

import pytest

from reflectevo_lite import generate, store
from reflectevo_lite.run import cli, params, preflight, record

NOTEBOOK = "02_reflection_generation"


def edit(folder, file, **change):
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | change), encoding="utf-8")


def leave(folder, *kept):
    for path in folder.iterdir():
        if path.name not in kept:
            path.unlink()


def adapter(folder):
    leave(folder)
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "some/base"}')


def weights(text):
    return lambda folder: (folder / "model.safetensors").write_bytes(text)


def no_template(folder):
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    edit(folder, "tokenizer_config.json", chat_template=None)


BROKEN = [
    (adapter, r"is an adapter of some/base, not a model: set model to that one"),
    (weights(b"version https://git-lfs.github.com/spec/v1\noid sha256:0"), r"pointer of Git LFS.*git lfs pull"),
    (weights(b""), r"model.safetensors is torn .*download the model whole"),
    (lambda folder: leave(folder), r"a folder without config.json, weights, a tokenizer"),
    (lambda folder: leave(folder, "config.json", "tokenizer.json"), r"a folder without weights:"),
    (lambda folder: (folder / "config.json").unlink(), r"a folder without config.json"),
    (lambda folder: edit(folder, "config.json", model_type="nothing"), r"cannot load model .*nothing"),
    (lambda folder: (folder / "config.json").write_text("{"), r"cannot load model"),
    (lambda folder: edit(folder, "config.json", max_position_embeddings=512), r"max_length, 1,024 tokens, is over the context of .*512"),
    (lambda folder: [f.unlink() for f in folder.glob("tok*")], r"a folder without a tokenizer"),
    (lambda folder: (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-100]), r"torn"),
    (lambda folder: (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-2.safetensors"}}'), r"without model-2.safetensors"),
    (lambda folder: (folder / "config.json").write_text("{}"), r"cannot load model .*model_type"),
    (lambda folder: (folder / "tokenizer.json").write_text("{"), r"cannot load model"),
    (lambda folder: edit(folder, "tokenizer_config.json", eos_token=None), r"names no eos_token"),
    (no_template, r"has no chat template.*set chat_template"),
]  # fmt: skip


@pytest.fixture
def asked(tmp_path, capsys):
    def ask(*words, command="run"):
        given = [text for name, value in words for text in ("-p", name, str(value))]
        said = cli.main([command, "params/tiny_cpu.yaml", "-p", "run_dir", str(tmp_path / "run"), *given])
        return said, capsys.readouterr().err

    return ask


@pytest.mark.parametrize(("spoil", "line"), BROKEN, ids=[line[:30] for _, line in BROKEN])
def test_a_model_that_cannot_be_loaded_is_told_before_anything_runs(tmp_path, asked, spoil, line):
    folder = tmp_path / "model"
    shutil.copytree(generate.resolve("tiny"), folder)
    spoil(folder)
    code, said = asked(("model", folder))
    assert code == 2 and said.count("\n") == 1 and "Traceback" not in said
    with pytest.raises(AssertionError, match=line):
        raise AssertionError(said)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"model": "nobody/nothing"}, "cannot load model 'nobody/nothing'"),
        ({"model": "./nowhere"}, "cannot load model './nowhere': no such folder"),
        ({"chat_template": "no_such"}, "no chat_template 'no_such'"),
        (
            {"max_new_tokens": 100_000},
            "two answers and a reflection of max_new_tokens, 300,000 tokens, is over the context",
        ),
        ({"model": "no_such.gguf"}, "no GGUF file at"),
        ({"judge": "server"}, "judge_url"),
        ({"server_url": "http://127.0.0.1:9/v1"}, "judge 'gain' scores text with a model in this process"),
        ({"server_url": "http://127.0.0.1:9/v1", "judge": "server"}, "127.0.0.1:9"),
        ({"chat_template": "no_such", "model": "COPY"}, "no chat_template 'no_such'"),
    ],
)
def test_other_things_that_are_missing(tmp_path, asked, monkeypatch, given, line):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    shutil.copytree(generate.resolve("tiny"), tmp_path / "model")
    code, said = asked(*(given | {"model": tmp_path / "model"} if given.get("model") == "COPY" else given).items())
    assert code == 2 and line in said and said.count("\n") == 1 and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"sources": ["synthetic:nonsense"]}, "unknown source 'synthetic:nonsense'"),
        ({"sources": ["gsm9k"]}, "unknown source 'gsm9k'; did you mean 'gsm8k'?"),
        ({"sources": ["synthetic", "synthetic"]}, "the source 'synthetic' is named twice"),
        ({"instructions": "nonsense"}, "unknown reflection instruction nonsense"),
        ({"other_seeds": ["nowhere"]}, "other_seeds: there is no nowhere"),
        ({"processes": 3, "sft_batch_size": 4}, "batch_size 4 cannot be shared by 3 processes"),
        ({"n_train": 10**12}, "n_train"),
    ],
)
def test_what_a_notebook_would_refuse_later(asked, tmp_path, given, line):
    code, said = asked(*given.items())
    assert code == 2 and line in said and said.count("\n") == 1 and not (tmp_path / "run").exists()


def test_grpo_is_checked_before_all_that_comes_before_it():
    wrong = params.defaults() | {"grpo_batch_size": 3, "grpo_generations": 2}
    with pytest.raises(ValueError, match="generations"):
        preflight._check_values(wrong, ["grpo"])
    preflight._check_values(wrong, ["02_reflection_generation"])


def test_disk_and_rights(tmp_path, asked, monkeypatch):
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as here:
        here.setattr(preflight.shutil, "disk_usage", lambda path: usage(1, 1, 100 << 20))
        code, said = asked()
        assert code == 2 and "has 0.1 GiB free, and the run needs some 0.5 GiB" in said
    monkeypatch.setattr(preflight.os, "access", lambda path, mode: False)
    code, said = asked()
    assert code == 2 and "cannot be written: choose another run_dir" in said and not (tmp_path / "run").exists()
    assert preflight.check(params.defaults(), [], tmp_path) == []  # a finished run writes nothing more


def test_a_plan_says_it_and_goes_on(tmp_path, asked):
    folder = tmp_path / "model"
    shutil.copytree(generate.resolve("tiny"), folder)
    weights(b"")(folder)
    code, said = asked(("model", folder), command="plan")
    assert code == 0 and "is torn" in said


def test_only_what_files_hang_on_is_held_fast(tmp_path):
    given = params.defaults(NOTEBOOK) | {"run_dir": str(tmp_path), "k": 3}
    record.open_run("01_data", {"run_dir": str(tmp_path)})
    run, _ = record.open_run(NOTEBOOK, given)
    run, p = record.open_run(NOTEBOOK, given | {"k": 4})  # nothing is made yet: a wrong choice may be mended
    assert p.k == 4 and run.params()[NOTEBOOK]["k"] == 4
    store.write_text(run.path("rollouts", "train.jsonl"), "")
    with pytest.raises(store.ChangedParameters) as error:
        record.open_run(NOTEBOOK, given | {"k": 5})
    said = str(error.value)
    assert "k was 4, is 5" in said and "rollouts" in said and "--only 02,03,04,05,06 --force" in said
