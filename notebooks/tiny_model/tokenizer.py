"""The tokenizer: every fixed sentence of the prompts and tasks is one token; any other text is spelled in bytes."""

from collections.abc import Iterable
from typing import Any

from reflectevo_lite import prompts
from reflectevo_lite.embedded.tasks import NAMES, ORDINALS, Arithmetic, Lists
from reflectevo_lite.embedded.truth import CAUSES, MARK

from .corpus import Example

PAD, USER, ASSISTANT, END = "<|pad|>", "<|user|>", "<|assistant|>", "<|end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def phrases() -> list[str]:
    """The vocabulary, in the order of its ids: what the prompts and the embedded tasks are made of."""
    locate = (text for _, text in prompts.LOCATE.values())
    formats = [text for kind, text in prompts.ANSWER_FORMAT.items() if kind != "scored"]  # younger than the weights
    sentences = [*prompts.VERIFY.values(), *locate, *prompts.PLAN.values(), prompts.GENERIC, prompts.LIMITS]
    sentences += [prompts.NOTHING_WRONG, prompts.RETRY, prompts.ONE_STAGE, prompts.ONE_STAGE_LAYOUT, *formats]
    sentences += [prompts.ANSWER_ONLY, *CAUSES.values(), "Plan: keep the answer."]
    heads = [f" {prompts.REFLECTION_FOLLOWS}\n\n", f"\n\n{prompts.RETRY_WITH_REFLECTION}"]
    heads += [prompts.REFLECTION_HEAD, prompts.SECOND_ATTEMPT_HEAD]
    blame = ["I find no mistake.", " I find no mistake.", "Step", " Step", "The answer", " The answer"]
    blame += [" is right.", " is wrong:", " is wrong.", " is missing:", " is missing."]
    plan = [" Plan:", " redo step", " add step", ":", " with care and go on from there."]
    plan += [" state the answer with care.", " write it as a digit.", " read it off the last step.", "."]
    steps = [" gives", "\nAnswer:", "Answer:", *(f"{start}Step {i}:" for i in range(1, 7) for start in ("", "\n"))]
    asked = [*_spaced(sentences), *prompts.VERDICT.values(), MARK, *(f"\n\n{text}" for text in formats)]
    signs, moves = Arithmetic.SIGN, Lists.MOVES
    arithmetic = [*_spaced(range(10)), *_spaced(signs.values()), *_spaced(signs)]
    arithmetic += [*_commands(signs), "Start with", ". What is the result modulo 10?", " zero"]
    lists = [*_spaced("abcdef"), *_spaced(moves), *_commands(moves), "Start with the list", ". What is the list now?"]
    lineup = [*NAMES, *_spaced(NAMES), " stands before", ". Put", *_spaced(("put", "before", "after", "first", "last"))]
    lineup += [*(f". Who is {ordinal}?" for ordinal in ORDINALS), *(f" find the {ordinal}" for ordinal in ORDINALS)]
    lineup += [*(f"\n({letter})" for letter in "ABCD"), *_spaced("ABCD"), " none of them"]
    return list(dict.fromkeys(asked + heads + blame + plan + steps + arithmetic + lists + lineup))


def _spaced(words: Iterable[object]) -> list[str]:
    return [f" {word}" for word in words]


def _commands(verbs: Iterable[str]) -> list[str]:
    return [f". {verb.capitalize()}" for verb in verbs]


def build_tokenizer() -> Any:
    """A fast unigram tokenizer whose pieces are `phrases()`, with byte fallback: any text survives a round trip."""
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    special = [PAD, USER, ASSISTANT, END]
    vocab = [(token, 0.0) for token in [*special, "<unk>"]] + [(f"<0x{b:02X}>", -20.0) for b in range(256)]
    vocab += [(phrase, -1.0) for phrase in phrases()]  # equal scores: the fewest pieces win
    backend = Tokenizer(models.Unigram(vocab, unk_id=len(special), byte_fallback=True))
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    backend.add_special_tokens(special)
    tokens = {"pad_token": PAD, "eos_token": END, "unk_token": "<unk>", "additional_special_tokens": [USER, ASSISTANT]}
    limits = {"model_max_length": 1024, "padding_side": "left", "clean_up_tokenization_spaces": False}
    return PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=CHAT_TEMPLATE, **tokens, **limits)


def encode(tokenizer: Any, example: Example) -> tuple[list[int], list[int]]:
    """Token ids and labels (−100 for what bears no loss); a trained turn's end token is trained too."""
    ids, labels = [], []
    texts = tokenizer([message["content"] for message in example.messages], add_special_tokens=False)["input_ids"]
    for message, trained, text in zip(*example, texts, strict=True):
        turn = [*text, tokenizer.eos_token_id]
        ids += [tokenizer.convert_tokens_to_ids(f"<|{message['role']}|>"), *turn]
        labels += [-100, *(turn if trained else [-100] * len(turn))]
    return ids, labels
