"""Generation by a server that speaks OpenAI's chat protocol: vLLM, `transformers serve`, or a hosted API.

The API key is read from an environment variable when a request is signed. It is in no attribute, message or file.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..rows import Message
from .protocol import Adapter, Completion, Engine, Sampling

if TYPE_CHECKING:
    import openai

MALFORMED_PAUSES_S = 1.0, 4.0, 0.0  # after a reply that cannot be read: a proxy's page while the server restarts
AGAIN = "see that the server runs and server_url is right; the same command goes on from here"


class ServerError(ValueError):
    """The server cannot be reached, refuses, or does not speak the protocol: one line with the remedy."""


class ServerEngine(Engine):
    """An `Engine` over HTTP, with at most `concurrency` requests under way.

    `base_url` ends before "/chat/completions" (usually in "/v1"); `model` is the name the server gives it. Time-outs,
    lost connections and statuses 408, 409, 429 and 5xx are tried again up to `retries` times, after 0.5 to 8 seconds or
    what a Retry-After header asks for, up to two minutes. `adapters` maps an adapter's path to its served name (vLLM:
    `--lora-modules NAME=PATH`); without an entry, its folder's name is looked for among the served models. `extra_body`
    is merged into every request, such as `{"chat_template_kwargs": {"enable_thinking": False}}` for vLLM.
    `generate` raises ServerError if a request fails for good.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        concurrency: int = 32,
        timeout_s: float = 600.0,
        retries: int = 10,
        api_key_env: str = "OPENAI_API_KEY",
        adapters: Mapping[str, str] | None = None,
        extra_body: Mapping[str, Any] | None = None,
    ) -> None:
        url = urlsplit(base_url)
        if url.username or url.password or url.query or url.fragment:
            raise ServerError(f"no password or key belongs in server_url: put the key into ${api_key_env}")
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ServerError(f"server_url must look like http://localhost:8000/v1, not {base_url!r}")
        self.name, self.url, self.api_key_env = model, base_url.rstrip("/"), api_key_env
        self.backend = f"the server at {self.url}"
        self.concurrency, self.timeout_s, self.retries = max(1, concurrency), timeout_s, retries
        self.adapters, self.extra_body = dict(adapters or {}), dict(extra_body or {})

    def _complete(self, conversations: list[list[Message]], how: Sampling, adapter: Adapter) -> list[Completion]:
        """A request for each completion: its tokens are counted exactly, and servers cache the prompts they share."""
        with contextlib.closing(self._open()) as client:  # once it is closed, what still waits for a retry ends too
            settings: dict[str, Any] = {"model": self._served(client, adapter), "extra_body": self.extra_body}
            settings |= {"temperature": how.temperature, "max_tokens": how.max_new_tokens}

            def one(i: int) -> Completion:  # under a seed of its own: else equal prompts would give equal samples
                seed = int.from_bytes(hashlib.sha256(f"{how.seed}/{i}".encode()).digest()[:4], "big") >> 1
                asked = {**settings, "messages": conversations[i], "seed": seed}
                return self._ask(lambda: _completion(client.chat.completions.create(**asked)))

            pool = ThreadPoolExecutor(self.concurrency)
            try:
                futures = [pool.submit(one, i) for i in range(len(conversations))]
                for future in as_completed(futures):
                    future.result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
        return [future.result() for future in futures]

    def _open(self) -> openai.OpenAI:
        import openai

        self._key()  # one that no header can carry is refused before anything is sent
        timeout = openai.Timeout(self.timeout_s, connect=min(10.0, self.timeout_s))
        web = openai.DefaultHttpxClient(auth=self._sign, follow_redirects=False, timeout=timeout)
        keys = {"api_key": "-", "admin_api_key": "-"}  # else the library holds the environment's; `_sign` sets ours
        return openai.OpenAI(base_url=self.url, http_client=web, timeout=timeout, max_retries=self.retries, **keys)

    def _served(self, client: openai.OpenAI, adapter: Adapter) -> str:
        if adapter is None:
            return self.name
        if str(adapter) in self.adapters:
            return self.adapters[str(adapter)]
        name = Path(adapter).name
        if name in (served := self._ask(lambda: [m.id for m in client.models.list().data])):
            return name
        raise ServerError(
            f"{self.url} does not serve the adapter {name!r}: start vLLM with --enable-lora --lora-modules "
            f"{name}={adapter} (it serves {', '.join(served) or 'nothing'})"
        )

    def _ask(self, read: Callable[[], Any]) -> Any:
        """What `read` makes of a reply. Raises ServerError if it fails for good."""
        import openai

        for pause in MALFORMED_PAUSES_S:
            try:
                return read()
            except openai.OpenAIError as error:
                trouble = self._trouble(error)
                break
            except (AttributeError, LookupError, TypeError, ValueError) as error:
                trouble = f"does not speak the chat protocol ({type(error).__name__}): is server_url right?"
            time.sleep(pause)
        raise ServerError(f"{self.url} {trouble}")  # out here: the library's errors hold the request with its key

    def _trouble(self, error: Any) -> str:
        """What went wrong and what to do, without the key, which a server may repeat."""
        import openai

        if isinstance(error, openai.APITimeoutError):
            return f"does not answer in time, however often it is asked: {AGAIN}"
        if not isinstance(error, openai.APIStatusError):
            return f"cannot be reached ({self._hide(str(error.__cause__ or error))}): {AGAIN}"
        key = f"put the server's key into the environment variable {self.api_key_env}"
        name = f"is {self.name!r} the name the server gives the model, and does the URL end in /v1?"
        status, said = error.status_code, self._hide(error.response.text)[:200] or "nothing more"
        passing = status in (408, 409, 429) or status >= 500
        remedy = {401: key, 403: key, 404: name}.get(status, AGAIN if passing else "")
        return f"answers {status}: {said}" + f" ({remedy})" * bool(remedy)

    def _key(self) -> str:
        key = os.environ.get(self.api_key_env, "").strip()
        if not (key.isascii() and key.isprintable()):
            raise ServerError(f"the environment variable {self.api_key_env} holds what no key does: set it again")
        return key

    def _sign(self, request: Any) -> Any:
        request.headers.pop("Authorization", None)
        if key := self._key():
            request.headers["Authorization"] = f"Bearer {key}"
        return request

    def _hide(self, text: str) -> str:
        key = self._key()
        return re.sub(r"\s+", " ", text.replace(key, "***") if key else text).strip()


def _completion(reply: Any) -> Completion:
    """A reply's text and tokens; what servers leave out of it counts as empty, 0 and not cut."""
    choice = reply.choices[0]
    text = (choice.message.content or "").encode("utf-8", "replace").decode()  # half a surrogate pair fits in no file
    tokens = getattr(reply.usage, "completion_tokens", None)
    tokens = max(0, int(tokens)) if isinstance(tokens, int) else 0
    return Completion(text.strip(), tokens, getattr(choice, "finish_reason", None) == "length")
