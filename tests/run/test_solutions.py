"""The exercises' solutions: committed as executed, and executed anew on the reference run they print the same."""

import ast
import json
import statistics

import pytest
from solutions import SOLUTIONS, executed, reference

from reflectevo_lite import store

SMALL = "epochs, asked, pairs = 1, 20, 12"  # for the cells that train, whose figures are not compared
PICTURES = {"05_iteration": 1, "06_analysis": 1}


def test_every_lesson_has_its_solutions():
    assert [p.stem for p in SOLUTIONS] == list(store.STAGES)


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda p: p.stem)
def test_executed_small_and_more_story_than_code(path):
    cells = json.loads(path.read_text())["cells"]
    code = [c for c in cells if c["cell_type"] == "code"]
    assert len(cells) - len(code) >= len(code) and path.stat().st_size < 150_000
    assert all(c["execution_count"] for c in code) and sum(bool(c["outputs"]) for c in code) >= 2
    assert not any(o["output_type"] == "error" for c in code for o in c["outputs"])
    assert statistics.median(len("".join(c["source"]).splitlines()) for c in code) <= 7
    functions = [n for c in code for n in ast.walk(ast.parse("".join(c["source"]))) if isinstance(n, ast.FunctionDef)]
    assert all(f.end_lineno - f.lineno < 6 for f in functions)
    headings = [line for c in cells for line in "".join(c["source"]).splitlines() if line.startswith("## ")]
    assert 2 <= len(headings) <= 4


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return reference(tmp_path_factory.mktemp("reference"))


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda p: p.stem)
def test_a_solution_shows_on_the_reference_run_what_is_committed(run, path):
    committed, fresh, pictures = (
        json.loads(path.read_text(encoding="utf-8"))["cells"],
        executed(path, run, SMALL).cells,
        0,
    )
    for before, now in zip(committed, fresh, strict=True):
        shown = [o["data"] for o in now.get("outputs", []) if "data" in o]
        pictures += sum("image/png" in data for data in shown)
        assert not any(set(data) == {"text/plain"} and data["text/plain"].startswith("<") for data in shown)
        if "trains" not in before["metadata"].get("tags", []):
            printed = [["".join(o.get("text", "")) for o in c.get("outputs", [])] for c in (before, now)]
            assert "".join(printed[0]) == "".join(printed[1]), "python tests/solutions.py makes the outputs anew"
    assert pictures == PICTURES.get(path.stem, 0)
