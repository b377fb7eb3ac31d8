"""Webhook endpoints and deliveries on the wire: what is asked, and what is answered."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from media import webhook_signing as signing
from media.webhook_store import Delivery, DeliveryState, Endpoint

TEST_EVENT = "webhook.test"

EventType = Annotated[str, Meta(max_length=64, pattern=r"^(\*|[a-z0-9_]+(\.[a-z0-9_]+)+|[a-z0-9_]+\.\*)$")]
EventTypes = Annotated[list[EventType], Meta(max_length=100, description="such as image.completed or image.*")]
Name = Annotated[str, Meta(max_length=256, pattern=r"^[^\x00-\x1f\x7f]*$")]
Id = Annotated[str, Meta(max_length=128, pattern=r"^[\w-]*$")]
Limit = Annotated[int, Meta(ge=1, le=100)]


class WebhookEndpointBody(Struct, kw_only=True):
    """An endpoint to be made. No event types means all."""

    url: str
    name: Name = ""
    event_types: EventTypes = []


class WebhookEndpointChanges(Struct, kw_only=True):
    """What is to be another; what is left out stays."""

    url: str | UnsetType = UNSET
    name: Name | UnsetType = UNSET
    event_types: EventTypes | UnsetType = UNSET


class SecretRotation(Struct, kw_only=True):
    """Whether the secret of before goes on signing beside the new one, for receivers that do not know that yet."""

    keep_old_secret_active_for_24_hours: bool = True


class WebhookSecret(Struct):
    """What signs webhooks that are named in requests."""

    object: Literal["webhook_secret"]
    signing_secret: str


class WebhookSample(Struct, kw_only=True):
    """Which type the sample event of a test has."""

    event_type: EventType = TEST_EVENT


class WebhookEndpoint(Struct, kw_only=True):
    """An endpoint. `signing_secret` is told once, when it is made or changed."""

    id: str
    object: Literal["webhook_endpoint"]
    name: str
    url: str
    event_types: list[str]
    created_at: int
    signing_secret_hint: str
    signing_secret: str | UnsetType = UNSET


class WebhookEndpointList(Struct, kw_only=True):
    """A page of endpoints."""

    object: Literal["list"]
    data: list[WebhookEndpoint]
    first_id: str | None
    last_id: str | None
    has_more: bool


class WebhookTestResult(Struct, kw_only=True):
    """What a receiver answered to a test; `success` says that it answered."""

    object: Literal["webhook_endpoint.test"]
    webhook_endpoint_id: str
    event_type: str
    delivery_id: str
    status_code: int
    success: Literal[True]


class WebhookDelivery(Struct, kw_only=True):
    """An event on its way to one receiver. `status_code` and `error` are of the last of its `tries`."""

    id: str
    object: Literal["webhook_delivery"]
    event_id: str
    event_type: str
    job: str | None
    endpoint: str | None
    url: str
    state: DeliveryState
    tries: int
    status_code: int | None
    error: str | None
    created_at: int
    finished_at: int | None
    next_try_at: int | None


class WebhookDeliveryList(Struct, kw_only=True):
    """A page of the log."""

    object: Literal["list"]
    data: list[WebhookDelivery]
    first_id: str | None
    last_id: str | None
    has_more: bool


class EndpointQuery(Struct, kw_only=True):
    """A page of endpoints."""

    limit: Limit = 20
    after: Id = ""


class DeliveryQuery(EndpointQuery, kw_only=True):
    """A page of deliveries, and which."""

    job: Id = ""
    endpoint: Id = ""
    state: Literal["", "pending", "delivered", "failed"] = ""


def endpoint_object(endpoint: Endpoint, *, tell_secret: bool = False) -> WebhookEndpoint:
    return WebhookEndpoint(
        id=endpoint.id,
        object="webhook_endpoint",
        name=endpoint.name,
        url=endpoint.url,
        event_types=endpoint.event_types,
        created_at=int(endpoint.created),
        signing_secret_hint=signing.hint(endpoint.secret),
        signing_secret=endpoint.secret if tell_secret else UNSET,
    )


def delivery_object(delivery: Delivery) -> WebhookDelivery:
    return WebhookDelivery(
        id=delivery.id,
        object="webhook_delivery",
        event_id=delivery.event,
        event_type=delivery.type,
        job=delivery.job or None,
        endpoint=delivery.endpoint,
        url=delivery.url,
        state=delivery.state,
        tries=delivery.tries,
        status_code=delivery.status,
        error=delivery.error,
        created_at=int(delivery.created),
        finished_at=None if delivery.finished is None else int(delivery.finished),
        next_try_at=int(delivery.next_at) if delivery.state == "pending" else None,
    )
