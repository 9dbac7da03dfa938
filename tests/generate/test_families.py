"""Seven (with SmolLM2 eight) real families' formats from generation to one step of SFT and of DPO, on small random models (tests/families.py).

What a model is sent must be what it is trained on, token for token, in the family's own format.
"""

from __future__ import annotations

import random
import re

import families
import pytest
from families import FAMILIES

from reflectevo_lite import prompts
from reflectevo_lite.curate import examples, sets
from reflectevo_lite.generate import chat, engines, models, rollouts
from reflectevo_lite.train import training

SAYS = tuple(f"{word}Answer: {letter}\n" for letter in "AB" for word in ("", "So: ", "Or: "))
LENGTH = 24
ONE_STEP = training.TrainParams(learning_rate=1e-3, epochs=1, batch_size=64, max_length=4096, lora_r=4)


def question(i: int) -> dict:
    """An invented choice question; half of the answers are A."""
    things = random.Random(i).sample(["cups", "plates", "old maps", "red lamps", "shoes", "clocks", "keys", "bells"], 5)
    return {
        "id": f"q{i}",
        "task": "invented",
        "question": f"On a shelf are {', '.join(things)}, {i} of each. Are there more {things[i % 5]} than {things[0]}?",
        "choices": ["Yes", "No"],
        "answer": "AB"[i % 2],
        "grader": "choice",
        "meta": {},
    }


class Journey:
    """One family from generation to a DPO step, with the very batches that were trained on."""

    def __init__(self, name: str, folder, watch) -> None:
        self.family = FAMILIES[name]
        path = families.build(name, folder / "model", says=SAYS)
        self.engine = engines.TransformersEngine(models.load(path))
        self.tokenizer = self.engine.tokenizer
        self.rows = rollouts.generate_rollouts(
            self.engine,
            [question(i) for i in range(16)],
            folder / "rollouts.jsonl",
            k=4,
            temperature=1.0,
            max_new_tokens=LENGTH,
            progress=False,
        )
        self.plus = examples("reflector", sets.d_plus(self.rows))
        self.pairs = examples("preference", sets.d_pm(self.rows))
        with watch() as batches:
            self.sft = training.train_sft(self.plus, folder / "sft", model=path, params=ONE_STEP)
            self.dpo = training.train_dpo(self.pairs, folder / "dpo", model=path, params=ONE_STEP)
        self.sft_batch, self.dpo_batch = batches

    def sequences(self):
        """(token ids, which of them are trained on) of every example of both batches, without padding."""
        sft, dpo = self.sft_batch, self.dpo_batch
        for batch, trained in ((sft, sft["labels"] != -100), (dpo, dpo["completion_mask"] == 1)):
            for ids, mask, kept in zip(batch["input_ids"], batch["attention_mask"], trained, strict=True):
                yield ids[mask == 1].tolist(), kept[mask == 1].tolist()

    def examples(self):
        """Every (prompt, completion) of both trainings."""
        for row in self.plus:
            yield row["prompt"], row["completion"]
        for row in self.pairs:
            yield from ((row["prompt"], row["chosen"]), (row["prompt"], row["rejected"]))


@pytest.fixture(scope="module", params=FAMILIES)
def journey(request, tmp_path_factory):
    import contextlib

    from transformers import Trainer

    @contextlib.contextmanager
    def watch():
        batches = []
        with pytest.MonkeyPatch.context() as patch:
            step = Trainer.training_step
            patch.setattr(Trainer, "training_step", lambda self, *a, **k: batches.append(a[1]) or step(self, *a, **k))
            yield batches

    return Journey(request.param, tmp_path_factory.mktemp(request.param), watch)


def test_a_family_goes_from_generation_to_one_step_of_sft_and_of_dpo(journey):
    assert journey.sft["steps"] == 1 and journey.sft["rows"] == len(journey.plus) > 0
    assert journey.dpo["steps"] == 1 and journey.dpo["rows"] == len(journey.pairs) > 0
    assert journey.dpo["history"][0]["loss"] == pytest.approx(0.6931, abs=1e-3)  # ln 2: the reference is the model


def test_the_prompt_that_was_sent_is_the_prefix_that_is_trained_on(journey):
    sent = {tuple(journey.engine.encode(prompt)) for prompt, _ in journey.examples()}
    trained = [tuple(ids[: kept.index(1)]) for ids, kept in journey.sequences() if any(kept)]
    assert set(trained) == sent and len(trained) == len(journey.plus) + 2 * len(journey.pairs)


def test_what_is_trained_on_is_the_text_and_the_end_of_the_turn(journey):
    tokenizer, end = journey.tokenizer, journey.family.end_of_turn
    said = {completion[0]["content"] for _, completion in journey.examples()}
    for ids, kept in journey.sequences():
        text = tokenizer.decode([i for i, k in zip(ids, kept, strict=True) if k])
        completion, found, rest = text.partition(end)
        assert found and completion.strip() in said
        assert not rest.replace(journey.family.eos, "").strip()  # a line break, Phi-3's <|endoftext|>; no further text


def test_one_bos_at_most_in_generation_and_in_training(journey):
    bos = journey.tokenizer.bos_token_id if journey.family.bos else None
    sent = [journey.engine.encode(prompt) for prompt, _ in journey.examples()]
    for ids in [*sent, *(ids for ids, _ in journey.sequences())]:
        if journey.family.real:  # SmolLM2's <|im_start|> begins every turn, too
            assert ids[0] == bos and journey.tokenizer.decode(ids).count("<|im_start|>") == ids.count(bos) in (4, 5)
        elif "bos_token" in families.template(journey.family):
            assert ids[0] == bos and ids.count(bos) == 1
        else:
            assert bos is None or bos not in ids


def test_the_end_of_turn_stops_generation_and_is_no_part_of_the_text(journey):
    turns = [a for r in journey.rows for a in (r["turn1"], *(x["turn2"] for x in r["reflections"]))]
    ended = [a for a in turns if not a["truncated"]]
    assert ended and all(a["tokens"] <= LENGTH for a in turns)
    for attempt in turns:
        assert journey.family.end_of_turn not in attempt["completion"]
        assert set(attempt["completion"].split()) <= {"Answer:", "A", "B", "So:", "Or:"}


def test_roles_are_the_familys_own(journey):
    for prompt, _ in journey.examples():
        text = journey.tokenizer.decode(journey.engine.encode(prompt))
        assert text.endswith(journey.family.assistant)
        if "<start_of_turn>" in text:
            assert re.findall(r"<start_of_turn>(.*)", text) == ["user", "model", "user", "model"]


@pytest.mark.parametrize("name", ["mistral", "gemma2"])
def test_these_templates_refuse_a_system_message_so_no_prompt_may_hold_one(name):
    from jinja2.exceptions import TemplateError

    tokenizer = families.tokenizer(FAMILIES[name], ())
    problem = question(1)
    asked = prompts.retry_prompt(problem, "Answer: A", "Count again.")
    assert problem["question"] in tokenizer.apply_chat_template(asked, tokenize=False)
    with pytest.raises(TemplateError):
        tokenizer.apply_chat_template([{"role": "system", "content": "Be brief."}, *asked], tokenize=False)


def test_the_failed_attempt_in_the_middle_survives(journey):
    attempt = "<think>\nTwo cups.\n</think>\n\nFirst line.\n\n  indented \\boxed{2}\nAnswer: B"
    kept = attempt.partition("</think>\n\n")[2] if "think" in families.template(journey.family) else attempt
    row = {"problem": question(1), "turn1": {"completion": attempt}}
    text = journey.tokenizer.decode(
        journey.engine.encode(prompts.retry_prompt(row["problem"], attempt, "Count again."))
    )
    assert text.count(kept) == 1 and text.count("Count again.") == 1 and text.count(row["problem"]["question"]) == 1


def test_thinking_is_off_in_generation_and_in_training(journey):
    if "enable_thinking" not in families.template(journey.family):
        pytest.skip("this family does not think aloud")
    for ids, kept in journey.sequences():
        prompt = journey.tokenizer.decode([i for i, k in zip(ids, kept, strict=True) if not k])
        trained = journey.tokenizer.decode([i for i, k in zip(ids, kept, strict=True) if k])
        assert prompt.endswith("<think>\n\n</think>\n\n") and "think>" not in trained


def test_greedy_text_is_the_same_alone_and_in_a_padded_batch(journey):
    asked = [prompts.answer_prompt(question(i)) for i in range(6)]
    together = journey.engine.generate(asked, max_new_tokens=LENGTH)
    assert together == [journey.engine.generate([one], max_new_tokens=LENGTH)[0] for one in asked]


def test_a_turn_ends_with_its_own_token_whatever_the_configuration_names(tmp_path):
    path = families.build("gemma2", tmp_path, says=SAYS)
    loaded = models.load(path)
    named = [loaded.tokenizer.convert_ids_to_tokens(i) for i in models.stop_tokens(loaded.model, loaded.tokenizer)]
    assert set(named) == {"<eos>", "<end_of_turn>"}


def test_a_tokenizer_without_a_chat_template_names_no_end_of_turn(engine):
    import copy

    bare = copy.deepcopy(engine.tokenizer)
    bare.chat_template = None
    assert chat.end_of_turn(bare) is None and chat.end_of_turn(engine.tokenizer) == engine.tokenizer.eos_token_id
