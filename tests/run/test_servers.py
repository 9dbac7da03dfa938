"""What a run asks of servers before anything costs, and what it does where only a server has the weights."""

import json
import re

import misbehaving
import pytest
from conftest import ScriptedEngine
from misbehaving import CONTEXT, SECRET, Misbehaving, good, reply
from test_pipeline import call, toy  # noqa: F401

from reflectevo_lite import store
from reflectevo_lite.run import cli, params, record, servers


@pytest.fixture
def server():
    one = Misbehaving(lambda *_: (200, {}, reply("1")))
    yield one
    one.close()


def test_a_judge_that_needs_weights_is_refused_before_anything_is_made(toy, server, capsys):  # noqa: F811
    for judge in ("gain", "self"):
        assert call(toy, "run", "-p", "server_url", server.url, "-p", "judge", judge) == 2
        said = capsys.readouterr().err.strip()
        assert f"judge '{judge}' scores text with a model in this process" in said and "judge to server" in said
    assert not (toy / "run").exists()


def test_without_the_weights_a_run_by_a_server_trains_nothing_and_says_so(toy, server, capsys):  # noqa: F811
    by = ("-p", "server_url", server.url, "-p", "judge", "server", "-p", "model", "acme/served")
    assert call(toy, "run", *by) == 0
    said = capsys.readouterr().out
    assert (
        f"{server.url} answers as tiny after" in said
        and "03_sft, 04_dpo, 05_iteration: the weights of 'acme/served' are not here" in said
    )
    done = [stage for stage in store.STAGES if store.stage_finished(toy / "run", stage)]
    assert done == ["01_data", "02_reflection_generation", "06_analysis"] and len(server.seen) == 1
    assert call(toy, "run", *by) == 0 and len(server.seen) == 1  # finished: the server need not be there
    assert call(toy, "run", *by, "--only", "03") == 2
    assert "run --only 01,02,06" in capsys.readouterr().err
    assert call(toy, "plan", *by) == 0
    said = capsys.readouterr().out
    assert "rollouts" in said and "prompts, about" in said and "peak memory" not in said


def test_weights_that_are_here_are_trained_here(toy, server, capsys):  # noqa: F811
    assert call(toy, "run", "-p", "server_url", server.url, "-p", "judge", "server", "--with", "gain") == 0
    assert "gain: the weights of 'tiny' are trained here" in capsys.readouterr().out
    assert store.stage_finished(toy / "run", "04_dpo")


def test_a_server_that_is_not_there_ends_the_run_and_not_the_plan(toy, server, capsys):  # noqa: F811
    server.close()
    by = ("-p", "server_url", server.url, "-p", "judge", "server", "-p", "server_options", "{retries: 0}")
    assert call(toy, "run", *by) == 2 and "cannot be reached" in capsys.readouterr().err
    assert not (toy / "run").exists()
    assert call(toy, "plan", *by) == 0 and "cannot be reached" in capsys.readouterr().err


def test_another_judge_is_asked_for_a_token_too_and_its_price_is_checked(toy, server, capsys):  # noqa: F811
    judge = ("-p", "judge", "server", "-p", "judge_url", server.url, "-p", "judge_model", "big")
    assert call(toy, "run", *judge, "-p", "judge_max_usd", "1") == 2 and "needs a price" in capsys.readouterr().err
    assert call(toy, "run", *judge, "-p", "judge_options", "{top_p: 0.5}") == 0
    assert "judge: " in capsys.readouterr().out
    assert server.seen[0][2]["model"] == "big" and server.seen[0][2]["top_p"] == 0.5
    assert call(toy, "run", "-p", "judge", "server", "--force") == 2
    assert "set judge_model and judge_url" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("{concurency: 3}", r"server_options: concurency: .*there are served_model, .*concurrency"),
        ("{concurrency: 0}", "server_options: concurrency: Input should be greater than or equal to 1"),
        ("{timeout_s: soon}", "timeout_s: Input should be a valid number"),
        ("{stop: END}", "stop: Input should be a valid list"),
        ("{max_tokens_name: n}", "max_tokens_name: Input should be 'max_tokens' or 'max_completion_tokens'"),
        ("{headers: {api-key: " + SECRET + "}}", r'headers.api-key: write "\$NAME"'),
        ("{headers: {Authorization: [" + SECRET + "]}}", "headers.Authorization: Input should be a valid string"),
        ("7", "server_options: Input should be a"),
    ],
)
def test_an_option_that_cannot_be_is_named_and_its_value_is_not_shown(toy, capsys, options, said):  # noqa: F811
    assert call(toy, "run", "-p", "server_options", options) == 2
    shown = capsys.readouterr().err
    assert re.search(said, shown) and SECRET not in shown and not (toy / "run").exists()


def test_a_server_may_move_but_what_it_is_sent_stays(tmp_path):
    given = {"run_dir": str(tmp_path), "server_url": "http://a/v1", "judge": "server"}
    given["server_options"] = {"top_p": 0.5, "concurrency": 3}
    notebook = "02_reflection_generation"
    record.open_run("01_data", {"run_dir": str(tmp_path)})
    _, p = record.open_run(notebook, given)
    assert (p.judge_url, p.judge_model, p.judge_options) == ("http://a/v1", "tiny", given["server_options"])
    store.write_text(tmp_path / "rollouts" / "train.jsonl", "")
    moved = given | {"server_url": "http://b/v1", "server_options": {"top_p": 0.5, "timeout_s": 9}}
    assert record.open_run(notebook, moved)[1].server_url == "http://b/v1"
    for change in ({"server_url": None}, {"server_options": {"top_p": 0.6}}):
        with pytest.raises(store.ChangedParameters, match=next(iter(change))):
            record.open_run(notebook, moved | change)


def test_a_judge_of_another_name_on_the_same_server_is_asked_by_that_name():
    values = params.defaults() | {"judge": "server", "server_url": "http://a/v1", "judge_model": "big"}
    values["server_options"] = {"served_model": "small", "seed": False}
    assert servers.with_judge(values)["judge_options"] == {"served_model": "big", "seed": False}


def test_a_whole_run_by_a_server(tmp_path):
    """01, 02 and 06 as they are, against a server that gives good answers; a refused prompt is in report and notebook."""
    refused = []

    def script(number, body):
        asked = body["messages"]
        if len(asked) > 1 and not refused:
            refused.append(asked)
        if asked in refused:
            return 400, {}, json.dumps({"error": {"message": CONTEXT}})
        return good(number, body)

    run = tmp_path / "run"
    server = Misbehaving(script)
    base = ["run", str(tmp_path / "p.yaml"), "-p", "server_url", server.url, "-p", "judge", "server"]
    (tmp_path / "p.yaml").write_text(
        f"{{run_dir: {run}, n_train: 40, n_test: 12, n_rollout: 20, k: 2, turns: 3, model: acme/served}}",
        encoding="utf-8",
    )
    try:
        assert cli.main([*base, "--only", "01"]) == 0
        rows = [r for split in ("train", "test") for r in store.Run(run).rows("data", f"{split}.jsonl")]
        misbehaving.BRAIN.by_question |= ScriptedEngine(rows).by_question
        assert cli.main(base) == 0
    finally:
        server.close()
    said = (run / "notebooks" / "02_reflection_generation.ipynb").read_text(encoding="utf-8")
    assert "refused, too long" in said and "refused, too long" in (run / "report.html").read_text(encoding="utf-8")
    assert json.loads((run / "metrics.json").read_text(encoding="utf-8"))["rows"]
