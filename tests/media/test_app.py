"""The application as a whole: what it loads, when it is ready, and that every failure has the one shape."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TypeAlias

import anyio
import httpx
import msgspec
import pytest
from starlette.testclient import TestClient

from media.app import create_app
from media.services import Services
from media.settings import Settings
from models.catalog import Card, Catalog
from tests.models.scripted import fake

CARDS = (
    fake("voice", default_voice="one"),
    fake("other-voice"),
    fake("ears", task="transcription", live=True),
    fake("broken", options={"load": "raise"}),
)
Serve: TypeAlias = Callable[..., AbstractAsyncContextManager[tuple[httpx.AsyncClient, Services]]]


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    """Runs an application with scripted engines, without a socket. The catalog reads the disk: not in the loop."""
    catalog = Catalog([msgspec.convert(msgspec.to_builtins(card), Card) for card in CARDS])

    @asynccontextmanager
    async def application(**settings: object) -> AsyncIterator[tuple[httpx.AsyncClient, Services]]:
        wanted = Settings(data_dir=tmp_path, **settings)  # type: ignore[arg-type]
        app = await anyio.to_thread.run_sync(create_app, wanted, catalog)  # looks at the disk before any loop runs
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
        ):
            yield client, app.state.services

    return application


async def settled(client: httpx.AsyncClient) -> httpx.Response:
    """The answer of /readyz once it is no longer "starting"."""
    with anyio.fail_after(20):
        while (answer := await client.get("/readyz")).status_code == 503:
            if answer.json()["status"] != "starting":
                break
            await anyio.wait_all_tasks_blocked()
    return answer


@pytest.mark.parametrize(
    ("warm", "loaded"),
    [
        (("auto",), {"voice", "ears"}),
        (("other-voice",), {"other-voice"}),
        (("ears", "voice"), {"ears", "voice"}),
        ((), set()),
    ],
)
async def test_ready_means_that_what_is_wanted_warm_is_loaded(
    serve: Serve, warm: tuple[str, ...], loaded: set[str]
) -> None:
    async with serve(warm=warm) as (client, services):
        answer = await settled(client)
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
        assert {model for model, stats in services.pool.stats().items() if stats.workers} == loaded


@pytest.mark.parametrize(
    ("name", "says"), [("no-such-model", "no-such-model"), ("broken", "broken"), ("VOICES", "VOICES")]
)
async def test_a_model_that_cannot_be_loaded_is_said_by_readyz(serve: Serve, name: str, says: str) -> None:
    async with serve(warm=(name,)) as (client, _):
        answer = await settled(client)
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        assert answer.json()["status"] == "failed"
        assert says in answer.json()["detail"]
        assert (await client.get("/healthz")).status_code == 200


async def test_every_failure_has_the_one_shape_and_a_request_id(serve: Serve) -> None:
    async with serve(warm=()) as (client, _):
        for method, path, status in [
            ("GET", "/v1/nothing", 404),
            ("DELETE", "/v1/models", 405),
            ("GET", "/v1/models/nothing", 404),
            ("POST", "/v1/audio/speech", 400),
            ("POST", "/v1/audio/transcriptions", 400),
        ]:
            answer = await client.request(method, path, headers={"x-request-id": "mine"})
            assert answer.status_code == status, path
            assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
            assert answer.headers["x-request-id"] == "mine"


async def test_a_draining_application_takes_no_new_work(serve: Serve) -> None:
    async with serve(warm=()) as (client, services):
        assert await services.drain.finish(1.0)
        refused = await client.get("/v1/models")
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "server_draining"
        assert refused.headers["retry-after"]
        assert (await client.get("/readyz")).json()["status"] == "draining"
        assert (await client.get("/healthz")).status_code == 200


async def test_at_the_drains_deadline_a_request_without_an_answer_gets_one(serve: Serve, tmp_path: Path) -> None:
    """An engine that never makes a sound: not a byte has left."""
    async with serve(warm=("voice",)) as (client, services):
        await settled(client)
        answers: list[httpx.Response] = []

        async def ask() -> None:
            # The codec holds the one sample back that this engine makes.
            answers.append(await client.post("/v1/audio/speech", json={"model": "voice", "input": "step"}))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            with anyio.fail_after(10):
                while not services.pool.stats()["voice"].running:
                    await anyio.wait_all_tasks_blocked()
            assert not await services.drain.finish(0.0)
        assert answers[0].status_code == 503
        assert answers[0].json()["error"]["code"] == "server_draining"


async def test_the_page_stays_at_home_and_the_api_describes_itself(serve: Serve) -> None:
    async with serve(warm=()) as (client, _):
        page = await client.get("/")
        assert page.status_code == 200, page.text
        assert page.headers["content-type"].startswith("text/html")
        policy = page.headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        script = await client.get("/studio/studio.js")
        assert script.status_code == 200
        assert script.headers["content-security-policy"] == policy
        assert (await client.get("/v1/")).json()["object"] == "server"
        paths = (await client.get("/openapi.json")).json()["paths"]
        assert "/v1/audio/speech" in paths


async def test_every_answer_is_counted_by_its_route(serve: Serve) -> None:
    async with serve(warm=()) as (client, _):
        await client.get("/v1/models")
        await client.get("/v1/models/voice")
        text = (await client.get("/metrics")).text
        for route in ("/v1/models", "/v1/models/{model:path}"):
            assert f'sonoreel_requests_total{{method="GET",route="{route}",status="200"}} 1.0' in text


def test_an_allowed_page_gets_its_preflight_answered_without_a_key(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, api_keys=("secret",), allowed_origins=("https://app.example",))
    client = TestClient(create_app(settings), base_url="http://127.0.0.1:8000")
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    allowed = client.options("/v1/audio/speech", headers={"origin": "https://app.example", **asked})
    assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, "https://app.example")
    refused = client.options("/v1/audio/speech", headers={"origin": "https://other.example", **asked})
    assert refused.status_code == 400
    assert "access-control-allow-origin" not in refused.headers
