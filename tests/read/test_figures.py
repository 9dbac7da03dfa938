"""Figures: every one is drawn from little and from nothing, and an executed notebook keeps pictures of them."""

import json

import nbformat
import pandas as pd
import papermill
import pytest
from madeup import make_run

from reflectevo_lite import evaluate, read
from reflectevo_lite.read import figures, tables
from reflectevo_lite.read.explorer import Transcripts


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("made") / "run")


@pytest.mark.parametrize(
    "text", ["Step 2 is wrong. Plan: redo step 2 with care.", "Plan: Redo it", "I must redo and check"]
)
def test_the_first_verb_is_the_plans(text):
    assert tables.first_verb(text) == "redo"


def test_every_figure_has_a_title_and_an_axis_with_a_name(run):
    transcripts = Transcripts(run.directory)
    told = figures.reflections(transcripts, ["prompted.oracle", "rollouts"])
    assert set(told["setting"]) == {"prompted reflection", "rollouts"} and told["words"].min() > 0
    results = read.results(evaluate.metrics(run.path("evals")))
    drawn = [
        figures.reflection_style(told),
        *(figure(results) for figure in (figures.accuracy, figures.flips, figures.tokens_accuracy)),
        figures.taxonomy(figures.taxonomy_shares(transcripts.frame.iloc[:0])),
        figures.turns(read.turn_curve({"prompted reflection": run.read("evals", "prompted.oracle.jsonl")})),
    ]
    for figure in drawn:
        assert all(axes.get_title(loc="left") and axes.get_xlabel() for axes in figure.axes)


def test_settings_have_the_colour_of_their_family_and_none_has_anothers():
    labels = [evaluate.label(name) for name in ("prompted", "two_stage", "reflector_only", "round_2", "grpo", "odd")]
    colours = figures._colours(labels)
    assert len(set(colours.values())) == len(labels)
    assert colours["prompted reflection"] == figures.BLUE and colours["round 2"] == figures.ORANGE


def test_training_curves_name_adapters_in_words():
    curves = pd.DataFrame(
        [(name, "sft", step, 1 / step, None, 0.5, None, None) for name in ("reflector", "round_2") for step in (1, 2)],
        columns=["adapter", "kind", "step", "loss", "margin", "accuracy", "reward", "validation"],
    )
    legend = figures.training(curves, "sft").axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["reflector (D+)", "round 2"]
    assert figures.training(curves, "dpo").axes[0].texts[0].get_text() == "Nothing was trained"


@pytest.mark.parametrize("backend", ["", "import matplotlib.pyplot"])
def test_an_executed_notebook_holds_the_picture_and_keeps_it(tmp_path, backend):
    cell = f"""
{backend}
from IPython.display import display
from reflectevo_lite import store
from reflectevo_lite.read import figures
def drawn():
    figure, axes = figures.canvas()
    axes.plot([0.2, 0.4])
    return figure
figures.show(drawn(), store.Run({str(tmp_path)!r}), "drawn")
display(drawn())
drawn()"""
    meta = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)], metadata=meta)
    nbformat.write(notebook, tmp_path / "in.ipynb")
    papermill.execute_notebook(str(tmp_path / "in.ipynb"), str(tmp_path / "out.ipynb"), progress_bar=False)
    (done,) = json.loads((tmp_path / "out.ipynb").read_text(encoding="utf-8"))["cells"]
    outputs = [o["data"] for o in done["outputs"] if "data" in o]
    assert len(outputs) == 3 and all(o["image/png"] for o in outputs)
    assert (tmp_path / "figures" / "drawn.png").stat().st_size > 10_000
