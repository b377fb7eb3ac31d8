"""/v1/webhook_endpoints and /v1/webhook_deliveries, as OpenAI's SDK and as everybody else calls them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest
from openai.types.webhooks import WebhookEndpointWithSecret
from standardwebhooks import Webhook
from starlette.applications import Starlette
from starlette.middleware import Middleware

from media import webhook_store as store
from media.access import AccessMiddleware, tenant_name
from media.api import webhook_endpoints
from media.database import Database
from media.errors import ApiError, handle_error
from media.openapi import document
from media.services import Services
from media.settings import Settings
from media.webhook_urls import check_webhook_url
from models.catalog import Catalog
from tests.media.webhook_receivers import all_in, delivering, end_job, failed_once, receiving, status, until

URL = "https://receiver.example/hook"
KEYS = ("alice", "bob")


@pytest.fixture
def app(database: Database) -> Starlette:
    """The resource alone, on a real database, for two keys."""
    settings = Settings(api_keys=KEYS)
    services = Services(settings, Catalog([]))
    services.start(None, database, None)  # type: ignore[arg-type]
    app = Starlette(
        routes=webhook_endpoints.routes,
        middleware=[Middleware(AccessMiddleware, settings=settings)],
        exception_handlers={ApiError: handle_error},
    )
    app.state.services = services
    return app


def client(app: Starlette, key: str) -> httpx.AsyncClient:
    headers = {"authorization": f"Bearer {key}"}
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server.test/v1", headers=headers)


@pytest.fixture
async def alice(app: Starlette) -> AsyncIterator[httpx.AsyncClient]:
    async with client(app, "alice") as alice:
        yield alice


@pytest.fixture
async def bob(app: Starlette) -> AsyncIterator[httpx.AsyncClient]:
    async with client(app, "bob") as bob:
        yield bob


@pytest.fixture
async def sdk(app: Starlette) -> AsyncIterator[openai.AsyncOpenAI]:
    """OpenAI's own client as alice, in this process."""
    # The SDK brings its own copy of httpx.
    http = openai.DefaultAsyncHttpxClient(transport=_transport(app))
    async with openai.AsyncOpenAI(api_key="alice", base_url="http://server.test/v1", http_client=http) as sdk:
        yield sdk


def _transport(app: Starlette) -> Any:
    import httpx2

    return httpx2.ASGITransport(app)


async def made(client: httpx.AsyncClient, **body: object) -> dict[str, Any]:
    answer = await client.post("/webhook_endpoints", json={"url": URL, **body})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def tenant(key: str) -> str:
    return tenant_name(key)


# ---------------------------------------------------------------------- endpoints


async def test_openais_sdk_manages_endpoints(sdk: openai.AsyncOpenAI) -> None:
    created = await sdk.webhooks.create(name="mine", url=URL, event_types=["batch.completed"])
    assert isinstance(created, WebhookEndpointWithSecret)
    assert created.signing_secret.startswith("whsec_")
    assert (created.name, created.url, created.event_types) == ("mine", URL, ["batch.completed"])

    found = await sdk.webhooks.retrieve(created.id)
    assert (found.object, found.name, found.created_at) == ("webhook_endpoint", "mine", created.created_at)
    assert found.signing_secret_hint is not None
    assert found.signing_secret_hint[-4:] in created.signing_secret
    assert not hasattr(found, "signing_secret")

    changed = await sdk.webhooks.update(created.id, name="ours")
    assert (changed.name, changed.url, changed.event_types) == ("ours", URL, ["batch.completed"])

    rotated = await sdk.webhooks.rotate_secret(created.id, keep_old_secret_active_for_24_hours=True)
    assert rotated.signing_secret != created.signing_secret

    gone = await sdk.webhooks.delete(created.id)
    assert (gone.id, gone.deleted, gone.object) == (created.id, True, "webhook_endpoint.deleted")
    with pytest.raises(openai.NotFoundError):
        await sdk.webhooks.retrieve(created.id)


async def test_openais_sdk_pages_through_endpoints(sdk: openai.AsyncOpenAI) -> None:
    names = [f"endpoint {number}" for number in range(5)]
    for name in names:
        await sdk.webhooks.create(name=name, url=URL, event_types=["video.completed"])
    assert [each.name async for each in sdk.webhooks.list(limit=2)] == names[::-1]


async def test_openais_sdk_tests_an_endpoint(sdk: openai.AsyncOpenAI, database: Database) -> None:
    async with receiving(status(418)) as receiver, delivering(database):
        created = await sdk.webhooks.create(name="", url=receiver.url(), event_types=["video.failed"])
        result = await sdk.webhooks.test(created.id, event_type="batch.completed")
        (got,) = receiver.received
    assert (result.status_code, result.success, result.event_type) == (418, True, "batch.completed")
    assert result.webhook_endpoint_id == created.id
    event = sdk.webhooks.unwrap(got.body, got.headers, secret=created.signing_secret)
    assert (event.type, event.id) == ("batch.completed", got.id)


async def test_a_test_is_sent_once_whatever_becomes_of_it(alice: httpx.AsyncClient, database: Database) -> None:
    async with receiving(status(500)) as receiver, delivering(database):
        endpoint = await made(alice, url=receiver.url())
        answer = await alice.post(f"/webhook_endpoints/{endpoint['id']}/test")
        log = (await alice.get("/webhook_deliveries")).json()["data"]
    assert answer.json()["status_code"] == 500
    assert [(each["event_type"], each["state"], each["tries"], each["job"]) for each in log] == [
        ("webhook.test", "failed", 1, None)
    ]


async def test_a_test_of_an_endpoint_that_cannot_be_reached_says_why(
    alice: httpx.AsyncClient, database: Database
) -> None:
    async with delivering(database, Settings()):
        endpoint = await made(alice, url="http://inside.test/hook")
        answer = await alice.post(f"/webhook_endpoints/{endpoint['id']}/test", json={})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == ("url_unreachable", "url")
    assert "inside.test is not a public address" in error["message"]


async def test_a_test_that_nobody_delivers_is_not_waited_for_for_ever(
    alice: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_endpoints, "TEST_SECONDS", 0.05)
    endpoint = await made(alice)
    answer = await alice.post(f"/webhook_endpoints/{endpoint['id']}/test")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "url_unreachable")


async def test_what_is_left_out_of_an_update_stays(alice: httpx.AsyncClient) -> None:
    endpoint = await made(alice, name="first", event_types=["image.*", "video.completed"])
    path = f"/webhook_endpoints/{endpoint['id']}"
    assert (await alice.post(path, json={"url": "http://10.0.0.1/later"})).json()["name"] == "first"
    assert (await alice.post(path, json={"event_types": []})).json()["event_types"] == []
    found = (await alice.get(path)).json()
    assert (found["name"], found["url"], found["event_types"]) == ("first", "http://10.0.0.1/later", [])
    assert "signing_secret" not in found


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "url"),
        ({"url": 5}, "url"),
        ({"url": "ftp://receiver.example/"}, "url"),
        ({"url": ""}, "url"),
        ({"url": "https://receiver.example/" + "x" * 3000}, "url"),
        ({"url": URL, "name": "x" * 300}, "name"),
        ({"url": URL, "name": "a\x00b"}, "name"),
        ({"url": URL, "event_types": "image.*"}, "event_types"),
        ({"url": URL, "event_types": ["image.completed", "no type"]}, "event_types[1]"),
        ({"url": URL, "event_types": ["image.**"]}, "event_types[0]"),
    ],
)
async def test_what_is_wrong_is_named(alice: httpx.AsyncClient, body: dict[str, Any], param: str) -> None:
    answer = await alice.post("/webhook_endpoints", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert (await alice.get("/webhook_endpoints")).json()["data"] == []


async def test_an_update_is_checked_like_a_new_endpoint(alice: httpx.AsyncClient) -> None:
    endpoint = await made(alice)
    for body, param in (({"url": "file:///etc/passwd"}, "url"), ({"name": 1}, "name")):
        answer = await alice.post(f"/webhook_endpoints/{endpoint['id']}", json=body)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert (await alice.get(f"/webhook_endpoints/{endpoint['id']}")).json()["url"] == URL


@pytest.mark.parametrize("body", [b"{", b"\xff", b'{"x":' + b"[" * 100_000])
async def test_what_is_no_json_is_refused(alice: httpx.AsyncClient, body: bytes) -> None:
    answer = await alice.post("/webhook_endpoints", content=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_json")


async def test_endpoints_are_limited(alice: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_endpoints, "MAX_ENDPOINTS", 2)
    await made(alice)
    await made(alice)
    answer = await alice.post("/webhook_endpoints", json={"url": URL})
    assert (answer.status_code, "limit" in answer.json()["error"]["message"]) == (400, True)


# ---------------------------------------------------------------------- whose they are


async def test_another_keys_endpoints_are_not_there(
    alice: httpx.AsyncClient, bob: httpx.AsyncClient, database: Database
) -> None:
    endpoint = await made(alice)
    path = f"/webhook_endpoints/{endpoint['id']}"
    answers = [
        await bob.get(path),
        await bob.post(path, json={"name": "mine now"}),
        await bob.post(f"{path}/rotate_secret"),
        await bob.post(f"{path}/test"),
        await bob.delete(path),
    ]
    assert [answer.status_code for answer in answers] == [404] * 5
    assert {answer.json()["error"]["code"] for answer in answers} == {"not_found"}
    assert (await bob.get("/webhook_endpoints")).json()["data"] == []
    assert (await bob.get("/webhook_endpoints", params={"after": endpoint["id"]})).status_code == 400
    kept = await database.run(store.endpoint, tenant("alice"), endpoint["id"])
    assert kept is not None
    assert (kept.name, kept.secret) == ("", endpoint["signing_secret"])


async def test_another_keys_deliveries_are_not_there(
    alice: httpx.AsyncClient, bob: httpx.AsyncClient, database: Database
) -> None:
    await end_job(database, URL, tenant=tenant("alice"))
    (delivery,) = (await alice.get("/webhook_deliveries")).json()["data"]
    assert (await bob.get("/webhook_deliveries")).json()["data"] == []
    assert (await bob.post(f"/webhook_deliveries/{delivery['id']}/replay")).status_code == 404
    assert (await bob.get("/webhook_deliveries", params={"after": delivery["id"]})).status_code == 400


@pytest.mark.parametrize("id", ["we_missing", "%00", "%C3%BC", "x" * 1000, "we_%0A"])
async def test_an_id_that_cannot_be_is_not_found(alice: httpx.AsyncClient, id: str) -> None:
    assert (await alice.get(f"/webhook_endpoints/{id}")).status_code == 404
    assert (await alice.delete(f"/webhook_endpoints/{id}")).status_code == 404
    assert (await alice.post(f"/webhook_deliveries/{id}/replay")).status_code == 404


# ---------------------------------------------------------------------- the log


async def test_the_log_is_paged_and_filtered(alice: httpx.AsyncClient, database: Database) -> None:
    async with receiving() as good, receiving(status(410)) as gone, delivering(database):
        endpoint = await made(alice, url=gone.url(), event_types=["video.*"])
        images = [await end_job(database, good.url(), tenant=tenant("alice")) for _ in range(3)]
        video = await end_job(database, tenant=tenant("alice"), kind="video")
        await until(database, lambda found: [each.state for each in found].count("pending") == 0, tenant("alice"))

    async def log(**query: str) -> list[dict[str, Any]]:
        answer = await alice.get("/webhook_deliveries", params=query)
        found: list[dict[str, Any]] = answer.json()["data"]
        return found

    assert [each["job"] for each in await log()] == [video.id, *(job.id for job in images[::-1])]
    assert [each["job"] for each in await log(state="failed")] == [video.id]
    assert [each["job"] for each in await log(endpoint=endpoint["id"])] == [video.id]
    assert [each["job"] for each in await log(job=images[1].id)] == [images[1].id]
    assert await log(job=images[1].id, state="failed") == []
    first = await alice.get("/webhook_deliveries", params={"limit": 3})
    assert (first.json()["has_more"], first.json()["last_id"]) == (True, first.json()["data"][-1]["id"])
    rest = await alice.get("/webhook_deliveries", params={"limit": 3, "after": first.json()["last_id"]})
    assert ([each["job"] for each in rest.json()["data"]], rest.json()["has_more"]) == ([images[0].id], False)
    (failed,) = await log(state="failed")
    assert (failed["status_code"], failed["endpoint"], failed["next_try_at"]) == (410, endpoint["id"], None)


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "many"}, "limit"),
        ({"state": "lost"}, "state"),
        ({"job": "a\x00"}, "job"),
        ({"after": "whd_unknown"}, "after"),
    ],
)
async def test_a_wrong_query_is_named(alice: httpx.AsyncClient, query: dict[str, str], param: str) -> None:
    answer = await alice.get("/webhook_deliveries", params=query)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


async def test_a_replay_is_answered_with_what_is_delivered(alice: httpx.AsyncClient, database: Database) -> None:
    async with receiving(status(410), status(200)) as receiver, delivering(database):
        await made(alice, url=receiver.url())
        await end_job(database, tenant=tenant("alice"))
        (failed,) = await until(database, all_in("failed"), tenant("alice"))
        answer = await alice.post(f"/webhook_deliveries/{failed.id}/replay")
        first, second = await receiver.got(2)
    assert answer.status_code == 200
    assert (answer.json()["event_id"], answer.json()["state"]) == (failed.event, "pending")
    assert first.id == second.id


async def test_a_rotation_keeps_the_old_secret_unless_told_otherwise(
    alice: httpx.AsyncClient, database: Database
) -> None:
    async with receiving() as receiver, delivering(database):
        endpoint = await made(alice, url=receiver.url())
        path = f"/webhook_endpoints/{endpoint['id']}"
        kept = (await alice.post(f"{path}/rotate_secret")).json()
        await alice.post(f"{path}/test")
        at_once = (
            await alice.post(f"{path}/rotate_secret", json={"keep_old_secret_active_for_24_hours": False})
        ).json()
        await alice.post(f"{path}/test")
        first, second = await receiver.got(2)
    for secret in (endpoint["signing_secret"], kept["signing_secret"]):
        assert Webhook(secret).verify(first.body, first.headers)
    assert Webhook(at_once["signing_secret"]).verify(second.body, second.headers)
    assert len(second.headers["webhook-signature"].split(" ")) == 1


async def test_deleting_an_endpoint_drops_what_waits_for_it(alice: httpx.AsyncClient, database: Database) -> None:
    async with receiving(status(500)) as receiver, delivering(database):
        endpoint = await made(alice, url=receiver.url())
        await end_job(database, tenant=tenant("alice"))
        await until(database, failed_once, tenant("alice"))
        assert (await alice.delete(f"/webhook_endpoints/{endpoint['id']}")).json()["deleted"] is True
    assert (await alice.get("/webhook_deliveries")).json()["data"] == []


# ---------------------------------------------------------------------- URLs


@pytest.mark.parametrize(
    "url",
    [
        "https://receiver.example/hook?a=b&c=%20",
        "http://receiver:8080",
        "HTTP://Receiver.Example./",
        "http://127.0.0.1:9000/",
        "http://[::1]:9000/",
        "http://my_receiver/",
        "https://xn--mnchen-3ya.example/",
    ],
)
def test_urls_that_may_be_given(url: str) -> None:
    assert check_webhook_url(url, "webhook").hostname


@pytest.mark.parametrize(
    "url",
    [
        "",
        "receiver.example/hook",
        "//receiver.example/hook",
        "ftp://receiver.example/",
        "javascript:alert(1)",
        "http://",
        "http:///path",
        "http://:80/",
        "http://receiver.example:99999/",
        "http://receiver.example:x/",
        "http://receiver.example:0/",
        "http://user:password@receiver.example/",
        "http://user@receiver.example/",
        "http://a..b/",
        f"http://{'a' * 64}.example/",
        "http://receiver.example/a b",
        "http://receiver.example/\r\nx: y",
        "http://receiver.example/\x00",
        "http://münchen.example/",
        "http://[::1",
        "http://[::1%25eth0]/",
        "http://[fe80::1%eth0]/",
        "http://[nonsense]/",
        "http://receiver.example\\@10.0.0.1/",
        "https://receiver.example/" + "x" * 2048,
    ],
)
def test_urls_that_may_not_be_given(url: str) -> None:
    with pytest.raises(ApiError) as refused:
        check_webhook_url(url, "webhook")
    assert (refused.value.status, refused.value.param) == (400, "webhook")


def test_every_route_is_in_the_openapi_document() -> None:
    described = document(webhook_endpoints.operations)["paths"]
    served = {(route.path, method.lower()) for route in webhook_endpoints.routes for method in route.methods or ()}
    assert {(path, method) for path, methods in described.items() for method in methods} == {
        (path, method) for path, method in served if method != "head"
    }
