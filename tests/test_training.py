"""Training: loss on completions only, DPO's reference, resume, and refusals, on the embedded model."""

import json
import math

import pytest
from conftest import ROOT, ScriptedEngine

from reflectevo_lite import curation, engines, models, rollouts, synthetic, training

PARAMS = training.TrainParams(learning_rate=3e-3, epochs=1, batch_size=8)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    problems = synthetic.problems(60, "train", seed=21)
    out = tmp_path_factory.mktemp("rollouts") / "r.jsonl"
    return rollouts.generate_rollouts(ScriptedEngine(problems), problems, out, k=4, temperature=1.0, progress=False)


@pytest.fixture(scope="module")
def reflector(rows, tmp_path_factory):
    out = tmp_path_factory.mktemp("adapters") / "reflector"
    record = training.train_sft(
        curation.sft_rows("reflector", curation.unfiltered(rows, 40)), out, model="tiny", params=PARAMS
    )
    return out, record


def test_sft_leaves_an_adapter_and_its_record(reflector):
    out, record = reflector
    assert record["rows"] == 40 and record["steps"] == 5 and record == json.loads((out / "training.json").read_text())
    assert (out / "adapter_model.safetensors").exists() and not out.with_name("reflector.checkpoints").exists()
    assert len(record["history"]) >= 3 and all(math.isfinite(h["loss"]) for h in record["history"])


def test_a_finished_training_is_a_no_op_and_a_changed_one_is_refused(reflector, rows):
    out, record = reflector
    data = curation.sft_rows("reflector", curation.unfiltered(rows, 40))
    before = (out / "adapter_model.safetensors").stat().st_mtime_ns
    assert training.train_sft(data, out, model="tiny", params=PARAMS) == record
    assert (out / "adapter_model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="trained with other rows"):
        training.train_sft(data[:8], out, model="tiny", params=PARAMS)


def test_an_adapter_changes_the_reflector_and_leaves_the_generator_alone(reflector, engine):
    out, _ = reflector
    prompt = [{"role": "user", "content": synthetic.problems(1, "train")[0]["question"]}]
    base, tuned = engine.score([prompt], ["Answer: 3"]), engine.score([prompt], ["Answer: 3"], adapter=out)
    assert base != tuned and engine.score([prompt], ["Answer: 3"]) == base


def test_loss_falls_on_the_completion_and_its_end_only(rows):
    from datasets import Dataset

    loaded = models.load("tiny")
    data = curation.sft_rows("reflector", curation.unfiltered(rows, 3))
    trainer = _trainer(loaded, Dataset.from_list([{k: r[k] for k in ("prompt", "completion")} for r in data]))
    batch = next(iter(trainer.get_train_dataloader()))
    for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True):
        trained = loaded.tokenizer.decode(ids[labels != -100])
        assert any(trained == r["completion"][0]["content"] + "<|end|>" for r in data)


def _trainer(loaded, data):
    from trl import SFTConfig, SFTTrainer

    common = training._common(PARAMS, ROOT / "artifacts" / "unused", 1, "cpu")
    args = SFTConfig(**common, max_length=1024, packing=False, completion_only_loss=True)
    return SFTTrainer(
        loaded.model,
        args=args,
        train_dataset=data,
        processing_class=loaded.tokenizer,
        peft_config=models.trainable(loaded, r=8, alpha=16, dropout=0.0)[1],
    )


def test_dpo_starts_at_ln_2(rows, tmp_path):
    data = curation.preference_rows(curation.d_pm(rows))
    record = training.train_dpo(data, tmp_path / "dpo", model="tiny", params=PARAMS)
    assert record["history"][0]["loss"] == pytest.approx(math.log(2), abs=1e-3)
    assert record["steps"] == math.ceil(len(data) / 8) and "rewards/margins" in record["history"][-1]


def test_interrupted_training_resumes_to_the_same_adapter(rows, tmp_path, monkeypatch):
    import torch
    from safetensors.torch import load_file
    from transformers import Trainer

    data = curation.sft_rows("reflector", curation.unfiltered(rows, 64))
    training.train_sft(data, tmp_path / "straight", model="tiny", params=PARAMS)
    step, calls = Trainer.training_step, []

    def interrupted(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    monkeypatch.setattr(Trainer, "training_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        training.train_sft(data, tmp_path / "resumed", model="tiny", params=PARAMS)
    assert not (tmp_path / "resumed" / "training.json").exists()
    training.train_sft(data, tmp_path / "resumed", model="tiny", params=PARAMS)
    assert len(calls) < 6 + 8  # it did not start from the beginning
    a, b = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("straight", "resumed"))
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_rows_that_do_not_fit_are_counted_and_refused(rows, tmp_path):
    data = curation.sft_rows("reflector", curation.unfiltered(rows, 10))
    short = training.TrainParams(learning_rate=1e-3, epochs=1, max_length=40)
    with pytest.raises(ValueError, match=r"10 of 10 .* exceed max_length 40 \(longest \d+\): raise it"):
        training.train_sft(data, tmp_path / "x", model="tiny", params=short)


def test_nothing_to_train_on_is_said(tmp_path):
    with pytest.raises(ValueError, match="no curated row"):
        training.train_sft([], tmp_path / "x", model="tiny", params=PARAMS)


def test_adapters_loaded_later_leave_earlier_ones_and_the_base_alone(reflector, rows, tmp_path):
    out, _ = reflector
    data = curation.sft_rows("reflector", curation.unfiltered(rows, 16, seed=3))
    training.train_sft(data, tmp_path / "other", model="tiny", params=PARAMS)
    prompt, said = [data[0]["prompt"]], ["Step 2 is wrong: it is miscalculated."]

    def alone(adapter):
        return engines.TransformersEngine(models.load("tiny")).score(prompt, said, adapter=adapter)

    one = engines.TransformersEngine(models.load("tiny"))
    in_turn = {i: one.score(prompt, said, adapter=a) for i, a in enumerate([None, out, tmp_path / "other", out, None])}
    assert in_turn[0] == in_turn[4] == alone(None)
    assert in_turn[1] == in_turn[3] == alone(out)
    assert in_turn[2] == alone(tmp_path / "other") and len({tuple(v) for v in in_turn.values()}) == 3
