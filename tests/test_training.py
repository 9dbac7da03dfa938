"""Training: loss on completions only, DPO's reference, validation, packing, whole models, refusals; the embedded model."""

import dataclasses
import json
import math

import pytest
from conftest import ScriptedEngine

from reflectevo_lite import store
from reflectevo_lite.curate import examples, sets
from reflectevo_lite.curate.examples import gold_completion
from reflectevo_lite.embedded import tasks as synthetic
from reflectevo_lite.generate import engines, models, rollouts
from reflectevo_lite.read import figures as plots
from reflectevo_lite.read import tables as analysis
from reflectevo_lite.train import training

PARAMS = training.TrainParams(learning_rate=3e-3, epochs=1, batch_size=8)


def changed(**values):
    return dataclasses.replace(PARAMS, **values)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    problems = synthetic.problems(120, "train", seed=21)
    out = tmp_path_factory.mktemp("rollouts") / "r.jsonl"
    return rollouts.generate_rollouts(ScriptedEngine(problems), problems, out, k=4, temperature=1.0, progress=False)


@pytest.fixture(scope="module")
def data(rows):
    return examples("reflector", sets.unfiltered(rows, 40))


@pytest.fixture(scope="module")
def pairs(rows):
    return examples("preference", sets.d_pm(rows))[:24]


@pytest.fixture(scope="module")
def reflector(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "adapters" / "reflector"
    return out, training.train_sft(data, out, model="tiny", params=PARAMS)


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "reflector"
    training.train_sft(data[:16], out, model="tiny", params=changed(full_finetuning=True, learning_rate=1e-3))
    return out


def job(kind, rows, out, params=PARAMS, start=None):
    return training._job(kind, rows, out, "tiny", params, start)


def build(kind, rows, out, params=PARAMS, start=None):
    this = job(kind, rows, out, params, start)
    loaded = training._load(this)
    return loaded, training.build(this, loaded, rows)


def weights(folder):
    from safetensors.torch import load_file

    return load_file(folder / "adapter_model.safetensors")


def same(a, b):
    import torch

    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


# -- SFT ----------------------------------------------------------------------------------------------------------------
def test_sft_leaves_an_adapter_and_its_record(reflector):
    out, record = reflector
    assert record["rows"] == 40 and record["steps"] == 5 and record == json.loads((out / "training.json").read_text())
    assert (out / "adapter_model.safetensors").exists() and not out.with_name("reflector.checkpoints").exists()
    assert len(record["history"]) == 5 and all(math.isfinite(h["loss"]) for h in record["history"])


def test_a_finished_training_is_a_no_op_and_a_changed_one_is_refused(reflector, data):
    out, record = reflector
    before = (out / "adapter_model.safetensors").stat().st_mtime_ns
    assert training.train_sft(data, out, model="tiny", params=PARAMS) == record
    assert (out / "adapter_model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="trained with other rows, data"):
        training.train_sft(data[:8], out, model="tiny", params=PARAMS)
    with pytest.raises(ValueError, match="trained with other data:"):
        training.train_sft([*data[1:], data[1]], out, model="tiny", params=PARAMS)


def test_an_adapter_changes_the_reflector_and_leaves_the_generator_alone(reflector, engine):
    out, _ = reflector
    prompt = [{"role": "user", "content": synthetic.problems(1, "train")[0]["question"]}]
    base, tuned = engine.score([prompt], ["Answer: 3"]), engine.score([prompt], ["Answer: 3"], adapter=out)
    assert base != tuned and engine.score([prompt], ["Answer: 3"]) == base


def test_loss_falls_on_the_completion_and_its_end_only(data, tmp_path):
    loaded, trainer = build("sft", data[:3], tmp_path / "x")
    batch = next(iter(trainer.get_train_dataloader()))
    for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True):
        trained = loaded.tokenizer.decode(ids[labels != -100])
        assert any(trained == r["completion"][0]["content"] + "<|end|>" for r in data[:3])


def test_answers_only_trains_on_every_question_and_its_gold_answer(rows):
    found = examples("qa", rows)
    assert len(found) == len(rows) and {r["turn1"]["correct"] for r in rows} == {True, False}
    for row, answered in zip(rows, found, strict=True):
        assert len(answered["prompt"]) == 1 and answered["prompt"] == row["turn1"]["prompt"]
        assert answered["completion"][0]["content"] == f"Answer: {row['problem']['answer']}"


@pytest.mark.parametrize("grader", ["choice", "math", "text", "code", "exact"])
def test_a_gold_completion_is_graded_right(grader):
    from reflectevo_lite.grading import grade

    answer = {"choice": "B", "math": r"\frac{1}{2}", "text": ["Paris", "paris"], "code": "def f(x):\n    return x + 1"}
    problem = {"id": "1", "task": "t", "question": "?", "answer": answer.get(grader, "7"), "grader": grader, "meta": {}}
    problem |= {"choices": ["one", "two"], "tests": ["assert f(1) == 2"]}
    assert grade(problem, gold_completion(problem)).correct


# -- DPO ----------------------------------------------------------------------------------------------------------------
def test_dpo_starts_at_ln_2(pairs, tmp_path):
    record = training.train_dpo(pairs, tmp_path / "dpo", model="tiny", params=PARAMS)
    assert record["history"][0]["loss"] == pytest.approx(math.log(2), abs=1e-3)
    assert record["steps"] == 3 and record["history"][-1]["rewards/margins"] != 0


def test_the_dpo_loss_falls_on_both_reflections_and_their_ends_only(pairs, tmp_path):
    loaded, trainer = build("dpo", pairs[:2], tmp_path / "x")
    batch = next(iter(trainer.get_train_dataloader()))
    counted = [
        loaded.tokenizer.decode(ids[mask.bool()])
        for ids, mask in zip(batch["input_ids"], batch["completion_mask"], strict=True)
    ]
    assert sorted(counted) == sorted(p[c][0]["content"] + "<|end|>" for p in pairs[:2] for c in ("chosen", "rejected"))


def _reference_log_probs(trainer):
    batch = next(iter(trainer.get_train_dataloader()))
    return batch, [x for part in trainer.compute_ref_log_probs(trainer.model, batch) for x in part.tolist()]


def _log_probs(model, batch):
    import torch

    with torch.inference_mode():
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    taken = logits.log_softmax(-1).gather(-1, batch["input_ids"][:, 1:, None])[..., 0]
    return (taken * batch["completion_mask"][:, 1:]).sum(-1).tolist()


def test_dpo_on_an_sft_adapter_has_the_sft_model_as_reference_and_not_the_base(reflector, pairs, tmp_path):
    _, trainer = build("dpo", pairs, tmp_path / "x", start=reflector[0])
    start = weights(reflector[0])
    trainer.train()
    batch, found = _reference_log_probs(trainer)  # after training: the reference has not moved with the policy
    adapters = models.Adapters(models.load("tiny").model)
    with adapters.use(reflector[0]) as model:
        assert found == pytest.approx(_log_probs(model, batch), abs=1e-3)
    with adapters.use(None) as model:
        assert max(abs(a - b) for a, b in zip(found, _log_probs(model, batch), strict=True)) > 0.5
    assert trainer.state.log_history[0]["loss"] == pytest.approx(math.log(2), abs=1e-3)
    policy = {n.replace(".default.", "."): p for n, p in trainer.model.named_parameters() if ".default." in n}
    assert policy.keys() == start.keys() and not same({n: p.data for n, p in policy.items()}, start)


def test_an_adapter_trained_on_another_is_one_adapter_on_the_base(reflector, pairs, tmp_path, engine):
    out = tmp_path / "sft_dpo"
    record = training.train_dpo(pairs, out, model="tiny", params=PARAMS, start=reflector[0])
    assert not (out / training.REFERENCE).exists() and weights(out).keys() == weights(reflector[0]).keys()
    said = [pairs[0]["chosen"][0]["content"]]
    scores = {
        name: engine.score([pairs[0]["prompt"]], said, adapter=a) for name, a in (("sft", reflector[0]), ("dpo", out))
    }
    assert scores["sft"] != scores["dpo"] and record["start"] == models.fingerprint(str(reflector[0]))
    with pytest.raises(ValueError, match="trained with other start"):
        training.train_dpo(pairs, out, model="tiny", params=PARAMS)


def test_a_missing_start_is_named(pairs, tmp_path):
    with pytest.raises(ValueError, match=r"no adapter at .*nowhere to train x on top of: train that setting first"):
        training.train_dpo(pairs, tmp_path / "x", model="tiny", params=PARAMS, start=tmp_path / "nowhere")


# -- Validation and early stopping ----------------------------------------------------------------------------------------
def test_a_question_is_trained_on_or_validated_on_never_both(data):
    trained, held = training.split(data, changed(validation_share=0.3))
    assert trained and held and not {r["id"] for r in trained} & {r["id"] for r in held}
    assert sorted(map(str, [*trained, *held])) == sorted(map(str, data))
    assert training.split(data, changed(validation_share=0.3, seed=1))[1] != held
    assert training.split(data, PARAMS) == (data, [])
    with pytest.raises(ValueError, match="leaves one side empty"):
        training.split(data, changed(validation_share=0.001))


def test_early_stopping_keeps_the_weights_of_the_lowest_validation_loss(data, tmp_path):
    params = changed(
        validation_share=0.3, patience=1, epochs=10, learning_rate=3e-2
    )  # far too fast: it soon gets worse
    out = tmp_path / "stopped"
    record = training.train_sft(data, out, model="tiny", params=params)
    losses = {h["step"]: h["eval_loss"] for h in record["validation"]}
    assert record["steps"] < record["planned_steps"] and record["trained_rows"] + record["validation_rows"] == 40
    assert record["best_step"] == min(losses, key=losses.get) < record["steps"]
    loaded = training._load(job("sft", data, out))
    trained, held = training.split(data, params)
    trainer = training.build(job("sft", data, tmp_path / "y", params, out), loaded, trained, held)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(min(losses.values()), abs=1e-4)


def test_the_validation_loss_is_drawn_and_training_only_watched(data, pairs, tmp_path):
    run = store.Run(tmp_path)
    params = changed(validation_share=0.3, epochs=2)
    for kind, rows in (("sft", data), ("dpo", pairs)):
        record = getattr(training, f"train_{kind}")(rows, run.path("adapters", kind), model="tiny", params=params)
        assert record["steps"] == record["planned_steps"] and len(record["validation"]) >= 4
    curves = analysis.training_curves(run)
    for kind, panels in (("sft", 2), ("dpo", 3)):
        axes = plots.training(curves, kind).axes
        assert len(axes) == panels and len(axes[0].lines) >= 2  # the loss, and the dashed one


# -- Lengths and packing --------------------------------------------------------------------------------------------------
def test_rows_that_do_not_fit_are_counted_and_refused(data, tmp_path):
    with pytest.raises(
        ValueError, match=r"40 of 40 .* exceed max_length 40 \(longest \d+\): raise it, or set too_long"
    ):
        training.train_sft(data, tmp_path / "x", model="tiny", params=changed(max_length=40))
    with pytest.raises(ValueError, match=r"every x row exceeds max_length 40 \(shortest \d+\)"):
        training.train_sft(data, tmp_path / "x", model="tiny", params=changed(max_length=40, too_long="skip"))


def test_skipped_rows_are_named_and_the_others_are_all_trained_on(data, tmp_path, capsys):
    lengths = training.row_lengths(models.load("tiny"), job("sft", data, tmp_path / "x"))
    limit = max(lengths) - 1
    long = [row["id"] for row, n in zip(data, lengths, strict=True) if n > limit]
    assert 1 <= len(long) < 40
    params = changed(max_length=limit, too_long="skip")
    record = training.train_sft(data, tmp_path / "x", model="tiny", params=params)
    assert record["skipped"] == long and record["trained_rows"] == 40 - len(long)
    said = capsys.readouterr().out
    assert f"x: 40 rows, {sum(lengths):,} tokens ({min(lengths)} to {max(lengths)} a row" in said
    assert f"left out {', '.join(long)}" in said


def test_a_row_that_preprocessing_loses_is_not_lost_in_silence(data, tmp_path, monkeypatch):
    whole_set = training._dataset
    monkeypatch.setattr(training, "_dataset", lambda job, rows: whole_set(job, rows[:-1]))
    with pytest.raises(RuntimeError, match="1 of 10 training rows vanished"):
        build("sft", data[:10], tmp_path / "x")


def test_packed_rows_do_not_see_each_other(data, tmp_path):
    first = []
    for name, packing in (("loose", False), ("packed", True)):
        _, trainer = build("sft", data[:12], tmp_path / name, changed(batch_size=12, packing=packing, max_length=256))
        batch = next(iter(trainer.get_train_dataloader()))
        first.append(trainer.compute_loss(trainer.model, batch).item())
    assert len(trainer.train_dataset) < 12 and first[0] == pytest.approx(first[1], abs=1e-4)


def test_packing_is_refused_where_it_is_not_exact(data, tmp_path):
    this = job("sft", data[:4], tmp_path / "x", changed(packing=True))
    loaded = training._load(this)
    loaded.model.set_attn_implementation("eager")
    with pytest.raises(ValueError, match="packing would let rows see each other under 'eager' attention"):
        training.build(this, loaded, this.rows)


# -- All weights ----------------------------------------------------------------------------------------------------------
def test_full_fine_tuning_leaves_a_whole_model_that_a_setting_can_name(whole, data, engine):
    assert (whole / "model.safetensors").exists() and not (whole / "adapter_config.json").exists()
    prompt, said = [data[0]["prompt"]], [data[0]["completion"][0]["content"]]
    base, tuned = engine.score(prompt, said), engine.score(prompt, said, adapter=whole)
    alone = engines.TransformersEngine(models.load(str(whole))).score(prompt, said)
    assert tuned == pytest.approx(alone, abs=1e-4) and tuned[0] > base[0] + 0.1
    assert engine.score(prompt, said) == base


def test_dpo_of_all_weights_has_the_model_it_starts_from_as_reference(whole, pairs, tmp_path):
    params = changed(full_finetuning=True, learning_rate=1e-4)
    _, trainer = build("dpo", pairs[:8], tmp_path / "x", params, whole)
    trainer.train()
    batch, found = _reference_log_probs(trainer)
    assert found == pytest.approx(_log_probs(models.load(str(whole)).model, batch), abs=1e-3)
    assert trainer.state.log_history[0]["loss"] == pytest.approx(math.log(2), abs=1e-3)


# -- Parameters -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"too_long": "cut"}, "'cut' must be 'error' or 'skip'"),
        ({"full_finetuning": True, "load_in_4bit": True}, "full_finetuning needs load_in_4bit: false"),
        ({"lora_r": 0}, "full_finetuning: true"),
        ({"validation_share": 1.0}, r"must be in \[0, 1\)"),
        ({"patience": 2}, "set validation_share above 0"),
        ({"batch_size": 9, "processes": 2}, "batch_size 9 cannot be shared by 2 processes"),
    ],
)
def test_parameters_that_contradict_each_other_are_refused(values, said):
    with pytest.raises(ValueError, match=said):
        changed(**values)


@pytest.mark.parametrize(("kind", "name"), [("sft", "SFTConfig"), ("dpo", "DPOConfig")])
def test_no_hyper_parameter_hangs_on_a_librarys_default(kind, name, monkeypatch):
    import trl

    altered = {"learning_rate": 5e-5, "weight_decay": 0.01, "warmup_steps": 5, "optim": "adamw_8bit", "seed": 3407}
    altered |= {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "lr_scheduler_type": "linear"}
    altered |= {"max_grad_norm": 0.3, "logging_steps": 1, "num_train_epochs": 3, "max_length": 2048, "adam_beta2": 0.99}
    altered |= {"save_strategy": "no", "data_seed": 3407, "gradient_checkpointing": True, "dataloader_drop_last": True}
    altered |= (
        {"packing": True, "completion_only_loss": False} if kind == "sft" else {"beta": 0.5, "loss_type": ["ipo"]}
    )
    real, before = getattr(trl, name), training.resolved_args(kind, PARAMS)
    monkeypatch.setattr(trl, name, lambda **given: real(**(altered | given)))
    assert training.resolved_args(kind, PARAMS) == before and before["learning_rate"] == 3e-3


def test_nothing_to_train_on_is_said(tmp_path):
    with pytest.raises(ValueError, match="no curated row"):
        training.train_sft([], tmp_path / "x", model="tiny", params=PARAMS)


# -- Adapters on one base ---------------------------------------------------------------------------------------------------
def test_adapters_loaded_later_leave_earlier_ones_and_the_base_alone(reflector, rows, data, tmp_path):
    out, _ = reflector
    other = examples("reflector", sets.unfiltered(rows, 16, seed=3))
    training.train_sft(other, tmp_path / "other", model="tiny", params=PARAMS)
    prompt, said = [data[0]["prompt"]], ["Step 2 is wrong: it is miscalculated."]

    def alone(adapter):
        return engines.TransformersEngine(models.load("tiny")).score(prompt, said, adapter=adapter)

    one = engines.TransformersEngine(models.load("tiny"))
    in_turn = {i: one.score(prompt, said, adapter=a) for i, a in enumerate([None, out, tmp_path / "other", out, None])}
    assert in_turn[0] == in_turn[4] == alone(None)
    assert in_turn[1] == in_turn[3] == alone(out)
    assert in_turn[2] == alone(tmp_path / "other") and len({tuple(v) for v in in_turn.values()}) == 3
