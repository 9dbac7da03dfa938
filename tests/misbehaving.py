"""A server on loopback that misbehaves on purpose, and the table of what a run makes of it (docs/servers.md).

`python tests/misbehaving.py` prints the table: what came, what the run did, what it said. Formats of replies and errors
follow the documentation of vLLM, llama.cpp, Ollama, OpenAI, Azure and OpenRouter.
"""

import _thread
import json
import os
import re
import signal
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

from conftest import ScriptedEngine

from reflectevo_lite import prompts, read, store
from reflectevo_lite.embedded import tasks as synthetic
from reflectevo_lite.generate import ServerEngine, rollouts

SECRET = "sk-never-to-be-seen-0123456789"
PROBLEMS = synthetic.problems(24, "train", seed=3)
BRAIN = ScriptedEngine(PROBLEMS)
FIRST = prompts.answer_prompt(PROBLEMS[1])[0]["content"]  # what a server refuses if it refuses one question


class Misbehaving:
    """A loopback server: `script(number, body)` gives (status, headers, text) or None for silence; all is recorded."""

    def __init__(self, script):
        self.script, self.seen, self.busy, self.most = script, [], 0, 0
        self.lock, outer = threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            disable_nagle_algorithm = True

            def _answer(self):
                body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or "null")
                with outer.lock:
                    outer.seen.append((time.monotonic(), self.path, body, dict(self.headers)))
                    number = len(outer.seen)
                    outer.busy += 1
                    outer.most = max(outer.most, outer.busy)
                found = outer.script(number, body)
                with outer.lock:
                    outer.busy -= 1
                if found is None:
                    self.close_connection = True
                    return
                status, headers, text = found
                self.send_response(status)
                for name, value in ({"Content-Length": str(len(text.encode()))} | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text.encode())
                self.close_connection = "Content-Length" in headers  # a lie

            do_POST = do_GET = _answer

            def log_message(self, *_):
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 64

            def handle_error(self, *_):  # the client went away
                pass

        self.http = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        self.http.shutdown()
        self.http.server_close()


def reply(text="said", finish="stop", tokens=3, **more):
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message | more, "finish_reason": finish}
    return json.dumps({"choices": [choice], "model": "tiny", "usage": {"completion_tokens": tokens}})


def answer(body, **more):
    text = BRAIN._one(body["messages"], 0) if len(body["messages"][0]["content"]) > 9 else "1"
    return {"text": text, "tokens": len(text.split())} | more


def good(_, body):
    return 200, {}, reply(**answer(body))


def always(change):
    """Every reply changed: `change(reply as a mapping)` edits it in place."""

    def script(_, body):
        said = json.loads(reply(**answer(body)))
        change(said)
        return 200, {}, json.dumps(said)

    return script


def at_first(trouble, times=2, after=3):
    """Trouble that passes: requests after+1 to after+times."""
    return lambda number, body: trouble if after < number <= after + times else good(number, body)


def one_question(status, said, chosen=FIRST):
    return lambda number, body: (
        (status, {}, json.dumps(said)) if body["messages"][0]["content"] == chosen else good(number, body)
    )


def from_(number, trouble):
    return lambda n, body: trouble if n >= number else good(n, body)


def message(**fields):
    return always(lambda said: said["choices"][0]["message"].update(fields))


def thinking(field):
    def script(number, body):
        said = answer(body)
        return 200, {}, reply(**said, **{field: "Let me see."})

    return script


def interrupted(number, body):
    if number == 40:
        _thread.interrupt_main()
    return good(number, body)


def error(words, code=None, kind="invalid_request_error", **more):
    return {"error": {"message": words, "type": kind, "param": None, "code": code, **more}}


CONTEXT = (
    "This model's maximum context length is 4096 tokens. However, you requested 4600 tokens (504 in the completion)."
)
LLAMA = error("the request exceeds the available context size", 400, "exceed_context_size_error", n_prompt_tokens=14429)
AZURE = error(
    "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.", "content_filter"
)
PAGE = "<html><title>502 Bad Gateway</title></html>"


class Case(NamedTuple):
    """One behaviour. `ends`: done or stopped; `said`: a pattern in the message or in the line of health."""

    came: str
    script: object
    ends: str
    said: str = "^$"
    same: bool = True  # the rows are those of an undisturbed run
    options: dict = {}


CASES = [
    Case("vLLM: `reasoning` null beside the content", message(reasoning=None, tool_calls=[]), "done"),
    Case("llama.cpp: `timings`, no name of the model", always(lambda said: said.update(timings={}, model="")), "done"),
    Case("Ollama: `system_fingerprint`, `reasoning` beside the content", thinking("reasoning"), "done"),
    Case("vLLM before 0.11: `reasoning_content` beside the content", thinking("reasoning_content"), "done"),
    Case("`<think>…</think>` in the content", lambda n, b: (200, {}, reply(**answer(b) | {"text": f"<think>hm</think>\n{answer(b)['text']}"})), "done"),
    Case("content in parts, thoughts among them", lambda n, b: (200, {}, reply(**answer(b) | {"text": [{"type": "thinking"}, {"type": "text", "text": answer(b)["text"]}]})), "done"),
    Case("429 with Retry-After, twice", at_first((429, {"Retry-After": "0.2"}, "slow down")), "done"),
    Case("503 while llama.cpp loads, twice", at_first((503, {}, json.dumps(error("Loading model", 503, "unavailable_error")))), "done"),
    Case("500, twice", at_first((500, {}, "oops")), "done"),
    Case("connection dropped, twice", at_first(None), "done"),
    Case("half a reply, then the end, twice", at_first((200, {"Content-Length": "9000"}, '{"choices": [')), "done"),
    Case("200 with a proxy's page, twice", at_first((200, {}, PAGE)), "done"),
    Case("200 with an error of 429 in its body, twice", at_first((200, {}, json.dumps(error("rate limit", 429)))), "done"),
    Case("OpenRouter: 200, the choice failed, twice", at_first((200, {}, json.dumps({"choices": [{"message": {"content": ""}, "finish_reason": "error", "error": {"code": 502, "message": "provider"}}]}))), "done"),
    Case("no `usage`", always(lambda said: said.pop("usage")), "done", r"\(100.0 %\): no token count", False),
    Case("no `finish_reason`", always(lambda said: said["choices"][0].pop("finish_reason")), "done", "no finish reason", False),
    Case("content null for one question", one_question(200, json.loads(reply(None))), "done", r"no text\.", False),
    Case("only thoughts for one question, cut", one_question(200, json.loads(reply(None, "length", reasoning_content="So"))), "done", "no text, only thoughts", False),
    Case("vLLM: one prompt over the context (400)", one_question(400, {"object": "error", "message": CONTEXT, "type": "BadRequestError", "param": None, "code": 400}), "done", "refused, too long", False),
    Case("llama.cpp: the same, its own words (400)", one_question(400, LLAMA), "done", "refused, too long", False),
    Case("llama.cpp: the same as a 500", one_question(500, error("Context size has been exceeded.", 500, "server_error")), "done", "refused, too long", False),
    Case("the same in a 200", one_question(200, LLAMA), "done", "refused, too long", False),
    Case("a router: the same as a 422", one_question(422, {"detail": "`inputs` tokens + `max_new_tokens` must be <= 4096"}), "done", "refused, too long", False),
    Case("Azure: content filter for one prompt (400)", one_question(400, AZURE), "done", "refused, content filter", False),
    Case("OpenRouter: moderation of one prompt (403)", one_question(403, error("Your chosen model requires moderation and your input was flagged", 403)), "done", "refused, content filter", False),
    Case("finish_reason `content_filter` for one answer", one_question(200, json.loads(reply("partly", "content_filter"))), "done", "refused, content filter", False),
    Case("OpenAI: a `refusal` in place of content", one_question(200, json.loads(reply(None, refusal="I can't."))), "done", "refused, by the model", False),
    Case("every prompt refused (400)", from_(2, (400, {}, json.dumps(error(CONTEXT)))), "stopped", "refused for 3 of .* more than 5%.*maximum context length.*max_refused"),
    Case("every content null", from_(2, (200, {}, reply(None))), "stopped", "no text for .* more than 50%.*max_new_tokens"),
    Case("every reply only thoughts", from_(2, (200, {}, reply("<think>So", "length"))), "stopped", "no text, only thoughts.*extra_body"),
    Case("401, the key in its words", from_(1, (401, {}, json.dumps(error(f"Incorrect API key: {SECRET}")))), "stopped", r"401: Incorrect API key: \*\*\* .*OPENAI_API_KEY"),
    Case("200 with an error of 401 in its body", from_(1, (200, {}, json.dumps(error("no such key", 401)))), "stopped", "401: no such key .*OPENAI_API_KEY"),
    Case("402, no credit left, half-way", from_(60, (402, {}, json.dumps(error("insufficient credits", 402)))), "stopped", "402: insufficient credits"),
    Case("Ollama: no such model (404)", from_(1, (404, {}, json.dumps(error('model "tiny" not found, try pulling it first', kind="api_error")))), "stopped", "try pulling it first .*is 'tiny' the name"),
    Case("OpenAI: `max_tokens` unknown to it (400)", from_(1, (400, {}, json.dumps(error("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")))), "stopped", "max_completion_tokens.*server_options"),
    Case("a redirect to https (308)", from_(1, (308, {"Location": "https://there/v1"}, "")), "stopped", "308: .*https://there/v1"),
    Case("200 with a web page, for good", from_(1, (200, {}, PAGE)), "stopped", "does not speak the chat protocol.*502 Bad Gateway.*server_url right"),
    Case("500, for good, half-way", from_(60, (500, {}, "out of memory")), "stopped", "500: out of memory .*the same command goes on"),
    Case("429 with Retry-After of a day", from_(60, (429, {"Retry-After": "86400"}, "come back tomorrow")), "stopped", "429: come back tomorrow"),
    Case("silence", from_(60, "sleep"), "stopped", "does not answer in time", options={"timeout_s": 0.3, "retries": 1}),
    Case("it is gone, half-way", from_(60, "gone"), "stopped", "cannot be reached"),
    Case("Ctrl-C, half-way", interrupted, "interrupted"),
]  # fmt: skip


def run(case, folder):
    """What a run of rollouts does with a behaviour: how it ended, what it said, whether it went on to the right rows."""
    out, server = store.Run(folder).path("rollouts", "train.jsonl"), None

    def script(number, body):
        found = case.script(number, body)
        if found == "sleep":
            time.sleep(0.6)
        return None if found in ("gone", "sleep") else found

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell ignores it
    server = Misbehaving(script)
    engine = ServerEngine(server.url, "tiny", **({"retries": 3, "concurrency": 4} | case.options))
    how = {"k": 2, "chunk_size": 12, "seed": 5, "progress": False}
    ends, said = "done", ""
    try:
        rollouts.generate_rollouts(engine, PROBLEMS, out, **how)
        said = " ".join(read.refusals(store.Run(folder)))
    except ValueError as caught:
        ends, said = "stopped", str(caught)
    except KeyboardInterrupt:
        ends = "interrupted"
    kept = len(store.read_jsonl(out)) if out.exists() else 0
    server.script, engine.options = good, engine.options._replace(timeout_s=60.0)
    asked = len(server.seen)
    engine.seen.clear()
    rows = list(rollouts.generate_rollouts(engine, PROBLEMS, out, **how))
    again = len(server.seen) - asked
    server.close()
    return ends, said, rows, kept, again


def undisturbed(folder):
    return run(Case("nothing special", good, "done"), folder)[2]


def check(case, folder, want):
    """Assert that a behaviour ends as its case says, and that the same command then finishes; its line of the table."""
    ends, said, rows, kept, again = run(case, folder)
    assert ends == case.ends and re.search(case.said, said), (case.came, ends, said)
    assert SECRET not in said and "\n" not in said
    assert all(SECRET not in path.read_text(encoding="utf-8") for path in Path(folder).rglob("*.json*"))
    assert [r["id"] for r in rows] == [p["id"] for p in PROBLEMS]
    assert (rows == want) == case.same and (again == 0) == (ends == "done"), (case.came, again)
    then = f"{kept} rows kept, the same command made the other {len(rows) - kept}" if ends != "done" else "on disk"
    return case.came, ends, said or "–", then


if __name__ == "__main__":
    os.environ["OPENAI_API_KEY"] = SECRET
    import openai._base_client

    openai._base_client.INITIAL_RETRY_DELAY = 0.01
    with tempfile.TemporaryDirectory() as folder:
        want = undisturbed(Path(folder) / "good")
        print("| what came | the run | it said | then |\n|---|---|---|---|")
        for i, case in enumerate(CASES):
            print("| " + " | ".join(check(case, Path(folder) / str(i), want)) + " |", flush=True)
