"""Judges prefer what they should, ask in both orders, leak nothing, and pay for no answer twice."""

import json

import numpy as np
import pytest

from reflectevo_lite import generate, prompts
from reflectevo_lite.curate import Cache, gain, judges
from reflectevo_lite.curate.sets import Pair, both_helped
from reflectevo_lite.generate import rollouts
from reflectevo_lite.generate.engines import Completion


@pytest.fixture
def rows(scripted, tmp_path):
    """Rollouts in which some attempts have two reflections that both helped."""
    engine, problems = scripted
    found = list(
        rollouts.generate_rollouts(engine, problems, tmp_path / "r.jsonl", k=6, temperature=1.0, chunk_size=20)
    )
    for row in found:  # the scripted reflector has one text per place: add another that helps too
        row["reflections"] += [
            x | {"text": x["text"] + " Again, slowly."} for x in row["reflections"] if x["turn2"]["correct"]
        ][:1]
    return found


@pytest.fixture
def pairs(rows):
    found = list(both_helped(rows))
    assert len(found) >= 5
    return [p if i % 2 else Pair(p.rollout, p.b, p.a) for i, p in enumerate(found)]


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


def read(reader, pairs, path=None, **more):
    return judges.server_judge(reader, Cache(path), pairs, **more)


def test_a_reading_judge_prefers_by_what_it_reads_not_by_where_it_stands(pairs):
    found = read(Reader(longer), pairs)
    assert found == [float(np.sign(len(p.a["text"]) - len(p.b["text"]))) for p in pairs] and set(found) == {-1.0, 1.0}
    swapped = read(Reader(longer), [Pair(p.rollout, p.b, p.a) for p in pairs])
    assert swapped == [-v for v in found]


@pytest.mark.parametrize("answer", ["Verdict: A", "Verdict: B", "Verdict: tie", "I cannot tell."])
def test_a_judge_that_sticks_to_a_place_prefers_nothing(pairs, answer):
    assert read(Reader(lambda a, b: answer), pairs) == [0.0] * len(pairs)


def test_one_sided_verdicts_are_ties(pairs):
    """A preference in one order and a tie in the other is no preference."""
    first = min(pairs[0].a["text"], pairs[0].b["text"])
    assert read(Reader(lambda a, b: "Verdict: A" if a == first else "Verdict: tie"), pairs[:1]) == [0.0]


def test_self_is_the_log_odds_where_both_orders_agree(pairs, capsys):
    lengthy = Scorer(lambda a, b: (len(a) - len(b)) / 10 + 0.01)
    found = judges.self_judge(lengthy, None, pairs)
    assert found == pytest.approx([(len(p.a["text"]) - len(p.b["text"])) / 10 for p in pairs])
    assert f"{len(pairs)} of {len(pairs)} pairs" in capsys.readouterr().out
    stubborn = judges.self_judge(Scorer(lambda a, b: 3.0), None, pairs)
    assert stubborn == [0.0] * len(pairs) and f"0 of {len(pairs)} pairs" in capsys.readouterr().out


def test_the_embedded_model_can_be_asked_for_its_own_preference(engine, pairs, capsys):
    found = judges.self_judge(engine, None, pairs[:2])
    assert len(found) == 2 and all(np.isfinite(found)) and len(capsys.readouterr().out.splitlines()) == 1


def test_readers_see_neither_gold_nor_second_answers(pairs):
    reader = Reader(longer)
    marked = [
        Pair(
            p.rollout | {"problem": p.rollout["problem"] | {"answer": "GOLD"}},
            *(x | {"turn2": x["turn2"] | {"completion": "SECOND", "answer": "SECOND"}} for x in (p.a, p.b)),
        )
        for p in pairs
    ]
    read(reader, marked)
    judges.self_judge(scorer := Scorer(lambda a, b: 1.0), None, marked)
    said = json.dumps(reader.asked + scorer.asked)
    assert "GOLD" not in said and "SECOND" not in said
    assert pairs[0].rollout["turn1"]["completion"] in reader.asked[0][0]["content"]


def test_an_interrupted_judge_pays_for_no_answer_twice(pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(judges, "BATCH", 3)
    path, straight = tmp_path / "judge.jsonl", Reader(longer)
    wanted = read(straight, pairs)
    broken = Reader(longer)
    broken.budget = 6
    with pytest.raises(ConnectionError):
        read(broken, pairs, path)
    resumed = Reader(longer)
    assert read(resumed, pairs, path) == wanted
    assert len(broken.asked) == 6 and len(broken.asked) + len(resumed.asked) == len(straight.asked)
    again = Reader(longer)
    assert read(again, pairs, path) == wanted and again.asked == []


def test_a_line_cut_by_a_kill_is_asked_again_and_harms_no_other(pairs, tmp_path):
    path = tmp_path / "judge.jsonl"
    wanted = read(Reader(longer), pairs, path)
    path.write_bytes(path.read_bytes()[:-20])
    second = Reader(longer)
    assert read(second, pairs, path) == wanted and len(second.asked) == 1
    third = Reader(longer)
    assert read(third, pairs, path) == wanted and third.asked == []


def test_another_model_or_longer_answers_are_asked_anew(pairs, tmp_path, monkeypatch):
    path = tmp_path / "judge.jsonl"
    read(Reader(longer), pairs, path)
    other = Reader(lambda a, b: "Verdict: A")
    other.name = "another"
    assert read(other, pairs, path) == [0.0] * len(pairs)
    monkeypatch.setattr(judges, "ANSWER_TOKENS", 900)
    read(patient := Reader(longer), pairs, path)
    assert len(other.asked) == len(patient.asked) == 2 * len(pairs)


def test_the_estimate_comes_first_counts_what_is_left_and_guards_the_purse(pairs, tmp_path, capsys):
    path, reader = tmp_path / "judge.jsonl", Reader(longer)
    with pytest.raises(ValueError, match="judge_max_usd"):
        read(reader, pairs, path, price=[1000.0, 2000.0], max_usd=0.1)
    said = capsys.readouterr().out
    assert reader.asked == [] and f"{2 * len(pairs)} prompts for {len(pairs)} pairs" in said and "(0 more" in said
    read(reader, pairs, path)  # no price: no estimate in dollars
    tokens = sum(-(-len(c[0]["content"]) // 4) for c in reader.asked)
    usd = (1000 * tokens + 2000 * 512 * len(reader.asked)) / 1e6
    assert f"about {tokens:,} tokens in" in said and f"at most about ${usd:.2f}\n" in said
    assert "$" not in capsys.readouterr().out
    read(Reader(longer), pairs, path, price=5.0, max_usd=0.0)
    assert f"0 prompts for {len(pairs)} pairs in both orders ({2 * len(pairs)} more" in capsys.readouterr().out


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
    cache = Cache(tmp_path / "gain.jsonl")
    values = gain(engine, items, cache)
    for (row, reflection), value in list(zip(items, values, strict=True))[::5]:
        said = [f"Answer: {row['problem']['answer']}"]
        attempt = row["turn1"]["completion"]
        plain = engine.score([prompts.answer_only_prompt(row["problem"], attempt, None)], said)[0]
        helped = engine.score([prompts.answer_only_prompt(row["problem"], attempt, reflection["text"])], said)[0]
        assert value == pytest.approx(helped - plain, abs=1e-3)
    assert len({round(v, 3) for v in values}) > 5
    broken = Scorer(longer)
    broken.name = engine.name
    assert gain(broken, items, Cache(cache.path)) == values and broken.asked == []


def test_the_gain_judge_prefers_by_the_difference_of_gains(engine, pairs):
    values = gain(engine, [(p.rollout, x) for p in pairs[:4] for x in (p.a, p.b)])
    found = judges.gain_judge(engine, None, pairs[:4])
    assert found == pytest.approx([a - b for a, b in zip(values[::2], values[1::2], strict=True)], abs=1e-3)


def test_unusable_judges_are_refused_in_one_line():
    with pytest.raises(ValueError, match=r"unknown judge 'gpt'; there are gain, self, server"):
        judges.make_judge("gpt", Scorer(longer))
    with pytest.raises(ValueError, match="judge_model and judge_url"):
        judges.make_judge("server", Scorer(longer), model="gpt")
    with pytest.raises(ValueError, match="judge_max_usd needs a price"):
        judges.make_judge("server", Scorer(longer), url="http://x/v1", model="gpt", max_usd=1.0)
    with pytest.raises(ValueError, match="model in this process"):
        judges.make_judge("gain", Reader(longer))


def test_each_judge_is_made_by_its_name_and_keeps_its_answers_apart(pairs, tmp_path, monkeypatch):
    made = []

    class Server(Reader):
        def __init__(self, url, model):
            super().__init__(longer)
            self.name = model
            made.append((url, model))

    monkeypatch.setattr(generate, "ServerEngine", Server)
    model = Scorer(lambda a, b: len(a) - len(b))
    for name in ("self", "server"):
        judge = judges.make_judge(name, model, url="http://x/v1", model="big", cache_dir=tmp_path)
        assert [np.sign(v) for v in judge(pairs)] == [np.sign(len(p.a["text"]) - len(p.b["text"])) for p in pairs]
    assert made == [("http://x/v1", "big")]
    assert {p.name for p in tmp_path.iterdir()} >= {"self.jsonl", "server.jsonl"}
