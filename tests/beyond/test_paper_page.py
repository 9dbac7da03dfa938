"""docs/paper.md gives the paper's LogiQA rows and the blind guess as the package computes them."""

import pytest
from conftest import ROOT

from notebooks.beyond import paper
from notebooks.beyond.elimination import eliminated


def test_the_table_of_guesses_follows_from_the_papers_figures():
    text = (ROOT / "docs" / "paper.md").read_text(encoding="utf-8")
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| ")][1:]
    frame = paper.published()
    rows = frame[(frame["benchmark"] == "LogiQA") & (frame["key"].map(lambda key: key.setting) != "qa")].to_dict(
        "records"
    )
    assert len(cells) == len(rows)
    for (model, setting, *numbers, above), row in zip(cells, rows, strict=True):
        guess = 100 * eliminated(row["Acc@t1"] / 100, 4)
        assert row["model"].startswith(model) and row["setting"].endswith(setting)
        assert [float(n) for n in numbers] == pytest.approx([row["Acc@t1"], row["Acc@t2"], guess], abs=0.05)
        assert above == ("yes" if row["Acc@t2"] > guess else "no")
