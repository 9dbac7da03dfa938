"""Executes the exercises' solutions on the reference run: `python tests/solutions.py` writes their outputs anew.

The run is unpacked beside a copy, so nothing in artifacts/reference is touched. Cells tagged `trains` train something,
and their figures may differ from machine to machine; all others only read.
"""

import shutil
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
SOLUTIONS = sorted((ROOT / "notebooks" / "solutions").glob("*.ipynb"))
WIDGET = "application/vnd.jupyter.widget-view+json"


def reference(directory):
    """A copy of the reference run with its rows unpacked."""
    from reflectevo_lite import store

    copy = Path(directory) / "tiny_cpu"
    shutil.copytree(ROOT / "artifacts" / "reference" / "tiny_cpu", copy)
    shutil.unpack_archive(copy / store.PACKED, copy)
    (copy / store.PACKED).unlink()
    return store.Run(copy)


def executed(path, run, changes=""):
    """The notebook with outputs made on `run`; progress bars and warnings are left out, the parameters as they were."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []):
            parameters, kept = cell, cell.source
            cell.source += f"\nrun_dir = {str(run.directory)!r}\n{changes}"
    NotebookClient(
        notebook, timeout=500, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
    ).execute()
    parameters.source = kept
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr" and WIDGET not in o.get("data", {})]
    return notebook


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        run = reference(directory)
        for path in (p for p in SOLUTIONS if len(sys.argv) < 2 or p.stem in sys.argv[1:]):
            nbformat.write(executed(path, run), path)
            print(path.relative_to(ROOT))
