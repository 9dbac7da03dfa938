"""Generation by a server that speaks OpenAI's chat protocol: vLLM, `transformers serve`, or a hosted API.

The API key is read from an environment variable at the moment a request is signed. It is in no attribute, no
message and no file.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..rows import Message
from .engines import Adapter, Completion, refuse_copies

if TYPE_CHECKING:
    import httpx

AGAIN = {408, 409, 425, 429, 500, 502, 503, 504, 529}  # statuses that may pass
LONGEST_WAIT_S = 60.0  # between two tries, unless the server asks for more
LONGEST_ASKED_WAIT_S = 900.0


class ServerError(ValueError):
    """The server cannot be reached, refuses, or does not speak the protocol; one line with the remedy."""


class ServerEngine:
    """An `Engine` over HTTP, with at most `concurrency` requests under way.

    `base_url` ends before "/chat/completions" (usually in "/v1"); `model` is the name the server gives it. Time-outs,
    lost connections, malformed replies and statuses 408, 409, 425, 429 and 5xx are tried again up to `retries` times, after
    1, 2, 4, … seconds (times a random 0.5 to 1), or after as long as a Retry-After header asks for.

    Adapters are models of their own to a server (vLLM: `--lora-modules NAME=PATH`): `adapters` maps an adapter's
    path to its served name; without an entry, the folder's name is looked for among the served models.
    `extra_body` is merged into every request, such as `{"chat_template_kwargs": {"enable_thinking": False}}` for vLLM.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        concurrency: int = 32,
        timeout_s: float = 600.0,
        retries: int = 6,
        backoff_s: float = 1.0,
        api_key_env: str = "OPENAI_API_KEY",
        adapters: Mapping[str, str] | None = None,
        extra_body: Mapping[str, Any] | None = None,
    ) -> None:
        import httpx

        url = httpx.URL(base_url.rstrip("/"))
        if url.scheme not in ("http", "https") or not url.host:
            raise ServerError(f"server_url must look like http://localhost:8000/v1, not {base_url!r}")
        if url.userinfo or url.query:
            raise ServerError(f"no password or key belongs in server_url: put the key into ${api_key_env}")
        self.name, self.url, self.api_key_env = model, str(url), api_key_env
        self.backend = f"the server at {url}"
        self.concurrency, self.retries, self.backoff_s = max(1, concurrency), retries, backoff_s
        self.adapters, self.extra_body = dict(adapters or {}), dict(extra_body or {})
        self._client = httpx.Client(
            timeout=httpx.Timeout(timeout_s, connect=min(10.0, timeout_s)),
            limits=httpx.Limits(max_connections=self.concurrency),
            auth=self._sign,
        )

    def __repr__(self) -> str:
        return f"ServerEngine({self.url!r}, {self.name!r})"

    def generate(
        self,
        conversations: Sequence[list[Message]],
        *,
        n: int = 1,
        temperature: float = 0.0,
        max_new_tokens: int = 512,
        seed: int = 0,
        adapter: Adapter = None,
    ) -> list[list[Completion]]:
        """See `engines.Engine.generate`. Raises ServerError when a request fails for good.

        Each completion is a request of its own with its own seed, so that its tokens are counted exactly and a failure
        costs one completion; servers share the prompt's work among them by their prefix cache.
        """
        refuse_copies(n, temperature)
        model = self._served(adapter)
        bodies = [
            {
                "model": model,
                "messages": conversation,
                "temperature": temperature,
                "max_tokens": max_new_tokens,
                "seed": _seed(seed, i),
                **self.extra_body,
            }
            for i, conversation in enumerate(c for c in conversations for _ in range(n))
        ]
        found = self._all(bodies)
        return [found[i : i + n] for i in range(0, len(found), n)]

    def served_models(self) -> list[str]:
        """The names the server answers to. Raises ServerError."""
        return self._ask("GET", "/models", None, lambda reply: [m["id"] for m in reply["data"]], threading.Event())

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _served(self, adapter: Adapter) -> str:
        if adapter is None:
            return self.name
        if str(adapter) in self.adapters:
            return self.adapters[str(adapter)]
        name = Path(adapter).name
        if name in (served := self.served_models()):
            return name
        raise ServerError(
            f"{self.url} does not serve the adapter {name!r}: start vLLM with --enable-lora --lora-modules "
            f"{name}={adapter} (it serves {', '.join(served) or 'nothing'})"
        )

    def _all(self, bodies: Sequence[Mapping[str, Any]]) -> list[Completion]:
        """Every request's completion, in order; the first failure ends the others."""
        stop = threading.Event()
        pool = ThreadPoolExecutor(self.concurrency, thread_name_prefix="reflectevo-server")
        try:
            futures = [pool.submit(self._ask, "POST", "/chat/completions", b, _completion, stop) for b in bodies]
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
            return [future.result() for future in futures]
        finally:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)

    def _ask(self, verb: str, path: str, body: Any, read: Callable[[Any], Any], stop: threading.Event) -> Any:
        """What `read` makes of the reply, over as many tries as allowed. Raises ServerError."""
        import httpx

        for attempt in range(self.retries + 1):
            asked_wait = None
            try:
                response = self._client.request(verb, self.url + path, json=body)
                if response.status_code == 200:
                    return read(response.json())
                asked_wait, trouble = _retry_after(response), f"answers {response.status_code}: {self._said(response)}"
                if response.status_code not in AGAIN:
                    raise ServerError(f"{self.url} {trouble}{self._remedy(response.status_code)}")
            except httpx.TimeoutException:
                trouble = "does not answer in time"
            except httpx.TransportError as error:
                trouble = f"cannot be reached ({self._hide(str(error))})"
            except (LookupError, TypeError, AttributeError, UnicodeDecodeError, json.JSONDecodeError) as error:
                trouble = f"does not speak the chat protocol ({type(error).__name__} in its reply)"
            if attempt == self.retries or (asked_wait or 0) > LONGEST_ASKED_WAIT_S:
                break
            if stop.wait(self._pause(attempt, asked_wait)):
                break  # another request has failed for good
        raise ServerError(
            f"{self.url} {trouble}, after {attempt + 1} tries: see that the server runs and server_url is right; "
            "the same command goes on from here"
        )

    def _pause(self, attempt: int, asked: float | None) -> float:
        backoff = min(LONGEST_WAIT_S, self.backoff_s * 2**attempt) * random.uniform(0.5, 1)
        return max(backoff, asked or 0.0)

    def _sign(self, request: httpx.Request) -> httpx.Request:
        if key := os.environ.get(self.api_key_env, "").strip():
            request.headers["Authorization"] = f"Bearer {key}"
        return request

    def _said(self, response: httpx.Response) -> str:
        return re.sub(r"\s+", " ", self._hide(response.text)).strip()[:200] or "nothing more"

    def _hide(self, text: str) -> str:
        key = os.environ.get(self.api_key_env, "").strip()
        return text.replace(key, "***") if key else text

    def _remedy(self, status: int) -> str:
        if status in (401, 403):
            return f" (put the server's key into the environment variable {self.api_key_env})"
        if status == 404:
            return f" (is {self.name!r} the name the server gives the model, and does the URL end in /v1?)"
        return ""


def _completion(reply: Any) -> Completion:
    choice = reply["choices"][0]
    text, tokens = choice["message"]["content"] or "", reply["usage"]["completion_tokens"]
    return Completion(text.strip(), tokens, choice["finish_reason"] == "length")


def _seed(seed: int, i: int) -> int:
    """A seed for the i-th request: equal prompts under one seed would otherwise give equal samples."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{i}".encode()).digest()[:4], "big") >> 1


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds that the server asks to wait for, as a number or a date (RFC 9110, section 10.2.3)."""
    said = response.headers.get("Retry-After", "").strip()
    if said.isdigit():
        return float(said)
    try:
        return max(0.0, parsedate_to_datetime(said).timestamp() - time.time())
    except (ValueError, TypeError):
        return None
