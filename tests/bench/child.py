"""One measurement on the card, in a process of its own."""

import json
import random
import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from reflectevo_lite import generate, store, train
from reflectevo_lite.generate import TransformersEngine
from reflectevo_lite.run.memory import card

from .cpu import tokens
from .table import comparison, paired

SHAPES = {  # name: (architecture, shape, rows in a batch)
    "Qwen3-1.7B": ("qwen3", generate.KNOWN["Qwen/Qwen3-1.7B"], 8),
    "Llama-3-8B": ("llama", generate.KNOWN["meta-llama/Meta-Llama-3-8B-Instruct"], 4),
    "smoke": ("llama", generate.Shape(64, 2, 4, 2, 16, 128, 512, True, linear=73_728), 2),
}
ARMS = {  # name: this package's path, 4 bits, what it adds to the trainer's arguments (SFT only)
    "plain": (False, False, {}),
    "ours": (True, False, {}),
    "plain, 4 bits": (False, True, {}),
    "ours, 4 bits": (True, True, {}),
    "ours, packed": (True, False, {"packing": True}),
    "ours, padding-free": (True, False, {"padding_free": None}),  # None: Unsloth's own choice
}
WARM_UP = 3  # first steps, left out: compilation
RANK, MAX_LENGTH = 16, 2048
LENGTHS = {"prompt": (200, 700), "completion": (100, 350), "chosen": (100, 350), "rejected": (100, 350)}  # in tokens


def make_model(shape: str, folder: str) -> dict[str, Any]:
    """Save a randomly initialised model of a shape to `folder`, in 16 bits, with the embedded model's tokenizer."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(generate.resolve(generate.TINY))
    model = _random(shape, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return {"parameters": model.num_parameters()}


def _random(name: str, **tokens: Any) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    kind, s, _ = SHAPES[name]
    options = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id")) | tokens
    options |= {"hidden_size": s.hidden, "num_hidden_layers": s.layers, "intermediate_size": s.intermediate}
    options |= {"num_attention_heads": s.heads, "num_key_value_heads": s.kv_heads, "head_dim": s.head_dim}
    options |= {"vocab_size": s.vocab, "tie_word_embeddings": s.tied, "max_position_embeddings": 8192}
    config = AutoConfig.for_model(kind, **options)
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)


def rows_of(kind: str, n: int, tokenizer: Any, longest: int = MAX_LENGTH, seed: int = 0) -> list[dict[str, str]]:
    """`n` rows of random words whose lengths vary as `LENGTHS`, in tokens; shorter in proportion to `longest`."""
    names = ("prompt", "completion") if kind == "sft" else ("prompt", "chosen", "rejected")
    rng, share = random.Random(seed), min(1.0, longest / MAX_LENGTH)
    words = sorted({tokenizer.decode([i]).strip() for i in range(min(len(tokenizer), 20_000))})
    twice = tokenizer([f"{word} {word}" for word in words], add_special_tokens=False)["input_ids"]
    # words that are one token each, alone and after another
    words = [word for word, ids in zip(words, twice, strict=True) if word.isalnum() and len(ids) == 2]
    lengths = [{name: max(2, int(rng.randint(*LENGTHS[name]) * share)) for name in names} for _ in range(n)]
    return [{name: " ".join(rng.choices(words, k=tokens)) for name, tokens in row.items()} for row in lengths]


def train_steps(folder: str, shape: str, kind: str, arm: str, steps: int = 8, repeat: int = 0) -> dict[str, Any]:
    """Train `steps` steps after the warm-up: real tokens a second (padding is not counted), peak memory, share of peak."""
    on_card, (_, sizes, batch) = torch.cuda.is_available(), SHAPES[shape]
    trainer, backend = _trainer(folder, kind, arm, batch, steps, MAX_LENGTH if on_card else 64)
    seen, ends = _watch(trainer)
    trainer.train()
    rate = sum(seen[WARM_UP : WARM_UP + steps]) / (ends[-1] - ends[WARM_UP - 1])
    weights = sizes.linear + sizes.vocab * sizes.hidden  # an input embedding is a look-up
    known = card(torch.cuda.get_device_name(0)) if on_card else None
    operations = (4 + 2 * (kind == "dpo")) * weights  # a token's: 4 per weight for LoRA, 2 more for DPO's reference
    return {
        "tokens_per_s": rate,
        "peak_gib": torch.cuda.max_memory_allocated() / generate.GIB if on_card else None,
        "share_of_peak": rate * operations / (known.tflops * 1e12) if known else None,
        "loss": trainer.state.log_history[0].get("loss"),
        "backend": backend,
    }


def _trainer(folder: str, kind: str, arm: str, batch: int, steps: int, longest: int) -> tuple[Any, str]:
    """TRL's trainer with its defaults but for what all arms share; ours starts from every argument made explicit."""
    ours, in_4bit, extra = ARMS[arm]
    backend = "auto" if ours else "transformers"
    unsloth = generate.choose_backend(backend).unsloth  # before trl is imported
    import trl
    from datasets import Dataset

    how = {"dtype": "bfloat16", "load_in_4bit": in_4bit, "backend": backend, "for_training": True}
    loaded = generate.load(folder, max_length=longest, **how)
    lora = {"lora_r": RANK, "lora_alpha": 2 * RANK, "gradient_checkpointing": True, "max_length": longest}
    model, peft_config = train.trainable(loaded, train.TrainParams(learning_rate=1e-4, epochs=1, **lora))
    arguments = {
        "output_dir": f"{folder}/trainer", "seed": 0, "max_steps": steps + WARM_UP, "max_length": longest, "bf16": True,
        "per_device_train_batch_size": batch, "gradient_accumulation_steps": 1, "gradient_checkpointing": True,
        "learning_rate": 1e-4, "optim": "adamw_torch_fused", "max_grad_norm": 1.0, "weight_decay": 0.0, "warmup_steps": 0,
        "logging_steps": 1, "save_strategy": "no", "report_to": "none", "disable_tqdm": True,
        "use_cpu": model.device.type == "cpu",
    }  # fmt: skip
    if ours:
        arguments = train.explicit(kind, unsloth=unsloth) | arguments | extra
    rows = rows_of(kind, (steps + WARM_UP + 2) * batch * (4 if extra.get("packing") else 1), loaded.tokenizer, longest)
    config, trainer_class = (trl.SFTConfig, trl.SFTTrainer) if kind == "sft" else (trl.DPOConfig, trl.DPOTrainer)
    given = {"processing_class": loaded.tokenizer, "peft_config": peft_config}
    trainer = trainer_class(model, args=config(**arguments), train_dataset=Dataset.from_list(rows), **given)
    if ours:
        train.settle(trainer)
    return trainer, loaded.backend


def _watch(trainer: Any) -> tuple[list[int], list[float]]:
    """Lists that training fills: real tokens of each batch, and the moment each step ended."""
    from transformers import TrainerCallback

    seen, ends, collate = [], [], trainer.data_collator

    def counted(examples: Any) -> Any:
        batch = collate(examples)
        mask = batch.get("attention_mask")
        seen.append(int(mask.sum()) if mask is not None else batch["input_ids"].numel())
        return batch

    class Clock(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            ends.append(time.perf_counter())

    trainer.data_collator = counted
    trainer.add_callback(Clock())
    return seen, ends


def answer(batching: str, shape: str, prompts: int, new_tokens: int, rounds: int) -> Iterator[dict[str, Any]]:
    """Greedy generation in batches against one prompt at a time: the comparison so far, after every round."""
    from transformers import AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(generate.resolve(generate.TINY)), _random(shape).eval()
    loaded = generate.Loaded(model, tokenizer, "random", f"transformers on {model.device.type}")
    ours = TransformersEngine(loaded, batching=batching)
    one = TransformersEngine(loaded, batching="generate", batch_tokens=1)
    ours.stops = one.stops = []  # random weights end no turn: every completion is as long as asked for
    asked = [[{"role": "user", "content": row["prompt"]}] for row in rows_of("sft", prompts, tokenizer)]
    both = partial(tokens, ours, asked, new_tokens), partial(tokens, one, asked[:2], new_tokens)
    name, pairs = f"generation, {batching} ({new_tokens} new tokens, {prompts} prompts)", []
    for pair in paired(*both, rounds):
        if ours.batching != batching:
            raise RuntimeError(f"{batching} batches failed, see above")
        pairs.append(pair)
        yield {"batching": batching} | comparison(name, "tokens/s", "one prompt at a time", pairs)


def main() -> None:
    """Import the libraries, wait for a line on the input, measure, and write what was found to a file."""
    what, options, result = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
    if what == "train_steps":
        generate.choose_backend("auto" if ARMS[options["arm"]][0] else "transformers")  # before trl is imported
    import trl  # noqa: F401 - ready before the measurement begins

    if sys.stdin.readline():  # else the bench has ended
        found = {"make_model": make_model, "train_steps": train_steps, "answer": answer}[what](**options)
        for part in found if what == "answer" else [found]:
            store.write_json(result, part)
