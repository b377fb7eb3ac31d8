"""Keys: who gets in with which form of one, over HTTP, both sockets and both SDKs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
import together
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.journeys.server_process import ServerProcess, running_server
from tests.journeys.sockets import open_socket

KEY, OTHER_KEY = "sk-first-of-two", "sk-second"
TRANSCRIPTION = {"intent": "transcription"}
SOCKETS = ["/v1/audio/speech/websocket", "/v1/realtime"]

pytestmark = pytest.mark.journey


@pytest.fixture(scope="module")
def keyed_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with running_server(tmp_path_factory.mktemp("keyed"), SONOREEL_API_KEYS=f"{KEY}, {OTHER_KEY}") as server:
        yield server


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.mark.parametrize("path", SOCKETS)
@pytest.mark.parametrize(
    ("query", "options"),
    [
        ({}, {"headers": bearer(KEY)}),
        ({}, {"headers": bearer(OTHER_KEY)}),
        ({"api_key": KEY}, {}),
        ({"authorization": f"Bearer {KEY}"}, {}),
        ({}, {"subprotocols": ["realtime", f"openai-insecure-api-key.{KEY}"]}),
        ({}, {"subprotocols": ["realtime", f"openai-insecure-api-key.{KEY}", "openai-beta.realtime-v1"]}),
    ],
    ids=["header", "second key", "api_key", "authorization", "subprotocol", "beta subprotocol"],
)
async def test_a_socket_opens_with_a_key_in_any_form(
    keyed_server: ServerProcess, path: str, query: dict[str, str], options: dict[str, Any]
) -> None:
    async with open_socket(keyed_server, path, TRANSCRIPTION | query, **options) as socket:
        assert (await socket.receive())["type"] == "session.created"
        assert socket.connection.subprotocol == ("realtime" if "subprotocols" in options else None)


@pytest.mark.parametrize("path", SOCKETS)
@pytest.mark.parametrize(
    ("query", "options", "code"),
    [
        ({}, {}, "missing_api_key"),
        ({}, {"headers": bearer("wrong")}, "invalid_api_key"),
        ({}, {"headers": bearer(KEY[:-1])}, "invalid_api_key"),
        ({}, {"headers": {"authorization": f"Basic {KEY}"}}, "missing_api_key"),
        ({"api_key": "wrong"}, {}, "invalid_api_key"),
        ({}, {"subprotocols": ["realtime", "openai-insecure-api-key.wrong"]}, "invalid_api_key"),
    ],
)
async def test_a_socket_without_a_key_is_refused_in_the_handshake(
    keyed_server: ServerProcess, path: str, query: dict[str, str], options: dict[str, Any], code: str
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with open_socket(keyed_server, path, TRANSCRIPTION | query, **options):
            pass
    assert refused.value.response.status_code == 401
    assert json.loads(refused.value.response.body or b"")["error"]["code"] == code


@pytest.mark.parametrize("path", SOCKETS)
async def test_a_page_from_elsewhere_opens_no_socket(server: ServerProcess, path: str) -> None:
    with pytest.raises(InvalidStatus) as strange_origin:
        async with open_socket(server, path, TRANSCRIPTION, headers={"origin": "https://evil.example"}):
            pass
    assert strange_origin.value.response.status_code == 403
    # A name of the attacker's that resolves to this machine.
    port = int(server.url.rsplit(":", 1)[1])
    with pytest.raises(InvalidStatus) as strange_host:
        async with connect(f"ws://evil.example:{port}{path}", host="127.0.0.1", port=port, proxy=None):
            pass
    assert strange_host.value.response.status_code == 403


async def test_there_is_no_socket_elsewhere(server: ServerProcess) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with open_socket(server, "/v1/no/such/socket"):
            pass
    assert refused.value.response.status_code in (403, 404)


def test_http_wants_a_key_too(keyed_server: ServerProcess) -> None:
    with httpx.Client(base_url=keyed_server.url) as client:
        for path in ("/v1/models", "/v1/voices", "/metrics", "/v1/v1/models"):
            missing = client.get(path)
            assert (missing.status_code, missing.json()["error"]["code"]) == (401, "missing_api_key")
            wrong = client.get(path, headers=bearer("wrong"))
            assert (wrong.status_code, wrong.json()["error"]["code"]) == (401, "invalid_api_key")
            assert client.get(path, headers=bearer(OTHER_KEY)).status_code == 200
        for path in ("/", "/healthz", "/readyz", "/openapi.json"):
            assert client.get(path).status_code == 200


def test_with_keys_the_host_does_not_matter(keyed_server: ServerProcess) -> None:
    headers = bearer(KEY) | {"host": "voice.example"}
    assert httpx.get(f"{keyed_server.url}/v1/models", headers=headers).status_code == 200


def test_keys_stay_out_of_the_log(keyed_server: ServerProcess) -> None:
    for query in ({"api_key": KEY}, {"authorization": f"Bearer {KEY}"}):
        assert httpx.get(f"{keyed_server.url}/v1/models", params=query).status_code == 200

    async def open_with_key() -> None:
        async with open_socket(keyed_server, SOCKETS[1], TRANSCRIPTION | {"api_key": KEY}) as socket:
            await socket.receive()

    asyncio.run(open_with_key())
    assert any("/v1/models" in line for line in keyed_server.log)
    assert not any(KEY in line for line in keyed_server.log)


def test_the_sdks_raise_their_authentication_error(keyed_server: ServerProcess) -> None:
    with openai.OpenAI(api_key="wrong", base_url=f"{keyed_server.url}/v1") as client:
        with pytest.raises(openai.AuthenticationError) as refused:
            client.models.list()
        assert refused.value.code == "invalid_api_key"
    with together.Together(api_key="wrong", base_url=keyed_server.url) as client_of_together:
        with pytest.raises(together.AuthenticationError, match="invalid_api_key"):
            client_of_together.audio.speech.create(model="auto", input="Hello.", voice="alloy")
    with together.Together(api_key=KEY, base_url=keyed_server.url) as client_of_together:
        speech = client_of_together.audio.speech.create(model="auto", input="Hello.", voice="alloy")
        assert speech.read().startswith(b"RIFF")


async def test_a_realtime_session_with_a_bad_key_gives_up_at_once(keyed_server: ServerProcess) -> None:
    async with together.AsyncTogether(api_key="wrong", base_url=keyed_server.url) as client:
        async with asyncio.timeout(10):
            session = client.beta.realtime.transcription(model="auto", sample_rate=16_000)
            with pytest.raises(together.TogetherError, match="401"):
                await session.start()
            await session.close()
    async with openai.AsyncOpenAI(api_key=KEY, base_url=f"{keyed_server.url}/v1") as openai_client:
        async with openai_client.realtime.connect(extra_query={"intent": "transcription"}) as connection:
            assert (await connection.recv()).type == "session.created"
