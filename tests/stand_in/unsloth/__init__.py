"""A stand-in for Unsloth on a machine without a GPU: it does to TRL's configs what the real package does.

Values are those of unsloth 2026.10.9 (models/rl.py): every config gets them where the caller passes nothing. LoRA and
loading are plain transformers and PEFT, and what it was called with is kept in CALLS.
"""

import functools
import sys

BEFORE = [name for name in ("trl", "transformers", "peft") if name in sys.modules]

import trl  # noqa: E402 - the real one patches it while it is imported, too

__version__ = "0.stand-in"
CALLS = {"imported_after": BEFORE}
DEFAULTS = {
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 2,
    "weight_decay": 0.001,
    "warmup_steps": 0.1,
    "seed": 3407,
    "optim": "adamw_8bit",
    "learning_rate": 5e-05,
    "per_device_eval_batch_size": 4,
    "eval_accumulation_steps": 2,
    "torch_empty_cache_steps": 250,
    "logging_steps": 1,
    "logging_nan_inf_filter": False,
    "bf16": False,
    "fp16": False,
}


def _changes_defaults(config, serial_as_none=False, **more):
    made = config.__init__

    @functools.wraps(made)
    def init(self, *args, **kwargs):
        made(self, *args, **(DEFAULTS | more | kwargs))
        if serial_as_none and self.dataset_num_proc == 1:
            self.dataset_num_proc = None

    config.__init__ = init


_changes_defaults(trl.SFTConfig, loss_type="nll")
_changes_defaults(trl.DPOConfig, serial_as_none=True)  # what Dataset.map takes for: in this process
_changes_defaults(trl.GRPOConfig, vllm_importance_sampling_correction=False)


class FastLanguageModel:
    @staticmethod
    def from_pretrained(model_name, max_seq_length, dtype, load_in_4bit=True, full_finetuning=False, **kwargs):
        from transformers import AutoModelForCausalLM

        CALLS["from_pretrained"] = kwargs | {"max_seq_length": max_seq_length, "load_in_4bit": load_in_4bit}
        CALLS["from_pretrained"] |= {"dtype": str(dtype), "full_finetuning": full_finetuning}
        return AutoModelForCausalLM.from_pretrained(model_name, dtype=dtype), None

    @staticmethod
    def get_peft_model(model, r=16, lora_alpha=16, random_state=3407, **kwargs):
        import torch
        from peft import LoraConfig, get_peft_model

        CALLS["get_peft_model"] = kwargs | {"r": r, "lora_alpha": lora_alpha, "random_state": random_state}
        plain = {k: v for k, v in kwargs.items() if k not in ("use_gradient_checkpointing", "max_seq_length")}
        torch.manual_seed(random_state)
        return get_peft_model(model, LoraConfig(r=r, lora_alpha=lora_alpha, task_type="CAUSAL_LM", **plain))
