"""How the embedded model is made: pre-training on the corpus, the gates it has to pass, its card (see notebook 00)."""

import itertools
import math
import random
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from reflectevo_lite import generate, prompts, store
from reflectevo_lite.embedded.tasks import Place, blamed, problems, to_task
from reflectevo_lite.rows import Message

from .corpus import RECIPE, Kind, Stage, corpus_example, reflection_text
from .tokenizer import build_tokenizer, encode

History = list[dict[str, float]]  # one entry per step: step, loss, tokens seen so far
CHECKPOINT_EVERY = 250  # steps


def pretrain(
    out: str | Path, *, recipe: Sequence[Stage] = RECIPE, seed: int = 0, hidden: int = 128, layers: int = 4
) -> History:
    """Pre-train the embedded model from scratch into `out` (a Hugging Face model directory); returns the loss history.
    Muon (https://kellerjordan.github.io/posts/muon/) optimises the matrices inside the layers, AdamW the rest; the
    forward pass computes in bfloat16. An interrupted call resumes with the very batches it would have seen."""
    import torch
    from tqdm.auto import trange

    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer()
    model = _new_model(tokenizer, hidden, layers, seed).to("cuda" if torch.cuda.is_available() else "cpu").train()
    checkpoint, saved = out / "checkpoint.pt", {"history": []}
    if checkpoint.exists():
        saved = torch.load(checkpoint, map_location=model.device)
        model.load_state_dict(saved["model"])
    history: History = saved["history"]
    for i, stage in enumerate(recipe):
        done = len(history) - sum(earlier.steps for earlier in recipe[:i])  # of this stage's steps
        if done >= stage.steps:
            continue
        parts = _optimisers(model, stage)
        for part, state in zip(parts, saved.pop("optimisers", []), strict=False):
            part.load_state_dict(state)
        batches = corpus_batches(tokenizer, seed + 1000 * i, done, stage.batch_size, stage.mix)
        bar = trange(done + 1, stage.steps + 1, desc=f"pre-training, stage {i + 1} of {len(recipe)}", mininterval=5)
        for step, batch in zip(bar, batches, strict=False):
            loss = round(_step(model, batch, parts), 5)
            tokens = int(batch["attention_mask"].sum()) + (history[-1]["tokens"] if history else 0)
            history.append({"step": len(history) + 1, "loss": loss, "tokens": tokens})
            bar.set_postfix(loss=f"{loss:.4f}", tokens=f"{tokens / 1e6:.1f}M")
            if step % CHECKPOINT_EVERY == 0 or step == stage.steps:
                # every stage starts with fresh optimisers
                optimisers = [part.state_dict() for part in parts] if step < stage.steps else []
                state = {"history": history, "model": model.state_dict(), "optimisers": optimisers}
                torch.save(state, checkpoint.with_suffix(".tmp"))
                checkpoint.with_suffix(".tmp").replace(checkpoint)
    model.cpu().save_pretrained(out)
    tokenizer.save_pretrained(out)
    checkpoint.unlink(missing_ok=True)
    return history


def corpus_batches(
    tokenizer: Any, seed: int, start: int, batch_size: int, mix: dict[Kind, float]
) -> Iterator[dict[str, Any]]:
    """Endless batches (rows × tokens, padded on the right) from batch `start` on; batch b depends on (seed, b) only.
    Each pool of 16 batches is sorted by length, which keeps padding low, and its batches are shuffled."""
    import torch

    pad, fill = tokenizer.pad_token_id, partial(torch.nn.utils.rnn.pad_sequence, batch_first=True)
    pool, skipped = divmod(start, 16)
    for index in itertools.count(pool):
        rng = random.Random(f"corpus/{seed}/{index}")
        rows = [encode(tokenizer, corpus_example(rng, mix)) for _ in range(16 * batch_size)]
        rows.sort(key=lambda row: len(row[0]))
        batches = [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
        rng.shuffle(batches)
        for batch in batches[skipped if index == pool else 0 :]:
            ids, labels = ([torch.tensor(row) for row in column] for column in zip(*batch, strict=True))
            ids, labels = fill(ids, padding_value=pad), fill(labels, padding_value=-100)
            yield {"input_ids": ids, "attention_mask": (ids != pad).long(), "labels": labels}


def _new_model(tokenizer: Any, hidden: int, layers: int, seed: int) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    shape = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": 4, "intermediate_size": 384}
    shape |= {"vocab_size": len(tokenizer), "max_position_embeddings": 1024, "tie_word_embeddings": True}
    tokens = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    return LlamaForCausalLM(LlamaConfig(**shape, **tokens, dtype="float32"))


def _optimisers(model: Any, stage: Stage) -> list[Any]:
    import torch

    matrices, rest = [], []
    for name, parameter in model.named_parameters():
        (matrices if parameter.ndim == 2 and "embed" not in name else rest).append(parameter)
    muon = torch.optim.Muon(matrices, stage.muon_lr, momentum=0.95, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    adam = torch.optim.AdamW(rest, stage.adam_lr, betas=(0.9, 0.95), weight_decay=0.0)
    share = lambda step: min(1.0, (step + 1) / 50, 2 * (1 - step / stage.steps))
    return [muon, adam, *(torch.optim.lr_scheduler.LambdaLR(optimiser, share) for optimiser in (muon, adam))]


def _step(model: Any, batch: dict[str, Any], parts: list[Any]) -> float:
    import torch

    with torch.autocast(model.device.type, dtype=torch.bfloat16):
        loss = model(**{name: tensor.to(model.device) for name, tensor in batch.items()}).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for part in parts:
        part.step()
    model.zero_grad(set_to_none=True)
    return loss.item()


GATES: dict[str, tuple[float, float]] = {  # what a model must show before it is shipped: lowest, highest
    "greedy accuracy at turn 1": (0.40, 0.60),
    "sampled localisation over chance": (1.8, math.inf),
    "greedy share that blames the last step": (0.40, 1.0),
    "right diagnosis mends what needs one correction": (0.90, 1.0),
    "wrong diagnosis mends": (0.0, 0.10),
    "gain of a plain retry": (-0.03, 0.03),
    "reflections that state a result": (0.0, 0.0),
    "readable first attempts": (0.98, 1.0),
}


def gates(engine: generate.Engine, n: int = 600, seed: int = 1) -> dict[str, float]:
    """Measure what `GATES` bounds, on `n` training-split questions that the pipeline's default seed does not use."""

    def ask(conversations: list[list[Message]], temperature: float = 0.0) -> list[str]:
        replies = engine.generate(conversations, temperature=temperature, max_new_tokens=96, seed=seed)
        return [reply[0].text for reply in replies]

    def mended(places: dict[int, Place | None]) -> float:
        """Share of these questions that a retry gets right after a diagnosis of the place (None: after none)."""
        diagnosis = lambda i, at: reflection_text(tasks[i], parsed[i], at, errors[i].get(at, "context"), "generic")
        said = [None if place is None else diagnosis(i, place) for i, place in places.items()]
        texts = ask([prompts.retry_prompt(rows[i], first[i], text) for i, text in zip(places, said, strict=True)])
        seconds = [(tasks[i], tasks[i].parse(text)) for i, text in zip(places, texts, strict=True)]
        return sum(a is not None and a.answer == task.gold() for task, a in seconds) / max(1, len(places))

    rows = problems(n, "train", seed=10_000 + seed)
    tasks = [to_task(p) for p in rows]
    first = ask([prompts.answer_prompt(p) for p in rows])
    parsed = {i: a for i, (task, text) in enumerate(zip(tasks, first, strict=True)) if (a := task.parse(text))}
    missed = [i for i in range(n) if i not in parsed or parsed[i].answer != tasks[i].gold()]
    errors = {i: dict(found) for i in missed if i in parsed and (found := tasks[i].errors(parsed[i]))}
    steps = {i: range(1, len(parsed[i].ops) + 1) for i in errors}
    known = max(1, len(errors))  # a model that cannot write an attempt yet has none to reflect on
    reflect = [prompts.reflection_prompt(rows[i], first[i]) for i in errors]
    greedy, sampled = ask(reflect), ask(reflect, temperature=1.0)
    chance = sum(len(errors[i]) / (len(steps[i]) + 1) for i in errors) / known
    located = sum(blamed(text) in errors[i] for i, text in zip(errors, sampled, strict=True)) / known
    last = sum(blamed(text) == len(steps[i]) for i, text in zip(errors, greedy, strict=True)) / known
    right = {i: next(iter(errors[i])) for i in errors}
    enough = {i: p for i, p in right.items() if tasks[i].retry(parsed[i], p).answer == tasks[i].gold()}
    wrong = {i: random.Random(i).choice([k for k in steps[i] if k not in errors[i]] or list(errors[i])) for i in errors}
    return {
        "greedy accuracy at turn 1": (n - len(missed)) / n,
        "sampled localisation over chance": located / chance if chance else 0.0,
        "greedy share that blames the last step": last,
        "right diagnosis mends what needs one correction": mended(enough),
        "wrong diagnosis mends": mended(wrong),
        "gain of a plain retry": mended(dict.fromkeys(missed)) * len(missed) / n,
        "reflections that state a result": sum(" gives" in r or "Answer:" in r for r in greedy + sampled) / (2 * known),
        "readable first attempts": len(parsed) / n,
    }


def gate_table(found: dict[str, float]) -> str:
    """Measured gates beside their bounds, as a Markdown table."""
    lines = ["| gate | measured | bounds | |", "|---|---|---|---|"]
    for name, (low, high) in GATES.items():
        bounds = f"≥ {low:g}" if high == math.inf else f"{low:g} to {high:g}"
        verdict = "passed" if low <= found[name] <= high else "**failed**"
        lines.append(f"| {name} | {found[name]:.3f} | {bounds} | {verdict} |")
    return "\n".join(lines)


def write_card(out: str | Path, history: History, found: dict[str, float], *, seed: int) -> None:
    """Write README.md (the model card) and pretraining.json beside the weights in `out`; `found` is from `gates`."""
    from transformers import AutoConfig

    last, measured = history[-1], {name: round(value, 4) for name, value in found.items()}
    record = {"fingerprint": generate.fingerprint(str(out)), "seed": seed, "steps": last["step"]}
    record |= {"tokens": last["tokens"], "final_loss": last["loss"], "gates": measured}
    record["versions"] = store.environment()["versions"]
    store.write_json(Path(out) / "pretraining.json", record)
    card = Path(__file__).with_name("card.md").read_text(encoding="utf-8")
    text = card.format(config=AutoConfig.from_pretrained(out), table=gate_table(found), **record)
    store.write_text(Path(out) / "README.md", text)
