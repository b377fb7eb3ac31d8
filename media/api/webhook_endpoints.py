"""/v1/webhook_endpoints and /v1/webhook_deliveries: where a key's events go, and what became of them.

The endpoints are OpenAI's resource, as its SDK calls it; the log and the replay are this server's own.
"""

from __future__ import annotations

from typing import Any, TypeVar

import anyio
import msgspec
from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from media import webhook_signing as signing, webhook_store as store
from media.access import tenant_of
from media.database.opening import secret
from media.dialects.frames import field_of
from media.errors import ApiError
from media.openapi import Operation
from media.services import services_of
from media.webhook_objects import (
    DeliveryQuery,
    EndpointQuery,
    SecretRotation,
    WebhookDelivery,
    WebhookDeliveryList,
    WebhookEndpoint,
    WebhookEndpointBody,
    WebhookEndpointChanges,
    WebhookEndpointList,
    WebhookSample,
    WebhookSecret,
    WebhookTestResult,
    delivery_object,
    endpoint_object,
)
from media.webhook_outbox import hook_topic
from media.webhook_urls import check_webhook_url

MAX_ENDPOINTS = 100
TEST_SECONDS = 15.0
"""How long the sender of a test waits for its answer: longer than a try may take."""
SAFETY_SECONDS = 2.0
"""Between two looks although nothing was heard: a wake-up may be lost with its connection."""

T = TypeVar("T")


async def create(request: Request) -> Response:
    """Make an endpoint; the answer holds its secret."""
    body = await _body(request, WebhookEndpointBody)
    check_webhook_url(body.url, "url")
    database, tenant = services_of(request).database, tenant_of(request)
    there = await database.run(store.endpoints, tenant, MAX_ENDPOINTS)
    if there is not None and len(there) == MAX_ENDPOINTS:
        raise ApiError(400, "invalid_value", f"there are {MAX_ENDPOINTS} endpoints already, which is the limit")
    key = signing.new_secret()
    made = await database.run(store.create_endpoint, tenant, body.name, body.url, body.event_types, key)
    return _json(endpoint_object(made, tell_secret=True))


async def retrieve(request: Request) -> Response:
    """One endpoint."""
    return _json(endpoint_object(await _existing(request)))


async def list_endpoints(request: Request) -> Response:
    """A page of this key's endpoints, newest first."""
    query = _query(request, EndpointQuery)
    found = await services_of(request).database.run(store.endpoints, tenant_of(request), query.limit + 1, query.after)
    return _page([endpoint_object(each) for each in _after(found, query.after)], query.limit)


async def update(request: Request) -> Response:
    """Change an endpoint. What waits for delivery goes to its new URL too."""
    body = await _body(request, WebhookEndpointChanges)
    if body.url is not UNSET:
        check_webhook_url(body.url, "url")
    id = _id(request)
    changes: dict[str, Any] = {
        name: value for name, value in msgspec.structs.asdict(body).items() if value is not UNSET
    }
    changed = await services_of(request).database.run(store.update_endpoint, tenant_of(request), id, **changes)
    return _json(endpoint_object(_found(changed, request)))


async def delete(request: Request) -> Response:
    """Forget an endpoint, and what waits to be delivered to it."""
    id = _id(request)
    if not await services_of(request).database.run(store.delete_endpoint, tenant_of(request), id):
        raise _missing(request)
    return JSONResponse({"id": id, "object": "webhook_endpoint.deleted", "deleted": True})


async def rotate_secret(request: Request) -> Response:
    """Give an endpoint another secret; the answer holds it."""
    body = await _body(request, SecretRotation)
    rotated = await services_of(request).database.run(
        store.rotate,
        tenant_of(request),
        _id(request),
        signing.new_secret(),
        keep_previous=body.keep_old_secret_active_for_24_hours,
    )
    return _json(endpoint_object(_found(rotated, request), tell_secret=True))


async def test(request: Request) -> Response:
    """Send an endpoint a sample event, once; answers with the status that its receiver answered with."""
    body = await _body(request, WebhookSample)
    endpoint = await _existing(request)
    id = await services_of(request).database.run(store.queue_test, tenant_of(request), endpoint, body.event_type)
    tried = await _tried(request, id)
    if tried is None or tried.status is None:
        message = (tried and tried.error) or f"nothing was answered within {TEST_SECONDS:g} s"
        raise ApiError(400, "url_unreachable", message, param="url")
    result = WebhookTestResult(
        object="webhook_endpoint.test",
        webhook_endpoint_id=endpoint.id,
        event_type=body.event_type,
        delivery_id=id,
        status_code=tried.status,
        success=True,
    )
    return _json(result)


async def _tried(request: Request, id: str) -> store.Delivery | None:
    """A test's delivery when it has been tried, by whichever process; None if nobody does, or it is gone."""
    database, tenant = services_of(request).database, tenant_of(request)
    with database.watch(hook_topic(id)) as watch, anyio.move_on_after(TEST_SECONDS):
        while True:
            await watch.changed(SAFETY_SECONDS)
            found = await database.run(store.delivery, tenant, id)
            if found is None or found.state != "pending":
                return found
    return None


async def list_deliveries(request: Request) -> Response:
    """A page of this key's deliveries, newest first."""
    query = _query(request, DeliveryQuery)
    found = await services_of(request).database.run(
        store.deliveries,
        tenant_of(request),
        query.limit + 1,
        query.after,
        job=query.job,
        endpoint=query.endpoint,
        state=query.state,
    )
    return _page([delivery_object(each) for each in _after(found, query.after)], query.limit)


async def replay(request: Request) -> Response:
    """Deliver an event again: at once if it waits for its next try, else as another delivery of the same event."""
    replayed = await services_of(request).database.run(store.replay, tenant_of(request), _id(request))
    if replayed is None:
        message = f"there is no delivery {request.path_params['id']!r}, or its endpoint was deleted"
        raise ApiError(404, "not_found", message, param="id")
    return _json(delivery_object(replayed))


def _page(data: list[Any], limit: int) -> Response:
    page = data[:limit]
    return _json(
        {
            "object": "list",
            "data": page,
            "first_id": page[0].id if page else None,
            "last_id": page[-1].id if page else None,
            "has_more": len(data) > limit,
        }
    )


def _json(value: object) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")


async def _body(request: Request, kind: type[T]) -> T:
    """The body, `{}` if there is none. Raises: ApiError 400 that names the field."""
    try:
        return msgspec.json.decode(await request.body() or b"{}", type=kind)
    except msgspec.ValidationError as error:
        raise ApiError(400, "invalid_value", str(error), param=_field(error)) from error
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ApiError(400, "invalid_json", f"the body is not valid JSON: {error}") from error


def _field(error: msgspec.ValidationError) -> str | None:
    """The field that is wrong, or missing: msgspec says the latter of the object around it."""
    missing = str(error).partition("missing required field `")[2].partition("`")[0]
    return field_of(error) or missing or None


def _query(request: Request, kind: type[T]) -> T:
    try:
        return msgspec.convert(dict(request.query_params), kind, strict=False)
    except msgspec.ValidationError as error:
        raise ApiError(400, "invalid_value", str(error), param=field_of(error)) from error


def _after(found: list[T] | None, after: str) -> list[T]:
    if found is None:
        raise ApiError(400, "invalid_value", f"there is nothing {after!r} to go on after", param="after")
    return found


def _id(request: Request) -> str:
    """The id of the path. Raises: ApiError 404 for one that no row can have: databases refuse some characters."""
    id: str = request.path_params["id"]
    if not id.isascii() or not id.isprintable():
        raise _missing(request)
    return id


async def tell_secret(request: Request) -> Response:
    """The secret that signs webhooks which this key's requests name."""
    services = services_of(request)
    if services.settings.webhook_secret:
        message = "webhooks named in requests are signed with SONOREEL_WEBHOOK_SECRET: ask who runs this server"
        raise ApiError(404, "not_found", message)
    master = await services.database.run(secret, signing.MASTER, signing.new_secret())
    told = WebhookSecret("webhook_secret", signing.tenant_secret(master, tenant_of(request)))
    return JSONResponse(msgspec.to_builtins(told))


async def _existing(request: Request) -> store.Endpoint:
    found = await services_of(request).database.run(store.endpoint, tenant_of(request), _id(request))
    return _found(found, request)


def _found(endpoint: store.Endpoint | None, request: Request) -> store.Endpoint:
    if endpoint is None:
        raise _missing(request)
    return endpoint


def _missing(request: Request) -> ApiError:
    return ApiError(404, "not_found", f"there is no {request.path_params['id']!r} here", param="id")


routes = [
    Route("/v1/webhook_endpoints", create, methods=["POST"]),
    Route("/v1/webhook_endpoints", list_endpoints, methods=["GET"]),
    Route("/v1/webhook_endpoints/{id}", retrieve, methods=["GET"]),
    Route("/v1/webhook_endpoints/{id}", update, methods=["POST"]),
    Route("/v1/webhook_endpoints/{id}", delete, methods=["DELETE"]),
    Route("/v1/webhook_endpoints/{id}/rotate_secret", rotate_secret, methods=["POST"]),
    Route("/v1/webhook_endpoints/{id}/test", test, methods=["POST"]),
    Route("/v1/webhook_secret", tell_secret, methods=["GET"]),
    Route("/v1/webhook_deliveries", list_deliveries, methods=["GET"]),
    Route("/v1/webhook_deliveries/{id}/replay", replay, methods=["POST"]),
]
ENDPOINT = "/v1/webhook_endpoints/{id}"
operations = [
    Operation("post", "/v1/webhook_endpoints", "Make a webhook endpoint", WebhookEndpointBody, WebhookEndpoint),
    Operation("get", "/v1/webhook_endpoints", "List webhook endpoints", answer=WebhookEndpointList),
    Operation("get", ENDPOINT, "Retrieve a webhook endpoint", answer=WebhookEndpoint),
    Operation("post", ENDPOINT, "Change a webhook endpoint", WebhookEndpointChanges, WebhookEndpoint),
    Operation("delete", ENDPOINT, "Delete a webhook endpoint"),
    Operation("post", f"{ENDPOINT}/rotate_secret", "Give it another secret", SecretRotation, WebhookEndpoint),
    Operation("post", f"{ENDPOINT}/test", "Send it a sample event", WebhookSample, WebhookTestResult),
    Operation("get", "/v1/webhook_secret", "What signs webhooks named in requests", answer=WebhookSecret),
    Operation("get", "/v1/webhook_deliveries", "List deliveries of webhooks", answer=WebhookDeliveryList),
    Operation("post", "/v1/webhook_deliveries/{id}/replay", "Deliver an event again", answer=WebhookDelivery),
]
