"""Generation by a server that speaks OpenAI's chat protocol: vLLM, llama.cpp, Ollama, `transformers serve`, hosted APIs.

Keys are read from the environment when a request is signed. They are in no attribute, message or file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import ssl
import string
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple
from urllib.parse import urlsplit

from annotated_types import Ge, Gt, Le

from ..rows import Message
from .protocol import FEW, MOST_REFUSED, NOT_ASKED, REFUSED, Adapter, Completion, Engine, Sampling

if TYPE_CHECKING:
    import openai

NO_REPLY = 599  # the status that we give to a 200 which is no answer: a proxy's page while the server restarts
AGAIN = "see that the server runs and server_url is right; the same command goes on from here"
NO_TEXT, EMPTY = "no text", (0.5, "raise max_new_tokens, or end thinking by extra_body")
LOOPBACK = re.compile(r"(?:.*\.)?localhost|127(?:\.\d+){3}|::1|::ffff:127(?:\.\d+){3}")
SECRET = re.compile("auth|key|token|secret|cookie|password", re.I)  # a header's name
FILTERED = re.compile("content[_ ](?:filter|management|policy)|moderation|flagged|ResponsibleAI", re.I)
TOO_LONG = re.compile("context.{0,9}(?:length|size|window)|too (?:long|large)|max_(?:new_)?tokens.* must be", re.I)


class ServerError(ValueError):
    """The server cannot be reached, refuses, or does not speak the protocol: one line with the remedy."""


class ServerOptions(NamedTuple):
    """How a server is asked: the names in the parameters `server_options` and `judge_options`."""

    served_model: str | None = None  # the name that the server gives the model, if it is another
    api_key_env: str = "OPENAI_API_KEY"
    headers: dict[str, str] = {}  # "$NAME" in a value is read from the environment
    extra_body: dict[str, Any] = {}  # merged into every request
    top_p: Annotated[float, Gt(0), Le(1)] | None = None
    stop: list[str] | None = None
    seed: bool = True  # whether a seed is sent
    max_tokens: Annotated[int, Ge(1)] | None = None  # instead of max_new_tokens: thoughts need room
    max_tokens_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    timeout_s: Annotated[float, Gt(0)] = 600.0
    concurrency: Annotated[int, Ge(1), Le(1000)] = 32  # requests under way
    retries: Annotated[int, Ge(0), Le(1000)] = 10  # after 0.5 to 8 s, or what Retry-After asks for, up to two minutes
    max_refused: Annotated[float, Ge(0), Le(1)] = MOST_REFUSED  # share of prompts that may be refused
    adapters: dict[str, str] = {}  # path → served name (vLLM: --lora-modules NAME=PATH)

    @classmethod
    def of(cls, given: Mapping[str, Any] | None) -> ServerOptions:
        """The options of a mapping. Raises ValueError, which names the option and shows no value."""
        from pydantic import TypeAdapter, ValidationError

        try:
            found = TypeAdapter(cls).validate_python(given or {})
        except ValidationError as error:
            wrong = error.errors(include_input=False)[0]
            said = f"{'.'.join(map(str, wrong['loc']))}: {wrong['msg']} (there are {', '.join(cls._fields)})"
            raise ValueError(said.removeprefix(": ")) from None
        if open_ := [name for name, value in found.headers.items() if SECRET.search(name) and "$" not in value]:
            raise ValueError(f'headers.{open_[0]}: write "$NAME", and put the key into that environment variable')
        return found


class ServerEngine(Engine):
    """An `Engine` over HTTP; `options` are fields of `ServerOptions`. `base_url` usually ends in "/v1".

    Time-outs, lost connections, statuses 408, 409, 429 and 5xx, and replies of 200 that are none are tried again. A
    refused prompt (400, 413, 422, a content filter) gives an empty completion that says why. An adapter without an entry
    in `adapters` is looked for among the served models by its folder's name. `generate` first asks for one token. It
    raises ServerError if a request fails for good, if too many prompts are refused, and if most replies are empty.
    """

    def __init__(self, base_url: str, model: str, **options: Any) -> None:
        self.options, url = ServerOptions.of(options), urlsplit(base_url)
        if url.username or url.password or url.query or url.fragment:
            raise ServerError(f"no password or key belongs in server_url: put it into ${self.options.api_key_env}")
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ServerError(f"server_url must look like http://localhost:8000/v1, not {base_url!r}")
        self.name, self.url = model, base_url.rstrip("/").removesuffix("/chat/completions")
        self.backend = f"the server at {self.url}"
        self.probed, self.seen = False, Counter[str]()  # prompts asked, refused, and answered by no text

    def probe(self) -> str:
        """Ask for one token; how the server answered, in words. Raises ServerError, in seconds if nothing is there."""
        with contextlib.closing(self._open(min(2, self.options.retries), 60.0)) as client:
            started = time.perf_counter()
            asked = self._request(Sampling(0.0, 1, 0), [Message(role="user", content="Say 1.")])
            asked[self.options.max_tokens_name] = 1
            name = self._ask(lambda: client.chat.completions.create(**asked).model, probing=True)
        self.probed = True
        return f"{self.url} answers as {self._hide(str(name))} after {time.perf_counter() - started:.1f} s"

    def _complete(self, conversations: list[list[Message]], how: Sampling, adapter: Adapter) -> list[Completion]:
        """A request for each completion: its tokens are counted exactly, and servers cache the prompts they share."""
        if not self.probed:
            self.probe()
        with contextlib.closing(self._open(self.options.retries)) as client:  # closed, it ends what waits for a retry
            served = {"model": self._served(client, adapter)} if adapter else {}

            def one(i: int) -> Completion:  # under a seed of its own: else equal prompts would give equal samples
                if not conversations[i]:
                    return NOT_ASKED
                seed = int.from_bytes(hashlib.sha256(f"{how.seed}/{i}".encode()).digest()[:4], "big") >> 1
                asked = self._request(how._replace(seed=seed), conversations[i]) | served
                return self._ask(lambda: _completion(client.chat.completions.create(**asked)))

            pool, total = ThreadPoolExecutor(self.options.concurrency), self.seen["asked"] + len(conversations)
            try:
                futures = [pool.submit(one, i) for i in range(len(conversations))]
                for future in as_completed(futures):
                    self._count(future.result(), total)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
        return [future.result() for future in futures]

    def _request(self, how: Sampling, conversation: list[Message]) -> dict[str, Any]:
        o = self.options
        asked = {"seed": how.seed if o.seed else None, "top_p": o.top_p, "stop": o.stop, "extra_body": o.extra_body}
        asked |= {"model": o.served_model or self.name, "messages": conversation, "temperature": how.temperature}
        asked[o.max_tokens_name] = o.max_tokens or how.max_new_tokens
        return {k: v for k, v in asked.items() if v is not None}

    def _count(self, found: Completion, total: int) -> None:
        """Raise ServerError if too many of `total` prompts, asked and still to be asked, were refused or empty."""
        kind, seen = re.split("[,;:]", found.trouble)[0], self.seen
        seen.update(["asked", kind] * ("not asked" not in found.trouble))
        limits = {REFUSED: (self.options.max_refused, "allow more by max_refused"), NO_TEXT: EMPTY}
        share, mend = limits.get(kind, (1, ""))
        if seen[kind] > max(FEW, share * total):
            said = f"{kind} for {seen[kind]:,} of {seen['asked']:,} prompts, more than {share:.0%} of {total:,}"
            said += f"; the last one: {found.trouble}. Mend that, or {mend}; the same command goes on from here"
            raise ServerError(f"{self.url}: {said}")

    def _open(self, retries: int, most: float = math.inf) -> openai.OpenAI:
        import openai

        self._headers()  # what no header can carry is refused before anything is sent
        seconds = min(self.options.timeout_s, most)
        timeout = openai.Timeout(seconds, connect=min(10.0, seconds))
        how: dict[str, Any] = {"timeout": timeout, "auth": self._sign, "event_hooks": {"response": [_mend]}}
        if LOOPBACK.fullmatch(str(urlsplit(self.url).hostname)):  # never through a proxy
            how |= {"trust_env": False, "verify": self.url.startswith("https") and ssl.create_default_context()}
        try:
            web = openai.DefaultHttpxClient(follow_redirects=False, **how)
        except (ImportError, OSError, ValueError) as error:
            raise ServerError(f"the environment's proxy or certificate settings cannot be used: {error}") from None
        keys = {"api_key": "-", "admin_api_key": "-"}  # else the library holds the environment's; `_sign` sets ours
        return openai.OpenAI(base_url=self.url, http_client=web, timeout=timeout, max_retries=retries, **keys)

    def _served(self, client: openai.OpenAI, adapter: str | Path) -> str:
        name = self.options.adapters.get(str(adapter), Path(adapter).name)
        if str(adapter) in self.options.adapters:
            return name
        served = self._ask(lambda: [m.id for m in client.models.list().data], probing=True)
        if name not in served:
            how = f"start vLLM with --enable-lora --lora-modules {name}={adapter}"
            raise ServerError(f"{self.url} does not serve the adapter {name!r}: {how} (it serves {', '.join(served)})")
        return name

    def _ask(self, read: Callable[[], Any], *, probing: bool = False) -> Any:
        """What `read` makes of a reply; for a refused prompt a completion that says so. Raises ServerError."""
        import openai

        refusal = ""
        try:
            return read()
        except openai.APIStatusError as error:
            refusal, trouble = self._refusal(error), self._status_trouble(error)
        except openai.APITimeoutError:
            trouble = f"does not answer in time, however often it is asked: {AGAIN}"
        except openai.OpenAIError as error:
            trouble = f"cannot be reached ({self._hide(str(error.__cause__ or error))}): {AGAIN}"
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            trouble = f"does not speak the chat protocol ({type(error).__name__}): is server_url right?"
        if refusal and (not probing or "limit was reached" in refusal):  # one token is too few for a thinking model
            return self.name if probing else Completion("", 0, False, refusal)
        raise ServerError(f"{self.url} {trouble}")  # out here: the library's errors hold the request with its key

    def _refusal(self, error: openai.APIStatusError) -> str:
        """Why a prompt was refused, in words; empty if it is no matter of the prompt."""
        status, text = error.status_code, error.response.text
        kind = "too long" if status == 413 or TOO_LONG.search(text) else f"status {status}"
        if filtered := FILTERED.search(text):
            kind = "content filter"
        prompts = status in (400, 413, 422) or (status == 403 and filtered)
        return f"{REFUSED}, {kind}: {self._said(error)}" if prompts else ""

    def _status_trouble(self, error: openai.APIStatusError) -> str:
        """What went wrong and what to do."""
        status, said, o = error.status_code, self._said(error), self.options
        if status == NO_REPLY:
            return f"does not speak the chat protocol, it answers {said!r}: is server_url right?"
        key = f"put the server's key into the environment variable {o.api_key_env}"
        name = f"is {o.served_model or self.name!r} the name the server gives the model, and does the URL end in /v1?"
        remedy = {401: key, 403: key, 404: name, 400: "server_options can change what is sent: docs/servers.md"}
        moved = f"server_url must be the address that it points to: {error.response.headers.get('location')}"
        return f"answers {status}: {said} ({remedy.get(status, AGAIN if status >= 400 else moved)})"

    def _said(self, error: openai.APIStatusError) -> str:
        """A server's own words, without the key, which it may repeat."""
        body = error.body if isinstance(error.body, dict) else {}
        return self._hide(str(body.get("message") or body.get("detail") or error.response.text))[:200] or "nothing more"

    def _headers(self) -> dict[str, str]:
        """The key and the other headers, from the environment. Raises ServerError for what no header can carry."""
        key = os.environ.get(self.options.api_key_env, "").strip()
        found = {"Authorization": f"Bearer {key}"} if key else {}
        try:
            found |= {n: string.Template(v).substitute(os.environ).strip() for n, v in self.options.headers.items()}
        except (KeyError, ValueError) as error:
            raise ServerError(f"headers in server_options: the environment has no {error}") from None
        for name in (n for n, value in found.items() if not (value.isascii() and value.isprintable())):
            what = f"header {name}" if name in self.options.headers else self.options.api_key_env
            raise ServerError(f"{what} holds what no key does, such as a line break: set it again")
        return found

    def _sign(self, request: Any) -> Any:
        request.headers.pop("Authorization", None)
        request.headers.update(self._headers())
        return request

    def _hide(self, text: str) -> str:
        for name, value in self._headers().items():
            if "$" in self.options.headers.get(name, "$"):
                text = text.replace(value.removeprefix("Bearer "), "***")
        return re.sub(r"\s+", " ", text).strip()


def _mend(response: Any) -> None:
    """Give a reply the status that it should have had: then the library asks again where that helps."""
    response.read()
    if response.status_code >= 500 and TOO_LONG.search(response.text):
        response.status_code = 400  # llama.cpp: it would say so again
    elif response.status_code == 200 and response.url.path.endswith("/chat/completions"):
        response.status_code = _status(response.text)


def _status(text: str) -> int:
    """The status that a reply of 200 should have had: some servers say in its body that they failed."""
    with contextlib.suppress(ValueError, AttributeError, LookupError, TypeError):
        body = json.loads(text)
        choice = (body.get("choices") or [{}])[0]
        if error := body.get("error") or choice.get("error"):
            code = str(error.get("code")) if isinstance(error, dict) else ""
            prompt = FILTERED.search(text) or TOO_LONG.search(text)
            return int(code) if re.fullmatch(r"[45]\d\d", code) else 400 if prompt else 502
        if isinstance(choice["message"], dict):
            return 502 if choice.get("finish_reason") == "error" else 200
    return NO_REPLY


def _completion(reply: Any) -> Completion:
    """A reply's text and tokens, and what it leaves out. Thoughts, in a field of their own or tagged, are no text."""
    choice, message = reply.choices[0], reply.choices[0].message
    said = getattr(message, "content", None) or ""
    if not isinstance(said, str):  # in parts
        said = "".join(str(p["text"]) for p in said if p.get("type") == "text")
    text = said.rpartition("</think>")[2].partition("<think>")[0]
    text = text.encode("utf-8", "replace").decode().strip()  # half a surrogate pair fits in no file
    finish, refusal = getattr(choice, "finish_reason", None), getattr(message, "refusal", None)
    tokens = getattr(getattr(reply, "usage", None), "completion_tokens", None)
    tokens = max(0, tokens) if isinstance(tokens, int) else 0
    if finish == "content_filter" or (refusal and not text):
        why = f"by the model: {refusal}" if refusal else "content filter: the answer was held back"
        return Completion("", tokens, False, f"{REFUSED}, {why}"[:220])
    thought = "think>" in said or any(getattr(message, name, None) for name in ("reasoning", "reasoning_content"))
    lacks = [NO_TEXT + ", only thoughts" * bool(thought)] * (not text) + ["no token count"] * (not tokens)
    lacks += ["no finish reason"] * (not isinstance(finish, str))
    return Completion(text, tokens, finish == "length", "; ".join(lacks))
