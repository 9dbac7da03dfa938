"""The decoding loop by itself: its draws, its guesses, its cache, and what it does on a processor are torch's own results."""

import pytest
import torch
from torch import nn
from transformers import DynamicCache, Gemma2Config, GenerationConfig, LlamaConfig, LlamaForCausalLM

from reflectevo_lite.generate import decoding
from reflectevo_lite.generate.decoding import cpu, loop
from reflectevo_lite.generate.decoding.cache import ROOM, Layer


def test_tokens_are_drawn_as_often_as_their_probability_says():
    logits = torch.tensor([0.5, 0.3, 0.2, 0.0]).log().repeat(4000, 1)
    drawn = loop.pick(logits, 1.0, torch.rand(4000, generator=torch.Generator().manual_seed(0)))
    shares = torch.bincount(drawn, minlength=4) / 4000
    assert shares[3] == 0 and torch.allclose(shares, torch.tensor([0.5, 0.3, 0.2, 0.0]), atol=0.03)
    edge = loop.pick(logits[:2], 1.0, torch.tensor([0.0, 1 - 2**-24]))
    assert edge.tolist() == [0, 2]  # never a token without probability
    cold = loop.pick(logits[:50], 0.01, torch.rand(50, generator=torch.Generator().manual_seed(0)))
    assert set(cold.tolist()) == {0}


def test_only_long_common_beginnings_are_shared():
    head = list(range(40))
    rows = [[*head, 1, 2], [*head, 3], [*head[:30], 9, 9, 9], [7] * 50, [8, 8], [8, 8]]
    assert decoding.group(rows) == [([2, 0, 1], 30), ([3], 49), ([4], 1), ([5], 1)]
    assert decoding.group([head, head, head[:30]]) == [([2, 0, 1], 29)]  # a token of each row is always left to run


def test_questions_after_the_same_examples_share_them_and_reflections_on_one_attempt_more():
    shots, tasks = list(range(60)), ([1], [2])
    asked = [[*task, *shots, 100 + i] for i in range(4) for task in tasks]  # tasks take turns
    assert decoding.group(asked) == [([0, 2, 4, 6], 61), ([1, 3, 5, 7], 61)]
    attempts = [[*shots, *range(100 * i, 100 * i + 40), i, r] for i in (1, 2) for r in range(4)]
    assert [len(g.rows) for g in decoding.group(attempts)] == [4, 4]


def test_a_guess_is_what_followed_the_same_tokens_last():
    again = [1, 2, 3, 4, 7, 8, 9, 1, 2, 3, 4, 5, 6, 5, 1, 2, 3, 4]
    rows = torch.tensor([[*again, 9, 9, 9], [*range(18), 9, 9, 9]])
    length = torch.tensor([18, 18])
    assert loop.look_up(rows, length).tolist() == [[5, 6, 5], [-1, -1, -1]]
    assert loop.look_up(rows, length - 7).tolist() == [[7, 8, 9], [-1, -1, -1]]  # what lies beyond does not count
    assert loop.look_up(rows[[0, 1, 1]], length[[0, 1, 1]]).shape == (3, 0)  # too few rows have a guess
    assert loop.look_up(rows[:, :4], torch.tensor([4, 4])).shape == (2, 0)


def test_the_cache_holds_what_transformers_cache_does():
    def new(rows, tokens):
        return [torch.randn(rows, 2, tokens, 4) for _ in range(2)]

    def same(more):
        for mine, theirs in zip(ours.update(*more), whole.update(*more, 0), strict=True):
            filled = theirs.shape[2]
            assert torch.equal(mine[:, :, :filled], theirs) and mine.is_contiguous()
            assert not mine[:, :, filled:].any() and mine.shape[2] - filled <= ROOM  # hidden, finite

    parts, whole = [DynamicCache(), DynamicCache()], DynamicCache()
    given = [new(3, 5), new(2, 7)]
    for part, states in zip(parts, given, strict=True):
        part.update(*states, 0)
    padded = [nn.functional.pad(t, (0, 0, 2, 0)) for t in given[0]]
    whole.update(*(torch.cat(both) for both in zip(padded, given[1], strict=True)), 0)
    ours = Layer([part.layers[0] for part in parts])
    for tokens in (1, 3, ROOM, 1):
        expected = ours.get_mask_sizes(tokens)[0]
        assert expected >= ours.get_seq_length() + tokens
        same(new(5, tokens))
        assert ours.keys.shape[2] == expected
    assert ours.get_seq_length() == whole.get_seq_length() == 7 + 5 + ROOM
    ours.keep(3, torch.tensor([1]), torch.tensor([4]))
    whole.batch_select_indices(torch.tensor([0, 4, 2]))
    for tokens in (1, ROOM):
        same(new(3, tokens))


@pytest.mark.parametrize("new", [1, 3, 60])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_attention_on_a_processor_is_torchs(new, kv_heads, monkeypatch):
    monkeypatch.setattr(cpu, "CELLS", 3 * 25)  # the sixty go to torch's own
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
    with cpu.faster(model):
        assert model.config._attn_implementation == cpu.ATTENTION
        found = logits()
    assert torch.allclose(found, want, atol=1e-5) and torch.equal(found, want) == (new == 60)


@pytest.mark.parametrize(
    "asked", [{"dropout": 0.1}, {"position_bias": 0}, {"attention_mask": None}, {"scaling": None}, {"dropout": 0.0}]
)
def test_what_attention_on_a_processor_does_not_do_goes_to_torchs(asked, monkeypatch):
    monkeypatch.setattr(cpu, "sdpa_attention_forward", lambda *_, **__: ("torch's", None))
    states = torch.randn(2, 4, 3, 8)
    found, _ = cpu.attention(
        None, states, states, states, **{"attention_mask": torch.zeros(()), "scaling": 1.0} | asked
    )
    assert isinstance(found, str) == (asked != {"dropout": 0.0})


def test_linear_layers_are_lent_to_onednn_and_given_back(engine):
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
        with pytest.raises(Failing), cpu.faster(engine.model):
            with torch.profiler.profile() as seen:
                found, few = layer(x), layer(x[:2])
            called = [e.key for e in seen.key_averages() for _ in range(e.count)]
            raise Failing
    assert called.count("mkldnn::_linear_pointwise") == 1  # few rows are not worth its preparations
    assert torch.allclose(found, want, atol=1e-5) and torch.allclose(few, want[:2], atol=1e-5)
    assert "forward" not in vars(layer) and engine.model.config._attn_implementation == implementation


def test_only_plain_linear_layers_are_lent():
    class Quantised(nn.Linear):
        pass

    hooked = nn.Linear(2, 2)
    hooked.forward = lambda x: x
    assert cpu._plain(nn.Linear(2, 2))
    for other in (Quantised(2, 2), hooked, nn.Linear(2, 2, dtype=torch.bfloat16), nn.Identity()):
        assert not cpu._plain(other)


class Model:
    def __init__(self, config=None, device="cpu", attention=None, **asked):
        small = {"num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 2}
        self.config, self.generation_config = (config or LlamaConfig)(**small), GenerationConfig(**asked)
        self.config._attn_implementation, self.device = attention, torch.device(device)


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({}, None),
        ({"attention": "sdpa"}, None),
        ({"suppress_tokens": [7]}, "forbids tokens"),
        ({"config": Gemma2Config}, "DynamicSlidingWindowLayer"),
        ({"attention": "flash_attention_2"}, "its attention is flash_attention_2"),
    ],
)
def test_a_model_that_the_loop_does_not_know_is_told_why(asked, why):
    found = decoding.misfit(Model(**asked))
    assert found is None if why is None else why in found


def other_numbers(x, weight, bias):
    return x @ weight.T + 1


def gone(x, weight, bias):
    raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute '_linear_pointwise'")


@pytest.mark.parametrize(("operator", "why"), [(other_numbers, "compute something else"), (gone, "AttributeError")])
def test_an_operator_that_changed_is_a_reason_on_a_processor_only(operator, why, monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(cpu, "_onednn", operator)
    assert why in decoding.misfit(Model()) and decoding.misfit(Model(device="cuda")) is None
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert decoding.misfit(Model()) is None  # nothing to call: torch's own linear layers
