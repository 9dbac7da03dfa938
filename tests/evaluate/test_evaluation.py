"""Settings and controls do what they say; figures are right on rows made by hand and sane at the edges."""

import json

import numpy as np
import pytest

from reflectevo_lite import evaluate, generate, prompts, store
from reflectevo_lite.evaluate import Asked, Evaluation, Setting
from reflectevo_lite.evaluate.evaluation import shuffled
from reflectevo_lite.evaluate.metrics import compared, describe
from reflectevo_lite.evaluate.stats import mcnemar, smallest_detectable


def row(i, first, second, task="a"):
    return {
        "id": str(i),
        "task": task,
        "turn1_correct": first,
        "turn2_correct": second,
        "tokens": 10,
    }


def test_figures_of_hand_made_rows():
    rows = [row(0, True, True), row(1, True, False), row(2, False, True), row(3, False, True), row(4, False, False)]
    found = describe(Evaluation("x", "intrinsic"), "all", rows, 0)
    assert (found["acc_t1"], found["acc_t2"], found["flips"]) == (0.4, 0.6, {"cc": 1, "ci": 1, "ic": 2, "ii": 1})
    assert (
        found["delta"] == pytest.approx(0.2)
        and found["delta_ci"][0] < 0.2 < found["delta_ci"][1]
        and found["tokens"] == 50
    )
    assert (found["setting"], found["mode"], found["control"]) == ("x", "intrinsic", None)
    assert found["acc_t1_ci"][0] < 0.4 < found["acc_t1_ci"][1] and found["acc_t2_ci"][0] < 0.6 < found["acc_t2_ci"][1]
    assert [(t["turn"], t["acc"], t["tokens"]) for t in found["turns"]] == [(1, 0.4, 0), (2, 0.6, 50)]


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [row(0, True, True)],
        [row(0, False, False)],
        [row(i, True, True) for i in range(9)],
        [row(i, False, True) for i in range(9)],
    ],
)
def test_edges_divide_by_nothing(rows):
    found = describe(Evaluation("x"), "all", rows, 0)
    both = evaluate.compare("x", rows, "y", rows, 0)
    assert np.isfinite([found["acc_t1"], found["delta"], *found["delta_ci"], both["diff"], both["p_mcnemar"]]).all()
    assert both["diff"] == 0 and both["p_mcnemar"] == 1 and both["n"] == len(rows)


def test_a_difference_of_the_detectable_size_is_detected_at_the_promised_power():
    rng, n, discordant = np.random.default_rng(1), 600, 0.3
    mde = smallest_detectable(discordant, n)
    hits = 0
    for _ in range(300):
        d = rng.choice([-1, 0, 1], size=n, p=[(discordant - mde) / 2, 1 - discordant, (discordant + mde) / 2])
        hits += mcnemar(int((d == 1).sum()), int((d == -1).sum())) < 0.05
    assert 0.7 < hits / 300 < 0.9


def test_shuffled_leaves_nothing_in_its_place_and_loses_nothing():
    for n in (0, 1, 2, 3, 50):
        moved = shuffled(list(range(n)), seed=3)
        assert sorted(moved) == list(range(n))
        assert n < 2 or all(i != m for i, m in enumerate(moved))


def test_oracle_never_breaks_and_intrinsic_may(scripted, tmp_path):
    engine, problems = scripted
    first = evaluate.first_turns(engine, problems, tmp_path / "turn1.jsonl", max_new_tokens=96)
    prompted, asked = Setting("prompted"), Asked(problems, first, tmp_path, 96)
    oracle = evaluate.evaluate(engine, asked, prompted, turns=4)
    intrinsic = evaluate.evaluate(engine, asked, prompted, Evaluation("prompted", "intrinsic"))
    assert not any(r["turn1_correct"] and not r["turn2_correct"] for r in oracle)
    assert all(r["turn2"] is None for r in oracle if r["turn1_correct"]) and all(r["turn2"] for r in intrinsic)
    assert any(r["turn1_correct"] and not r["turn2_correct"] for r in intrinsic)
    by_turn = [sum(r["correct"][t] for r in oracle) for t in range(4)]
    assert by_turn == sorted(by_turn) and by_turn[3] > by_turn[0]


def test_controls_differ_from_the_setting_in_one_thing(scripted, tmp_path):
    engine, problems = scripted
    first = evaluate.first_turns(engine, problems, tmp_path / "turn1.jsonl", max_new_tokens=96)
    common = (engine, Asked(problems, first, tmp_path, 96), Setting("prompted"))
    plain = evaluate.evaluate(*common)
    retry = evaluate.evaluate(*common, Evaluation("prompted", control="retry"))
    moved = evaluate.evaluate(*common, Evaluation("prompted", control="shuffled"))
    assert all(r["reflection"] is None for r in retry) and not any(
        r["turn2_correct"] for r in retry if not r["turn1_correct"]
    )
    assert sorted(r["reflection"] for r in moved if r["reflection"]) == sorted(
        r["reflection"] for r in plain if r["reflection"]
    )
    with pytest.raises(ValueError, match="unknown control 'magic'"):
        evaluate.evaluate(*common, Evaluation("prompted", control="magic"))


def test_metrics_can_be_recomputed_from_the_rows(scripted, tmp_path):
    engine, problems = scripted
    first = evaluate.first_turns(engine, problems, tmp_path / "evals" / "turn1.jsonl", max_new_tokens=96)
    for setting in (Setting("prompted"), Setting("one_stage", one_stage=True)):
        evaluate.evaluate(engine, Asked(problems, first, tmp_path / "evals", 96), setting)
    metrics = json.loads(json.dumps(evaluate.metrics(tmp_path / "evals")))
    for found in metrics["rows"]:
        rows = [
            r
            for r in store.read_jsonl(tmp_path / "evals" / f"{found['setting']}.{found['mode']}.jsonl")
            if found["task"] in ("all", r["task"])
        ]
        assert found["n"] == len(rows) and found["acc_t2"] == pytest.approx(
            sum(r["turn2_correct"] for r in rows) / len(rows)
        )
    assert {c["a"] for c in metrics["comparisons"]} == {"one_stage.oracle"}
    assert {r["task"] for r in metrics["rows"]} == {"all", "arithmetic", "lists", "lineup"}


def test_graded_attempts_keep_prompt_and_tokens(scripted):
    engine, problems = scripted
    conversations = [prompts.answer_prompt(p) for p in problems]
    found = generate.answer(engine, problems, conversations, max_new_tokens=96)
    assert all(
        a["prompt"] == c and a["tokens"] > 0 and not a["truncated"] for a, c in zip(found, conversations, strict=True)
    )


def test_a_row_stores_no_first_answer_and_reading_joins_it(scripted, tmp_path):
    engine, problems = scripted
    run = store.Run(tmp_path)
    first = evaluate.first_turns(engine, problems, run.path("evals", "turn1.jsonl"), max_new_tokens=96)
    rows = evaluate.evaluate(engine, Asked(problems, first, run.path("evals"), 96), Setting("prompted"))
    assert all("turn1" not in r and "correct" not in r for r in rows)
    assert run.path("evals", "prompted.oracle.jsonl").stat().st_size / len(rows) <= 300  # bytes a row
    assert [r["turn1"] for r in evaluate.read_rows(run, Evaluation("prompted"))] == [a["completion"] for a in first]
    store.write_jsonl(run.path("evals", "turn1.jsonl"), [a | {"correct": not a["correct"]} for a in first])
    with pytest.raises(ValueError, match="made from other first answers"):
        evaluate.read_rows(run, Evaluation("prompted"))


def test_every_pair_is_compared_once_and_within_its_mode():
    names = ["prompted.oracle", "prompted.oracle.retry", "prompted.oracle.resample", "prompted.intrinsic"]
    names += [
        "reflector_only.oracle",
        "reflector_only.oracle.shuffled",
        "reflector_only.intrinsic",
        "unfiltered.oracle",
    ]
    names += ["round_2.oracle", "round_3.oracle", "two_stage.oracle.retry"]
    pairs = [(a.stem, b.stem) for a, b in compared(map(Evaluation.parse, names))]
    assert len(pairs) == len({frozenset(p) for p in pairs})
    assert all(a.split(".")[1] == b.split(".")[1] for a, b in pairs)
    for wanted in (
        ("reflector_only.oracle", "prompted.oracle"),
        ("reflector_only.oracle", "prompted.oracle.resample"),
        ("reflector_only.oracle", "reflector_only.oracle.shuffled"),
        ("reflector_only.oracle", "unfiltered.oracle"),
        ("reflector_only.intrinsic", "prompted.intrinsic"),
        ("prompted.oracle", "prompted.oracle.retry"),
        ("round_2.oracle", "reflector_only.oracle"),
        ("round_3.oracle", "round_2.oracle"),
        ("two_stage.oracle.retry", "prompted.oracle"),
    ):
        assert wanted in pairs
    assert ("round_3.oracle", "reflector_only.oracle") not in pairs


def test_a_further_pair_joins_the_table_once_and_only_where_both_are_there(tmp_path):
    for name in ("prompted.oracle", "half_top.oracle", "half_random.oracle"):
        store.write_jsonl(tmp_path / f"{name}.jsonl", [row(0, True, True)])
    wanted = ("half_top.oracle", "half_random.oracle")
    more = [wanted, ("half_top.oracle", "prompted.oracle"), ("half_top.oracle", "none.oracle")]
    extra = [tuple(map(Evaluation.parse, pair)) for pair in more]
    found = [(c["a"], c["b"]) for c in evaluate.metrics(tmp_path, extra=extra)["comparisons"]]
    assert found.count(wanted) == 1 and len(found) == len(set(found)) == 3
