"""Writes docs/evidence.md from its template and the reference run: `python tests/fill_evidence.py`."""

import tempfile

from conftest import ROOT
from solutions import reference
from test_prose import Run, said

with tempfile.TemporaryDirectory() as directory:
    template = (ROOT / "tests" / "evidence.md.in").read_text(encoding="utf-8")
    text = said(Run(reference(directory)), "", template)
(ROOT / "docs" / "evidence.md").write_text(text, encoding="utf-8")
