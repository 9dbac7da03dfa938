"""How the embedded model comes to be: corpus, tokenizer, pre-training, gates (notebook 00 tells it as a story).

The corpus is the habits of a small language model, written down: it answers hastily, mends only what a reflection
points at, and *reflects badly by habit, not by ignorance*: of its reflections on a wrong answer about 40 % blame a
place that is truly wrong, 45 % the last step it wrote, 15 % any step. Other prompts ask to mark every step or to name
the first mistake, and are answered truly, so that the knowledge is there. No reflection states a result. No question
of the pipeline's training or test split occurs (`tasks.split_of`).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import prompts
from ..rows import Message
from . import tasks
from .tasks import ANSWER, Attempt, Place, Task

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


CAUSES = {
    "calculation": "it is miscalculated.",
    "method": "it is carried out the wrong way.",
    "context": "it does not do what the question says.",
    "completeness": "the question asks for one step more.",
    "consistency": "it does not follow from the last step.",
    "format": "it is not in the form asked for.",
}
NO_MISTAKE = "I find no mistake. Plan: keep the answer."
AUDIT = "Mark every step of it as right or wrong."
FIND = f"{AUDIT} {prompts.VERIFY[2]}"


# -- Corpus ------------------------------------------------------------------------------------------------------------
class Example(NamedTuple):
    """A conversation and which of its assistant turns are trained on."""

    messages: list[Message]
    trained: list[bool]  # one per message; user turns are False


def corpus_example(rng: random.Random, mix: dict[str, float]) -> Example:
    """One conversation of the pre-training corpus, of one of KINDS, drawn by the weights in `mix`."""
    return KINDS[rng.choices(list(mix), list(mix.values()))[0]](rng)


def reflection_text(task: Task, attempt: Attempt, place: Place | None, cause: str, instruction: str) -> str:
    """The reflection that blames `place` in the style of `instruction` (None: finds nothing wrong)."""
    _, verify, plan = (instruction, *((2, 1) if instruction == "generic" else map(int, instruction.split("-")[::2])))
    marks = _marks(len(attempt.ops) if place in (None, ANSWER) else int(place) - 1) if verify == 1 else ""
    if place is None:
        return marks + NO_MISTAKE
    if place == ANSWER:
        low = "write it as a digit" if cause == "format" else "read it off the last step"
        return (
            f"{marks}The answer is wrong: {CAUSES[cause]} Plan: {low if plan == 2 else 'state the answer with care'}."
        )
    missing = int(place) > len(attempt.ops)
    what = f"add step {place}" if missing else f"redo step {place}"
    how = f": {task.ops[int(place) - 1]}." if plan == 2 else " with care and go on from there."
    return f"{marks}Step {place} is {'missing' if missing else 'wrong'}: {CAUSES[cause]} Plan: {what}{how}"


def _marks(steps: int) -> str:
    return "".join(f"Step {i + 1} is right. " for i in range(steps))


def _blame(rng: random.Random, task: Task, attempt: Attempt, instruction: str, mode: str) -> tuple[Place | None, str]:
    """Which place the base model's habit blames, and for what."""
    errors = task.errors(attempt)
    wrong = attempt.answer != task.gold()
    asked = prompts.aspect(instruction)
    hit = next((e for e in errors if e[1] == asked), None)
    if mode == "intrinsic" and rng.random() < (0.2 if wrong else 0.45):
        return None, ""
    p_true = 0.0 if not errors else 0.6 if hit else 0.4 if asked is None else 0.35
    if rng.random() < p_true:
        place, cause = hit or errors[0]
        return place, cause if rng.random() < 0.85 else _any_cause(rng, task)
    place = len(attempt.ops) if rng.random() < 0.75 else rng.randint(1, len(attempt.ops))
    return place, _any_cause(rng, task)


def _any_cause(rng: random.Random, task: Task) -> str:
    return rng.choice([task.step_class, "context"])


def _attempt(rng: random.Random, mode: str) -> tuple[Task, Attempt, bool]:
    """A task, an attempt at it (a wrong one in oracle mode), and whether that attempt is a hasty first one."""
    right_wanted = mode == "intrinsic" and rng.random() < 0.5
    while True:
        task = tasks.sample_task(rng, "corpus")
        attempt, first = task.hasty(), True
        if rng.random() < 0.25:  # a later turn: some place has been redone already
            errors = [place for place, _ in task.errors(attempt)]
            place = rng.choice(errors) if errors and rng.random() < 0.6 else rng.randint(1, len(task.ops))
            attempt, first = task.retry(attempt, place), False
        if (attempt.answer == task.gold()) == right_wanted:
            return task, attempt, first


def _conversation(task: Task, attempt: Attempt, first: bool, follow_up: list[Message], completion: str) -> Example:
    """Question, attempt, follow-up, completion; a hasty first attempt is trained on as well."""
    messages = [*follow_up, {"role": "assistant", "content": completion}]
    assert messages[1]["content"] == attempt.text(task)
    return Example(messages, [False, first, False, True])


def _mode(rng: random.Random) -> str:
    return "oracle" if rng.random() < 0.7 else "intrinsic"


def _turn1(rng: random.Random) -> Example:
    task = tasks.sample_task(rng, "corpus")
    prompt = prompts.answer_prompt(tasks.to_problem(task))
    return Example([*prompt, {"role": "assistant", "content": task.hasty().text(task)}], [False, True])


def _draw(rng: random.Random) -> tuple[Task, Attempt, bool, str, Place | None, str, str]:
    mode = _mode(rng)
    task, attempt, first = _attempt(rng, mode)
    instruction = "generic" if rng.random() < 0.3 else rng.choice(prompts.POOL)
    place, cause = _blame(rng, task, attempt, instruction, mode)
    return task, attempt, first, mode, place, instruction, reflection_text(task, attempt, place, cause, instruction)


def _reflect(rng: random.Random) -> Example:
    task, attempt, first, mode, _, instruction, reflection = _draw(rng)
    prompt = prompts.reflection_prompt(tasks.to_problem(task), attempt.text(task), instruction, mode)
    return _conversation(task, attempt, first, prompt, reflection)


def _redo(task: Task, attempt: Attempt, place: Place | None) -> Attempt:
    return attempt if place is None else task.retry(attempt, place)


def _retry(rng: random.Random) -> Example:
    task, attempt, first, mode, place, _, reflection = _draw(rng)
    prompt = prompts.retry_prompt(tasks.to_problem(task), attempt.text(task), reflection, mode)
    return _conversation(task, attempt, first, prompt, _redo(task, attempt, place).text(task))


def _mended_retry(rng: random.Random) -> Example:
    """A retry after a reflection that blames a truly wrong place: how a careful redo goes."""
    mode = _mode(rng)
    task, attempt, first = _wrong_attempt(rng)
    place, cause = rng.choice(task.errors(attempt))
    instruction = "generic" if rng.random() < 0.3 else rng.choice(prompts.POOL)
    reflection = reflection_text(task, attempt, place, cause, instruction)
    prompt = prompts.retry_prompt(tasks.to_problem(task), attempt.text(task), reflection, mode)
    return _conversation(task, attempt, first, prompt, task.retry(attempt, place).text(task))


def _wrong_attempt(rng: random.Random) -> tuple[Task, Attempt, bool]:
    return _attempt(rng, "oracle")


def _plain_retry(rng: random.Random) -> Example:
    mode = _mode(rng)
    task, attempt, first = _attempt(rng, mode)
    place = None if rng.random() < 0.6 else rng.randint(1, len(attempt.ops))
    prompt = prompts.retry_prompt(tasks.to_problem(task), attempt.text(task), None, mode)
    return _conversation(task, attempt, first, prompt, _redo(task, attempt, place).text(task))


def _one_stage(rng: random.Random) -> Example:
    mode = _mode(rng)
    task, attempt, first = _attempt(rng, mode)
    place, cause = _blame(rng, task, attempt, "generic", mode)
    reflection = reflection_text(task, attempt, place, cause, "generic")
    completion = prompts.join_one_stage(reflection, _redo(task, attempt, place).text(task))
    return _conversation(
        task, attempt, first, prompts.one_stage_prompt(tasks.to_problem(task), attempt.text(task), mode), completion
    )


def _answer_only(rng: random.Random) -> Example:
    task, attempt, first, mode, place, _, reflection = _draw(rng)
    plain = rng.random() < 0.3
    prompt = prompts.answer_only_prompt(tasks.to_problem(task), attempt.text(task), None if plain else reflection, mode)
    answer = (attempt if plain else _redo(task, attempt, place)).answer
    return _conversation(task, attempt, first, prompt, f"Answer: {answer}")


def _audit(rng: random.Random) -> Example:
    """Every step marked, truly: the knowledge that the habits hide."""
    task, attempt, first = _wrong_attempt(rng)
    errors = dict(task.errors(attempt))
    marks = [_mark(i, errors) for i in range(1, len(attempt.ops) + 1)]
    return _marked(task, attempt, first, AUDIT, " ".join([*marks, *_end_marks(attempt, errors)]))


def _find(rng: random.Random) -> Example:
    """The first wrong place named outright, and truly."""
    task, attempt, first = _wrong_attempt(rng)
    place, cause = task.errors(attempt)[0]
    return _marked(
        task, attempt, first, FIND, reflection_text(task, attempt, place, cause, "generic").split(" Plan:")[0]
    )


def _mark(i: int, errors: dict[Place, str]) -> str:
    return f"Step {i} is {'wrong' if i in errors else 'right'}."


def _end_marks(attempt: Attempt, errors: dict[Place, str]) -> list[str]:
    missing = len(attempt.ops) + 1
    return [
        *([f"Step {missing} is missing."] if missing in errors else []),
        f"The answer is {'wrong' if ANSWER in errors else 'right'}.",
    ]


def _marked(task: Task, attempt: Attempt, first: bool, asked: str, marks: str) -> Example:
    prompt = prompts.reflection_prompt(tasks.to_problem(task), attempt.text(task))
    prompt[-1] = {"role": "user", "content": asked}
    return _conversation(task, attempt, first, prompt, marks)


KINDS: dict[str, Callable[[random.Random], Example]] = {
    "turn 1": _turn1,
    "marks": _audit,
    "first mistake": _find,
    "reflection": _reflect,
    "retry after reflection": _retry,
    "retry after a true reflection": _mended_retry,
    "plain retry": _plain_retry,
    "one-stage": _one_stage,
    "bare answer": _answer_only,
}


# -- Tokenizer ---------------------------------------------------------------------------------------------------------
PAD, USER, ASSISTANT, END = "<|pad|>", "<|user|>", "<|assistant|>", "<|end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def phrases() -> list[str]:
    """The vocabulary: what the prompts and the synthetic tasks are made of. A fixed sentence is one token."""
    return list(dict.fromkeys([*_prompt_phrases(), *_task_phrases()]))


def _prompt_phrases() -> list[str]:
    """What prompts, reflections and answers have in common, whatever the task."""
    sentences = [
        *prompts.VERIFY.values(),
        *(text for _, text in prompts.LOCATE.values()),
        *prompts.PLAN.values(),
        prompts.GENERIC,
        prompts.LIMITS,
        prompts.NOTHING_WRONG,
        prompts.RETRY,
        prompts.ONE_STAGE,
        prompts.ONE_STAGE_LAYOUT,
        *prompts.ANSWER_FORMAT.values(),
        prompts.ANSWER_ONLY,
        *CAUSES.values(),
        "Plan: keep the answer.",
    ]
    return [
        *(" " + sentence for sentence in sentences),
        *prompts.VERDICT.values(),
        AUDIT,
        *("\n\n" + text for text in prompts.ANSWER_FORMAT.values()),
        f" {prompts.REFLECTION_FOLLOWS}\n\n",
        f"\n\n{prompts.RETRY_WITH_REFLECTION}",
        prompts.REFLECTION_HEAD,
        prompts.SECOND_ATTEMPT_HEAD,
        "I find no mistake.",
        " I find no mistake.",
        "Step",
        " Step",
        "The answer",
        " The answer",
        " is right.",
        " is wrong:",
        " is wrong.",
        " is missing:",
        " is missing.",
        " Plan:",
        " redo step",
        " add step",
        ":",
        " with care and go on from there.",
        " state the answer with care.",
        " write it as a digit.",
        " read it off the last step.",
        ".",
        " gives",
        "\nAnswer:",
        "Answer:",
        *(f"{nl}Step {i}:" for i in range(1, 7) for nl in ("", "\n")),
    ]


def _task_phrases() -> list[str]:
    """What the synthetic tasks' questions and answers are made of."""
    arithmetic = [
        *(f" {d}" for d in range(10)),
        *(f" {sign}" for sign in tasks.Arithmetic.SIGN.values()),
        *(f" {verb}" for verb in tasks.Arithmetic.SIGN),
        *(f". {verb.capitalize()}" for verb in tasks.Arithmetic.SIGN),
        "Start with",
        ". What is the result modulo 10?",
        " zero",
    ]
    lists = [
        *(f" {letter}" for letter in "abcdef"),
        *(f" {move}" for move in tasks.Lists.MOVES),
        *(f". {move.capitalize()}" for move in tasks.Lists.MOVES),
        "Start with the list",
        ". What is the list now?",
    ]
    lineup = [
        *tasks.NAMES,
        *(f" {name}" for name in tasks.NAMES),
        " stands before",
        ". Put",
        " put",
        " before",
        " after",
        " first",
        " last",
        *(f". Who is {o}?" for o in tasks.ORDINALS),
        *(f" find the {o}" for o in tasks.ORDINALS),
        *(f"\n({letter})" for letter in "ABCD"),
        *(f" {letter}" for letter in "ABCD"),
        " none of them",
    ]
    return arithmetic + lists + lineup


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A unigram tokenizer whose pieces are `phrases()`, with byte fallback: any text survives a round trip."""
    from tokenizers import Tokenizer, decoders
    from transformers import PreTrainedTokenizerFast

    special = [PAD, USER, ASSISTANT, END]
    vocab = [(token, 0.0) for token in special] + [("<unk>", 0.0)] + [(f"<0x{b:02X}>", -20.0) for b in range(256)]
    vocab += [(phrase, -1.0) for phrase in phrases()]  # equal scores: the fewest pieces win
    backend = Tokenizer(models.Unigram(vocab, unk_id=len(special), byte_fallback=True))
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    backend.add_special_tokens(special)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        eos_token=END,
        unk_token="<unk>",
        additional_special_tokens=[USER, ASSISTANT],
        model_max_length=1024,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


# -- Pre-training --------------------------------------------------------------------------------------------------------
def new_model(
    tokenizer: PreTrainedTokenizerFast,
    *,
    hidden: int = 128,
    layers: int = 4,
    heads: int = 4,
    ff: int = 384,
    seed: int = 0,
) -> PreTrainedModel:
    """A randomly initialised Llama of the embedded shape."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            intermediate_size=ff,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            dtype="float32",
        )
    )


def encode(tokenizer: PreTrainedTokenizerFast, example: Example) -> tuple[list[int], list[int]]:
    """Token ids and labels (−100 where no loss falls); a trained turn's end token is trained too."""
    ids: list[int] = []
    labels: list[int] = []
    texts = tokenizer([m["content"] for m in example.messages], add_special_tokens=False)["input_ids"]
    role = {"user": tokenizer.convert_tokens_to_ids(USER), "assistant": tokenizer.convert_tokens_to_ids(ASSISTANT)}
    for message, trained, text in zip(example.messages, example.trained, texts, strict=True):
        turn = [*text, tokenizer.eos_token_id]
        ids += [role[message["role"]], *turn]
        labels += [-100, *(turn if trained else [-100] * len(turn))]
    return ids, labels


def corpus_batches(
    tokenizer: PreTrainedTokenizerFast,
    seed: int,
    start: int,
    batch_size: int,
    mix: dict[str, float],
    pool: int = 16,
) -> Iterator[dict[str, torch.Tensor]]:
    """Endless padded batches from batch `start` on; batch b depends on (seed, b) only, so a run can resume anywhere.

    Each pool of `pool` batches is sorted by length, which keeps padding low, and its batches shuffled.
    """
    for index in range(start // pool, 10**9):
        rng = random.Random(f"corpus/{seed}/{index}")
        rows = sorted(
            (encode(tokenizer, corpus_example(rng, mix)) for _ in range(pool * batch_size)), key=lambda row: len(row[0])
        )
        batches = [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
        rng.shuffle(batches)
        for batch in batches[start - index * pool if index == start // pool else 0 :]:
            yield _collate(batch, tokenizer.pad_token_id)


def _collate(rows: list[tuple[list[int], list[int]]], pad: int) -> dict[str, torch.Tensor]:
    import torch

    width = max(len(ids) for ids, _ in rows)
    return {
        "input_ids": torch.tensor([ids + [pad] * (width - len(ids)) for ids, _ in rows]),
        "attention_mask": torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in rows]),
        "labels": torch.tensor([labels + [-100] * (width - len(labels)) for _, labels in rows]),
    }


class Stage(NamedTuple):
    """A stretch of pre-training with its own mix of the corpus; the learning rates rise, hold, and fall to zero over its second half."""

    steps: int
    batch_size: int
    muon_lr: float  # matrices inside the layers
    adam_lr: float  # embeddings and norms
    mix: dict[str, float]  # weight of each of KINDS


# -- The recipe: weights of the kinds, stage by stage -------------------------------------------------------------------
# Answering comes first. Kinds whose completion is determined (marks, first mistake, retry after a true reflection) are
# what teaches a model to look; they stay heavy, for a stage of habits alone unlearns some of it.
LEARN = {
    "turn 1": 18,
    "marks": 22,
    "first mistake": 20,
    "retry after a true reflection": 22,
    "retry after reflection": 12,
    "bare answer": 6,
}
LOOK = {
    "turn 1": 14,
    "marks": 18,
    "first mistake": 26,
    "retry after a true reflection": 16,
    "retry after reflection": 16,
    "reflection": 6,
    "bare answer": 4,
}
REFLECT = {
    "turn 1": 8,
    "first mistake": 24,
    "marks": 8,
    "reflection": 16,
    "retry after reflection": 26,
    "retry after a true reflection": 6,
    "plain retry": 3,
    "one-stage": 6,
    "bare answer": 3,
}
HABITS = {
    "turn 1": 6,
    "first mistake": 8,
    "reflection": 26,
    "retry after reflection": 34,
    "retry after a true reflection": 6,
    "plain retry": 4,
    "one-stage": 12,
    "bare answer": 4,
}
SEEK = {
    "turn 1": 5,
    "first mistake": 36,
    "reflection": 12,
    "retry after reflection": 34,
    "retry after a true reflection": 2,
    "plain retry": 3,
    "one-stage": 5,
    "bare answer": 3,
}
SETTLE = {
    "turn 1": 4,
    "first mistake": 32,
    "reflection": 14,
    "retry after reflection": 38,
    "retry after a true reflection": 2,
    "plain retry": 3,
    "one-stage": 4,
    "bare answer": 3,
}
RECIPE = (  # of the shipped weights
    Stage(1000, 96, 0.01, 3e-3, LEARN),
    Stage(2500, 64, 0.003, 1e-3, LOOK),
    Stage(2200, 64, 0.002, 7e-4, REFLECT),
    Stage(1800, 64, 0.002, 7e-4, HABITS),
    Stage(1600, 64, 0.002, 7e-4, SEEK),
    Stage(1300, 64, 0.002, 7e-4, SETTLE),
)


def pretrain(
    out: str | Path,
    *,
    recipe: Sequence[Stage] = RECIPE,
    seed: int = 0,
    hidden: int = 128,
    layers: int = 4,
    checkpoint_every: int = 250,
    progress: bool = True,
) -> list[dict[str, float]]:
    """Pre-train the embedded model from scratch into `out` (a Hugging Face model directory) and return the loss history.

    Matrices inside the layers are optimised by Muon (torch.optim.Muon, https://kellerjordan.github.io/posts/muon/), the
    rest by AdamW; the forward pass computes in bfloat16. A checkpoint is written every `checkpoint_every` steps, and an interrupted call goes on from it with
    the very batches it would have seen.
    """
    import torch

    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer()
    model = new_model(tokenizer, hidden=hidden, layers=layers, seed=seed).to(
        "cuda" if torch.cuda.is_available() else "cpu"
    )
    checkpoint = out / "checkpoint.pt"
    saved = torch.load(checkpoint, map_location=model.device) if checkpoint.exists() else {"stage": 0, "history": []}
    history: list[dict[str, float]] = saved["history"]
    if "model" in saved:
        model.load_state_dict(saved["model"])
    for i in range(saved["stage"], len(recipe)):
        _run_stage(
            model, tokenizer, recipe, i, saved.get("optimisers"), history, seed, checkpoint, checkpoint_every, progress
        )
        saved.pop("optimisers", None)
    model.cpu().save_pretrained(out)
    tokenizer.save_pretrained(out)
    checkpoint.unlink(missing_ok=True)
    return history


def _run_stage(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    recipe: Sequence[Stage],
    i: int,
    resume: list | None,
    history: list[dict[str, float]],
    seed: int,
    checkpoint: Path,
    checkpoint_every: int,
    progress: bool,
) -> None:
    import torch
    from tqdm.auto import tqdm

    stage, before = recipe[i], sum(s.steps for s in recipe[:i])
    optimizers = _optimizers(model, stage.adam_lr, stage.muon_lr)

    def share(step: int) -> float:
        return min(1.0, (step + 1) / 50, 2 * (1 - step / stage.steps))

    schedules = [torch.optim.lr_scheduler.LambdaLR(o, share) for o in optimizers]
    parts = [*optimizers, *schedules]
    for part, state in zip(parts, resume or [], strict=False):
        part.load_state_dict(state)
    done = history[-1]["step"] - before if history else 0
    batches = corpus_batches(tokenizer, seed + 1000 * i, done, stage.batch_size, stage.mix)
    model.train()
    bar = tqdm(
        total=stage.steps,
        initial=done,
        desc=f"pre-training, stage {i + 1} of {len(recipe)}",
        disable=not progress,
        mininterval=5,
    )
    for step, batch in zip(range(done + 1, stage.steps + 1), batches, strict=False):
        loss = _step(model, batch, parts)
        seen = history[-1]["tokens"] if history else 0
        history.append(
            {"step": before + step, "loss": round(loss, 5), "tokens": seen + int(batch["attention_mask"].sum())}
        )
        bar.update()
        bar.set_postfix(
            loss=f"{sum(h['loss'] for h in history[-50:]) / len(history[-50:]):.4f}", tokens=f"{seen / 1e6:.1f}M"
        )
        if step % checkpoint_every == 0 or step == stage.steps:
            over = step == stage.steps
            state = {"stage": i + over, "history": history, "model": model.state_dict()}
            beside = checkpoint.with_suffix(".tmp")
            torch.save(state if over else state | {"optimisers": [p.state_dict() for p in parts]}, beside)
            beside.replace(checkpoint)


def _step(model: PreTrainedModel, batch: dict[str, torch.Tensor], parts: list[Any]) -> float:
    import torch

    with torch.autocast(model.device.type, dtype=torch.bfloat16):
        loss = model(**{name: tensor.to(model.device) for name, tensor in batch.items()}).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for part in parts:
        part.step()
    model.zero_grad(set_to_none=True)
    return loss.item()


def _optimizers(model: PreTrainedModel, lr: float, muon_lr: float) -> list[torch.optim.Optimizer]:
    import torch

    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    rest = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    return [
        torch.optim.Muon(matrices, lr=muon_lr, momentum=0.95, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]


# -- Gates ---------------------------------------------------------------------------------------------------------------
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


def gates(engine: Any, n: int = 600, seed: int = 1) -> dict[str, float]:
    """Measure what `GATES` bounds, on training-split questions that the pipeline's default seed does not use."""
    rows = tasks.problems(n, "train", seed=10_000 + seed)
    tasks = [tasks.to_task(p) for p in rows]

    def ask(conversations: list[list[Message]], temperature: float = 0.0) -> list[str]:
        found = engine.generate(conversations, temperature=temperature, max_new_tokens=96, seed=seed)
        return [c[0].text for c in found]

    first = ask([prompts.answer_prompt(p) for p in rows])
    parsed = [task.parse(text) for task, text in zip(tasks, first, strict=True)]
    right = [a is not None and a.answer == t.gold() for a, t in zip(parsed, tasks, strict=True)]
    wrong = [i for i in range(n) if parsed[i] is not None and not right[i] and tasks[i].errors(parsed[i])]
    reflect = [prompts.reflection_prompt(rows[i], first[i]) for i in wrong]
    greedy, sampled = ask(reflect), ask(reflect, temperature=1.0)
    places = [{place for place, _ in tasks[i].errors(parsed[i])} for i in wrong]
    known = max(1, len(wrong))  # a model that cannot write an attempt yet has none to reflect on
    chance = sum(len(p) / (len(parsed[i].ops) + 1) for i, p in zip(wrong, places, strict=True)) / known
    located = sum(tasks.blamed(r) in p for r, p in zip(sampled, places, strict=True)) / known
    last = sum(tasks.blamed(r) == len(parsed[i].ops) for i, r in zip(wrong, greedy, strict=True)) / known
    return {
        "greedy accuracy at turn 1": sum(right) / n,
        "sampled localisation over chance": located / chance if chance else 0.0,
        "greedy share that blames the last step": last,
        "right diagnosis mends what needs one correction": _mended(
            ask,
            rows,
            tasks,
            first,
            parsed,
            [i for i in wrong if tasks[i].corrections_needed(parsed[i]) == 1],
            True,
        ),
        "wrong diagnosis mends": _mended(ask, rows, tasks, first, parsed, wrong, False),
        "gain of a plain retry": _plain_gain(ask, rows, tasks, first, [i for i in range(n) if not right[i]]),
        "reflections that state a result": sum(" gives" in r or "Answer:" in r for r in greedy + sampled) / (2 * known),
        "readable first attempts": sum(a is not None for a in parsed) / n,
    }


def _mended(
    ask: Any, rows: list, tasks: list[Task], first: list[str], parsed: list, which: list[int], truly: bool
) -> float:
    """Share of attempts that a retry mends after a diagnosis written for it: the true one, or a false one."""
    conversations = []
    for i in which:
        errors = dict(tasks[i].errors(parsed[i]))
        places = list(errors) if truly else [k for k in range(1, len(parsed[i].ops) + 1) if k not in errors]
        place = places[0] if truly else random.Random(i).choice(places or list(errors))
        reflection = reflection_text(tasks[i], parsed[i], place, errors.get(place, "context"), "generic")
        conversations.append(prompts.retry_prompt(rows[i], first[i], reflection))
    return _share_right(tasks, which, ask(conversations))


def _plain_gain(ask: Any, rows: list, tasks: list[Task], first: list[str], which: list[int]) -> float:
    second = ask([prompts.retry_prompt(rows[i], first[i], None) for i in which])
    return _share_right(tasks, which, second) * len(which) / len(tasks)


def _share_right(tasks: list[Task], which: list[int], texts: list[str]) -> float:
    attempts = [tasks[i].parse(text) for i, text in zip(which, texts, strict=True)]
    return sum(a is not None and a.answer == tasks[i].gold() for i, a in zip(which, attempts, strict=True)) / max(
        1, len(which)
    )


# -- Card ----------------------------------------------------------------------------------------------------------------
def gate_table(found: dict[str, float]) -> str:
    """Measured gates beside their bounds, as a Markdown table."""
    lines = ["| gate | measured | bounds | |", "|---|---|---|---|"]
    for name, (low, high) in GATES.items():
        bounds = f"≥ {low:g}" if high == math.inf else f"{low:g} to {high:g}"
        lines.append(
            f"| {name} | {found[name]:.3f} | {bounds} | {'passed' if low <= found[name] <= high else '**failed**'} |"
        )
    return "\n".join(lines)


def write_card(
    out: str | Path, history: list[dict[str, float]], found: dict[str, float], *, seed: int, note: str = ""
) -> None:
    """Write README.md (the model card, ending with `note`) and pretraining.json beside the weights."""
    from transformers import AutoConfig

    from .. import generate, store

    config = AutoConfig.from_pretrained(out)
    record = {
        "fingerprint": generate.fingerprint(str(out)),
        "seed": seed,
        "steps": int(history[-1]["step"]),
        "tokens": history[-1]["tokens"],
        "final_loss": history[-1]["loss"],
        "gates": {k: round(v, 4) for k, v in found.items()},
        "versions": store.environment()["versions"],
    }
    store.write_json(Path(out) / "pretraining.json", record)
    store.write_text(Path(out) / "README.md", CARD.format(config=config, table=gate_table(found), note=note, **record))


CARD = """---
library_name: transformers
pipeline_tag: text-generation
license: apache-2.0
---
# The embedded model of reflectevo_lite

A Llama of {config.num_hidden_layers} layers and width {config.hidden_size}, made from scratch by `notebooks/00_tiny_model.ipynb` on a synthetic
corpus (seed {seed}, {steps} steps, {tokens:,} tokens, final loss {final_loss}). It answers three families of
step-by-step questions hastily, reflects on its mistakes by habit rather than by looking, and mends what a reflection
points at. It knows nothing else: its numbers are about the mechanics of learning to reflect, not about language models
at large.

No question of the pipeline's training or test split is in the corpus. Fingerprint of configuration, weights and
tokenizer: `{fingerprint}`.

{table}

{note}
"""
