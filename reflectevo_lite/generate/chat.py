"""The chat template of a run: the model's own or a given one, with nothing in it that changes from day to day."""

from __future__ import annotations

import importlib.util
import json
import re
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import store

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TEMPLATE = {"enable_thinking": False}  # what chat templates are told, in generation and in training alike (Qwen-3)
TODAY = date(2024, 7, 26)  # on every day, for templates that name it: that of Llama-3.1's own template
PLAIN = """{% for m in messages %}{{ '### ' + m.role.capitalize() + ':\n' + m.content }}
{%- if m.role == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '### Assistant:\n' }}{% endif %}"""  # for base models: ends turns with their own token
_TODAY = re.compile(r"""strftime_now\(\s*(["'])(.*?)\1\s*\)""")
_SYSTEM = """{%% if messages[0].role != 'system' %%}
{%%- set messages = [{'role': 'system', 'content': %s}] + messages %%}{%% endif %%}"""


def tokenizer(path: str, how: Any, name: str = "") -> PreTrainedTokenizerBase:
    """The tokenizer at `path` with the run's chat template (`how`: `LoadParams`), in which today is `TODAY`.

    transformers' own on both backends: Unsloth's mends chat templates. Raises ValueError, naming the model, for one
    without a template, and for a template that does not end turns, takes no system message or hides today's date.
    """
    from transformers import AutoTokenizer

    found: Any = AutoTokenizer.from_pretrained(path)
    if found.pad_token_id is None:
        found.pad_token = found.eos_token
    found.padding_side = "left"
    name = name or path
    if how.chat_template:
        found.chat_template = _named(how.chat_template)
        if end_of_turn(found) is None:
            raise ValueError(f"chat_template {how.chat_template} ends no turn with a token of {name}: try plain")
    if not found.chat_template:
        raise ValueError(f"{name} has no chat template, as base models have none: set chat_template to plain or a file")
    text = found.get_chat_template()
    pinned = _TODAY.sub(lambda call: json.dumps(TODAY.strftime(call[2])), text)
    if "strftime_now(" in pinned:
        raise ValueError(f"the chat template of {name} asks for today's date in an unknown way: set chat_template")
    if how.system_prompt:
        pinned = _SYSTEM % json.dumps(how.system_prompt, ensure_ascii=False) + pinned
    if pinned != text:
        found.chat_template = pinned
    try:
        found.apply_chat_template([{"role": "user", "content": "?"}], tokenize=False)
    except Exception as error:  # jinja2's, and whatever a template raises
        raise ValueError(f"{name}: its chat template fails ({error}): give another, or system_prompt: null") from error
    return found


def _named(chosen: str) -> str:
    """A template by its file, or by the name of one: "plain", or of those that TRL ships."""
    if chosen == "plain":
        return PLAIN
    shipped = {file.stem: file for file in files_of("trl", "chat_templates/*.jinja")}
    file = shipped.get(chosen) or store.resolve_dir(chosen)
    if not file.is_file():
        raise ValueError(f"no chat_template {chosen!r}: give a file, plain, or one of {', '.join(sorted(shipped))}")
    return file.read_text(encoding="utf-8")


def files_of(package: str, pattern: str) -> list[Path]:
    """Files of an installed package, which is not imported; none if it is not installed."""
    spec = importlib.util.find_spec(package)
    places = (spec.submodule_search_locations if spec else None) or ()
    return sorted(file for place in places for file in Path(place).glob(pattern))


def stop_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Every token that ends a turn: of the generation configuration, the tokenizer, and the chat template."""
    # published configurations may lack the template's (early Gemma-2: `<end_of_turn>`), and the model would talk on
    configured = model.generation_config.eos_token_id
    found = configured if isinstance(configured, list) else [configured]
    return sorted({i for i in [*found, tokenizer.eos_token_id, end_of_turn(tokenizer)] if i is not None})


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The special token that follows an assistant's message in the chat template; None if there is none."""
    if not tokenizer.chat_template:
        return None
    turns = [{"role": "user", "content": "question"}, {"role": "assistant", "content": "reply"}]
    after = tokenizer.apply_chat_template(turns, tokenize=False).rpartition("reply")[2]
    ids, added = tokenizer(after, add_special_tokens=False)["input_ids"], tokenizer.added_tokens_decoder
    return next((i for i in ids if i in added and added[i].special), None)
