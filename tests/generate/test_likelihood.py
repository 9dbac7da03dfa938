"""Choice questions answered by their options' likelihood, on random models of real families and the embedded one."""

import sys
from pathlib import Path

import pytest

from notebooks.beyond.resampling import resample
from reflectevo_lite import evaluate, generate, prompts
from reflectevo_lite.embedded import problems
from reflectevo_lite.run import cli

sys.path.insert(0, str(Path(__file__).parents[1]))
import families

WORDS = ["the", "owner", "may", "grant", "a", "licence", "under", "these", "terms", "or", "refuse", "it"]


def asked(n, options):
    """Choice problems with texts of several lengths."""
    rows = []
    for i in range(n):
        texts = [" ".join(WORDS[(i + j) % 7 : (i + j) % 7 + 1 + j % 5]) + f" {j}" for j in range(options)]
        row = {
            "id": str(i),
            "task": "t",
            "question": " ".join(WORDS[: 3 + 4 * i]) + "?",
            "grader": "choice",
            "meta": {},
        }
        rows.append(row | {"choices": texts, "answer": prompts.LABELS[i % options]})
    return rows


def by_hand(engine, conversation, start, text):
    """One option at a time, one forward pass each."""
    import torch

    head, whole = engine.encode(conversation, start), engine.encode(conversation, start + text)
    with torch.no_grad(), engine.adapters.use(None) as model:
        logs = model(torch.tensor([whole])).logits[0].float().log_softmax(-1)
    return sum(logs[i - 1, whole[i]].item() for i in range(len(head), len(whole)))


@pytest.fixture(scope="module", params=["llama3", "qwen3"])
def engine(request, tmp_path_factory):
    return generate.open_engine(families.build(request.param, tmp_path_factory.mktemp(request.param)))


@pytest.mark.parametrize("options", [4, 30])
@pytest.mark.parametrize("by", ["likelihood", "likelihood_norm"])
def test_the_likeliest_option_is_that_of_a_hand_computation(engine, by, options):
    engine.answer_by, rows = by, asked(4, options)
    conversations = [prompts.answer_prompt(p) for p in rows]
    found = generate.answer(engine, rows, conversations, max_new_tokens=8)
    for problem, conversation, got in zip(rows, conversations, found, strict=True):
        names = problem["choices"] if by == "likelihood_norm" else prompts.LABELS[:options]
        want = [by_hand(engine, conversation, "Answer:", f" {name}") for name in names]
        assert got["options"] == pytest.approx(want, abs=1e-3)
        values = [w / len(n) if by == "likelihood_norm" else w for w, n in zip(want, names, strict=True)]
        assert got["answer"] == prompts.LABELS[values.index(max(values))] and got["read"] == by
        assert got["correct"] == (got["answer"] == problem["answer"]) and got["tokens"] == 0


def test_letters_share_one_pass(engine):
    passes, rows = [], asked(3, 30)
    score, engine.answer_by = engine._score, "likelihood"
    engine._score = lambda model, pairs, lasts: passes.append(len(pairs)) or score(model, pairs, lasts)
    try:
        generate.answer(engine, rows, [prompts.answer_prompt(p) for p in rows])
    finally:
        del engine._score
    assert sum(passes) < 3 * 30 / 2


@pytest.fixture(scope="module")
def tiny():
    return generate.open_engine("tiny", answer_by="likelihood")


def test_both_turns_and_one_completion_are_answered_so_and_other_questions_as_before(tiny, tmp_path):
    rows = problems(24, "test", 0, ("lineup", "arithmetic"))
    first = evaluate.first_turns(tiny, rows, tmp_path / "turn1.jsonl", max_new_tokens=48)
    choice = [a for p, a in zip(rows, first, strict=True) if p["grader"] == "choice"]
    other = [a for p, a in zip(rows, first, strict=True) if p["grader"] != "choice"]
    assert len(choice) == 12 and all(a["answer"] and len(a["options"]) > 1 for a in choice)
    assert all(a["tokens"] and "options" not in a for a in other)
    at = evaluate.Asked(rows, first, tmp_path, max_new_tokens=48)
    for name in ("prompted", "one_stage_prompted"):
        found = evaluate.evaluate(tiny, at, evaluate.SETTINGS[name])
        again = [r for p, a, r in zip(rows, first, found, strict=True) if p["grader"] == "choice" and not a["correct"]]
        assert again
        for row in again:
            letter = prompts.LABELS[row["options"].index(max(row["options"]))]
            assert row["turn2"] == f"Answer: {letter}" and row["reflection"] and row["tokens"] > 1
    with pytest.raises(ValueError, match="set answer_by to text"):
        resample(tiny, at, evaluate.Evaluation("prompted"))


def test_a_server_that_should_answer_by_likelihood_is_refused_before_any_work(tmp_path, capsys):
    params = tmp_path / "p.yaml"
    params.write_text("answer_by: likelihood\nserver_url: http://localhost:1/v1\n")
    assert cli.main(["run", str(params), "-p", "run_dir", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err.strip()
    assert "answer_by" in said and "server_url" in said and "\n" not in said and not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="server_url"):
        generate.open_engine("m", server_url="http://localhost:1/v1", answer_by="likelihood_norm")
