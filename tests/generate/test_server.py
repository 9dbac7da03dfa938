"""The server engine against a real server with the embedded model, and against one that misbehaves on purpose."""

import importlib.util
import json
import logging
import os
import pickle
import socket
import subprocess
import sys
import time
import traceback
from email.utils import formatdate

import httpx
import misbehaving
import pytest
from conftest import ScriptedEngine
from misbehaving import SECRET, Misbehaving, reply

from reflectevo_lite import curate, prompts, read, store
from reflectevo_lite.embedded import tasks as synthetic
from reflectevo_lite.evaluate import Asked, Evaluation, Setting, evaluate, first_turns
from reflectevo_lite.generate import engines, models, rollouts
from reflectevo_lite.generate.server import ServerEngine, ServerError

ASKED = [[{"role": "user", "content": f"question {i}"}] for i in range(12)]


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    """Nobody waits long for another try."""
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)


@pytest.fixture
def serve():
    running = []

    def start(script, **kwargs):
        running.append(Misbehaving(script))
        engine = ServerEngine(running[-1].url, "tiny", **({"retries": 3} | kwargs))
        engine.probed = True  # the tests count requests
        return running[-1], engine

    yield start
    for one in running:
        one.close()


def test_answers_come_in_order_and_no_more_than_allowed_are_under_way(serve):
    def slow(_, body):
        time.sleep(0.02)
        return 200, {}, reply(body["messages"][0]["content"][::-1])

    server, engine = serve(slow, concurrency=4)
    found = engine.generate(ASKED, max_new_tokens=7)
    assert [row[0].text for row in found] == [c[0]["content"][::-1] for c in ASKED]
    assert 1 < server.most <= 4


def test_what_was_asked_for_is_what_is_sent(serve):
    server, engine = serve(
        lambda *_: (200, {}, reply()), extra_body={"chat_template_kwargs": {"enable_thinking": False}}
    )
    found = engine.generate(ASKED[:2], n=3, temperature=0.7, max_new_tokens=9, seed=5)
    bodies = [body for _, _, body, _ in server.seen]
    assert [len(row) for row in found] == [3, 3] and {path for _, path, _, _ in server.seen} == {"/v1/chat/completions"}
    assert all(b["model"] == "tiny" and b["temperature"] == 0.7 and b["max_tokens"] == 9 for b in bodies)
    assert all(b["chat_template_kwargs"] == {"enable_thinking": False} for b in bodies)
    assert len({b["seed"] for b in bodies}) == 6  # equal seeds would give equal samples
    engine.generate(ASKED[:2], n=3, temperature=0.7, max_new_tokens=9, seed=5)
    assert sorted(b["seed"] for b in bodies) == sorted(b["seed"] for _, _, b, _ in server.seen[6:])


def test_the_length_limit_marks_what_it_cuts(serve):
    _, engine = serve(lambda _, b: (200, {}, reply(finish="length" if "1" in b["messages"][0]["content"] else "stop")))
    found = [row[0] for row in engine.generate(ASKED[:3])]
    assert [c.truncated for c in found] == [False, True, False] and {c.tokens for c in found} == {3}


@pytest.mark.parametrize(
    "usage",
    [None, {}, "many", 7, [], "absent", *({"completion_tokens": n} for n in (None, "3", -5, 2.5, float("nan")))],
    ids=str,
)
def test_tokens_are_a_number_whatever_the_server_says(serve, tmp_path, usage):
    said = json.loads(reply("Answer: 3"))
    said["usage"] = usage
    if usage == "absent":
        del said["usage"]
    server, engine = serve(lambda *_: (200, {"Content-Type": "application/json"}, json.dumps(said)))
    [[completion]] = engine.generate(ASKED[:1])
    assert type(completion.tokens) is int and completion.tokens == 0 and completion.text == "Answer: 3"
    problems = synthetic.problems(3, "train", seed=1)
    rows = list(rollouts.generate_rollouts(engine, problems, tmp_path / "r.jsonl", k=1, progress=False))
    asked = len(server.seen)
    again = rollouts.generate_rollouts(engine, problems, tmp_path / "r.jsonl", k=1, progress=False)
    assert list(again) == rows and len(server.seen) == asked and rollouts.tally(rows)["tokens"] == 0


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(
    ("change", "want"),
    [
        ({"message": {"content": None}}, ("", 3, False, "no text")),
        ({"message": {"content": ""}}, ("", 3, False, "no text")),
        ({"message": {}}, ("", 3, False, "no text")),
        ({"message": {"content": "half \ud83d a pair"}}, ("half ? a pair", 3, False, "")),
        ({"finish_reason": None}, ("said", 3, False, "no finish reason")),
        ({"finish_reason": 7}, ("said", 3, False, "no finish reason")),
        ({"finish_reason": "length"}, ("said", 3, True, "")),
        *(
            ({"message": {"content": None, field: "Let me see."}}, ("", 3, False, "no text, only thoughts"))
            for field in ("reasoning", "reasoning_content")
        ),
        ({"message": {"content": "4", "reasoning": "2 + 2"}}, ("4", 3, False, "")),
        ({"message": {"content": "<think>2 + 2</think>\n4"}}, ("4", 3, False, "")),
        ({"message": {"content": "2 + 2</think>4"}}, ("4", 3, False, "")),
        ({"message": {"content": "<think>2 +"}, "finish_reason": "length"}, ("", 3, True, "no text, only thoughts")),
        ({"message": {"content": [{"type": "thinking"}, {"type": "text", "text": "4"}]}}, ("4", 3, False, "")),
        ({"message": {"content": None, "refusal": "No."}}, ("", 3, False, "refused, by the model: No.")),
        ({"finish_reason": "content_filter"}, ("", 3, False, "refused, content filter: the answer was held back")),
    ],
    ids=str,
)
def test_what_a_reply_leaves_out_counts_as_empty(serve, change, want, as_json):
    said = json.loads(reply())
    said["choices"][0] |= change
    _, engine = serve(lambda *_: (200, {"Content-Type": "application/json"} if as_json else {}, json.dumps(said)))
    assert engine.generate(ASKED[:1]) == [[want]]


def test_a_reply_without_a_finish_reason_was_not_cut(serve):
    said = json.loads(reply())
    del said["choices"][0]["finish_reason"], said["usage"]
    _, engine = serve(lambda *_: (200, {}, json.dumps(said)))
    assert engine.generate(ASKED[:1]) == [[("said", 0, False, "no token count; no finish reason")]]


@pytest.mark.parametrize("reply", ['{"choices": null}', '{"choices": [{}]}', '{"choices": [{"message": 3}]}', "hello"])
def test_what_is_no_reply_is_an_error_in_one_line(serve, reply):
    server, engine = serve(lambda *_: (200, {}, reply))
    with pytest.raises(ServerError, match=r"/v1 does not speak the chat protocol, .*is server_url right\?") as caught:
        engine.generate(ASKED[:1])
    assert len(server.seen) == 4 and "\n" not in str(caught.value)


def test_after_a_failure_the_engine_answers_again_and_nothing_goes_on_asking(serve):
    def script(number, body):
        return (404, {}, "no") if body["messages"] == ASKED[0] else (503, {}, "")

    server, engine = serve(script, concurrency=4, retries=1000)
    with pytest.raises(ServerError, match="404"):
        engine.generate(ASKED[:4])
    time.sleep(0.3)
    asked = len(server.seen)
    time.sleep(0.3)
    assert len(server.seen) == asked
    server.script = lambda *_: (200, {}, reply())
    assert engine.generate(ASKED[:1])[0][0].text == "said"


@pytest.mark.parametrize(
    "trouble",
    [
        (429, {}, "slow down"),
        (500, {}, "oops"),
        (503, {}, ""),
        (200, {}, "<html>a proxy's page</html>"),
        (200, {}, '{"choices": []}'),
        (200, {}, "[1]"),
        None,  # the connection is dropped
    ],
    ids=["429", "500", "503", "not JSON", "no choice", "a list", "dropped"],
)
def test_a_passing_trouble_is_tried_again(serve, trouble):
    server, engine = serve(lambda number, _: trouble if number <= 2 else (200, {}, reply()))
    assert engine.generate(ASKED[:1])[0][0].text == "said"
    assert len(server.seen) == 3


@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_is_honoured(serve, as_date):
    def busy(number, _):
        said = formatdate(time.time() + 2, usegmt=True) if as_date else "1"
        return (429, {"Retry-After": said}, "") if number == 1 else (200, {}, reply())

    server, engine = serve(busy)
    engine.generate(ASKED[:1])
    assert server.seen[1][0] - server.seen[0][0] >= 0.99


def test_a_wait_beyond_reason_is_not_waited_for(serve):
    server, engine = serve(lambda *_: (429, {"Retry-After": "86400"}, "come back tomorrow"))
    with pytest.raises(ServerError, match="429: come back tomorrow"):
        engine.generate(ASKED[:1])
    assert len(server.seen) == 1


def test_a_silent_server_times_out(serve):
    server, engine = serve(lambda *_: time.sleep(0.6), timeout_s=0.15, retries=1)
    with pytest.raises(ServerError, match="does not answer in time, however often"):
        engine.generate(ASKED[:1])
    assert len(server.seen) == 2


def test_a_server_that_is_gone_is_named_in_one_line_and_ends_the_rest():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    engine = ServerEngine(f"http://127.0.0.1:{port}/v1", "m", retries=2, concurrency=2)
    with pytest.raises(ServerError, match=rf"http://127.0.0.1:{port}/v1 cannot be reached .*server runs") as caught:
        engine.generate(ASKED)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "remedy"),
    [(401, "variable OPENAI_API_KEY"), (402, "answers 402: no"), (404, "'tiny' the name"), (308, "it points to")],
)
def test_a_refusal_is_final_and_says_what_to_do(serve, status, remedy):
    server, engine = serve(lambda *_: (status, {}, "no"))
    with pytest.raises(ServerError, match=remedy):
        engine.generate(ASKED[:1])
    assert len(server.seen) == 1


def test_one_failure_stops_what_has_not_begun(serve):
    server, engine = serve(lambda number, _: (404, {}, "no") if number == 1 else (200, {}, reply()), concurrency=1)
    with pytest.raises(ServerError):
        engine.generate(ASKED * 20)
    time.sleep(0.1)
    assert len(server.seen) < 20


def test_the_key_is_sent_and_shown_nowhere(serve, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("MY_KEY", SECRET)
    script = lambda number, _: (200, {}, reply()) if number == 1 else (401, {}, f"bad key {SECRET}" + "x" * 300)
    server, engine = serve(script, api_key_env="MY_KEY")
    engine.generate(ASKED[:1])
    assert server.seen[0][3]["Authorization"] == f"Bearer {SECRET}"
    with pytest.raises(ServerError, match=r"bad key \*\*\*") as caught:
        engine.generate(ASKED[:1])
    said = traceback.format_exception(caught.value)
    state = [repr(engine), str(vars(engine)), repr(caught.value), *said, caplog.text, str(pickle.dumps(engine))]
    assert not any(SECRET in text for text in state)
    assert caught.value.__cause__ is None and caught.value.__context__ is None  # the library's errors hold the request
    monkeypatch.setenv("MY_KEY", "another")  # read at every request
    with pytest.raises(ServerError):
        engine.generate(ASKED[:1])
    assert server.seen[-1][3]["Authorization"] == "Bearer another"


@pytest.mark.parametrize("key", [f"{SECRET}\nX: y", f"{SECRET}…"])
def test_a_key_that_no_header_can_carry_is_refused_unseen(serve, monkeypatch, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    server, engine = serve(lambda *_: (200, {}, reply()))
    with pytest.raises(ServerError, match="OPENAI_API_KEY holds what no key does") as caught:
        engine.generate(ASKED[:1])
    assert not server.seen and SECRET not in "".join(traceback.format_exception(caught.value))


def test_other_keys_of_the_environment_stay_there(serve, monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY"):
        monkeypatch.setenv(name, SECRET)
    monkeypatch.delenv("MY_KEY", raising=False)
    server, engine = serve(lambda *_: (200, {}, reply()), api_key_env="MY_KEY")
    engine.generate(ASKED[:1])
    assert SECRET not in str(server.seen)


def test_without_a_key_none_is_sent(serve, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    server, engine = serve(lambda *_: (200, {}, reply()))
    engine.generate(ASKED[:1])
    assert "Authorization" not in server.seen[0][3]


@pytest.mark.parametrize(
    "url", ["localhost:8000/v1", "ftp://x/v1", "http://me:secret@host/v1", "http://host/v1?key=secret", ""]
)
def test_a_url_that_cannot_be_right_is_refused_at_once(url):
    with pytest.raises(ServerError, match="server_url") as caught:
        ServerEngine(url, "m")
    assert "secret" not in str(caught.value)


def test_an_adapter_is_asked_for_by_its_served_name(serve, tmp_path):
    def script(_, body):
        return 200, {}, reply() if body else json.dumps({"data": [{"id": "tiny"}, {"id": "reflector"}]})

    server, engine = serve(script, adapters={"a/b": "other"})
    engine.generate(ASKED[:1], adapter=tmp_path / "reflector")
    engine.generate(ASKED[:1], adapter="a/b")
    assert [body["model"] for _, _, body, _ in server.seen if body] == ["reflector", "other"]
    with pytest.raises(ServerError, match=r"'corrector'.*--lora-modules corrector=.*serves tiny, reflector"):
        engine.generate(ASKED[:1], adapter=tmp_path / "corrector")


@pytest.fixture
def proxy(serve, monkeypatch):
    """A server that answers as if it were any other."""
    one, _ = serve(lambda *_: (200, {}, reply()))
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, one.url.removesuffix("/v1"))
    monkeypatch.delenv("no_proxy", raising=False)
    return one


def test_a_proxy_stands_between_but_never_before_loopback(proxy, serve, monkeypatch):
    far = ServerEngine("http://far.invalid/v1", "tiny", retries=0, timeout_s=3)
    assert "answers as tiny" in far.probe() and proxy.seen[0][1] == "http://far.invalid/v1/chat/completions"
    monkeypatch.setenv("ALL_PROXY", "socks4://nowhere:1")
    near, engine = serve(lambda *_: (200, {}, reply()))
    assert engine.probe() and len(near.seen) == 1 and len(proxy.seen) == 1
    with pytest.raises(ServerError, match="proxy or certificate settings cannot be used"):
        far.probe()


@pytest.mark.parametrize(
    ("host", "no_proxy"),
    [("far.invalid", "invalid"), ("[100::1]", "100::1"), ("[100::1]", "[100::1]"), ("[100::1]", "100::/64")],
)
def test_no_proxy_is_honoured_with_ipv6_too(proxy, monkeypatch, host, no_proxy):
    monkeypatch.setenv("NO_PROXY", no_proxy)
    with pytest.raises(ServerError, match=r"cannot be reached|does not answer"):
        ServerEngine(f"http://{host}/v1", "tiny", retries=0, timeout_s=1).probe()
    assert not proxy.seen


def test_a_missing_certificate_file_is_one_line(monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/ca.pem")
    with pytest.raises(ServerError, match=r"certificate settings cannot be used.*No such file"):
        ServerEngine("https://far.invalid/v1", "tiny").probe()


def test_options_become_what_is_sent(serve, monkeypatch):
    monkeypatch.setenv("TEAM_KEY", f" {SECRET} ")
    server, engine = serve(
        lambda *_: (400, {}, f"no {SECRET}"), served_model="llama", top_p=0.9, stop=["END"], seed=False, max_tokens=99,
        max_tokens_name="max_completion_tokens", headers={"api-key": "$TEAM_KEY", "X-Team": "blue"},
    )  # fmt: skip
    [[completion]] = engine.generate(ASKED[:1], max_new_tokens=9)
    _, _, body, headers = server.seen[0]
    assert body["max_completion_tokens"] == 99 and "max_tokens" not in body and "seed" not in body
    assert (body["model"], body["top_p"], body["stop"]) == ("llama", 0.9, ["END"])
    assert headers["api-key"] == SECRET and headers["X-Team"] == "blue"
    assert completion.trouble == "refused, status 400: no ***" and SECRET not in str(vars(engine))
    monkeypatch.delenv("TEAM_KEY")
    with pytest.raises(ServerError, match="the environment has no 'TEAM_KEY'"):
        engine.generate(ASKED[:1])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return misbehaving.undisturbed(tmp_path_factory.mktemp("undisturbed"))


@pytest.mark.parametrize("case", misbehaving.CASES, ids=lambda case: case.came)
def test_whatever_comes_a_run_ends_as_it_should_and_goes_on(case, undisturbed, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    misbehaving.check(case, tmp_path, undisturbed)


class Refusing(ScriptedEngine):
    """Refuses the first reflection it is asked for, and the first second turn after that."""

    def _one(self, conversation, seed):
        return super()._one(conversation, seed) if conversation else ""

    def generate(self, conversations, **how):
        found = super().generate(conversations, **how)
        for i, c in enumerate(conversations):
            kind = (
                "turn 2"
                if len(c) > 1 and prompts.RETRY_WITH_REFLECTION in c[-1]["content"]
                else "reflection"
                if len(c) > 1
                else None
            )
            if not c:
                found[i] = [engines.Completion("", 0, False, "refused, not asked: so")]
            elif kind and kind not in self.refused:
                self.refused[kind] = c
                found[i] = [engines.Completion("", 0, False, "refused, too long: so")]
        return found


@pytest.fixture
def refusing():
    problems = synthetic.problems(30, "train", seed=3)
    engine = Refusing(problems)
    engine.refused = {}
    return engine, problems


def test_refused_reflections_and_turns_are_kept_and_trained_on_never(refusing, tmp_path):
    engine, problems = refusing
    out = store.Run(tmp_path).path("rollouts", "train.jsonl")
    rows = list(rollouts.generate_rollouts(engine, problems, out, k=2, progress=False))
    reflections = [r for row in rows for r in row["reflections"]]
    first = reflections[0]
    assert first["trouble"] == "refused, too long: so" and first["text"] == "" and first["turn2"]["prompt"] == []
    assert first["turn2"]["trouble"].startswith("refused, not asked") and not first["turn2"]["correct"]
    assert [r["turn2"].get("trouble") for r in reflections[1:]].count("refused, too long: so") == 1
    assert all(row["reflection"]["text"] for row in curate.d_plus(rows))
    assert len([*read.refusals(store.Run(tmp_path))]) == 2
    again = rollouts.generate_rollouts(engine, problems, out, k=2, progress=False)
    assert list(again) == rows


@pytest.mark.parametrize("mode", ["oracle", "intrinsic"])
@pytest.mark.parametrize("control", [None, "shuffled"])
def test_a_refused_second_turn_keeps_the_first_answer(refusing, tmp_path, mode, control):
    engine, problems = refusing
    first = first_turns(engine, problems, tmp_path / "turn1.jsonl", max_new_tokens=96)
    turns = 2 if control else 3
    found = evaluate(engine, Asked(problems, first, tmp_path), Setting("s"), Evaluation("s", mode, control), turns)
    lost = [row for row in found if row.get("trouble", "").startswith("refused")]
    assert len(lost) >= 2 and all(r["turn2"] is None and r["turn2_correct"] == r["turn1_correct"] for r in lost)
    assert all(len(r.get("turn_tokens", [])) <= 1 for r in lost)  # asked no more
    assert sum("too long" in r["trouble"] for r in lost) == 2


def test_many_greedy_copies_are_refused(serve):
    _, engine = serve(lambda *_: (200, {}, reply()))
    with pytest.raises(ValueError, match="temperature above 0"):
        engine.generate(ASKED[:1], n=2)


def test_a_server_url_opens_the_server(serve):
    server, _ = serve(lambda *_: (200, {}, reply("hello")))
    engine = engines.open_engine("tiny", server_url=server.url)
    assert engine.generate(ASKED[:1])[0][0].text == "hello" and server.url in engine.backend
    assert engines.open_engine("tiny").backend.startswith("transformers on")


@pytest.fixture(scope="module")
def transformers_serve(tmp_path_factory):
    """`transformers serve` with the embedded model on loopback; yields its base URL."""
    missing = [name for name in ("fastapi", "uvicorn", "openai") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"transformers serve needs {', '.join(missing)}: pip install 'reflectevo_lite[test]'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", models.resolve("tiny")]
    log = tmp_path_factory.mktemp("serve") / "log"
    with log.open("w", encoding="utf-8") as out:
        server = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32"],
            stdout=out, stderr=out, env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
    try:
        for _ in range(600):
            if server.poll() is not None:
                pytest.fail(f"transformers serve ended: {log.read_text(encoding='utf-8')[-800:]}")
            try:
                httpx.get(f"http://127.0.0.1:{port}/health", timeout=1)
                break
            except httpx.TransportError:
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(20)


def test_a_real_server_with_the_same_weights_gives_the_same_greedy_text(transformers_serve, engine):
    asked = [prompts.answer_prompt(p) for p in synthetic.problems(8, "train", seed=21)]
    asked += [prompts.retry_prompt(p, "Answer: 3", None) for p in synthetic.problems(4, "train", seed=22)]
    server = ServerEngine(transformers_serve, models.resolve("tiny"), concurrency=4)
    found = server.generate(asked, max_new_tokens=96)
    want = engine.generate(asked, max_new_tokens=96)
    assert [[c.text for c in row] for row in found] == [[c.text for c in row] for row in want]
    assert [row[0].tokens for row in found] == [row[0].tokens for row in want]
    cut = server.generate(asked[:2], max_new_tokens=5)
    assert all(row[0].truncated and row[0].tokens == 5 for row in cut)
