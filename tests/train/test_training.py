"""Training: loss on completions only, DPO's reference, validation, packing, whole models, refusals; the embedded model."""

import dataclasses
import json
import math
from types import SimpleNamespace

import pytest
from conftest import ScriptedEngine

from reflectevo_lite import curate, generate, prompts, store
from reflectevo_lite.curate import sets
from reflectevo_lite.embedded import tasks as synthetic
from reflectevo_lite.generate import engines, models, rollouts
from reflectevo_lite.read import figures as plots
from reflectevo_lite.read import tables as analysis
from reflectevo_lite.train import backend, examples, parts, trainer, training
from reflectevo_lite.train.params import GRPOParams, Job, planned_steps

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
    return curate.examples("reflector", sets.unfiltered(rows, 40))


@pytest.fixture(scope="module")
def pairs(rows):
    return curate.examples("preference", sets.d_pm(rows))[:24]


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
    return Job(kind, rows, out, "tiny", params, str(start) if start else None)


def build(kind, rows, out, params=PARAMS, start=None):
    this = job(kind, rows, out, params, start)
    loaded = trainer.load(this)
    return loaded, trainer.build(this, loaded, rows)


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
    loaded, built = build("sft", data[:3], tmp_path / "x")
    batch = next(iter(built.get_train_dataloader()))
    for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True):
        trained = loaded.tokenizer.decode(ids[labels != -100])
        assert any(trained == r["completion"][0]["content"] + "<|end|>" for r in data[:3])


def test_answers_only_trains_on_every_question_and_its_gold_answer(rows):
    found = curate.examples("qa", rows)
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
    assert grade(problem, prompts.gold_completion(problem)).correct


# -- DPO ----------------------------------------------------------------------------------------------------------------
def test_dpo_starts_at_ln_2(pairs, tmp_path):
    record = training.train_dpo(pairs, tmp_path / "dpo", model="tiny", params=PARAMS)
    assert record["history"][0]["loss"] == pytest.approx(math.log(2), abs=1e-3)
    assert record["steps"] == 3 and record["history"][-1]["rewards/margins"] != 0


def test_the_dpo_loss_falls_on_both_reflections_and_their_ends_only(pairs, tmp_path):
    loaded, built = build("dpo", pairs[:2], tmp_path / "x")
    batch = next(iter(built.get_train_dataloader()))
    counted = [
        loaded.tokenizer.decode(ids[mask.bool()])
        for ids, mask in zip(batch["input_ids"], batch["completion_mask"], strict=True)
    ]
    assert sorted(counted) == sorted(p[c][0]["content"] + "<|end|>" for p in pairs[:2] for c in ("chosen", "rejected"))


def _reference_log_probs(built):
    batch = next(iter(built.get_train_dataloader()))
    return batch, [
        x for part in built.compute_ref_log_probs(built.ref_model or built.model, batch) for x in part.tolist()
    ]


def _log_probs(model, batch):
    import torch

    with torch.inference_mode():
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    taken = logits.log_softmax(-1).gather(-1, batch["input_ids"][:, 1:, None])[..., 0]
    return (taken * batch["completion_mask"][:, 1:]).sum(-1).tolist()


def test_dpo_on_an_sft_adapter_has_the_sft_model_as_reference_and_not_the_base(reflector, pairs, tmp_path):
    _, built = build("dpo", pairs, tmp_path / "x", start=reflector[0])
    start = weights(reflector[0])
    built.train()
    batch, found = _reference_log_probs(built)  # after training: the reference has not moved with the policy
    adapters = models.Adapters(models.load("tiny").model)
    with adapters.use(reflector[0]) as model:
        assert found == pytest.approx(_log_probs(model, batch), abs=1e-3)
    with adapters.use(None) as model:
        assert max(abs(a - b) for a, b in zip(found, _log_probs(model, batch), strict=True)) > 0.5
    assert built.state.log_history[0]["loss"] == pytest.approx(math.log(2), abs=1e-3)
    policy = {n.replace(".default.", "."): p for n, p in built.model.named_parameters() if ".default." in n}
    assert policy.keys() == start.keys() and not same({n: p.data for n, p in policy.items()}, start)


def test_an_adapter_trained_on_another_is_one_adapter_on_the_base(reflector, pairs, tmp_path, engine):
    out = tmp_path / "sft_dpo"
    record = training.train_dpo(pairs, out, model="tiny", params=PARAMS, start=reflector[0])
    assert not (out / training.REFERENCE).exists() and weights(out).keys() == weights(reflector[0]).keys()
    said = [pairs[0]["chosen"][0]["content"]]
    scores = {
        name: engine.score([pairs[0]["prompt"]], said, adapter=a) for name, a in (("sft", reflector[0]), ("dpo", out))
    }
    assert scores["sft"] != scores["dpo"] and record["start"] == generate.fingerprint(str(reflector[0]))
    with pytest.raises(ValueError, match="trained with other start"):
        training.train_dpo(pairs, out, model="tiny", params=PARAMS)


def test_a_missing_start_is_named(pairs, tmp_path):
    with pytest.raises(ValueError, match=r"no adapter at .*nowhere to train x on top of: train that setting first"):
        training.train_dpo(pairs, tmp_path / "x", model="tiny", params=PARAMS, start=tmp_path / "nowhere")


# -- Validation and early stopping ----------------------------------------------------------------------------------------
def test_a_question_is_trained_on_or_validated_on_never_both(data):
    trained, held = examples.split(data, changed(validation_share=0.3))
    assert trained and held and not {r["id"] for r in trained} & {r["id"] for r in held}
    assert sorted(map(str, [*trained, *held])) == sorted(map(str, data))
    assert examples.split(data, changed(validation_share=0.3, seed=1))[1] != held
    assert examples.split(data, PARAMS) == (data, [])
    with pytest.raises(ValueError, match="leaves one side empty"):
        examples.split(data, changed(validation_share=0.001))


def test_early_stopping_keeps_the_weights_of_the_lowest_validation_loss(data, tmp_path):
    params = changed(
        validation_share=0.3, patience=1, epochs=10, learning_rate=3e-2
    )  # far too fast: it soon gets worse
    out = tmp_path / "stopped"
    record = training.train_sft(data, out, model="tiny", params=params)
    losses = {h["step"]: h["eval_loss"] for h in record["validation"]}
    assert record["steps"] < record["planned_steps"] and record["trained_rows"] + record["validation_rows"] == 40
    assert record["best_step"] == min(losses, key=losses.get) < record["steps"]
    loaded = trainer.load(job("sft", data, out))
    trained, held = examples.split(data, params)
    built = trainer.build(job("sft", data, tmp_path / "y", params, out), loaded, trained, held)
    assert built.evaluate()["eval_loss"] == pytest.approx(min(losses.values()), abs=1e-4)


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
    lengths = examples.row_lengths(job("sft", data, tmp_path / "x"), data, models.load("tiny").tokenizer)
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
    whole_set = examples.dataset
    monkeypatch.setattr(examples, "dataset", lambda kind, rows: whole_set(kind, rows[:-1]))
    with pytest.raises(RuntimeError, match="1 of 10 training rows vanished"):
        build("sft", data[:10], tmp_path / "x")


def test_packed_rows_do_not_see_each_other(data, tmp_path):
    first = []
    for name, packing in (("loose", False), ("packed", True)):
        _, built = build("sft", data[:12], tmp_path / name, changed(batch_size=12, packing=packing, max_length=256))
        batch = next(iter(built.get_train_dataloader()))
        first.append(built.compute_loss(built.model, batch).item())
    assert len(built.train_dataset) < 12 and first[0] == pytest.approx(first[1], abs=1e-4)


def test_packing_is_refused_where_it_is_not_exact(data, tmp_path):
    this = job("sft", data[:4], tmp_path / "x", changed(packing=True))
    loaded = trainer.load(this)
    loaded.model.set_attn_implementation("eager")
    with pytest.raises(ValueError, match="packing would let rows see each other under 'eager' attention"):
        trainer.build(this, loaded, this.rows)


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
    _, built = build("dpo", pairs[:8], tmp_path / "x", params, whole)
    built.train()
    batch, found = _reference_log_probs(built)
    assert found == pytest.approx(_log_probs(models.load(str(whole)).model, batch), abs=1e-3)
    assert max(abs(a - b) for a, b in zip(found, _log_probs(built.model, batch), strict=True)) > 0.05
    assert built.state.log_history[0]["loss"] == pytest.approx(math.log(2), abs=1e-3)


# -- Parameters -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"too_long": "cut"}, "'cut' must be 'error' or 'skip'"),
        ({"full_finetuning": True, "load_in_4bit": True}, "full_finetuning needs load_in_4bit: false"),
        ({"lora_r": 0}, "full_finetuning: true"),
        ({"warmup": 1.0}, r"warmup 1.0 must be in \[0, 1\)"),
        ({"validation_share": 1.0}, r"must be in \[0, 1\)"),
        ({"patience": 2}, "set validation_share above 0"),
        ({"batch_size": 9, "processes": 2}, "batch_size 9 cannot be shared by 2 processes"),
    ],
)
def test_parameters_that_contradict_each_other_are_refused(values, said):
    with pytest.raises(ValueError, match=said):
        changed(**values)


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """The arguments of a kind's trainer."""
    loaded, out = models.load("tiny", backend="transformers"), tmp_path_factory.mktemp("args") / "x"
    grpo = GRPOParams(learning_rate=3e-3, batch_size=8)
    return lambda kind: trainer.arguments(job(kind, [], out, grpo if kind == "grpo" else PARAMS), loaded, 1000)


@pytest.mark.parametrize("kind", ["sft", "dpo", "grpo"])
def test_no_hyper_parameter_hangs_on_a_librarys_default(kind, given):
    import trl

    altered = {"learning_rate": 5e-5, "weight_decay": 0.01, "warmup_steps": 5, "optim": "adamw_8bit", "seed": 3407}
    altered |= {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "lr_scheduler_type": "linear"}
    altered |= {"max_grad_norm": 0.3, "logging_steps": 1, "num_train_epochs": 3, "adam_beta2": 0.99, "loss_type": "ipo"}
    altered |= {"save_strategy": "no", "data_seed": 3407, "gradient_checkpointing": True, "dataloader_drop_last": True}
    altered |= {"sft": {"packing": True, "max_length": 8}, "dpo": {"beta": 0.5}, "grpo": {"epsilon_high": 0.28}}[kind]
    assert altered.keys() <= given(kind).keys() | {"loss_type"} and given(kind)["learning_rate"] == 3e-3
    config = getattr(trl, f"{kind.upper()}Config")
    assert config(**altered | given(kind)).to_dict() == config(**given(kind)).to_dict()


@pytest.mark.parametrize("kind", ["sft", "dpo", "grpo"])
def test_an_argument_that_the_trainer_changed_is_named(kind, given):
    import trl

    passed = given(kind)
    args = getattr(trl, f"{kind.upper()}Config")(**passed)
    backend.compare(args, passed)
    args.max_grad_norm, args.torch_empty_cache_steps, args.bf16 = 0.3, 250, True
    changed = "max_grad_norm 1.0 became 0.3"
    with pytest.raises(
        RuntimeError, match="not train as it was told: torch_empty_cache_steps None became 250, max"
    ) as e:
        backend.compare(args, passed)
    assert changed in str(e.value) and "bf16 False became True" in str(e.value)
    with pytest.raises(RuntimeError) as e:
        backend.compare(args, passed, unsloth=True)  # the precision is Unsloth's own choice
    assert changed in str(e.value) and "bf16" not in str(e.value)


def test_a_trainer_that_overrides_an_argument_is_refused(data, tmp_path, monkeypatch):
    import trl

    class Overriding(trl.SFTTrainer):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.args.weight_decay = 0.01

    monkeypatch.setattr(trl, "SFTTrainer", Overriding)
    with pytest.raises(RuntimeError, match=r"as it was told: weight_decay 0\.0 became 0\.01$"):
        build("sft", data[:4], tmp_path / "x")


@pytest.mark.parametrize(("rows", "epochs", "steps"), [(40, 1, 5), (41, 2, 12), (8, 0.5, 1), (40, 0.5, 3), (40, 0, 0)])
def test_steps_are_those_that_transformers_takes(rows, epochs, steps):
    assert planned_steps("sft", changed(epochs=epochs), rows) == steps


def test_a_single_step_moves_the_weights_and_no_step_is_refused(data, tmp_path):
    record = training.train_sft(data[:8], tmp_path / "one", model="tiny", params=PARAMS)
    assert record["steps"] == 1 and record["history"][0]["learning_rate"] == PARAMS.learning_rate
    moved = [weight for name, weight in weights(tmp_path / "one").items() if "lora_B" in name]  # 0 at the start
    assert moved and all(weight.abs().max() > 0 for weight in moved)
    with pytest.raises(ValueError, match="training none would take no step: set its epochs"):
        training.train_sft(data[:8], tmp_path / "none", model="tiny", params=changed(epochs=0))


@pytest.mark.parametrize(("count", "warmup"), [(8, 0), (16, 0.1), (1000, 0.1)])
def test_the_warm_up_is_the_same_share_of_all_steps_but_leaves_the_last_one(count, warmup, tmp_path):
    loaded = models.load("tiny", backend="transformers")
    assert trainer.arguments(job("sft", [], tmp_path / "x"), loaded, count)["warmup_steps"] == warmup


RUN = {"sft_learning_rate": 1e-3, "sft_epochs": 5, "sft_batch_size": 32, "dpo_learning_rate": 1e-4, "dpo_epochs": 1}
RUN |= {
    "dpo_batch_size": 16,
    "dpo_beta": 0.2,
    "dpo_chosen_weight": 0.5,
    "corrector_learning_rate": 0,
    "corrector_epochs": 2,
    "packing": True,
}
RUN |= {"grpo_learning_rate": 2e-4, "grpo_steps": 0, "grpo_batch_size": 16, "grpo_generations": 4, "temperature": 0.9}
RUN |= {"max_new_tokens": 64, "validation_share": 0.1, "patience": 2, "max_length": 512, "lora_r": 8, "seed": 7}
RUN |= {"n_rollout": 9, "model": "tiny"}


def test_parameters_are_taken_from_a_runs_own():
    run, shared = SimpleNamespace(**RUN), {"max_length": 512, "lora_r": 8, "seed": 7}
    watched = shared | {"validation_share": 0.1, "patience": 2}
    assert training.TrainParams.of("sft", run) == training.TrainParams(1e-3, 5, 32, packing=True, **watched)
    assert training.TrainParams.of("corrector", run) == training.TrainParams(1e-3, 2, 32, packing=True, **watched)
    dpo = training.TrainParams(1e-4, 1, 16, beta=0.2, chosen_weight=0.5, **watched)
    assert training.TrainParams.of("dpo", run) == training.TrainParams.of("further", run) == dpo  # null: DPO's rate
    run.further_learning_rate = 1e-5
    assert training.TrainParams.of("further", run) == dataclasses.replace(dpo, learning_rate=1e-5)
    own = {"steps": 1, "generations": 4, "temperature": 0.9, "max_new_tokens": 64}
    assert GRPOParams.of(run) == GRPOParams(learning_rate=2e-4, batch_size=16, **own, **shared)
    with pytest.raises(KeyError):
        training.TrainParams.of("stf", run)


def test_nothing_to_train_on_is_said(tmp_path):
    with pytest.raises(ValueError, match="no curated row"):
        training.train_sft([], tmp_path / "x", model="tiny", params=PARAMS)


# -- Adapters on one base ---------------------------------------------------------------------------------------------------
def test_adapters_loaded_later_leave_earlier_ones_and_the_base_alone(reflector, rows, data, tmp_path):
    out, _ = reflector
    other = curate.examples("reflector", sets.unfiltered(rows, 16, seed=3))
    training.train_sft(other, tmp_path / "other", model="tiny", params=PARAMS)
    prompt, said = [data[0]["prompt"]], ["Step 2 is wrong: it is miscalculated."]

    def alone(adapter):
        return engines.TransformersEngine(models.load("tiny")).score(prompt, said, adapter=adapter)

    one = engines.TransformersEngine(models.load("tiny"))
    in_turn = {i: one.score(prompt, said, adapter=a) for i, a in enumerate([None, out, tmp_path / "other", out, None])}
    assert in_turn[0] == in_turn[4] == alone(None)
    assert in_turn[1] == in_turn[3] == alone(out)
    assert in_turn[2] == alone(tmp_path / "other") and len({tuple(v) for v in in_turn.values()}) == 3


# -- a batch in parts ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("kind", "chosen_weight"), [("sft", 0.0), ("dpo", 0.0), ("dpo", 0.5)])
def test_in_parts_a_batch_teaches_what_it_teaches_whole(kind, chosen_weight, data, pairs, tmp_path, monkeypatch):
    import torch

    params = changed(batch_size=10, grad_accum=2, chosen_weight=chosen_weight, max_grad_norm=1e9)
    rows = data[:33] if kind == "sft" else pairs  # neither is a multiple of 20: the last batches are smaller
    learned = []
    for tokens in (10**9, 300):
        monkeypatch.setattr(parts, "part_tokens", lambda job, loaded, fit=tokens: fit)
        record = training.train(kind, rows, tmp_path / str(tokens), model="tiny", params=params)
        learned.append((weights(tmp_path / str(tokens)), record))
    (whole, one), (split, many) = learned
    assert (one["parts"], one["steps"]) == (1, many["steps"]) and many["parts"] > 2
    assert many["train_loss"] == pytest.approx(one["train_loss"], rel=1e-4)
    assert all(torch.allclose(whole[k], split[k], atol=2e-4) for k in whole)
    assert not all(torch.equal(whole[k], split[k]) for k in whole)


def test_out_of_memory_goes_on_in_smaller_parts(data, tmp_path, monkeypatch, capsys):
    import torch

    compute, seen = parts.split, []

    def full(inputs, tokens):
        seen.append(tokens)
        if tokens > 5_000:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return compute(inputs, tokens)

    monkeypatch.setattr(parts, "split", full)
    monkeypatch.setattr(parts, "part_tokens", lambda job, loaded: 16_000)
    record = training.train_sft(data, tmp_path / "r", model="tiny", params=PARAMS)
    assert record["steps"] == record["planned_steps"] and sorted(set(seen)) == [4_000, 8_000, 16_000]
    assert capsys.readouterr().out.count("in parts half as large") == 2
