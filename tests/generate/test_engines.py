"""Generation is the same whatever the batch; adapters switch on and off cleanly."""

import copy
import random

import pytest

from reflectevo_lite import prompts
from reflectevo_lite.embedded import tasks as synthetic
from reflectevo_lite.generate import decoding, engines, models
from reflectevo_lite.generate.decoding import loop


@pytest.fixture(scope="module")
def conversations():
    rows = synthetic.problems(40, "train", seed=11)
    hasty = [synthetic.to_task(p).hasty().text(synthetic.to_task(p)) for p in rows]
    return [prompts.answer_prompt(p) for p in rows] + [
        prompts.retry_prompt(p, a, None) for p, a in zip(rows, hasty, strict=True)
    ]


def texts(found):
    return [[c.text for c in row] for row in found]


@pytest.fixture(scope="module")
def attempts():
    """Reflection prompts, four on each attempt under different instructions: long common beginnings."""
    rows = synthetic.problems(8, "train", seed=12)
    hasty = [synthetic.to_task(p).hasty().text(synthetic.to_task(p)) for p in rows]
    names = prompts.draw_instructions(32, 0)
    return [prompts.reflection_prompt(rows[i // 4], hasty[i // 4], names[i]) for i in range(32)]


def another(engine, **settings):
    """A second engine on the same weights."""
    return engines.TransformersEngine(
        models.Loaded(engine.model, engine.tokenizer, engine.name, engine.backend), **settings
    )


@pytest.fixture(scope="module")
def alone(engine, conversations, attempts):
    """Some prompts, and each one's greedy completion by itself."""
    asked = conversations[::10] + attempts[:8]
    return asked, [engine.generate([c], max_new_tokens=64)[0] for c in asked]


@pytest.mark.parametrize("batch_tokens", [1, 300, 1500, 65_536])
def test_greedy_text_is_the_same_in_any_batch(engine, alone, batch_tokens):
    pairs = list(zip(*alone, strict=True))
    random.Random(batch_tokens).shuffle(pairs)
    found = another(engine, batch_tokens=batch_tokens).generate([asked for asked, _ in pairs], max_new_tokens=64)
    assert found == [want for _, want in pairs]


def test_greedy_text_is_the_same_by_generate(engine, alone):
    (asked, want), other = alone, another(engine, batching="generate")
    assert other.generate(asked, max_new_tokens=64) == want
    assert engine.generate(asked, max_new_tokens=64) == want  # the model is left as it was
    assert [row[0].truncated for row in other.generate(asked[:4], max_new_tokens=3)] == [True] * 4


def test_adapters_switch_under_any_batching(conversations, tmp_path):
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(r=4, lora_alpha=400, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    get_peft_model(models.load("tiny").model, settings).save_pretrained(str(tmp_path / "a"))
    asked, loaded = conversations[:4], models.load("tiny")
    padded = engines.TransformersEngine(loaded)
    base, tuned = (padded.generate(asked, max_new_tokens=16, adapter=a) for a in (None, tmp_path / "a"))
    assert base != tuned
    padded.batching = "generate"
    assert padded.generate(asked, max_new_tokens=16, adapter=tmp_path / "a") == tuned
    assert padded.generate(asked, max_new_tokens=16) == base


def test_what_is_sampled_does_not_depend_on_the_batches(engine, attempts):
    settings = {"n": 3, "temperature": 1.0, "max_new_tokens": 20, "seed": 4}
    want = engine.generate(attempts[:8], **settings)
    assert len({c.text for row in want for c in row}) > 8
    for batch_tokens in (1, 700):
        assert another(engine, batch_tokens=batch_tokens).generate(attempts[:8], **settings) == want


def test_sampling_leaves_the_callers_random_numbers_alone(engine, conversations):
    import torch

    torch.manual_seed(1)
    want = torch.rand(3)
    torch.manual_seed(1)
    engine.generate(conversations[:2], temperature=1.0, max_new_tokens=4, seed=9)
    assert torch.equal(torch.rand(3), want)


class Recorder:
    """A model that records the widths of its forward passes, and runs out of memory above `most` rows."""

    def __init__(self, model, most=10**9):
        self.model, self.config, self.device, self.most, self.passes = model, model.config, model.device, most, []
        self.generation_config, self.dtype = model.generation_config, model.dtype

    def __call__(self, input_ids, **kwargs):
        import torch

        if len(input_ids) > self.most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        self.passes.append(tuple(input_ids.shape))
        return self.model(input_ids=input_ids, **kwargs)


def recorded(engine, **kwargs):
    recorder = Recorder(engine.model, **kwargs)
    return recorder, engines.TransformersEngine(
        models.Loaded(recorder, engine.tokenizer, engine.name, engine.backend), batching="padded"
    )


def test_samples_of_a_prompt_share_its_run(engine, attempts):
    recorder, one = recorded(engine)
    one.generate(attempts[:2], n=5, temperature=1.0, max_new_tokens=3)
    lengths = [len(engine.encode(c)) for c in attempts[:2]]
    first, second, third = recorder.passes[:3]
    assert first[0] == 1 and first[1] < min(lengths)  # what all ten have in common, once
    assert second[0] == 2 and second[1] <= max(lengths) - first[1]  # then each prompt's own
    assert third == (10, 1)


def test_finished_rows_leave_the_batch_at_once(engine, conversations, monkeypatch):
    monkeypatch.setattr(loop, "DRAFTED_SHARE", 2)
    recorder, one = recorded(engine)
    found = one.generate(conversations[:40], max_new_tokens=96)
    lengths = [row[0].tokens for row in found]
    assert sum(rows for rows, width in recorder.passes if width == 1) == sum(lengths) - len(lengths)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_repeated_text_is_guessed_and_nothing_else_changes(engine, conversations, monkeypatch, temperature):
    retries, settings = conversations[40:], {"temperature": temperature, "max_new_tokens": 96, "seed": 2}
    recorder, one = recorded(engine)
    found = one.generate(retries, **settings)
    passed = sum(rows for rows, width in recorder.passes if width <= loop.DRAFT + 1)
    assert passed < 0.6 * sum(row[0].tokens for row in found)  # otherwise a pass a token
    monkeypatch.setattr(loop, "DRAFTED_SHARE", 2)
    assert engine.generate(retries, **settings) == found


def test_a_batch_that_does_not_fit_is_halved_and_nothing_else_changes(engine, conversations):
    want = engine.generate(conversations[:12], n=2, temperature=1.0, max_new_tokens=12, seed=3)
    recorder, one = recorded(engine, most=7)
    assert one.generate(conversations[:12], n=2, temperature=1.0, max_new_tokens=12, seed=3) == want
    assert max(rows for rows, _ in recorder.passes) <= 7
    before = one.batch_tokens
    one.generate(conversations[:12], max_new_tokens=12)
    assert one.batch_tokens == before  # what was learnt is kept: no second failure


def test_one_prompt_that_does_not_fit_is_an_error(engine, conversations):
    import torch

    _, one = recorded(engine, most=0)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        one.generate(conversations[:3], max_new_tokens=4)


def test_unknown_batching_is_refused(engine):
    with pytest.raises(ValueError, match="unknown batching 'fast'; there are padded, generate"):
        another(engine, batching="fast")


def test_sampling_is_seeded_and_gives_n_per_prompt(engine, conversations):
    a = texts(engine.generate(conversations[:9], n=3, temperature=1.5, max_new_tokens=40, seed=1))
    assert a == texts(engine.generate(conversations[:9], n=3, temperature=1.5, max_new_tokens=40, seed=1))
    assert a != texts(engine.generate(conversations[:9], n=3, temperature=1.5, max_new_tokens=40, seed=2))
    assert [len(row) for row in a] == [3] * 9


def test_the_length_limit_marks_what_it_cuts(engine, conversations):
    short, full = (
        engine.generate(conversations[:2], max_new_tokens=5),
        engine.generate(conversations[:2], max_new_tokens=96),
    )
    assert all(row[0].truncated and row[0].tokens == 5 for row in short)
    assert not any(row[0].truncated for row in full)


def test_many_greedy_copies_are_refused(engine, conversations):
    with pytest.raises(ValueError, match="temperature above 0"):
        engine.generate(conversations[:1], n=2)


def test_no_conversation_no_completion(engine):
    assert engine.generate([]) == [] and engine.score([], []) == []


def test_score_is_the_sum_of_token_log_probabilities(engine, conversations):
    import torch

    said = ["Answer: 3", "Answer: a b c d", "Answer: 3"]
    for conversation, text, got in zip(conversations[:3], said, engine.score(conversations[:3], said), strict=True):
        prompt, whole = engine.encode(conversation), engine.encode(conversation, text)
        with torch.no_grad(), engine.adapters.use(None) as model:
            logp = model(torch.tensor([whole])).logits[0].log_softmax(-1)
        want = sum(logp[i - 1, whole[i]].item() for i in range(len(prompt), len(whole)))
        assert got == pytest.approx(want, abs=1e-3)


def test_a_missing_adapter_is_named(engine, conversations, tmp_path):
    with pytest.raises(ValueError, match="train that setting first"):
        engine.generate(conversations[:1], adapter=tmp_path / "nothing")


def test_a_missing_model_is_named():
    with pytest.raises(ValueError, match="cannot load model 'no/such-model'"):
        models.load("no/such-model")


def test_a_prompt_longer_than_the_context_is_refused_before_generation(engine, alone, tmp_path):
    (asked, want), room = alone, engine.model.config.max_position_embeddings
    long = [{"role": "user", "content": "Start with 1. " * room}]
    found = engine.generate([asked[0], long, asked[1], []], max_new_tokens=64)
    assert [found[0], found[2]] == want[:2]
    assert found[1][0].trouble == "refused, too long for the context" and "not asked" in found[3][0].trouble
    with pytest.raises(ValueError, match=r"3 of 4 prompts, up to [\d,]+ tokens long, leave no room for 64 new ones"):
        engine.generate([asked[0], *[long] * 3], max_new_tokens=64)


def test_a_model_that_does_not_fit_the_loop_goes_by_generate_and_says_so(engine, alone, monkeypatch, capsys):
    asked, want = alone
    monkeypatch.setattr(decoding, "misfit", lambda model: "its layers are new")
    other = another(engine)
    said = "tiny: its padded batches cannot run here (its layers are new), going on with batching=generate\n"
    assert other.batching == "generate" and capsys.readouterr().out == said
    assert other.generate(asked, max_new_tokens=64) == want and not capsys.readouterr().out


def test_a_model_that_is_called_otherwise_goes_by_generate_and_says_so(engine, alone, capsys):
    class Other(Recorder):
        def __call__(self, input_ids, attention_mask, position_ids, past_key_values, use_cache):
            """No `logits_to_keep`."""

        def generate(self, **kwargs):
            return self.model.generate(**kwargs)

    asked, want = alone
    one = engines.TransformersEngine(models.Loaded(Other(engine.model), engine.tokenizer, "other", engine.backend))
    assert one.generate(asked, max_new_tokens=64) == want and one.batching == "generate"
    said = capsys.readouterr().out
    assert said.startswith("other: its padded batches failed (TypeError(") and "'logits_to_keep'" in said
    assert said.endswith("going on with batching=generate\n") and said.count("\n") == 1
    one.generate(asked[:1], max_new_tokens=2)
    assert not capsys.readouterr().out


@pytest.mark.parametrize(
    ("attention", "batching"),
    [("sdpa", "padded"), ("eager", "padded"), ("flash_attention_2", "generate")],  # padding must be hidden anywhere
)
def test_batching_hangs_on_the_attention(engine, attention, batching):
    recorder = Recorder(engine.model)
    recorder.config = copy.deepcopy(engine.model.config)
    recorder.config._attn_implementation = attention
    loaded = models.Loaded(recorder, engine.tokenizer, engine.name, engine.backend)
    assert engines.TransformersEngine(loaded, batch_tokens=1).batching == batching
