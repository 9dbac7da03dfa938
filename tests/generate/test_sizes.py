"""Sizes of models from their configurations: the table agrees with what transformers builds, and the rest is counted."""

import json
import subprocess
import sys

import pytest

from reflectevo_lite.generate import sizes

SMALL = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "vocab_size": 100,
}
KINDS = {
    "meta-llama": "llama",
    "mistralai": "mistral",
    "google": "gemma2",
    "HuggingFaceTB": "llama",
    "Qwen/Qwen2.5": "qwen2",
    "Qwen/Qwen3": "qwen3",
}


@pytest.mark.parametrize("name", sizes.KNOWN)
def test_the_tables_shapes_are_those_that_transformers_builds(name):
    known = sizes.KNOWN[name]
    config = {
        "model_type": next(kind for start, kind in KINDS.items() if name.startswith(start)),
        "hidden_size": known.hidden,
        "num_hidden_layers": known.layers,
        "num_attention_heads": known.heads,
        "num_key_value_heads": known.kv_heads,
        "head_dim": known.head_dim,
        "intermediate_size": known.intermediate,
        "vocab_size": known.vocab,
        "tie_word_embeddings": known.tied,
    }
    found = sizes.shape_from_config(config)
    for of in (lambda s: s.parameters, lambda s: s.linear, lambda s: s.cache, lambda s: s.tied, lambda s: s.lora(16)):
        assert of(found) == of(known)


@pytest.mark.parametrize("kind", ["gpt_neox", "phi3", "olmo2", "mixtral"])
def test_any_decoder_that_transformers_builds_is_counted(kind, tmp_path):
    config = {"model_type": kind, **SMALL, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    found = sizes.shape_of(str(tmp_path))
    assert (found.hidden, found.layers, found.kv_heads * found.head_dim % 16) == (64, 2, 0)
    assert found.parameters > found.linear > 0 and found.cache > 0
    attention = 64 * 3 * 64 + 64 * 64
    if kind == "gpt_neox":  # what a Llama-like decoder does in seven matrices, it does in four
        assert found.linear == 2 * (attention + 2 * 64 * 96)
        assert found.lora(2) == 2 * 2 * (64 + 192 + 64 + 64 + 2 * (64 + 96))


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"model_type": "mamba"}, "type 'mamba': 'MambaConfig' object has no attribute 'num_attention_heads'"),
        ({"model_type": "nobodys"}, "type 'nobodys': Unrecognized model identifier: nobodys"),
        ({}, "type '?'"),
    ],
)
def test_what_cannot_be_counted_is_said_in_one_line(config, why):
    with pytest.raises(ValueError, match="no size is known for models of ") as caught:
        sizes.shape_from_config(config)
    assert why in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 200


def test_an_unknown_name_is_told_what_is_known(tmp_path):
    for name in ("nobody/nothing", str(tmp_path)):
        with pytest.raises(ValueError, match=r"is not known: give a folder.*Qwen/Qwen3-8B"):
            sizes.shape_of(name)


def test_the_table_is_read_without_torch():
    code = "import sys; from reflectevo_lite import generate; generate.shape_of('Qwen/Qwen3-8B').parameters; "
    subprocess.run(
        [sys.executable, "-c", code + "sys.exit(bool({'torch', 'transformers', 'openai'} & set(sys.modules)))"],
        check=True,
    )


def test_a_real_models_batches_are_smaller_on_a_cpu(engine):
    small, real = sizes.shape_from_config(engine.model.config.to_dict()), sizes.KNOWN["Qwen/Qwen3-1.7B"]
    assert sizes.fitting_batch_tokens(engine.model) == sizes.default_batch_tokens(small, 4, "cpu") == 65_536
    tokens = sizes.default_batch_tokens(real, 4, "cpu")
    assert 16_000 < tokens < 20_000 and tokens * real.cache * 4 <= 4 << 30
    assert sizes.default_batch_tokens(real, 2, "cuda") == 131_072
