"""The exercises' solutions: executed as committed, and each runs on a small made-up run with the embedded model."""

import ast
import json
import statistics

import nbformat
import pytest
from conftest import ROOT
from madeup import add_later_stages, make_run

from reflectevo_lite import store

SOLUTIONS = sorted((ROOT / "notebooks" / "solutions").glob("*.ipynb"))
SMALL = "epochs, asked, pairs, questions = 1, 20, 12, 40"


def test_every_lesson_has_its_solutions():
    assert [p.stem for p in SOLUTIONS] == list(store.STAGES)


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda p: p.stem)
def test_executed_small_and_more_story_than_code(path):
    cells = json.loads(path.read_text())["cells"]
    code = [c for c in cells if c["cell_type"] == "code"]
    assert len(cells) - len(code) >= len(code) and path.stat().st_size < 100_000
    assert all(c["execution_count"] for c in code) and sum(bool(c["outputs"]) for c in code) >= 2
    assert not any(o["output_type"] == "error" for c in code for o in c["outputs"])
    assert statistics.median(len("".join(c["source"]).splitlines()) for c in code) <= 7
    functions = [n for c in code for n in ast.walk(ast.parse("".join(c["source"]))) if isinstance(n, ast.FunctionDef)]
    assert all(f.end_lineno - f.lineno < 6 for f in functions)
    headings = [line for c in cells for line in "".join(c["source"]).splitlines() if line.startswith("## ")]
    assert 2 <= len(headings) <= 4


def test_every_solution_runs(tmp_path):
    """One kernel for all six, emptied in between: torch is imported once."""
    from nbclient import NotebookClient

    run = add_later_stages(make_run(tmp_path / "run", k=4))
    assert len(run.read("curated", "d_pm.jsonl")) >= 12
    cells = []
    for path in SOLUTIONS:
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type != "code":
                continue
            if "parameters" in cell.metadata.get("tags", []):
                cell.source = f"%reset -f\n{cell.source}\n{SMALL}\nrun_dir = {str(run.directory)!r}"
            cells.append(nbformat.v4.new_code_cell(f"# {path.stem}\n{cell.source}".replace(f"# {path.stem}\n%", "%")))
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}).execute()
    said = "".join(o.get("text", "") for c in notebook.cells for o in c.outputs)
    assert "half the data" in said and "over beta" in said and "at least one of them solves" in said
