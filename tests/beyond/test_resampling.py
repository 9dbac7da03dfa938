"""Fresh answers for a setting's own tokens."""

import pytest

from notebooks.beyond.resampling import repeated, resample
from reflectevo_lite import evaluate, generate, store
from reflectevo_lite.evaluate import Asked, Evaluation, Setting


class Sampler:
    """Fresh answers from a list, in turn, whatever is asked; every answer takes ten tokens."""

    name = "sampler"

    def __init__(self, answers):
        self.answers, self.asked = answers, []

    def generate(self, conversations, *, n=1, temperature=0.0, max_new_tokens=512, seed=0, adapter=None):
        draw = len(self.asked)
        self.asked.append((len(conversations), temperature, seed))
        assert temperature > 0 and adapter is None and all(len(c) == 1 for c in conversations)
        return [
            [generate.Completion(f"Answer: {self.answers[draw % len(self.answers)]}", 10, False)] for _ in conversations
        ]


def resampled(tmp_path, answers, tokens, mode="oracle", first_answer="1", gold="7"):
    problem = {"id": "q", "task": "t", "question": "?", "answer": gold, "grader": "exact", "meta": {}}
    right = first_answer == gold
    first = [
        {"prompt": [], "completion": "", "answer": first_answer, "correct": right, "tokens": 1, "truncated": False}
    ]
    store.write_jsonl(
        tmp_path / f"x.{mode}.jsonl",
        [{"id": "q", "task": "t", "turn1_correct": right, "turn2_correct": right, "tokens": tokens}],
    )
    engine = Sampler(answers)
    return engine, resample(engine, Asked([problem], first, tmp_path), Evaluation("x", mode))


@pytest.mark.parametrize(("tokens", "draws"), [(0, 1), (1, 1), (10, 1), (11, 2), (30, 3)])
def test_resampling_spends_the_settings_tokens_and_never_less(tmp_path, tokens, draws):
    engine, found = resampled(tmp_path, ["2"], tokens)
    assert len(engine.asked) == draws and len({seed for _, _, seed in engine.asked}) == draws
    for rows in found.values():
        assert rows[0]["tokens"] == 10 * draws >= tokens


def test_the_verifier_takes_any_right_sample_and_the_vote_the_most_frequent(tmp_path):
    _, found = resampled(tmp_path, ["2", "7", "2"], 30)
    assert found["resample"][0]["turn2_correct"] and not found["resample_vote"][0]["turn2_correct"]
    assert [s[:2] for s in found["resample_vote"][0]["samples"]] == [["2", False], ["7", True], ["2", False]]


def test_an_answer_known_to_be_wrong_has_no_vote(tmp_path):
    _, found = resampled(tmp_path, ["1", "1", "7"], 30)
    assert found["resample_vote"][0]["turn2_correct"]


def test_where_nobody_says_what_is_wrong_the_first_answer_votes_and_no_verifier_picks(tmp_path):
    _, found = resampled(tmp_path, ["2", "7"], 20, mode="intrinsic", first_answer="7")
    assert set(found) == {"resample_vote"} and found["resample_vote"][0]["turn2_correct"]
    (tmp_path / "more").mkdir()
    _, found = resampled(tmp_path / "more", ["2", "2"], 20, mode="intrinsic", first_answer="7")
    assert not found["resample_vote"][0]["turn2_correct"]  # outvoted


def test_how_often_a_fresh_answer_says_the_same_again():
    first = [{"answer": "1"}, {"answer": "2"}, {"answer": "3"}]
    rows = [{"samples": [["1", False, 9], ["4", True, 9]]}, {}, {"samples": [["3", False, 9], [None, False, 9]]}]
    assert repeated(rows, first) == 0.5 and repeated([], []) is None


def test_resampling_needs_the_setting_first(tmp_path):
    with pytest.raises(FileNotFoundError, match="evaluate x first"):
        resample(Sampler(["1"]), Asked([], [], tmp_path), Evaluation("x"))


def test_resampling_goes_on_where_it_stopped(scripted, tmp_path):
    engine, problems = scripted
    first = evaluate.first_turns(engine, problems, tmp_path / "turn1.jsonl", max_new_tokens=96)
    asked = Asked(problems, first, tmp_path, 96, chunk_size=20)
    evaluate.evaluate(engine, asked, Setting("prompted"))
    whole = resample(engine, asked, Evaluation("prompted"))
    file = tmp_path / "prompted.oracle.resample_vote.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:25]) + lines[25][:9])
    file.with_suffix(".done").unlink()
    assert resample(engine, asked, Evaluation("prompted")) == whole
