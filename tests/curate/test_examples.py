"""No training example holds its own target or a verdict on it in its prompt; every form gives what it says."""

import json

import pytest

from reflectevo_lite import prompts
from reflectevo_lite.curate import FORMS, examples, sets
from reflectevo_lite.generate import rollouts


@pytest.fixture
def rows(scripted, tmp_path):
    engine, problems = scripted
    out = tmp_path / "r.jsonl"
    return list(rollouts.generate_rollouts(engine, problems, out, k=6, temperature=1.0, chunk_size=20, progress=False))


@pytest.mark.parametrize("kind", ["reflector", "corrector", "one_stage"])
def test_no_training_input_holds_its_target_or_a_verdict_on_it(rows, kind):
    for row, plus in zip(examples(kind, sets.d_plus(rows)), sets.d_plus(rows), strict=True):
        said = "\n".join(m["content"] for m in row["prompt"])
        assert row["completion"][0]["content"] not in said
        assert plus["reflection"]["turn2"]["completion"] not in said
        if kind != "corrector":
            assert plus["reflection"]["text"] not in said
        assert "is correct" not in said.lower().replace("not correct", "")
        assert json.dumps(said).count(prompts.VERDICT["oracle"]) == 1  # about the first attempt, which is shown


def test_preference_prompts_are_shared_generic_and_hold_neither_side(rows):
    pairs = list(sets.d_pm(rows))
    for row, pair in zip(examples("preference", pairs), pairs, strict=True):
        assert row["prompt"] == prompts.reflection_prompt(pair["problem"], pair["turn1"]["completion"])
        said = "\n".join(m["content"] for m in row["prompt"])
        assert row["chosen"][0]["content"] not in said and row["rejected"][0]["content"] not in said
        assert row["chosen"] != row["rejected"]


def test_reward_examples_are_the_failed_attempts_alone(rows):
    failed = [r for r in rows if not r["turn1"]["correct"]]
    found = examples("reward", rows)
    assert 0 < len(failed) < len(rows)
    assert [(e["problem"], e["attempt"]) for e in found] == [(r["problem"], r["turn1"]["completion"]) for r in failed]


def test_every_form_names_its_row_and_an_unknown_one_is_refused(rows):
    made_from = {"qa": rows, "reward": rows, "preference": list(sets.d_pm(rows))}
    for form in FORMS:
        for example in examples(form, made_from.get(form, sets.d_plus(rows))):
            assert list(example)[:4] == ["id", "task", "instruction", "prompt"]
    with pytest.raises(ValueError, match="unknown form of examples 'sft'; there are reflector, corrector"):
        examples("sft", rows)
