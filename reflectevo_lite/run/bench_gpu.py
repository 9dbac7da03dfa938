"""Training steps on a GPU: plain TRL + PEFT against this package's path, at the shapes of real models.

    python -m reflectevo_lite.bench_gpu OUT          (also: reflectevo bench --gpu)

Models are randomly initialised, so no weights are needed: speed and memory do not depend on their values. Every
measurement is a process of its own, since Unsloth changes trl for the whole process, and the arms take turns, so that a
card that slows down slows all of them. Tokens are real ones, padding not counted; the first steps (compilation) are left
out. The model's own operations are counted for the share of the card's peak: 4 per weight and token for LoRA, 2 more for
DPO's reference, recomputation not counted.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import generate, store
from . import planning

SMOKE = generate.Shape(64, 2, 4, 2, 16, 128, 512, True)
SHAPES = {  # name: (architecture, shape, rows in a batch)
    "Qwen3-1.7B": ("qwen3", generate.KNOWN["Qwen/Qwen3-1.7B"], 8),
    "Llama-3-8B": ("llama", generate.KNOWN["meta-llama/Meta-Llama-3-8B-Instruct"], 4),
    "smoke": ("llama", SMOKE, 2),
}
ARMS = {  # name: this package's path, 4 bits, packed rows (SFT only)
    "plain": (False, False, False),
    "ours": (True, False, False),
    "ours, packed": (True, False, True),
    "ours, padding-free": (True, False, None),
    "plain, 4 bits": (False, True, False),
    "ours, 4 bits": (True, True, False),
}
AGAINST = {"ours": "plain", "ours, packed": "plain", "ours, padding-free": "plain", "ours, 4 bits": "plain, 4 bits"}
WARM_UP = 3
RANK, MAX_LENGTH = 16, 2048
TRAINING = {
    "learning_rate": 1e-4,
    "optim": "adamw_torch_fused",
    "max_grad_norm": 1.0,
    "weight_decay": 0.0,
    "warmup_steps": 0,
}


def run(
    out: str | Path,
    *,
    shapes: Sequence[str] = ("Qwen3-1.7B", "Llama-3-8B"),
    repeats: int = 3,
    steps: int = 8,
    arms: Sequence[str] | None = None,
    cpu: bool = False,
) -> list[dict[str, Any]]:
    """Measure every shape, objective and arm; write gpu_training.json and gpu_training.md to `out`; return the summary.

    A row of the summary: shape, kind, arm, medians of tokens_per_s, peak_gib and share_of_peak over the repeats, and the
    ratios to the plain arm. Without a CUDA device (and without `cpu`, for tests) it says so and returns nothing. An arm
    that fails is kept with its error.
    """
    import torch

    if not (cpu or torch.cuda.is_available()):
        print("bench of training steps: skipped, no CUDA device")
        return []
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in shapes:
        folder = make_model(name, out / ".models" / name)
        for kind in ("sft", "dpo"):
            rows += _interleaved(folder, name, kind, _arms(arms, kind), repeats, steps)
        shutil.rmtree(folder)  # 16 GB at 8 billion parameters
    return write(out, rows, {"shapes": list(shapes), "repeats": repeats, "steps": steps})


def _arms(asked: Sequence[str] | None, kind: str) -> list[str]:
    import importlib.util

    quantises = importlib.util.find_spec("bitsandbytes") is not None
    chosen = asked or [a for a, (_, in_4bit, _) in ARMS.items() if quantises or not in_4bit]
    return [a for a in chosen if kind == "sft" or ARMS[a][2] is False]


def _interleaved(folder: Path, name: str, kind: str, arms: list[str], repeats: int, steps: int) -> list[dict[str, Any]]:
    rows = []
    for repeat in range(repeats):
        for arm in arms:
            row = {"shape": name, "kind": kind, "arm": arm, "repeat": repeat}
            row |= _child(folder, name, kind, arm, steps)
            print(
                f"{name} {kind} {arm}: {row.get('error') or '{:,.0f} tokens/s'.format(row['tokens_per_s'])}", flush=True
            )
            rows.append(row)
    return rows


def _child(folder: Path, name: str, kind: str, arm: str, steps: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "reflectevo_lite.bench_gpu", "--step", str(folder), name, kind, arm, str(steps)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder.parent)
    for line in reversed(done.stdout.splitlines()):
        if line.startswith('{"tokens_per_s"'):
            return json.loads(line)
    return {"error": (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1][:300]}


# -- One measurement ---------------------------------------------------------------------------------------------------------
def make_model(name: str, folder: str | Path) -> Path:
    """A randomly initialised model of a shape, with the embedded model's tokenizer, saved in 16 bits."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    kind, s, _ = SHAPES[name]
    tokenizer = AutoTokenizer.from_pretrained(generate.resolve(generate.TINY))
    config = AutoConfig.for_model(
        kind,
        hidden_size=s.hidden,
        num_hidden_layers=s.layers,
        num_attention_heads=s.heads,
        num_key_value_heads=s.kv_heads,
        head_dim=s.head_dim,
        intermediate_size=s.intermediate,
        vocab_size=s.vocab,
        tie_word_embeddings=s.tied,
        max_position_embeddings=8192,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    del model
    generate.free()
    return Path(folder).resolve()


def rows_of(kind: str, n: int, tokenizer: Any, longest: int, seed: int = 0) -> list[dict[str, str]]:
    """`n` rows of random words whose lengths vary as the paper's do: prompts of 200 to 700 tokens, completions of 100 to 350."""
    rng, words = random.Random(seed), sorted(w for w in tokenizer.get_vocab() if w.isalpha())
    share = min(1.0, longest / MAX_LENGTH)

    def text(low: int, high: int) -> str:
        return " ".join(rng.choices(words, k=max(2, int(rng.randint(low, high) * share))))

    names = ("prompt", "completion") if kind == "sft" else ("prompt", "chosen", "rejected")
    return [{name: text(200, 700) if name == "prompt" else text(100, 350) for name in names} for _ in range(n)]


def measure(folder: str | Path, name: str, kind: str, arm: str, steps: int) -> dict[str, Any]:
    """Train `steps` steps after the warm-up in this process; tokens per second, peak memory, share of the card's peak."""
    ours, in_4bit, packed = ARMS[arm]
    generate.choose_backend("auto" if ours else "transformers")  # before trl is imported
    import torch
    from datasets import Dataset

    device = "cuda" if torch.cuda.is_available() else "cpu"
    _, shape, batch = SHAPES[name]
    longest = MAX_LENGTH if device == "cuda" else 64
    loaded, peft_config = _prepare(str(folder), ours, in_4bit, device, longest)
    data = Dataset.from_list(
        rows_of(kind, (steps + WARM_UP + 2) * batch * (4 if packed else 1), loaded.tokenizer, longest)
    )
    arguments = _arguments(f"{folder}/trainer", kind, ARMS[arm], batch, steps, longest, device)
    trainer = _trainer(kind, loaded, peft_config, data, arguments)
    if ours:
        generate.settle(trainer)
    tokens, ends = _watch(trainer, device)
    trainer.train()
    taken = ends[-1] - ends[WARM_UP - 1]
    seen = sum(tokens[WARM_UP : WARM_UP + steps])
    operations = (4 + 2 * (kind == "dpo")) * _active(shape) * seen / taken
    card = planning.card(torch.cuda.get_device_name(0)) if device == "cuda" else None
    return {
        "tokens_per_s": seen / taken,
        "peak_gib": torch.cuda.max_memory_allocated() / generate.GIB if device == "cuda" else None,
        "share_of_peak": operations / (card.tflops * 1e12) if card else None,
        "loss": trainer.state.log_history[0].get("loss"),
        "backend": loaded.backend,
    }


def _active(shape: generate.Shape) -> int:
    """Weights that a token is multiplied with: the input embedding is a look-up."""
    return shape.linear + shape.vocab * shape.hidden


def _prepare(folder: str, ours: bool, in_4bit: bool, device: str, longest: int) -> tuple[generate.Loaded, Any]:
    loaded = generate.load(
        folder,
        dtype="bfloat16",
        load_in_4bit=in_4bit,
        device=device,
        backend="auto" if ours else "transformers",
        max_length=longest,
        for_training=True,
    )
    model, peft_config = generate.trainable(
        loaded, r=RANK, alpha=2 * RANK, dropout=0.0, gradient_checkpointing=True, max_length=longest
    )
    return loaded._replace(model=model), peft_config


def _arguments(
    output: str, kind: str, arm: tuple[bool, bool, bool], batch: int, steps: int, longest: int, device: str
) -> dict[str, Any]:
    """TRL's defaults but for what both arms must share; ours starts from every argument made explicit."""
    ours, _, packed = arm
    shared = TRAINING | {
        "output_dir": output,
        "seed": 0,
        "per_device_train_batch_size": batch,
        "gradient_accumulation_steps": 1,
        "gradient_checkpointing": True,
        "max_steps": steps + WARM_UP,
        "max_length": longest,
        "bf16": True,
        "use_cpu": device == "cpu",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
    if not ours:
        return shared
    explicit = generate.explicit(kind, unsloth=generate.choose_backend("auto").unsloth)
    return explicit | shared | ({"packing": True} if packed else {"padding_free": None} if packed is None else {})


def _trainer(kind: str, loaded: generate.Loaded, peft_config: Any, data: Any, arguments: dict[str, Any]) -> Any:
    import trl

    config, trainer = (trl.SFTConfig, trl.SFTTrainer) if kind == "sft" else (trl.DPOConfig, trl.DPOTrainer)
    return trainer(
        loaded.model,
        args=config(**arguments),
        train_dataset=data,
        processing_class=loaded.tokenizer,
        peft_config=peft_config,
    )


def _watch(trainer: Any, device: str) -> tuple[list[int], list[float]]:
    """Lists that training fills: real tokens of each batch, and the moment each step ended."""
    import torch
    from transformers import TrainerCallback

    tokens: list[int] = []
    ends: list[float] = []
    collate = trainer.data_collator

    def counted(examples: Any) -> Any:
        batch = collate(examples)
        mask = batch.get("attention_mask")
        tokens.append(int(mask.sum()) if mask is not None else batch["input_ids"].numel())
        return batch

    class Clock(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if device == "cuda":
                torch.cuda.synchronize()
            ends.append(time.perf_counter())

    trainer.data_collator = counted
    trainer.add_callback(Clock())
    return tokens, ends


# -- The table ---------------------------------------------------------------------------------------------------------------
def summarise(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Medians over the repeats by shape, kind and arm, with ratios to the arm it stands against."""
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for row in rows:
        found.setdefault((row["shape"], row["kind"], row["arm"]), {"runs": []})["runs"].append(row)
    for (shape, kind, arm), entry in found.items():
        runs = entry.pop("runs")
        good = [r for r in runs if "error" not in r]
        entry |= {"shape": shape, "kind": kind, "arm": arm, "repeats": len(good)}
        entry |= {"error": next((r["error"] for r in runs if "error" in r), None)}
        for name in ("tokens_per_s", "peak_gib", "share_of_peak"):
            values = [r[name] for r in good if r.get(name) is not None]
            entry[name] = statistics.median(values) if values else None
        entry["backend"] = good[0]["backend"] if good else None
    for (shape, kind, arm), entry in found.items():
        plain = found.get((shape, kind, AGAINST.get(arm, "")), {})
        for name, ratio in (("tokens_per_s", "speed_ratio"), ("peak_gib", "memory_ratio")):
            entry[ratio] = entry[name] / plain[name] if entry[name] and plain.get(name) else None
    return list(found.values())


def write(out: Path, rows: Sequence[dict[str, Any]], settings: dict[str, Any]) -> list[dict[str, Any]]:
    """gpu_training.json (every measurement) and gpu_training.md (the table); returns the summary."""
    summary, env = summarise(rows), store.environment()
    command = f"python -m reflectevo_lite.bench_gpu {out}"
    about = {"command": command, "env": env, "settings": settings, "warm_up": WARM_UP, "lora_r": RANK}
    store.write_json(out / "gpu_training.json", about | {"summary": summary, "measurements": list(rows)})
    store.write_text(out / "gpu_training.md", table(summary, env, command))
    return summary


def table(summary: Sequence[dict[str, Any]], env: dict[str, Any], command: str) -> str:
    """The summary as Markdown, with the device, the versions and the command that made it."""
    head = [
        "model's shape",
        "objective",
        "arm",
        "tokens/s",
        "× plain",
        "peak GiB",
        "× plain",
        "of bf16 peak",
        "repeats",
    ]

    def number(value: float | None, form: str) -> str:
        return "–" if value is None else form.format(value)

    lines = [
        [
            row["shape"],
            row["kind"].upper(),
            row["arm"] + (f" (failed: {row['error']})" if row["error"] else ""),
            number(row["tokens_per_s"], "{:,.0f}"),
            number(row["speed_ratio"], "{:.2f}"),
            number(row["peak_gib"], "{:.1f}"),
            number(row["memory_ratio"], "{:.2f}"),
            number(row["share_of_peak"], "{:.1%}"),
            str(row["repeats"]),
        ]
        for row in summary
    ]
    cells = ["| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *lines)]
    versions = ", ".join(f"{name} {version}" for name, version in env["versions"].items())
    return "\n".join([f"Training steps on {env['gpu'] or 'CPU'}. {versions}.", "", f"`{command}`", "", *cells, ""])


def main(argv: Sequence[str] | None = None) -> None:
    """`OUT`: the whole bench. `--step FOLDER SHAPE KIND ARM STEPS`: one measurement, for the bench's own processes."""
    parser = argparse.ArgumentParser(prog="reflectevo_lite.bench_gpu", description="Training steps on a GPU.")
    parser.add_argument("out", nargs="?", default="artifacts/reference/gpu")
    parser.add_argument("--shapes", nargs="+", default=["Qwen3-1.7B", "Llama-3-8B"], choices=SHAPES)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--step", nargs=5, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.step:
        folder, name, kind, arm, steps = args.step
        print(json.dumps(measure(folder, name, kind, arm, int(steps))))
    else:
        run(args.out, shapes=args.shapes, repeats=args.repeats, steps=args.steps)


if __name__ == "__main__":
    main()
