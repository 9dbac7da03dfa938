"""The report: self-contained, escaped, honest about what is missing."""

import json
import re

import pytest
import yaml
from madeup import make_run

from reflectevo_lite import evaluate, store
from reflectevo_lite.read import figures, report
from reflectevo_lite.read.explorer import Transcripts


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = make_run(tmp_path_factory.mktemp("made") / "a run & <b>", hostile=True)
    store.write_json(run.path("metrics.json"), evaluate.metrics(run.path("evals")))
    store.write_text(run.path("run.yaml"), yaml.safe_dump({"01_data": {"model": "<script>alert(1)</script>"}}))
    shares = figures.taxonomy_shares(Transcripts(run.directory).frame)
    figures.save(figures.taxonomy(shares), run.path("figures", "taxonomy.png"))
    figures.save(figures.taxonomy(shares), run.path("figures", "zz_own_figure.png"))
    report.build_report(run.directory)
    return run


def test_it_loads_nothing_from_anywhere(run):
    page = run.path("report.html").read_text()
    assert not re.findall(r"<[^>]*(?:src|href|srcset|data)=[\"'](?!data:image/png|#)", page)
    assert re.findall(r"<img [^>]*src=", page)
    assert "@import" not in page and "url(" not in page and "<script" not in page


def test_nothing_from_the_run_is_markup(run):
    page = run.path("report.html").read_text()
    assert "<script" not in page and "<img src=x" not in page and "<title>a run &amp; &lt;b&gt;" in page
    assert page.count("<style>") == 1 and page.count("<div") == page.count("</div>")


def test_every_figure_of_the_run_is_in_it_known_ones_first(run):
    page = run.path("report.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    assert page.index("by the paper&#39;s classes</figcaption>") < page.index("Zz own figure</figcaption>")


def test_thirty_transcripts_from_every_outcome_and_the_same_ones_again(run):
    page = run.path("report.html").read_text()
    assert page.count('<details><summary><span class="rl-chip') == 30
    for outcome in ("✗→✓ fixed", "✗→✗ still wrong", "✓→✗ broken", "✓→✓ right"):
        assert page.count(f">{outcome}</span> ") >= 5
    report.build_report(run.directory)
    assert run.path("report.html").read_text() == page
    report.build_report(run.directory, seed=1)
    assert run.path("report.html").read_text() != page
    report.build_report(run.directory)


def test_a_sample_takes_what_there_is(run):
    frame = Transcripts(run.directory).frame
    fixed = frame[frame["outcome"] == "fixed"]
    assert report.sample(fixed, ["nowhere", "nowhere"], 30, 0) == []
    picked = report.sample(frame, ["prompted.oracle", "prompted.intrinsic"], 10_000, 0)
    assert len(set(picked)) == len(picked)


def warned(run, **changes):
    metrics = json.loads(run.path("metrics.json").read_text()) | changes
    return " ".join(report.warnings(run, metrics))


def test_few_questions_missing_stages_and_controls_are_warned_of(run):
    said = warned(run)
    assert "Only 60 held-out questions; differences below about" in said
    assert "Not executed to the end in this run: 01_data" in said and "no plain-retry control" in said
    assert "env.json is missing" in said


def test_cut_completions_are_counted_and_warned_of(run):
    assert "were cut off: " not in warned(run, reading=evaluate.reading_of(run))
    path = run.path("evals", "turn1.jsonl")
    rows, metrics = store.read_jsonl(path), run.path("metrics.json").read_bytes()
    store.write_jsonl(path, [row | {"truncated": i < 30} for i, row in enumerate(rows)])
    assert "were cut off: 50% of 20 (first answers, " in warned(run, reading=evaluate.reading_of(run))
    page = report.build_report(run.directory).read_text()  # from the rows, if metrics.json is older
    assert "How the answers were read" in page and "50.0</td>" in page and "Raise max_new_tokens" in page
    store.write_jsonl(path, rows)
    run.path("metrics.json").write_bytes(metrics)
    report.build_report(run.directory)


def test_no_setting_is_said_so(run):
    assert "No setting was evaluated." in warned(run, rows=[], comparisons=[])


def test_metrics_alone_make_a_report(run, tmp_path):
    (tmp_path / "metrics.json").write_bytes(run.path("metrics.json").read_bytes())
    page = report.build_report(tmp_path).read_text()
    assert "Acc@t2" in page and "<h2>Transcripts" not in page


def test_it_writes_over_nothing_but_a_page_and_names_what_is_torn(run, tmp_path):
    for out in (run.path("metrics.json"), tmp_path, "/dev/full"):
        with pytest.raises(ValueError, match=r"name a file that ends in \.html"):
            report.build_report(run.directory, out=out)
    store.write_text(tmp_path / "metrics.json", "<html>")
    with pytest.raises(ValueError, match=r"metrics\.json is not JSON .*redo its notebook"):
        report.build_report(tmp_path)
    store.write_json(tmp_path / "metrics.json", {"rows": [], "comparisons": []})
    store.write_text(tmp_path / "run.yaml", "a: 1")
    with pytest.raises(ValueError, match=r"run\.yaml is no record of a run"):
        report.build_report(tmp_path)
