"""Who may talk to this server: every form of a key, and the pages that a browser must not lend to strangers."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from media.access import AccessMiddleware, presented_key
from media.settings import Settings, SettingsError
from tests.media.asgi import Answer, knock

KEYS = Settings(api_keys=("first-key", "second-key"), host="0.0.0.0")  # noqa: S104 - nothing listens
OPEN = Settings()
LOOPBACK = {"Host": "127.0.0.1:8000"}
BEARER = {"Authorization": "Bearer second-key"}


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept", "headers": []})
    else:
        await PlainTextResponse("{}")(scope, receive, send)


async def ask(
    settings: Settings, headers: dict[str, str] | None = None, path: str = "/v1/models", **how: Any
) -> Answer:
    return await knock(AccessMiddleware(application, settings), path, headers=headers, **how)


# ---------------------------------------------------------------------- keys


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ({"Authorization": "Bearer second-key"}, ""),
        ({"authorization": "bearer  first-key "}, ""),
        ({}, "model=m&api_key=first-key"),
        ({}, "authorization=Bearer%20second-key&model=m"),
        ({}, "authorization=Bearer+second-key"),
        ({"Sec-WebSocket-Protocol": "realtime, openai-insecure-api-key.first-key, openai-beta.realtime-v1"}, ""),
        ({"Sec-WebSocket-Protocol": "openai-insecure-api-key.second-key"}, ""),
    ],
)
async def test_every_form_of_a_key_opens(headers: dict[str, str], query: str) -> None:
    assert (await ask(KEYS, headers, query=query)).status == 200
    assert (await ask(KEYS, headers, kind="websocket", query=query, path="/v1/realtime")).status == 101


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ({}, ""),
        ({"Authorization": "first-key"}, ""),
        ({"Authorization": "Bearer"}, ""),
        ({"Authorization": f"Basic {base64.b64encode(b'first-key:').decode()}"}, ""),
        ({"Sec-WebSocket-Protocol": "realtime"}, ""),
        ({"Cookie": "api_key=first-key"}, ""),
        ({}, "api_key="),
        ({}, "key=first-key"),
        ({}, "%zz=%ff&&=&authorization"),
    ],
)
async def test_without_a_key_nothing_opens(headers: dict[str, str], query: str) -> None:
    answer = await ask(KEYS, headers, query=query)
    assert answer.status == 401
    assert answer.error == {
        "message": "no API key: send Authorization: Bearer <key>",
        "type": "authentication_error",
        "param": None,
        "code": "missing_api_key",
    }
    assert (await ask(KEYS, headers, kind="websocket", query=query)).status == 401


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ({"Authorization": "Bearer first-ke"}, ""),
        ({"Authorization": "Bearer first-key2"}, ""),
        ({"Authorization": "Bearer \xe9\xff"}, ""),
        ({"Authorization": "Bearer wrong"}, "api_key=first-key"),
        ({}, "api_key=%F0%9F%94%91"),
        ({"Sec-WebSocket-Protocol": "openai-insecure-api-key."}, ""),
    ],
)
async def test_a_wrong_key_is_told_from_none_and_never_repeated(headers: dict[str, str], query: str) -> None:
    answer = await ask(KEYS, headers, query=query)
    assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
    assert "wrong" not in answer.error["message"]


async def test_a_refused_socket_without_a_status_is_closed() -> None:
    answer = await ask(KEYS, kind="websocket", denial=False)
    assert answer.messages == [{"type": "websocket.close", "code": 1008, "reason": "missing_api_key"}]


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/openapi.json", "/studio/studio.js"])
async def test_the_front_door_needs_no_key(path: str) -> None:
    assert (await ask(KEYS, path=path)).status == 200


@pytest.mark.parametrize("path", ["/metrics", "/v1/", "/v1/models", "/studio", "/studiox", "/healthz/", "//healthz"])
async def test_everything_else_does(path: str) -> None:
    assert (await ask(KEYS, path=path)).status == 401


def test_the_header_is_looked_at_first() -> None:
    assert presented_key({"authorization": "Bearer a"}, {"api_key": ["b"]}) == "a"
    assert presented_key({"authorization": "Basic x"}, {"api_key": ["b"]}) == "b"
    assert presented_key({}, {"authorization": ["Bearer a"], "api_key": ["b"]}) == "a"


# ---------------------------------------------------------------------- Host and Origin


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:8000", "127.0.0.1", "localhost:8000", "LOCALHOST", "[::1]:8000", "[::1]"],
)
@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_loopback_names_are_answered(host: str, kind: str) -> None:
    assert (await ask(OPEN, {"Host": host}, kind=kind)).status in (200, 101)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",  # a name of theirs that resolves to 127.0.0.1
        "evil.example:8000",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "evil.example@127.0.0.1",
        "127.0.0.1/evil.example",
        "127.0.0.1#",
        "0.0.0.0:8000",
        "192.168.1.5",
        "[::2]",
        "[::1",
        "::1",
        "localhost:port",
        "[",
        "]",
        " ",
        "",
        None,
    ],
)
@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_other_names_are_refused(host: str | None, kind: str) -> None:
    answer = await ask(OPEN, {} if host is None else {"Host": host}, kind=kind)
    assert (answer.status, answer.error["code"]) == (403, "host_not_allowed")
    assert "SONOREEL_ALLOWED_HOSTS" in answer.error["message"]


async def test_names_may_be_added_and_with_keys_every_name_is_answered() -> None:
    lan = Settings(allowed_hosts=("My-Laptop.local",))
    assert (await ask(lan, {"Host": "my-laptop.local:8000"})).status == 200
    assert (await ask(lan, {"Host": "other.local"})).status == 403
    assert (await ask(KEYS, {"Host": "anything.example", **BEARER})).status == 200


@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_a_page_this_server_served_may_call_it(kind: str) -> None:
    for origin, host in (
        ("http://127.0.0.1:8000", "127.0.0.1:8000"),
        ("http://localhost:8000", "Localhost:8000"),
        ("http://[::1]:8000", "[::1]:8000"),
    ):
        assert (await ask(OPEN, {"Host": host, "Origin": origin}, kind=kind)).status in (200, 101)
    behind_a_proxy = {"Host": "media.example", "Origin": "https://media.example", **BEARER}
    assert (await ask(KEYS, behind_a_proxy, kind=kind)).status in (200, 101)


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "http://127.0.0.1:3000",
        "http://localhost:8000",
        "http://127.0.0.1:8000.evil.example",
        "http://evil.example/127.0.0.1:8000",
        "null",
        "file://",
        "http://[",
        "127.0.0.1:8000",
        "",
    ],
)
@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_other_pages_may_not(origin: str, kind: str) -> None:
    answer = await ask(OPEN, {**LOOPBACK, "Origin": origin}, kind=kind)
    assert (answer.status, answer.error["code"]) == (403, "origin_not_allowed")


async def test_pages_need_leave_even_with_a_key() -> None:
    assert (await ask(KEYS, {**BEARER, "Origin": "https://evil.example"})).status == 403
    assert (await ask(KEYS, {**BEARER, "Origin": "null"})).status == 403


async def test_pages_may_be_allowed() -> None:
    settings = Settings(allowed_origins=("https://App.example/",))
    assert (await ask(settings, {**LOOPBACK, "Origin": "https://app.example"})).status == 200
    assert (await ask(settings, {**LOOPBACK, "Origin": "https://app.example:8443"})).status == 403
    assert (await ask(settings, {**LOOPBACK, "Origin": "http://app.example"})).status == 403


async def test_programs_have_no_origin() -> None:
    assert (await ask(OPEN, LOOPBACK)).status == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "media.example", ""])  # noqa: S104
def test_a_server_on_the_network_does_not_start_without_keys(host: str) -> None:
    with pytest.raises(SettingsError, match="SONOREEL_API_KEYS"):
        Settings(host=host).checked()
    assert Settings(host=host, api_keys=("k",)).checked().host == host


async def test_what_is_neither_request_nor_socket_passes() -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    await knock(AccessMiddleware(app, OPEN), kind="lifespan")
    assert seen == ["lifespan"]
