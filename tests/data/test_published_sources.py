"""The whole pipeline on published sets from local copies, with a small random model of a real family.

Such a model knows nothing: what is tested is that every answer kind passes through every stage, the sandbox included,
and that a run goes on, and says so, where a model leaves nothing to train on. Accuracy means nothing here.

The invented rows run in this process, cell by cell. Real rows, where they lie beside the checkout, go through
`reflectevo run`; they are never part of the repository.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import copies as invented
import families
import pytest
from conftest import ROOT
from planned import assert_planned

from reflectevo_lite import data, evaluate, store
from reflectevo_lite.data import own
from reflectevo_lite.run import cli, pipeline
from reflectevo_lite.run.params import defaults as params_defaults

CASES = ROOT.parent / "shared" / "cases" / "rows"
TINY = {"n_train": 6, "n_test": 4, "n_rollout": 30, "k": 2, "rounds": 2, "turns": 2, "max_new_tokens": 12}
TRAINING = {"sft_epochs": 1, "dpo_epochs": 1, "lora_r": 4, "max_length": 8192}
LETTERS = tuple(f"{word}Answer: {letter}\n" for letter in "ABCD" for word in ("", "So: "))
CODE = "```python\ndef pair(a, b):\n    return {a, b}\n```\n"
INVENTED = ["bbh:snarks", "strategyqa", "gsm8k", "squadshifts:amazon", "mbpp"]
RIGHT = (*LETTERS[:4], *LETTERS[:4], CODE, "Answer: 1000\n", "Answer: 1001\n", "Answer: two minutes\n")


# -- invented rows, in this process ---------------------------------------------------------------------
@pytest.fixture(scope="module")
def copies(tmp_path_factory) -> Path:
    """Local copies of five sets in their original formats, invented rows of all four answer kinds."""
    root = tmp_path_factory.mktemp("copies")
    for write in (invented.bbh_files, invented.strategyqa, invented.gsm8k, invented.squadshifts):
        write(root)
    rows = [invented.mbpp_row(i, "pair", f"Write a function, number {i}.") for i in (*range(11, 20), *range(601, 610))]
    invented.put(root / "mbpp" / "mbpp.jsonl", rows)
    return root


def run_here(params: dict) -> store.Run:
    """Execute the code cells of all six notebooks in this process: no kernel to start for each."""
    plan = pipeline.make_plan(params, ROOT / "notebooks")
    for stage in store.STAGES:
        path, scope = plan.notebooks[stage], {}
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "code":
                exec(compile("".join(cell["source"]), f"{stage}, {cell['id']}", "exec"), scope)
            if "parameters" in cell["metadata"].get("tags", []):
                scope |= plan.params[stage] | {"run_dir": str(plan.run_dir)}
    return store.Run(plan.run_dir)


def params(directory: Path, family: str, sources: list[str], data_dir: Path, says: tuple[str, ...]) -> dict:
    model = families.build(family, directory / "model", says=says)
    where = {"run_dir": str(directory / "run"), "model": model, "sources": sources, "data_dir": str(data_dir)}
    return where | TINY | TRAINING


@pytest.fixture(scope="module")
def by_chance(copies, tmp_path_factory):
    return run_here(params(tmp_path_factory.mktemp("chance"), "qwen3", INVENTED, copies, RIGHT))


def test_every_answer_kind_goes_through_all_stages(by_chance):
    graders = {row["grader"] for row in by_chance.read("data", "test.jsonl")}
    assert graders == {"choice", "math", "text", "code"}
    settings = {
        row["setting"] for row in json.loads(by_chance.path("metrics.json").read_text(encoding="utf-8"))["rows"]
    }
    assert {"prompted", "reflector_only", "two_stage", "one_stage", "unfiltered", "dpo_pm", "round_2"} <= settings
    assert "round 2" not in evaluate.left_out(by_chance) and by_chance.path("report.html").exists()


def test_the_plan_counts_what_a_run_of_five_sources_did(by_chance):
    values = {name: value for own in by_chance.params().values() for name, value in own.items()}
    assert_planned(SimpleNamespace(values=params_defaults() | values), by_chance)


def test_code_that_a_model_wrote_was_run_in_the_sandbox(by_chance):
    turns = [
        (row["problem"], a)
        for row in by_chance.read("rollouts", "train.jsonl")
        for a in (row["turn1"], *(x["turn2"] for x in row["reflections"]))
        if row["problem"]["grader"] == "code"
    ]
    assert {a["correct"] for _, a in turns} == {True, False}
    assert all(a["correct"] == ("def pair" in a["completion"]) for _, a in turns if "```\n" in a["completion"] + "\n")


def test_a_model_that_is_never_right_leaves_out_what_it_cannot_train_and_goes_on(copies, tmp_path, capsys):
    run = run_here(params(tmp_path, "gemma2", INVENTED, copies, ("Hmm. ", "I wonder. ")))
    said = capsys.readouterr().out
    for name in ("reflector", "corrector", "one_stage", "unfiltered", "dpo_pm", "dpo_pref", "round_2"):
        assert said.count(f"{name}: nothing to train on, so it is left out") == 1
    trained = {"qa"}  # it needs no reflection that helped
    assert {path.name for path in run.path("adapters").iterdir()} == trained
    rows = json.loads(run.path("metrics.json").read_text(encoding="utf-8"))["rows"]
    assert {row["setting"] for row in rows} == {"prompted", "one_stage_prompted", *trained}
    assert not any(r["acc_t2"] for r in rows)
    assert {"accuracy.png", "rounds.png", "turns.png", "flips.png"} <= {p.name for p in run.path("figures").iterdir()}
    missing = ["one-stage SFT (D+)", "two-stage SFT (D+)", "reflector SFT (D+)", "reflector SFT (unfiltered)"]
    missing += ["DPO (D±)", "DPO (D^pref)", "reflector SFT, then DPO (D±)", "round 2"]
    assert evaluate.left_out(run) == missing
    assert f"Nothing to train on, so left out: {', '.join(missing)}." in run.path("report.html").read_text(
        encoding="utf-8"
    )


# -- real rows, through the command ---------------------------------------------------------------------
def rows_of(name: str) -> list[dict]:
    return [json.loads(line) for line in (CASES / f"{name}.jsonl").read_text(encoding="utf-8").split("\n") if line]


def real_copies(root: Path) -> list[str]:
    """Write local copies of real rows in published formats to `root`; returns the sources that they serve."""
    divide("logiqa", root, [logiqa_row(row) for row in rows_of("logiqa")], ("train", "validation", "test"))
    divide("math", root, [math_row(row) for row in rows_of("math")])
    divide("gsm8k", root, [{"question": r["question"], "answer": r["solution"]} for r in rows_of("gsm8k")])
    invented.put(root / "mbpp" / "mbpp.jsonl", [mbpp_row(i, row) for i, row in enumerate(rows_of("mbpp"))])
    invented.put(root / "strategyqa" / "dev.json", [strategy_row(row) for row in rows_of("strategyqa")])
    invented.put(root / "timedial" / "test.json", [timedial_row(row) for row in rows_of("timedial")])
    vitaminc = [vitaminc_row(row) for row in rows_of("vitaminc_official")]
    divide("vitaminc", root, vitaminc, ("train", "dev", "test"))
    for domain in ("amazon", "reddit", "new_wiki"):
        rows = [{**r, "answers": {"text": r["answers"]}} for r in rows_of(f"squadshifts_{domain}")]
        invented.put(root / "squadshifts" / domain / "test.jsonl", rows)
    tasks = sorted(path.stem.removeprefix("bbh_") for path in CASES.glob("bbh_*.jsonl"))
    for task in tasks:
        examples = [bbh_row(row) for row in rows_of(f"bbh_{task}")]
        invented.put(root / "bbh" / f"{task}.json", {"canary": "", "examples": examples})
    domains = ["squadshifts:amazon", "squadshifts:new_wiki", "squadshifts:reddit"]
    one_by_one = ["logiqa", "math", "gsm8k", "mbpp", "strategyqa", "timedial", "vitaminc"]
    return [*one_by_one, *domains, *(f"bbh:{task}" for task in tasks)]


def divide(name: str, root: Path, rows: list[dict], parts: tuple[str, ...] = ("train", "test")) -> None:
    """Rows dealt out to parts in turn: those at hand are of one published part only."""
    for i, part in enumerate(parts):
        invented.put(root / name / f"{part}.jsonl", rows[i :: len(parts)])


def logiqa_row(row: dict) -> dict:
    context, _, query = row["question"].rpartition("\n")
    right = ord(row["answer"]) - 65
    return {"context": context, "query": query, "options": row["choices"], "correct_option": right}


def math_row(row: dict) -> dict:
    """Some rows at hand have lost their solution; the answer in a box stands for it."""
    solution = row["solution"] or rf"So it is $\boxed{{{row['answer']}}}$."
    return {"problem": row["question"], "solution": solution, "level": row["level"], "type": row["type"]}


def mbpp_row(index: int, row: dict) -> dict:
    """The rows at hand are of the test range; every other one is moved into the range of train."""
    number = int(row["id"].split("-")[1])
    text = {"text": row["question"], "code": row["answer"]}
    return row | text | {"task_id": number if index % 2 else 601 + number % 374}


def strategy_row(row: dict) -> dict:
    return {"qid": row["id"], "question": row["question"], "answer": row["answer"] == "A"}


def timedial_row(row: dict) -> dict:
    right, *wrong = sorted(row["choices"], key=lambda option: option != row["choices"][ord(row["answer"]) - 65])
    dialogue = row["question"].partition("Context:\n")[2].split("\n")
    names = {"correct1": right, "correct2": row["also_correct"], "incorrect1": wrong[0], "incorrect2": wrong[1]}
    return {"id": row["id"], "conversation": dialogue} | names


def vitaminc_row(row: dict) -> dict:
    passage, _, rest = row["question"].partition("Passage: ")[2].partition("\nClaim: ")
    label = dict(zip("ABC", ("SUPPORTS", "REFUTES", "NOT ENOUGH INFO"), strict=True))[row["answer"]]
    return {"unique_id": row["id"], "claim": rest.partition("\nOptions:")[0], "evidence": passage, "label": label}


def bbh_row(row: dict) -> dict:
    options = "\n".join(f"({chr(65 + i)}) {option}" for i, option in enumerate(row["choices"]))
    return {"input": f"{row['question']}\nOptions:\n{options}", "target": f"({row['answer']})"}


@pytest.mark.skipif(not CASES.exists(), reason="no real rows in ../shared/cases/rows")
def test_real_rows_of_five_sets_go_through_reflectevo_run(tmp_path, capsys):
    known = real_copies(tmp_path / "copies")
    sources = ["logiqa", "math", "mbpp", "squadshifts:amazon", "bbh:causal_judgement"]
    assert set(sources) <= set(known)
    wanted = params(tmp_path, "llama3", sources, tmp_path / "copies", LETTERS) | {
        "n_train": 5,
        "n_test": 2,
        "rounds": 1,
    }
    store.write_text(tmp_path / "real.yaml", json.dumps(wanted))
    assert cli.main(["run", str(tmp_path / "real.yaml"), "--notebooks", str(ROOT / "notebooks")]) == 0
    assert "prompted reflection" in capsys.readouterr().out
    run = store.Run(tmp_path / "run")
    assert all(store.stage_finished(run.directory, stage) for stage in store.STAGES)
    tasks = {row["task"]: row["grader"] for row in run.read("data", "test.jsonl")}
    assert set(tasks) == set(sources) and set(tasks.values()) == {"choice", "math", "text", "code"}
    assert {row["task"] for row in run.read("evals", "prompted.oracle.jsonl")} == set(sources)


@pytest.mark.skipif(not CASES.exists(), reason="no real rows in ../shared/cases/rows")
def test_real_rows_of_every_kind_become_problems(tmp_path):
    sources = real_copies(tmp_path)
    tested_with_real = {name for name, source in data.SOURCES.items() if "real rows" in source.tested}
    assert {name.split(":")[0] for name in tested_with_real} == {name.split(":")[0] for name in sources}
    for split in ("train", "test"):
        rows = data.load_many(sources, split, data_dir=tmp_path)
        assert {row["task"] for row in rows} == set(sources) and len({row["id"] for row in rows}) == len(rows)
        assert all(own.fault(row) == "" for row in rows)
