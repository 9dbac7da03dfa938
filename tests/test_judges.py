"""Judges prefer what they should, ask in both orders, leak nothing, and pay for no answer twice."""

import json
import sys
import types

import numpy as np
import pandas as pd
import pytest

from reflectevo_lite import prompts
from reflectevo_lite.curate import curation, judges
from reflectevo_lite.generate import rollouts
from reflectevo_lite.generate.engines import Completion


@pytest.fixture
def rows(scripted, tmp_path):
    """Rollouts in which some attempts have two reflections that both helped."""
    engine, problems = scripted
    found = list(
        rollouts.generate_rollouts(
            engine, problems, tmp_path / "r.jsonl", k=6, temperature=1.0, chunk_size=20, progress=False
        )
    )
    for row in found:  # the scripted reflector has one text per place: add another that helps too
        row["reflections"] += [
            x | {"text": x["text"] + " Again, slowly."} for x in row["reflections"] if x["turn2"]["correct"]
        ][:1]
    return found


@pytest.fixture
def pairs(rows):
    found = list(curation.both_helped(rows))
    assert len(found) >= 5
    return [p if i % 2 else judges.Pair(p.rollout, p.b, p.a) for i, p in enumerate(found)]


class Reader:
    """A model that reads: `verdict(first, second)` is its answer, whatever else stands in the prompt."""

    name = "reader"

    def __init__(self, verdict):
        self.verdict, self.asked, self.budget = verdict, [], 10**9

    def generate(self, conversations, *, n=1, temperature=0.0, max_new_tokens=512, seed=0, adapter=None):
        if len(self.asked) + len(conversations) > self.budget:
            raise ConnectionError("the server is gone")
        self.asked += conversations
        return [[Completion(self.verdict(*both(c)), 9, False)] for c in conversations]


class Scorer(Reader):
    """A model that scores: `verdict(first, second)` is the log-odds of A over B."""

    def score(self, conversations, completions, *, adapter=None):
        self.asked += conversations
        odds = [self.verdict(*both(c)) for c in conversations]
        return [value / 2 if text == "A" else -value / 2 for value, text in zip(odds, completions, strict=True)]


def both(conversation):
    """The two reflections of a judge's prompt, in the order in which they stand."""
    a, b = conversation[0]["content"].partition("[Reflection A]\n")[2].split("\n\n[Reflection B]\n")
    return a, b.partition("\n\n")[0]


def longer(a, b):
    return "I weigh them.\nVerdict: " + ("A" if len(a) > len(b) else "B" if len(b) > len(a) else "tie")


def quiet(reader, path=None, **more):
    return judges.server_judge(reader, judges.Cache(path), progress=False, say=lambda line: None, **more)


def test_a_reading_judge_prefers_by_what_it_reads_not_by_where_it_stands(pairs):
    found = quiet(Reader(longer))(pairs)
    assert found == [float(np.sign(len(p.a["text"]) - len(p.b["text"]))) for p in pairs] and set(found) == {-1.0, 1.0}
    swapped = quiet(Reader(longer))([judges.Pair(p.rollout, p.b, p.a) for p in pairs])
    assert swapped == [-v for v in found]


@pytest.mark.parametrize("answer", ["Verdict: A", "Verdict: B", "Verdict: tie", "I cannot tell."])
def test_a_judge_that_sticks_to_a_place_prefers_nothing(pairs, answer):
    assert quiet(Reader(lambda a, b: answer))(pairs) == [0.0] * len(pairs)


def test_one_sided_verdicts_are_ties(pairs):
    """A preference in one order and a tie in the other is no preference."""
    first = min(pairs[0].a["text"], pairs[0].b["text"])
    assert quiet(Reader(lambda a, b: "Verdict: A" if a == first else "Verdict: tie"))(pairs[:1]) == [0.0]


def test_self_is_the_log_odds_where_both_orders_agree(pairs):
    lines = []
    lengthy = Scorer(lambda a, b: (len(a) - len(b)) / 10 + 0.01)
    found = judges.self_judge(lengthy, progress=False, say=lines.append)(pairs)
    assert found == pytest.approx([(len(p.a["text"]) - len(p.b["text"])) / 10 for p in pairs])
    assert f"{len(pairs)} of {len(pairs)} pairs" in lines[0]
    stubborn = judges.self_judge(Scorer(lambda a, b: 3.0), progress=False, say=lines.append)(pairs)
    assert stubborn == [0.0] * len(pairs) and f"0 of {len(pairs)} pairs" in lines[1]


def test_the_embedded_model_can_be_asked_for_its_own_preference(engine, pairs):
    lines = []
    found = judges.self_judge(engine, progress=False, say=lines.append)(pairs[:2])
    assert len(found) == 2 and all(np.isfinite(found)) and len(lines) == 1


def test_readers_see_neither_gold_nor_second_answers(pairs):
    reader = Reader(longer)
    marked = [
        judges.Pair(
            p.rollout | {"problem": p.rollout["problem"] | {"answer": "GOLD"}},
            *(x | {"turn2": x["turn2"] | {"completion": "SECOND", "answer": "SECOND"}} for x in (p.a, p.b)),
        )
        for p in pairs
    ]
    quiet(reader)(marked)
    judges.self_judge(scorer := Scorer(lambda a, b: 1.0), progress=False, say=lambda line: None)(marked)
    said = json.dumps(reader.asked + scorer.asked)
    assert "GOLD" not in said and "SECOND" not in said
    assert pairs[0].rollout["turn1"]["completion"] in reader.asked[0][0]["content"]


def test_an_interrupted_judge_pays_for_no_answer_twice(pairs, tmp_path):
    path, straight = tmp_path / "judge.jsonl", Reader(longer)
    wanted = quiet(straight)(pairs)
    broken = Reader(longer)
    broken.budget = 6
    with pytest.raises(ConnectionError):
        quiet(broken, path, batch=3)(pairs)
    resumed = Reader(longer)
    assert quiet(resumed, path, batch=3)(pairs) == wanted
    assert len(broken.asked) == 6 and len(broken.asked) + len(resumed.asked) == len(straight.asked)
    again = Reader(longer)
    assert quiet(again, path)(pairs) == wanted and again.asked == []


def test_a_line_cut_by_a_kill_is_asked_again_and_harms_no_other(pairs, tmp_path):
    path = tmp_path / "judge.jsonl"
    wanted = quiet(Reader(longer), path)(pairs)
    path.write_bytes(path.read_bytes()[:-20])
    second = Reader(longer)
    assert quiet(second, path)(pairs) == wanted and len(second.asked) == 1
    third = Reader(longer)
    assert quiet(third, path)(pairs) == wanted and third.asked == []


def test_another_model_or_longer_answers_are_asked_anew(pairs, tmp_path):
    path = tmp_path / "judge.jsonl"
    quiet(Reader(longer), path)(pairs)
    other = Reader(lambda a, b: "Verdict: A")
    other.name = "another"
    assert quiet(other, path)(pairs) == [0.0] * len(pairs)
    patient = Reader(longer)
    quiet(patient, path, max_new_tokens=900)(pairs)
    assert len(other.asked) == len(patient.asked) == 2 * len(pairs)


def test_the_estimate_comes_first_counts_what_is_left_and_guards_the_purse(pairs, tmp_path):
    path, lines, reader = tmp_path / "judge.jsonl", [], Reader(longer)
    judge = judges.server_judge(
        reader, judges.Cache(path), progress=False, max_usd=0.0, usd_per_million_tokens=[1.0, 2.0], say=lines.append
    )
    with pytest.raises(ValueError, match="max_usd"):
        judge(pairs)
    with pytest.raises(ValueError, match="price"):
        quiet(reader, max_usd=1.0)
    assert reader.asked == [] and f"{2 * len(pairs)} prompts for {len(pairs)} pairs" in lines[0]
    cost = judges.estimate(pairs, reader, max_new_tokens=100, usd_per_million_tokens=[1.0, 2.0])
    characters = sum(len(c[0]["content"]) for c in judges._both_orders(pairs, letter_only=False))
    assert abs(cost.prompt_tokens - characters / 4) <= cost.prompts and cost.answer_tokens == 200 * len(pairs)
    assert cost.usd == pytest.approx((cost.prompt_tokens + 2 * cost.answer_tokens) / 1e6)
    quiet(reader, path)(pairs)
    left = judges.estimate(pairs, reader, judges.Cache(path), usd_per_million_tokens=5.0)
    assert (left.prompts, left.cached, left.usd) == (0, 2 * len(pairs), 0.0)
    assert judges.estimate(pairs, reader).usd is None


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("Both name a step.\nVerdict: A", 1.0),
        ("**Verdict:** **B**", -1.0),
        ("Verdict: Reflection B is better than A.", -1.0),
        ("Verdict: A, because it names the step", 1.0),
        ('{"verdict": "B"}', -1.0),
        ("My verdict is \\boxed{A}", 1.0),
        ("Verdict:\nB", -1.0),
        ("verdict: b", -1.0),
        ("Verdict: a tie", 0.0),
        ("Verdict: Tie.", 0.0),
        ("Verdict: Both are equally good", 0.0),
        ("Verdict: neither", 0.0),
        ("Verdict: A\nOn second thoughts:\nVerdict: B", -1.0),
        ("<think>Verdict: A</think>\nVerdict: B", -1.0),
        ("<think>It looks like\nVerdict: A", None),
        ("A", 1.0),
        ("They differ.\n(B)", -1.0),
        ("[[A]]", 1.0),
        ("A verdict cannot be given.", None),
        ("Verdict: a good plan stands in B", None),
        ("The first one names the step.", None),
        ("Step 3 is wrong", None),
        ("", None),
    ],
)
def test_verdicts_are_read_whatever_their_dress(text, verdict):
    assert judges.parse_verdict(text) == verdict


def test_gain_is_how_much_likelier_the_reflection_makes_the_gold_answer(engine, rows, tmp_path):
    items = [(r, x) for r in rows for x in r["reflections"]][:20]
    cache = judges.Cache(tmp_path / "gain.jsonl")
    values = judges.gain(engine, items, cache, progress=False)
    for (row, reflection), value in list(zip(items, values, strict=True))[::5]:
        said = [f"Answer: {row['problem']['answer']}"]
        attempt = row["turn1"]["completion"]
        plain = engine.score([prompts.answer_only_prompt(row["problem"], attempt, None)], said)[0]
        helped = engine.score([prompts.answer_only_prompt(row["problem"], attempt, reflection["text"])], said)[0]
        assert value == pytest.approx(helped - plain, abs=1e-3)
    assert len({round(v, 3) for v in values}) > 5
    broken = Scorer(longer)
    broken.name = engine.name
    assert judges.gain(broken, items, judges.Cache(cache.path), progress=False) == values and broken.asked == []


def test_the_gain_judge_prefers_by_the_difference_of_gains(engine, pairs):
    values = judges.gain(engine, [(p.rollout, x) for p in pairs[:4] for x in (p.a, p.b)], progress=False)
    found = judges.gain_judge(engine, progress=False)(pairs[:4])
    assert found == pytest.approx([a - b for a, b in zip(values[::2], values[1::2], strict=True)], abs=1e-3)


def test_unusable_judges_are_refused_in_one_line():
    with pytest.raises(ValueError, match=r"unknown judge 'gpt'; there are gain, self, server"):
        judges.make("gpt", Scorer(longer))
    with pytest.raises(ValueError, match="judge_model and judge_url"):
        judges.make("server", Scorer(longer), model="gpt")
    with pytest.raises(ValueError, match="model in this process"):
        judges.make("gain", Reader(longer))


def test_each_judge_is_made_by_its_name_and_keeps_its_answers_apart(pairs, tmp_path, monkeypatch):
    made = []

    class Server(Reader):
        def __init__(self, url, model):
            super().__init__(longer)
            self.name = model
            made.append((url, model))

    monkeypatch.setitem(sys.modules, "reflectevo_lite.generate.server", types.SimpleNamespace(ServerEngine=Server))
    model = Scorer(lambda a, b: len(a) - len(b))
    for name in judges.JUDGES[1:]:
        judge = judges.make(name, model, url="http://x/v1", model="big", cache_dir=tmp_path)
        assert [np.sign(v) for v in judge(pairs)] == [np.sign(len(p.a["text"]) - len(p.b["text"])) for p in pairs]
    assert made == [("http://x/v1", "big")]
    assert {p.name for p in tmp_path.iterdir()} >= {"self.jsonl", "server.jsonl"}


def test_agreement_counts_only_pairs_that_both_decide():
    verdicts = {"x": [1.0, 2.0, -1.0, 0.0, -3.0, 1.0], "y": [5.0, -1.0, -1.0, 1.0, 0.0, 1.0]}
    row = judges.agreement(verdicts, list("aabbcc"), resamples=200).iloc[0]
    assert (row["judge"], row["other"], row["pairs"], row["both decide"]) == ("x", "y", 6, 4)
    assert (row["decides"], row["other decides"], row["agree"]) == pytest.approx((5 / 6, 5 / 6, 3 / 4))


def test_kappa_is_that_of_statsmodels():
    from statsmodels.stats.inter_rater import cohens_kappa

    for table in ([20, 5, 10, 15], [1, 0, 2, 7], [40, 3, 9, 1]):
        wanted = cohens_kappa(np.array(table).reshape(2, 2)).kappa
        assert judges.kappa(np.array([table], float))[0] == pytest.approx(wanted)


def test_kappas_interval_resamples_problems_not_pairs():
    rng = np.random.default_rng(0)
    x = rng.choice([1.0, -1.0], 60)
    verdicts = {"x": np.repeat(x, 20), "y": np.repeat(np.where(rng.random(60) < 0.8, x, -x), 20)}
    whole = judges.agreement(verdicts, np.repeat(np.arange(60), 20)).iloc[0]
    single = judges.agreement(verdicts, np.arange(1200)).iloc[0]
    assert whole["low"] < whole["kappa"] < whole["high"]
    assert (whole["high"] - whole["low"]) / (single["high"] - single["low"]) == pytest.approx(20**0.5, rel=0.15)


@pytest.mark.parametrize(
    "verdicts", [{}, {"x": []}, {"x": [], "y": []}, {"x": [0.0], "y": [1.0]}, {"x": [1.0], "y": [1.0]}]
)
def test_agreement_of_next_to_nothing_is_no_error(verdicts):
    table = judges.agreement(verdicts, ["p"] * len(verdicts.get("y", [])))
    assert isinstance(table, pd.DataFrame) and len(table) == (len(verdicts) == 2)
    assert table["kappa"].isna().all()
