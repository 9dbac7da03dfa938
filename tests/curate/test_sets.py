"""D+, D± and D^pref hold what the paper says, and the files hold what the functions give."""

import pytest

from reflectevo_lite import store
from reflectevo_lite.curate import sets
from reflectevo_lite.generate import rollouts


@pytest.fixture
def rows(scripted, tmp_path):
    engine, problems = scripted
    out = tmp_path / "r.jsonl"
    return list(rollouts.generate_rollouts(engine, problems, out, k=6, temperature=1.0, chunk_size=20, progress=False))


def longest_first(pairs):
    return [float(len(p.a["text"]) - len(p.b["text"])) for p in pairs]


def test_d_plus_holds_what_helped_once_each(rows):
    plus = list(sets.d_plus(rows))
    assert plus and all(r["reflection"]["turn2"]["correct"] and not r["turn1"]["correct"] for r in plus)
    assert len({(r["id"], r["reflection"]["text"]) for r in plus}) == len(plus)
    helped = {(r["id"], x["text"]) for r in rows for x in r["reflections"] if x["turn2"]["correct"]}
    assert {(r["id"], r["reflection"]["text"]) for r in plus} == helped


def test_d_pm_pairs_what_helped_with_what_did_not(rows):
    pairs = list(sets.d_pm(rows, pairs_per_problem=2))
    assert pairs and all(p["chosen"]["turn2"]["correct"] and not p["rejected"]["turn2"]["correct"] for p in pairs)
    per_problem = [sum(p["id"] == q["id"] for q in pairs) for p in pairs]
    assert max(per_problem) <= 2


def test_d_pref_follows_the_judge_and_drops_ties(rows):
    def both_helped(row):
        return len({x["text"] for x in row["reflections"] if x["turn2"]["correct"]}) > 1

    for row in rows:  # the scripted reflector has one text per place: add another that helps too
        row["reflections"] += [
            x | {"text": x["text"] + " Again, slowly."} for x in row["reflections"] if x["turn2"]["correct"]
        ][:1]
    assert any(both_helped(r) for r in rows)
    pairs = list(sets.d_pref(rows, longest_first))
    assert pairs and all(len(p["chosen"]["text"]) > len(p["rejected"]["text"]) and p["margin"] > 0 for p in pairs)
    assert all(p["rejected"]["turn2"]["correct"] for p in pairs)
    flipped = list(sets.d_pref(rows, lambda pairs: [-v for v in longest_first(pairs)]))
    assert [(p["chosen"], p["rejected"]) for p in flipped] == [(p["rejected"], p["chosen"]) for p in pairs]
    assert list(sets.d_pref(rows, lambda pairs: [0.0] * len(pairs))) == []


def test_unfiltered_has_the_asked_size_and_both_outcomes(rows):
    drawn = list(sets.unfiltered(rows, 40, seed=1))
    assert len(drawn) == 40 and {r["reflection"]["turn2"]["correct"] for r in drawn} == {True, False}
    assert drawn == list(sets.unfiltered(rows, 40, seed=1))


def test_written_sets_are_those_of_the_functions_whatever_the_judges_batch(rows, tmp_path):
    for row in rows:
        row["reflections"] += [x | {"text": x["text"] + " Again."} for x in row["reflections"]]
    asked = []

    def judge(items):
        asked.append(len(items))
        return longest_first(items)

    counts = sets.write_curated(rows, tmp_path / "curated", longest_first, seed=2)
    want = {
        "d_plus": list(sets.d_plus(rows)),
        "d_pm": list(sets.d_pm(rows, seed=2)),
        "d_pref": list(sets.d_pref(rows, judge, seed=2, batch=3)),
        "unfiltered": list(sets.unfiltered(rows, counts["d_plus"], seed=2)),
    }
    for name, found in want.items():
        assert found and counts[name] == len(found) and store.read_jsonl(tmp_path / f"curated/{name}.jsonl") == found
    assert max(asked) == 3 and len(asked) > 1


def test_unfiltered_draws_each_reflection_alike(rows):
    n = sum(len({x["text"] for x in r["reflections"]}) for r in rows)
    drawn = [len(list(sets.unfiltered(rows, n // 2, seed=s))) for s in range(5)]
    assert drawn == [n // 2] * 5 and len(list(sets.unfiltered(rows, n + 9))) == n
    first = sum(next(sets.unfiltered(rows, n // 2, seed=s))["id"] == rows_with(rows)[0]["id"] for s in range(200))
    assert first > 100  # the first row's reflections are as likely as any


def rows_with(rows):
    return [r for r in rows if r["reflections"]]


def test_empty_sets_are_named_and_left_out(capsys):
    assert sets.with_rows({"dpo_pm": [], "reflector": [1]}) == {"reflector": [1]}
    assert capsys.readouterr().out.startswith("dpo_pm: nothing to train on")
