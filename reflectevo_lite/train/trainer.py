"""The TRL trainer of a job; its arguments that hang on a parameter stand here, the others in `backend.explicit`."""

import math
from collections.abc import Sequence
from typing import Any

from .. import generate
from . import backend, examples, parts
from .params import Job, planned_steps
from .reward import SecondTurnReward


def load(job: Job) -> generate.Loaded:
    """The base model; for full fine-tuning what is trained itself."""
    params, name = job.params, (job.start if job.params.full_finetuning else None) or job.model
    size = {"max_length": params.max_length, "full_finetuning": params.full_finetuning}
    return generate.load(name, generate.LoadParams.of(params), for_training=True, **size)


def build(job: Job, loaded: generate.Loaded, rows: Sequence[Any], held: Sequence[Any] = (), halved: int = 1) -> Any:
    """A job's TRL trainer, to train on `rows` and validate on `held`, in parts a `halved`-th of what should fit (see
    `parts`). RuntimeError if it changes arguments or rows."""
    import trl

    params, name = job.params, job.kind.upper()
    model, peft_config = backend.trainable(loaded, params, job.start)
    count = len(rows)
    if job.packed:  # about as many sequences as the rows fill
        count = -(-sum(examples.row_lengths(job, rows, loaded.tokenizer)) // params.max_length)
    given = arguments(job, loaded, count)
    args = getattr(trl, f"{name}Config")(**given)
    if params.processes == 1 and args.n_gpu > 1:
        args._n_gpu = 1  # else each batch would be multiplied and spread over all GPUs by DataParallel
    own = _own_parts(job, loaded, rows) | {"peft_config": peft_config, "processing_class": loaded.tokenizer}
    own["train_dataset"] = examples.dataset(job.kind, rows)
    own["eval_dataset"] = examples.dataset(job.kind, held) if held else None
    kind = getattr(trl, f"{name}Trainer")
    trainer = (kind if job.kind == "grpo" else parts.in_parts(kind))(model, args=args, **own)
    trainer.tokens = parts.part_tokens(job, loaded) // halved
    if job.kind == "grpo" and not params.full_finetuning:
        own["reward_funcs"].policy = trainer.model
    backend.settle(trainer, fresh=job.start is None)
    backend.compare(trainer.args, given, unsloth=generate.is_unsloth(loaded))
    found = sum(map(len, trainer.train_dataset["seq_lengths"])) if job.packed else len(trainer.train_dataset)
    if found != len(rows):
        raise RuntimeError(f"{len(rows) - found} of {len(rows)} training rows vanished in preprocessing")
    _add_callbacks(trainer, job)
    return trainer


def _own_parts(job: Job, loaded: generate.Loaded, rows: Sequence[Any]) -> dict[str, Any]:
    """What the trainer of one kind alone takes: DPO's reference model, GRPO's reward."""
    whole = job.params.full_finetuning
    if job.kind == "dpo":
        return {"ref_model": load(job).model if whole else None}
    if job.kind == "grpo":  # trained whole, there is no adapter to switch off: the base is then a model of its own
        base = generate.load(job.model, generate.LoadParams.of(job.params)) if whole else loaded
        engine = generate.TransformersEngine(base, batching="generate" if generate.is_unsloth(base) else "padded")
        return {"reward_funcs": SecondTurnReward(engine, rows, job.params.max_new_tokens)}
    attention = loaded.model.config._attn_implementation
    if job.packed and not (attention == "sdpa" or "flash" in attention):
        why = f"packing would let rows see each other under {attention!r} attention"
        raise ValueError(f"{why}: set packing: false, or load the model with sdpa or flash attention")
    return {}


def arguments(job: Job, loaded: generate.Loaded, count: int) -> dict[str, Any]:
    """Every argument of a job's trainer on `count` examples (or packed sequences) an epoch."""
    params, device = job.params, loaded.model.device.type
    steps, large = planned_steps(job.kind, params, count), loaded.model.num_parameters() > generate.SMALL
    # on a CPU of bfloat16, weights stay in float32: only computing is in 16 bits
    dtype = generate.pick_dtype(params.dtype, device, small=not large)
    every = max(1, steps // (max(params.checkpoints, 10) if params.patience else params.checkpoints))
    if job.kind == "grpo":
        own = {"beta": params.kl, "temperature": params.temperature, "num_generations": params.generations}
        own |= {"max_completion_length": params.max_new_tokens, "steps_per_generation": params.grad_accum}
        own |= {"max_steps": params.steps, "chat_template_kwargs": generate.TEMPLATE}
    else:
        own = {"max_steps": -1, "max_length": params.max_length}
        both = params.chosen_weight > 0  # the likelihood of the chosen text beside its margin (arXiv 2404.19733)
        losses: dict[str, Any] = {"loss_type": ["sigmoid", "sft"] if both else ["sigmoid"]}
        losses |= {"loss_weights": [1.0, params.chosen_weight] if both else None, "beta": params.beta}
        own |= {"packing": params.packing} if job.kind == "sft" else losses
    recompute, unsloth = backend.checkpointing(params, loaded.model), generate.is_unsloth(loaded)
    share, fused = params.batch_size // params.processes, device != "cpu" or unsloth  # Unsloth's is fused on CPU too
    # fmt: off
    return dict(
        **backend.explicit(job.kind, unsloth=unsloth), **own,
        # the optimiser's steps; warm-up ends before the last one, so that a training of a single step moves its weights
        learning_rate=params.learning_rate, lr_scheduler_type=params.schedule, weight_decay=params.weight_decay,
        warmup_steps=params.warmup if math.ceil(params.warmup * steps) < steps else steps - 1,
        num_train_epochs=params.epochs, gradient_accumulation_steps=params.grad_accum,
        per_device_train_batch_size=share, per_device_eval_batch_size=share, max_grad_norm=params.max_grad_norm,
        optim="adamw_torch_fused" if fused else "adamw_torch", seed=params.seed, data_seed=params.seed,
        # what is logged, evaluated and saved on the way
        output_dir=str(job.work), disable_tqdm=True,  # _add_callbacks has a bar without the table of losses
        logging_strategy="steps", logging_steps=max(1, steps // 40), logging_first_step=True,
        eval_strategy="steps" if params.validation_share else "no",
        eval_steps=every if params.patience else max(1, steps // 10),
        save_strategy="steps", save_steps=every, save_total_limit=1, restore_callback_states_from_checkpoint=True,
        load_best_model_at_end=params.patience > 0, metric_for_best_model="eval_loss" if params.patience else None,
        greater_is_better=False if params.patience else None,
        # precision, memory, processes
        bf16=dtype == "bfloat16", fp16=dtype == "float16", use_cpu=device == "cpu",
        gradient_checkpointing=recompute, gradient_checkpointing_kwargs={"use_reentrant": False} if recompute else None,
        dataloader_pin_memory=device != "cpu", ddp_find_unused_parameters=False,
        ddp_backend="gloo" if device == "cpu" and params.processes > 1 else None,
    )
    # fmt: on


def _add_callbacks(trainer: Any, job: Job) -> None:
    """One bar that says what is trained (the losses go to training.json and the figures); early stopping."""
    from tqdm.auto import tqdm
    from transformers import EarlyStoppingCallback, PrinterCallback, TrainerCallback

    class Bar(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            name, off = f"training {job.out.name}", not state.is_world_process_zero
            self.bar = tqdm(total=state.max_steps, initial=state.global_step, desc=name, unit="step", disable=off)

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.bar.update(state.global_step - self.bar.n)

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.bar.close()

    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Bar())
    if job.params.patience:
        trainer.add_callback(EarlyStoppingCallback(job.params.patience))
