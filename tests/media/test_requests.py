"""What every request gets: an id, the right path, a refusal while draining, a count, an answer whatever happens."""

from __future__ import annotations

import logging
from typing import Any

import anyio
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from media.drain import Drain
from media.errors import ApiError
from media.metrics import Metrics
from media.requests import RequestMiddleware
from models.errors import EngineFailed
from tests.media.asgi import Answer, knock


class Application:
    """Remembers the scopes it was called with."""

    def __init__(self, error: Exception | None = None) -> None:
        self.scopes: list[Scope] = []
        self._error = error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        if self._error is not None:
            raise self._error
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
        else:
            await PlainTextResponse("fine")(scope, receive, send)


def around(app: ASGIApp, drain: Drain | None = None, metrics: Metrics | None = None) -> RequestMiddleware:
    times = iter(range(100))
    return RequestMiddleware(app, metrics or Metrics(), drain or Drain(), 5.0, lambda: float(next(times)))


@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_every_request_has_an_id_of_its_own(kind: str) -> None:
    app = Application()
    middleware = around(app)
    answers = [await knock(middleware, kind=kind) for _ in range(2)]
    ids = [answer.headers["x-request-id"] for answer in answers]
    assert ids == [scope["state"]["request_id"] for scope in app.scopes]
    assert len(set(ids)) == 2
    assert all(request_id.startswith("req_") for request_id in ids)


@pytest.mark.parametrize(
    ("given", "kept"),
    [("my-id_1.2", True), ("x" * 128, True), ("x" * 129, False), ("two words", False), ("a\n", False), ("", False)],
)
async def test_a_client_may_bring_a_sensible_id(given: str, kept: bool) -> None:
    answer = await knock(around(Application()), headers={"X-Request-Id": given})
    assert (answer.headers["x-request-id"] == given) == kept


@pytest.mark.parametrize(
    ("path", "seen"),
    [
        ("/v1/v1/voices", "/v1/voices"),
        ("/v1/v2/videos", "/v2/videos"),
        ("/v1/voices", "/v1/voices"),
        ("/v1/v10/x", "/v1/v10/x"),
        ("/v1/v1", "/v1/v1"),
        ("/v1/v1/v1/x", "/v1/v1/x"),
        ("/v2/v1/x", "/v2/v1/x"),
    ],
)
async def test_a_doubled_version_is_undone(path: str, seen: str) -> None:
    app = Application()
    await knock(around(app), path)
    assert app.scopes[0]["path"] == seen


@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_a_draining_server_refuses_the_api_and_answers_probes(kind: str) -> None:
    drain, app = Drain(), Application()
    await drain.finish(0.0)
    middleware = around(app, drain)
    answer = await knock(middleware, "/v1/audio/speech", kind=kind)
    assert (answer.status, answer.error["code"]) == (503, "server_draining")
    assert answer.error["type"] == "service_unavailable_error"
    assert answer.headers["retry-after"] == "5"
    assert answer.headers["x-request-id"].startswith("req_")
    assert app.scopes == []
    assert (await knock(middleware, "/readyz")).status == 200


async def test_a_request_is_work_that_a_drain_waits_for() -> None:
    drain, release, entered = Drain(), anyio.Event(), anyio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        entered.set()
        await release.wait()
        await PlainTextResponse("fine")(scope, receive, send)

    async with anyio.create_task_group() as tasks:
        answers: list[Answer] = []

        async def request() -> None:
            answers.append(await knock(around(app, drain)))

        drained: list[bool] = []

        async def finish() -> None:
            drained.append(await drain.finish(10.0))

        tasks.start_soon(request)
        await entered.wait()
        tasks.start_soon(finish)
        await drain.begun()
        assert (answers, drained) == ([], [])
        release.set()
    assert drained == [True]
    assert answers[0].status == 200


async def test_a_request_that_outlives_the_drain_is_told_so() -> None:
    drain, entered = Drain(), anyio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        entered.set()
        await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        answers: list[Answer] = []

        async def request() -> None:
            answers.append(await knock(around(app, drain)))

        tasks.start_soon(request)
        await entered.wait()
        assert not await drain.finish(0.0)
    assert (answers[0].status, answers[0].error["code"]) == (503, "server_draining")


async def test_an_unexpected_error_is_answered_with_an_id_counted_and_raised() -> None:
    metrics = Metrics()
    sent: list[Message] = []

    async def catch(message: Message) -> None:
        sent.append(message)

    async def nothing() -> Message:
        return {"type": "http.request"}

    scope: dict[str, Any] = {"type": "http", "method": "GET", "path": "/v1/models", "headers": []}
    with pytest.raises(ValueError, match="a secret"):
        await around(Application(ValueError("a secret")), metrics=metrics)(scope, nothing, catch)
    answer = Answer(sent)
    assert answer.status == 500
    assert answer.headers["x-request-id"].startswith("req_")
    assert "secret" not in answer.error["message"]
    assert b'status="500"' in metrics.exposition()


async def test_an_answer_that_breaks_off_because_the_engine_died_ends_there() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise EngineFailed("its process died")

    answer = await knock(around(app))
    assert [message["type"] for message in answer.messages] == ["http.response.start"]


async def test_a_refused_handshake_is_logged_as_refused(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.close", "code": 1008})

    with caplog.at_level(logging.INFO, "sonoreel.requests"):
        await knock(around(app), "/v1/realtime", kind="websocket", query="api_key=secret")
    assert "WS /v1/realtime 403" in caplog.text
    assert "secret" not in caplog.text


async def test_requests_are_counted_with_the_time_to_their_first_byte() -> None:
    metrics = Metrics()
    await knock(around(Application(), metrics=metrics))
    await knock(around(Application(), metrics=metrics), kind="websocket")
    text = metrics.exposition().decode()
    assert 'status="200"' in text
    assert text.count('status="') == text.count('status="200"'), "sockets are counted elsewhere"


async def test_what_is_neither_request_nor_socket_passes() -> None:
    app = Application()
    await knock(around(app), kind="lifespan")
    assert "state" not in app.scopes[0]
    assert ApiError(400, "x", "y").kind == "invalid_request_error"
