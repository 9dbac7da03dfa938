"""GRPO: what is rewarded, by whom, on which tokens; and that an interrupted training goes on to the same adapter."""

import dataclasses

import pytest
from conftest import ScriptedEngine
from test_training import same, weights
from tiny_model.corpus import reflection_text

from reflectevo_lite import curate
from reflectevo_lite.embedded import tasks as synthetic
from reflectevo_lite.generate import rollouts
from reflectevo_lite.grading import grade
from reflectevo_lite.train import trainer, training
from reflectevo_lite.train.params import GRPOParams, Job
from reflectevo_lite.train.reward import SecondTurnReward

PARAMS = GRPOParams(learning_rate=3e-3, steps=3, batch_size=8, generations=4, checkpoints=3)


@pytest.fixture(scope="module")
def rollout(tmp_path_factory):
    problems = synthetic.problems(40, "train", seed=21)
    out = tmp_path_factory.mktemp("rollouts") / "r.jsonl"
    return rollouts.generate_rollouts(ScriptedEngine(problems), problems, out, k=1, temperature=1.0, progress=False)


@pytest.fixture(scope="module")
def rows(rollout):
    return curate.examples("reward", rollout)


def reflection(row, place):
    task = synthetic.to_task(row["problem"])
    return reflection_text(task, task.parse(row["attempt"]), place, "context", "generic")


def build(rows, out, params=PARAMS):
    job = Job("grpo", rows, out, "tiny", params)
    return trainer.build(job, trainer.load(job), rows)


def test_only_failed_attempts_are_reflected_on_from_the_generic_prompt(rollout, rows):
    assert [r["id"] for r in rows] == [r["id"] for r in rollout if not r["turn1"]["correct"]] and len(rows) > 5
    assert all(r["prompt"][1]["content"] == r["attempt"] and len(r["prompt"]) == 3 for r in rows)


def test_the_reward_is_a_right_second_turn(rows):
    reward = SecondTurnReward(ScriptedEngine([r["problem"] for r in rows]), rows, 96)
    blames = [(row, place) for row in rows for place in (1, 2, 3, 4)]
    expected = []
    for row, place in blames:  # by the world's own rule of what a blame leads to
        task = synthetic.to_task(row["problem"])
        second = task.retry(task.parse(row["attempt"]), place).text(task)
        expected.append(float(grade(row["problem"], second).correct))
    assert reward.rewards([row for row, _ in blames], [reflection(*blame) for blame in blames]) == expected
    assert 3 < sum(expected) < len(expected) / 2


def test_a_reflection_that_states_the_answer_earns_nothing(rows, monkeypatch):
    reward = SecondTurnReward(ScriptedEngine([]), rows, 96)
    monkeypatch.setattr(reward, "_base_answers", lambda problems, retries: [{"correct": True} for _ in problems])
    row = rows[0]
    texts = ["Step 1 is wrong.", f"Step 1 is wrong.\nAnswer: {row['problem']['answer']}"]
    assert reward.rewards([row, row], texts) == [1.0, 0.0]


def test_the_base_answers_with_the_adapter_off_and_the_policy_notices_nothing(rows, tmp_path):
    import torch

    built = build(rows, tmp_path / "x")
    reward = built.reward_funcs[0]
    texts = [reflection(row, 1) for row in rows]
    before = reward.rewards(rows, texts)
    for name, weight in built.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=1.0)  # a policy that writes nonsense
    built.model.train()
    state = torch.random.get_rng_state()
    assert reward.rewards(rows, texts) == before and 0 < sum(before) < len(before)
    assert torch.equal(torch.random.get_rng_state(), state) and built.model.training


def test_only_the_tokens_of_the_reflections_are_trained_on(rows, tmp_path, monkeypatch):
    built, seen = build(rows, tmp_path / "x"), []
    reward = built.reward_funcs[0].rewards
    monkeypatch.setattr(
        built.reward_funcs[0], "rewards", lambda asked, texts: seen.extend(texts) or reward(asked, texts)
    )
    built.model.train()
    inputs = built._prepare_inputs(next(iter(built.get_train_dataloader())))
    tokenizer = built.processing_class
    trained = [
        tokenizer.decode(ids[mask.bool()])
        for ids, mask in zip(inputs["completion_ids"], inputs["completion_mask"], strict=True)
    ]
    assert len(seen) == 8 and sorted(trained) == sorted(f"{text}<|end|>" for text in seen)


def test_an_interrupted_training_goes_on_to_the_same_adapter(rows, tmp_path, monkeypatch):
    from transformers import Trainer

    record = training.train_grpo(rows, tmp_path / "straight", model="tiny", params=PARAMS)
    assert record["steps"] == 3 and all(0 <= h["reward"] <= 1 for h in record["history"])
    step, calls = Trainer.training_step, []

    def interrupted(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    monkeypatch.setattr(Trainer, "training_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        training.train_grpo(rows, tmp_path / "resumed", model="tiny", params=PARAMS)
    training.train_grpo(rows, tmp_path / "resumed", model="tiny", params=PARAMS)
    assert len(calls) == 4  # the third step again, and only that
    assert same(weights(tmp_path / "straight"), weights(tmp_path / "resumed"))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"batch_size": 6}, "batch_size 6 × grad_accum 1 must hold whole groups of 4"),
        ({"generations": 1}, "two or more"),
        ({"validation_share": 0.1}, "are for SFT and DPO"),
    ],
)
def test_parameters_that_contradict_each_other_are_refused(values, said):
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(PARAMS, **values)
