"""Tables, verdicts and the comparison of runs, on made-up rows; every figure recomputed by an independent script."""

import json
import random
import shutil

import pandas as pd
import pytest
import recompute
from conftest import ROOT
from madeup import eval_row

from notebooks.beyond import seeds
from reflectevo_lite import embedded, evaluate, read, store
from reflectevo_lite.read import figures
from reflectevo_lite.run import cli

RIGHT = {"prompted": 0.3, "reflector_only": 0.7, "unfiltered": 0.32, "round_2": 0.71, "odd_name": 0.3}


def made_up_run(directory, seed=0, n=150, rates=RIGHT):
    """Eval files of a run that never was: half of the questions right at once, the rest mended at the setting's rate."""
    rng = random.Random(f"questions/{seed}")
    problems = embedded.problems(n, "test", seed=seed)
    first = [rng.random() < 0.5 for _ in problems]
    run = store.Run(directory)
    store.write_jsonl(run.path("data", "test.jsonl"), problems)
    for setting, rate in rates.items():
        for name in (f"{setting}.oracle", f"{setting}.oracle.retry", f"{setting}.intrinsic"):
            rng = random.Random(f"{seed}/{name}")
            mended = 0.05 if "retry" in name else rate
            rows = []
            for p, a in zip(problems, first, strict=True):
                b = (a if "oracle" in name else rng.random() < 0.9) if a else rng.random() < mended
                settled = a and "oracle" in name
                rows.append(eval_row(p, a, b, tokens=0 if settled else 40))
            store.write_jsonl(run.path("evals", f"{name}.jsonl"), rows)
    store.write_json(run.path("metrics.json"), evaluate.metrics(run.path("evals"), seed=seed))
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return made_up_run(tmp_path_factory.mktemp("made") / "up")


def test_an_independent_script_gives_the_same_figures(run, tmp_path):
    assert recompute.main(run.directory) == []
    copy = tmp_path / "copy"
    shutil.copytree(run.directory, copy)
    metrics = json.loads((copy / "metrics.json").read_text())
    row = next(r for r in metrics["rows"] if r["setting"] == "reflector_only" and r["task"] == "lists")
    row["acc_t2"] += 0.001
    row["delta_ci"] = [0.0, 1.0]
    metrics["comparisons"][0]["p_mcnemar"] *= 0.9
    metrics["comparisons"][1]["significant"] = not metrics["comparisons"][1]["significant"]
    (copy / "metrics.json").write_text(json.dumps(metrics))
    found = "\n".join(recompute.main(copy))
    assert all(word in found for word in ("acc_t2 is", "delta_ci is", "p_mcnemar is", "significant is"))


@pytest.mark.parametrize("packed", sorted((ROOT / "artifacts" / "reference").glob("*/rows.zip")), ids=str)
def test_the_figures_of_a_reference_run_follow_from_its_rows(packed, tmp_path):
    shutil.copy(packed.with_name("metrics.json"), tmp_path)
    shutil.unpack_archive(packed, tmp_path)
    assert recompute.main(tmp_path) == []


def test_metrics_hold_for_no_question_one_and_all_alike(tmp_path):
    problems = embedded.problems(9, "test")
    for n, a, b in ((0, True, True), (1, False, True), (9, True, True), (9, False, False), (9, False, True)):
        folder = tmp_path / f"{n}{a}{b}" / "evals"
        for name in ("prompted.oracle", "prompted.oracle.retry", "reflector_only.oracle"):
            store.write_jsonl(folder / f"{name}.jsonl", [eval_row(p, a, b) for p in problems[:n]])
        metrics = evaluate.metrics(folder)
        json.dumps(metrics, allow_nan=False)
        store.write_json(folder.parent / "metrics.json", metrics)
        assert recompute.main(folder.parent) == [] and not any(c["significant"] for c in metrics["comparisons"])
        assert len(read.with_intervals(metrics)) == len(read.results(metrics)) == 3
        read.verdicts(metrics), read.modes(metrics), read.comparisons(metrics)


def test_the_table_has_every_setting_in_order_with_intervals(run):
    metrics = read.load_metrics(run)
    table = read.results(metrics)
    assert list(table["key"])[:3] == ["prompted.oracle", "prompted.oracle.retry", "reflector_only.oracle"]
    assert evaluate.label("sft_dpo") and evaluate.label("odd_name") == "odd name"
    shown = read.with_intervals(metrics)
    assert len(shown) == len(table) and shown["Acc@t2"].str.fullmatch(r"\d+\.\d \[\d+\.\d, \d+\.\d\]").all()
    both = read.modes(metrics)
    assert set(both["n"]) == {150} and (both["broken"] > 0).all()
    assert both["Δ intrinsic"].tolist() == pytest.approx((both["mended"] - both["broken"]).tolist())


def test_verdicts_say_what_is_significant_after_correction_and_what_is_not(run):
    lines = read.verdicts(read.load_metrics(run))
    (trained,) = (line for line in lines if line.startswith("**reflector SFT (D+)** is"))
    (unfiltered,) = (line for line in lines if line.startswith("**reflector SFT (unfiltered)** is"))
    better, open_ = trained.split("*not told apart from*")[0], unfiltered.split("*not told apart from*")[1]
    assert (
        "prompted reflection +" in better
        and "its own plain retry +" in better
        and "reflector SFT (unfiltered) +" in better
    )
    assert "prompted reflection +" in open_ and "plain retry" not in open_ and "reflector SFT (D+)" not in unfiltered
    assert any("**, told nothing, is" in line for line in lines)
    made = read.load_metrics(run)["comparisons"]
    assert lines[0].startswith(f"Of {len(made)} comparisons {sum(c['significant'] for c in made)} are significant")


def test_a_comparison_reads_the_same_from_either_side(run):
    metrics = read.load_metrics(run)
    (retry,) = (
        read.comparisons(metrics, against="prompted.oracle")
        .query("setting.str.endswith('· plain retry') and setting.str.startswith('prompted')")
        .to_dict("records")
    )
    (prompted,) = (
        read.comparisons(metrics, against="prompted.oracle.retry")
        .query("setting == 'prompted reflection'")
        .to_dict("records")
    )
    assert retry["difference"] == -prompted["difference"] < 0 and (retry["low"], retry["high"]) == (
        -prompted["high"],
        -prompted["low"],
    )


def test_a_control_that_did_not_move_is_named_in_the_caption():
    names = ["a", "a · plain retry", "b · plain retry", "b · fresh answers", "c · shuffled reflections"]
    table = pd.DataFrame({"setting": names, "i→c": [0, 3, 0, 40, 10], "i→i": [500, 500, 497, 960, 990], "key": "x"})
    caption = read.styled(table).to_html()
    assert "plain retry (3 of 1,000 wrong answers mended). Any change beats them" in caption
    assert "fresh answers (" not in caption and "shuffled reflections (" not in caption and ">x<" not in caption
    assert "did not move" not in read.styled(table.iloc[[0, 3, 4]]).to_html()


def test_accused_counts_right_and_wrong_answers_that_a_reflection_finds_fault_with(tmp_path):
    problems, kept = embedded.problems(8, "test"), "I find no mistake. Plan: keep the answer."
    rows = [eval_row(p, i < 5, i < 4) | {"reflection": kept if i == 0 else "Step 1 is wrong: it is miscalculated."}
            for i, p in enumerate(problems)]  # fmt: skip
    run = store.Run(tmp_path)
    store.write_jsonl(run.path("evals", "prompted.intrinsic.jsonl"), rows)
    store.write_jsonl(run.path("evals", "prompted.oracle.jsonl"), rows)
    right, wrong = read.accused(run).to_dict("records")
    assert right == {"setting": "prompted reflection", "first answer": "right", "accused": 80, "right afterwards": 80, "n": 5}  # fmt: skip
    assert wrong["accused"] == 100 and wrong["right afterwards"] == 0 and wrong["n"] == 3
    assert read.accused(store.Run(tmp_path / "empty")).empty


def test_a_dpo_that_ends_above_where_it_began_is_remarked():
    losses = {"up": [0.693, 0.5, 0.6, 0.6, 0.5, 0.6, 0.6, 0.8], "down": [0.693, 0.5]}
    rows = [(name, "dpo", i, loss) for name, found in losses.items() for i, loss in enumerate(found)]
    up, down = read.dpo_ends(pd.DataFrame([*rows, ("x", "sft", 0, 9)], columns=["adapter", "kind", "step", "loss"]))
    assert up == "`up` ends at 0.800, **above** ln 2 = 0.693, where it began; its last 2 reports average 0.700."
    assert down == "`down` ends at 0.500, below ln 2 = 0.693; its last 1 reports average 0.500."


# -- Two runs, several seeds ---------------------------------------------------------------------------------------------
def test_compare_prints_the_paired_difference_of_two_runs(run, tmp_path, capsys):
    other = made_up_run(tmp_path / "other", rates={"reflector_only": 0.2, "prompted": 0.3})
    assert cli.main(["compare", str(run.directory), str(other.directory), "--setting", "reflector_only"]) == 0
    said = capsys.readouterr().out
    want = evaluate.compare(
        "a", run.read("evals", "reflector_only.oracle.jsonl"), "b", other.read("evals", "reflector_only.oracle.jsonl")
    )
    assert f"{100 * want['diff']:.1f}" in said and f"{want['p_mcnemar']:.2g}" in said and " 150" in said
    assert cli.main(["compare", str(run.directory), str(other.directory)]) == 0
    assert capsys.readouterr().out.count("\n") == 2 + 6  # the files that both have


@pytest.mark.parametrize(("seed", "n", "hint"), [(1, 150, "but the questions are not"), (0, 90, "60 only in")])
def test_compare_refuses_different_questions(run, tmp_path, capsys, seed, n, hint):
    other = made_up_run(tmp_path / "other", seed=seed, n=n)
    assert cli.main(["compare", str(run.directory), str(other.directory)]) == 2
    said = capsys.readouterr().err
    assert hint in said and "n_test and seed" in said and said.count("\n") == 1


def test_compare_names_what_is_missing(run, tmp_path, capsys):
    assert cli.main(["compare", str(run.directory), str(run.directory), "--setting", "magic"]) == 2
    assert "has no magic.oracle; both have prompted.oracle" in capsys.readouterr().err
    assert cli.main(["compare", str(run.directory), str(tmp_path)]) == 2
    assert "holds no eval files" in capsys.readouterr().err


def test_seeds_are_pooled_with_an_interval_over_seeds(run, tmp_path):
    runs = [run.directory, *(made_up_run(tmp_path / str(s), seed=s).path("metrics.json") for s in (1, 2))]
    table = seeds.pooled(runs).set_index("setting")
    row = table.loc["reflector SFT (D+)"]
    accs = [100 * next(r["acc_t2"] for r in json.loads((run.directory / "metrics.json" if i == 0 else p).read_text())["rows"]
                       if r["setting"] == "reflector_only" and r["mode"] == "oracle" and not r["control"] and r["task"] == "all")
            for i, p in enumerate(runs)]  # fmt: skip
    assert row["Acc@t2"] == pytest.approx(sum(accs) / 3) and row["smallest"] == min(accs) and row["seeds"] == 3
    assert row["Acc@t2 low"] < min(accs) and row["difference low"] < row["difference"] < row["difference high"]
    assert seeds.pooled([run.directory])["Acc@t2 low"].isna().all()
    with pytest.raises(FileNotFoundError, match="06_analysis"):
        seeds.pooled([tmp_path / "nowhere"])


# -- Turns ---------------- ----------------------------------------------------------------------------------------
def test_the_turn_curve_knows_what_each_turn_cost():
    rows = [
        {"correct": [True, True, True], "turn_tokens": [], "tokens": 0},
        {"correct": [False, True, True], "turn_tokens": [30], "tokens": 30},
        {"correct": [False, False, True], "turn_tokens": [30, 50], "tokens": 30},
        {"correct": [False, False, False], "turn_tokens": [30, 50], "tokens": 30},
    ]
    curve = read.turn_curve(
        {"x": [r | {"turn1_correct": r["correct"][0], "turn2_correct": r["correct"][1]} for r in rows]}
    )
    assert list(curve["accuracy"]) == [0.25, 0.5, 0.75] and list(curve["spent"]) == [0, 22.5, 47.5]
    assert curve["tokens per gain"].iloc[1:].tolist() == [90, 100] and (curve["low"] < curve["accuracy"]).all()
    assert len(figures.turns(curve).axes) == 2
