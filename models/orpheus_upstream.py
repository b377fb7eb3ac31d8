"""Orpheus' tokens from a server that speaks OpenAI's completions API: vLLM, SGLang or llama.cpp.

The server streams what the model writes as text, in which the audio tokens stand as `<custom_token_N>`. All requests of
a worker share one event loop and its connections; a request that is not wanted any more closes its own at once, which
is how such servers are told to stop.
"""

from __future__ import annotations

import logging
import os
import queue
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from typing import Annotated, Any
from urllib.parse import urlsplit

import httpx
import msgspec
from anyio.from_thread import start_blocking_portal

from models.catalog import Card
from models.errors import AtCapacity, EngineError, EngineFailed, InvalidInput, WeightsMissing
from models.orpheus_tokens import END_OF_SPEECH, TokenReader

logger = logging.getLogger("sonoreel.orpheus")

POLL = 0.05
"""Seconds between two looks at whether a request is still wanted."""
CONNECT_SECONDS = 10.0
MOST_ERROR = 1 << 14
"""Bytes of an answer that is no success that go into the log."""


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """How the next token is drawn, as the model's makers recommend; below a penalty of 1.1 it repeats itself."""

    temperature: Annotated[float, msgspec.Meta(ge=0.0, le=2.0)] = 0.6
    top_p: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 0.8
    repetition_penalty: Annotated[float, msgspec.Meta(ge=1.0, le=2.0)] = 1.1
    seed: Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)] = 0

    def changed(self, fields: dict[str, Any]) -> Sampling:
        """With other values for some fields. Raises: InvalidInput."""
        if not fields:
            return self
        try:
            return msgspec.convert(msgspec.structs.asdict(self) | fields, Sampling)
        except msgspec.ValidationError as error:
            raise InvalidInput(f"extra_params is not what this model takes: {error}", field="extra_params") from None


class UpstreamTokens:
    """Writes tokens on another server. Any thread may call it."""

    def __init__(
        self, card: Card, base_url: str, model: str, api_key_env: str, timeout: float, body: dict[str, Any]
    ) -> None:
        """Raises: WeightsMissing when the environment has no key; EngineFailed for a URL that is none."""
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise EngineFailed(f"options.base_url of {card.id!r} must be an http or https URL.")
        key = os.environ.get(api_key_env, "") if api_key_env else ""
        if api_key_env and not key:
            message = f"Model {card.id!r} needs its server's key in the environment variable {api_key_env}."
            raise WeightsMissing(message, field="model", code="upstream_refused")
        url = base_url.rstrip("/")
        self._url = f"{url if parts.path.rstrip('/') else f'{url}/v1'}/completions"
        self._id = card.id
        self._model = model or card.id
        self._body = body
        self._headers = {"authorization": f"Bearer {key}"} if key else {}
        self._timeout = httpx.Timeout(timeout, connect=min(CONNECT_SECONDS, timeout))
        self._resources = ExitStack()
        self._portal = self._resources.enter_context(start_blocking_portal())
        self._client = httpx.AsyncClient(
            timeout=self._timeout, limits=httpx.Limits(max_connections=None, max_keepalive_connections=32)
        )

    def tokens(self, prompt: str, sampling: Sampling, most: int, check: Callable[[], None]) -> Iterator[int]:
        """The numbers of the tokens that answer a prompt, at most `most`, as they come.

        `check` is called while there are none, and may raise. Raises: EngineFailed, AtCapacity, WeightsMissing.
        """
        mail: queue.SimpleQueue[list[int] | EngineError | None] = queue.SimpleQueue()
        over: Future[None] = self._portal.start_task_soon(self._ask, self._request(prompt, sampling, most), mail)
        try:
            while (message := _next(mail, check)) is not None:
                if isinstance(message, EngineError):
                    raise message
                yield from message
        finally:
            over.cancel()

    def close(self) -> None:
        """Close every connection, and end the thread."""
        self._portal.call(self._client.aclose)
        self._resources.close()

    def _request(self, prompt: str, sampling: Sampling, most: int) -> dict[str, Any]:
        return {
            "model": self._model,
            "prompt": prompt,
            "stream": True,
            "max_tokens": most,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": sampling.seed,
            "repetition_penalty": sampling.repetition_penalty,
            "repeat_penalty": sampling.repetition_penalty,  # llama.cpp's name of it
            "add_special_tokens": False,  # the prompt has its beginning of text, not at its beginning
            "skip_special_tokens": False,
            "stop": [f"<custom_token_{END_OF_SPEECH}>"],
            **self._body,
        }

    async def _ask(self, body: dict[str, Any], mail: queue.SimpleQueue[list[int] | EngineError | None]) -> None:
        outcome: EngineError | None = None
        try:
            async with self._client.stream("POST", self._url, json=body, headers=self._headers) as answer:
                if answer.status_code != httpx.codes.OK:
                    raise await self._refusal(answer)
                async for numbers in _numbers(answer):
                    mail.put(numbers)
        except EngineError as error:
            outcome = error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            logger.warning("the server of %s was lost: %s", self._id, type(error).__name__)
            outcome = EngineFailed("The server of this model cannot be reached, or broke off.")
        finally:
            mail.put(outcome)
            if outcome is not None:
                mail.put(None)

    async def _refusal(self, answer: httpx.Response) -> EngineError:
        said = b""
        async for part in answer.aiter_bytes():
            said += part
            if len(said) > MOST_ERROR:
                break
        status = answer.status_code
        logger.warning("the server of %s answered %d: %s", self._id, status, said[:MOST_ERROR].decode(errors="replace"))
        if status in (401, 403, 404, 405) or 300 <= status < 400:
            message = (
                f"The server of model {self._id!r} refuses it: look at base_url, model and api_key_env of its card."
            )
            return WeightsMissing(message, field="model", code="upstream_refused")
        if status in (429, 503):
            return AtCapacity("The server of this model has no room now.")
        if status in (400, 413, 422):
            return InvalidInput("The server of this model refused the request.")
        return EngineFailed("The server of this model failed.")


def _next(
    mail: queue.SimpleQueue[list[int] | EngineError | None], check: Callable[[], None]
) -> list[int] | EngineError | None:
    while True:
        try:
            return mail.get(timeout=POLL)
        except queue.Empty:
            check()


async def _numbers(answer: httpx.Response) -> AsyncIterator[list[int]]:
    """The tokens in a stream of server-sent events. Raises: EngineFailed when it ends before it is over."""
    reader = TokenReader()
    finished = False
    async for line in answer.aiter_lines():
        name, _, data = line.partition(":")
        if name != "data":
            continue
        if data.strip() == "[DONE]":
            return
        choice = _choice(data)
        if numbers := reader.read(_text(choice)):
            yield numbers
        if (reason := choice.get("finish_reason")) in ("abort", "error"):
            raise EngineFailed("The server of this model gave up.")
        finished = finished or bool(reason)
    if not finished:
        raise EngineFailed("The server of this model broke off.")


def _choice(data: str) -> dict[str, Any]:
    """The first choice of an event; empty where it has none. Raises: EngineFailed."""
    try:
        event = msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        raise EngineFailed("The server of this model sent what is no JSON.") from error
    if not isinstance(event, dict) or "error" in event:
        logger.warning("a server broke off with %.500s", data)
        raise EngineFailed("The server of this model failed.")
    choices = event.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, dict) else {}


def _text(choice: dict[str, Any]) -> str:
    text = choice.get("text")
    return text if isinstance(text, str) else ""
