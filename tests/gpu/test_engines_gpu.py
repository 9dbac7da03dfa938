"""Generation on CUDA: paged attention and padded batches say what the CPU says, and running out of memory is survived."""

from functools import partial

import pytest

from reflectevo_lite import prompts
from reflectevo_lite.embedded import tasks as synthetic
from reflectevo_lite.generate import decoding, engines, models

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]

load = partial(models.load, "tiny", backend="transformers")  # Unsloth would change the whole process
ASKED = [prompts.answer_prompt(p) for p in synthetic.problems(24, "train", seed=5)]


@pytest.fixture(scope="module")
def want():
    cpu = engines.TransformersEngine(load(device="cpu"))
    return cpu.generate(ASKED, max_new_tokens=96)


@pytest.mark.parametrize("batching", ["padded", "generate"])
def test_greedy_text_is_that_of_the_cpu(want, batching):
    engine = engines.TransformersEngine(load(dtype="float32"), batching=batching)
    assert engine.generate(ASKED, max_new_tokens=96) == want


def test_running_out_of_memory_halves_the_batch(want, monkeypatch):
    engine = engines.TransformersEngine(load(dtype="float32"), batching="padded")
    real, seen = decoding.decode, []

    def greedy_for_memory(model, asked, groups, *args):
        seen.append(sum(len(g.rows) for g in groups))
        if seen[-1] > 6:
            torch.empty(1 << 50, dtype=torch.uint8, device="cuda")  # a petabyte: CUDA's own error
        return real(model, asked, groups, *args)

    monkeypatch.setattr(decoding, "decode", greedy_for_memory)
    assert engine.generate(ASKED, max_new_tokens=96) == want
    assert seen[0] == 24 and max(seen[-4:]) <= 6
