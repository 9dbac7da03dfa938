"""`reflectevo calibrate`: a line for each source, and what to take."""

import yaml

from reflectevo_lite.run import cli


def test_calibrate_prints_each_sources_figures_and_suggests_some(tmp_path, capsys):
    sources = ["synthetic:lists", "synthetic:arithmetic"]
    (tmp_path / "p.yaml").write_text(yaml.safe_dump({"sources": sources, "run_dir": str(tmp_path / "run")}))
    assert cli.main(["calibrate", str(tmp_path / "p.yaml"), "-n", "20"]) == 0
    *_, head, one, two, advice = capsys.readouterr().out.splitlines()
    assert head.split() == ["source", "n", "Acc@t1", "unreadable", "cut", "off", "tokens", "tokens/s"]
    for source, line in zip(sources, (one, two), strict=True):
        name, n, right, unread, cut, *_ = line.split()
        assert (name, n) == (source, "20") and unread == cut == "0%"
        assert (source in advice) == (20 <= int(right.rstrip("%")) <= 60)
    assert not (tmp_path / "run").exists()


def test_an_unknown_source_is_named_before_a_model_is_loaded(tmp_path, capsys):
    (tmp_path / "p.yaml").write_text("sources: [nonsense]\nmodel: no/such-model\n")
    assert cli.main(["calibrate", str(tmp_path / "p.yaml")]) == 2
    assert "unknown source 'nonsense'" in capsys.readouterr().err
