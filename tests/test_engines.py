"""Generation is the same whatever the batch; adapters switch on and off cleanly."""

import random

import pytest

from reflectevo_lite import prompts
from reflectevo_lite.embedded import tasks as synthetic
from reflectevo_lite.generate import decoding, engines, models


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


@pytest.mark.parametrize("batching", ["generate", "continuous"])
def test_greedy_text_is_the_same_by_any_batching(engine, alone, batching):
    (asked, want), other = alone, another(engine, batching=batching)
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
    for batching in ("continuous", "generate"):
        padded.batching = batching
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


def test_tokens_are_drawn_as_often_as_their_probability_says():
    import torch

    logits = torch.tensor([0.5, 0.3, 0.2, 0.0]).log().repeat(4000, 1)
    drawn = decoding.pick(logits, 1.0, torch.rand(4000, generator=torch.Generator().manual_seed(0)))
    shares = torch.bincount(drawn, minlength=4) / 4000
    assert shares[3] == 0 and torch.allclose(shares, torch.tensor([0.5, 0.3, 0.2, 0.0]), atol=0.03)
    edge = decoding.pick(logits[:2], 1.0, torch.tensor([0.0, 1 - 2**-24]))
    assert edge.tolist() == [0, 2]  # never a token without probability
    cold = decoding.pick(logits[:50], 0.01, torch.rand(50, generator=torch.Generator().manual_seed(0)))
    assert set(cold.tolist()) == {0}


def test_only_long_common_beginnings_are_shared():
    head = list(range(40))
    rows = [[*head, 1, 2], [*head, 3], [*head[:30], 9, 9, 9], [7] * 50, [8, 8], [8, 8]]
    assert decoding.group(rows) == [([0, 1, 2], 30), ([3], 49), ([4], 1), ([5], 1)]
    assert decoding.group([head, head, head[:20]]) == [([0, 1, 2], 19)]  # a token of each row is always left to run


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
    first, second = recorder.passes[:2]
    assert first[0] == 1 and first[1] < min(lengths)  # what all ten have in common, once
    assert second[0] == 10 and second[1] <= max(lengths) - first[1] + 1


def test_finished_rows_leave_the_batch_at_once(engine, conversations, monkeypatch):
    monkeypatch.setattr(decoding, "DRAFTED_SHARE", 2)
    recorder, one = recorded(engine)
    found = one.generate(conversations[:40], max_new_tokens=96)
    lengths = [row[0].tokens for row in found]
    assert sum(rows for rows, width in recorder.passes if width == 1) == sum(lengths) - len(lengths)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_repeated_text_is_guessed_and_nothing_else_changes(engine, conversations, monkeypatch, temperature):
    retries, settings = conversations[40:], {"temperature": temperature, "max_new_tokens": 96, "seed": 2}
    recorder, one = recorded(engine)
    found = one.generate(retries, **settings)
    passed = sum(rows for rows, width in recorder.passes if width <= decoding.DRAFT + 1)
    assert passed < 0.6 * sum(row[0].tokens for row in found)  # otherwise a pass a token
    monkeypatch.setattr(decoding, "DRAFTED_SHARE", 2)
    assert engine.generate(retries, **settings) == found


def test_a_guess_is_what_followed_the_same_tokens_last():
    import torch

    again = [1, 2, 3, 4, 7, 8, 9, 1, 2, 3, 4, 5, 6, 5, 1, 2, 3, 4]
    rows = torch.tensor([[*again, 9, 9, 9], [*range(18), 9, 9, 9]])
    length = torch.tensor([18, 18])
    assert decoding.look_up(rows, length).tolist() == [[5, 6, 5], [-1, -1, -1]]
    assert decoding.look_up(rows, length - 7).tolist() == [[7, 8, 9], [-1, -1, -1]]  # what lies beyond does not count
    assert decoding.look_up(rows[[0, 1, 1]], length[[0, 1, 1]]).shape == (3, 0)  # too few rows have a guess
    assert decoding.look_up(rows[:, :4], torch.tensor([4, 4])).shape == (2, 0)


def test_the_cache_holds_what_transformers_cache_does():
    import torch
    from transformers import DynamicCache

    from reflectevo_lite.generate import cache as _cache

    def new(rows, tokens):
        return [torch.randn(rows, 2, tokens, 4) for _ in range(2)]

    def same(more):
        for mine, theirs in zip(ours.update(*more, 0), whole.update(*more, 0), strict=True):
            filled = theirs.shape[2]
            assert torch.equal(mine[:, :, :filled], theirs) and mine.is_contiguous()
            assert not mine[:, :, filled:].any() and mine.shape[2] - filled <= _cache.ROOM  # hidden, finite

    memory, whole, given = _cache.Memory(), DynamicCache(), [new(3, 5), new(2, 7)]
    memory.give(torch.full((5000,), torch.nan))  # what the last batch left behind
    batch = _cache.Batch(1, 5, width=7, room=9, memory=memory)
    for rows, states in ((slice(0, 3), given[0]), (slice(3, 5), given[1])):
        part = batch.part(rows, states[0].shape[2])
        halves = zip(*(s.split(4, dim=2) for s in states), strict=True)
        shown = [part.update(*half, 0) for half in halves][-1]
        assert all(torch.equal(mine, s) for mine, s in zip(shown, states, strict=True))
    padded = [torch.nn.functional.pad(t, (0, 0, 2, 0)) for t in given[0]]
    whole.update(*(torch.cat(both) for both in zip(padded, given[1], strict=True)), 0)
    ours = batch.whole()
    for tokens in (1, 3, _cache.ROOM, 1):
        assert ours.get_mask_sizes(tokens, 0)[0] >= ours.get_seq_length() + tokens
        expected = ours.get_mask_sizes(tokens, 0)[0]
        same(new(5, tokens))
        assert ours.layers[0].keys.shape[2] == expected
    assert ours.get_seq_length() == whole.get_seq_length() == 7 + 5 + _cache.ROOM
    ours.layers[0].keep(3, torch.tensor([1]), torch.tensor([4]))
    whole.batch_select_indices(torch.tensor([0, 4, 2]))
    for tokens in (1, _cache.ROOM):
        same(new(3, tokens))


def test_memory_goes_from_batch_to_batch_and_stays_bounded(monkeypatch):
    import torch

    from reflectevo_lite.generate import cache as _cache

    memory, states = _cache.Memory(), torch.zeros(4, 2, 6, 8)
    batch = _cache.Batch(1, 4, 6, 20, memory)
    batch.part(slice(4), 6).update(states, states, 0)
    first, second = (b.piece for b in batch.buffers[0])
    assert first is not second and len(first) == 4 * 2 * 26 * 8
    batch.close()
    assert memory.take(100, 100, states) is second and memory.take(100, 100, states) is first
    assert len(memory.take(100, 300, states)) == 300 and len(memory.take(400, 300, states)) == 400
    memory.give(first)
    assert memory.take(100, 100, states.half()).dtype == torch.float16  # what is of another kind is let go
    monkeypatch.setattr(_cache, "KEPT", first.nbytes + 1)
    memory.give(first), memory.give(second)
    assert memory.free == [first]


@pytest.mark.parametrize("new", [1, 3, 60])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_attention_on_a_processor_is_torchs(new, kv_heads, monkeypatch):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from reflectevo_lite.generate import cpu as _cpu

    monkeypatch.setattr(_cpu, "CELLS", 3 * 25)  # the sixty go to torch's own
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_hidden_layers": 2}
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=50, num_key_value_heads=kv_heads, **shape)).eval()
    ids = torch.randint(0, 50, (3, 22 + new))
    mask = torch.ones_like(ids)
    mask[0, :9] = mask[1, 20] = 0  # padding, and a guess that was wrong

    def logits():
        with torch.inference_mode():
            cache = model(ids[:, :22], attention_mask=mask[:, :22]).past_key_values
            return model(ids[:, 22:], attention_mask=mask, past_key_values=cache).logits

    want = logits()
    with _cpu.faster(model):
        assert model.config._attn_implementation == _cpu.ATTENTION
        found = logits()
    assert torch.allclose(found, want, atol=1e-5) and torch.equal(found, want) == (new == 60)


@pytest.mark.parametrize(
    "asked", [{"dropout": 0.1}, {"position_bias": 0}, {"attention_mask": None}, {"scaling": None}, {"dropout": 0.0}]
)
def test_what_attention_on_a_processor_does_not_do_goes_to_torchs(asked, monkeypatch):
    import torch

    from reflectevo_lite.generate import cpu as _cpu

    monkeypatch.setattr(_cpu, "sdpa_attention_forward", lambda *_, **__: ("torch's", None))
    states = torch.randn(2, 4, 3, 8)
    found, _ = _cpu.attention(
        None, states, states, states, **{"attention_mask": torch.zeros(()), "scaling": 1.0} | asked
    )
    assert isinstance(found, str) == (asked != {"dropout": 0.0})


def test_linear_layers_are_lent_to_onednn_and_given_back(engine):
    import torch

    from reflectevo_lite.generate import cpu as _cpu

    if not torch.backends.mkldnn.is_available():
        pytest.skip("torch is built without oneDNN here")
    torch.manual_seed(0)
    x = torch.randn(400, 1, engine.model.config.hidden_size)
    layer = engine.model.model.layers[0].mlp.up_proj
    implementation = engine.model.config._attn_implementation

    class Failing(Exception):
        pass

    with torch.inference_mode():
        want = layer(x)
        with pytest.raises(Failing), _cpu.faster(engine.model):
            with torch.profiler.profile() as seen:
                found, few = layer(x), layer(x[:2])
            called = [e.key for e in seen.key_averages() for _ in range(e.count)]
            raise Failing
    assert called.count("mkldnn::_linear_pointwise") == 1  # few rows are not worth its preparations
    assert torch.allclose(found, want, atol=1e-5) and torch.allclose(few, want[:2], atol=1e-5)
    assert "forward" not in vars(layer) and engine.model.config._attn_implementation == implementation


def test_only_plain_linear_layers_are_lent():
    import torch
    from torch import nn

    from reflectevo_lite.generate import cpu as _cpu

    class Quantised(nn.Linear):
        pass

    hooked = nn.Linear(2, 2)
    hooked.forward = lambda x: x
    assert _cpu._plain(nn.Linear(2, 2))
    for other in (Quantised(2, 2), hooked, nn.Linear(2, 2, dtype=torch.bfloat16), nn.Identity()):
        assert not _cpu._plain(other)


def test_a_real_models_batches_are_smaller_on_a_cpu(engine):
    from reflectevo_lite.run import planning

    small = planning.shape_from_config(engine.model.config.to_dict())
    real = planning.KNOWN["Qwen/Qwen3-1.7B"]
    assert another(engine).batch_tokens == planning.default_batch_tokens(small, 4, "cpu") == 65_536
    tokens = planning.default_batch_tokens(real, 4, "cpu")
    assert 16_000 < tokens < 20_000 and tokens * real.cache * 4 <= 4 << 30
    assert planning.default_batch_tokens(real, 2, "cuda") == 131_072


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


def test_failed_continuous_batching_falls_back_only_where_it_was_not_asked_for(engine, conversations):
    class Broken(Recorder):
        def generate_batch(self, *_, **__):
            return {}

    loaded = models.Loaded(Broken(engine.model), engine.tokenizer, engine.name, engine.backend)
    asked = engines.TransformersEngine(loaded, batching="continuous")
    with pytest.raises(RuntimeError, match="set batching to padded"):
        asked.generate(conversations[:2], max_new_tokens=4)
    chosen = engines.TransformersEngine(loaded)
    chosen.batching = "continuous"  # what "auto" stands for on CUDA
    with pytest.warns(UserWarning, match="going on with batching=padded"):
        found = chosen.generate(conversations[:2], max_new_tokens=4)
    assert found == engine.generate(conversations[:2], max_new_tokens=4) and chosen.batching == "padded"


def test_models_with_another_cache_use_plain_generate():
    from transformers import Gemma2Config, GenerationConfig, LlamaConfig

    class Model:
        def __init__(self, config, **asked):
            self.config, self.generation_config = config, GenerationConfig(**asked)

    small = {"num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 2}
    assert decoding.can_decode(Model(LlamaConfig(**small)))
    assert not decoding.can_decode(Model(LlamaConfig(**small), suppress_tokens=[7]))
    assert not decoding.can_decode(Model(Gemma2Config(**small)))


def test_unknown_batching_is_refused(engine):
    with pytest.raises(ValueError, match="unknown batching 'fast'; there are auto, padded"):
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
