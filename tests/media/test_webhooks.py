"""The outbox reaches its receivers: signed, at least once, and only where it may go."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import anyio
import openai
import pytest
from anyio.abc import ByteStream
from openai.types.webhooks import BatchCancelledWebhookEvent
from standardwebhooks import Webhook, WebhookVerificationError

from media import webhook_outbox as outbox, webhook_store as store
from media.database import Database
from media.database.opening import secret
from media.settings import Settings, SettingsError
from media.webhook_signing import new_secret, tenant_secret
from media.webhooks import Terms, retry_delay
from tests.databases import rows
from tests.media.webhook_receivers import (
    PATIENCE,
    Clocked,
    all_in,
    allowing,
    certificate,
    clocked,
    delivering,
    end_job,
    failed_once,
    receiving,
    silence,
    status,
    steady,
    until,
)

__all__ = ["clocked"]

HOURS = 3600.0


async def test_a_delivery_is_what_both_verifiers_want(database: Database) -> None:
    key = new_secret()
    async with receiving() as receiver, delivering(database, allowing("127.0.0.1", secret=key)):
        job = await end_job(database, receiver.url("/a;b/c?d=e&f#g"), kind="batch")
        (got,) = await receiver.got(1)
        (delivery,) = await until(database, all_in("delivered"))
    assert (got.path, got.headers["content-type"]) == ("/a;b/c?d=e&f", "application/json")
    assert Webhook(key).verify(got.body, got.headers)["data"] == {"id": job.id, "status": "cancelled"}
    with openai.OpenAI(api_key="none", webhook_secret=key) as client:
        client.webhooks.verify_signature(got.body, got.headers)
        event = client.webhooks.unwrap(got.body, got.headers)
    assert isinstance(event, BatchCancelledWebhookEvent)
    assert (event.id, event.data.id) == (got.id, job.id)
    assert (delivery.status, delivery.tries, delivery.error, delivery.event) == (200, 1, None, got.id)


async def test_another_secret_does_not_verify(database: Database) -> None:
    async with receiving() as receiver, delivering(database, allowing("127.0.0.1", secret=new_secret())):
        await end_job(database, receiver.url())
        (got,) = await receiver.got(1)
    with pytest.raises(WebhookVerificationError):
        Webhook(new_secret()).verify(got.body, got.headers)


async def test_without_a_setting_all_processes_sign_with_the_secret_that_one_of_them_made(database: Database) -> None:
    async with receiving() as receiver:
        for count in (1, 2):
            async with delivering(database):
                await end_job(database, receiver.url())
                await receiver.got(count)
    kept = tenant_secret(await database.run(secret, "webhooks", ""), "t")
    for got in receiver.received:
        assert Webhook(kept).verify(got.body, got.headers)["id"] == got.id


@pytest.mark.parametrize("unusable", ["whsec_", "whsec_abc", "a2V5", "whsec_not base64", "secret"])
def test_a_secret_that_receivers_would_read_differently_is_refused(unusable: str) -> None:
    with pytest.raises(SettingsError, match="SONOREEL_WEBHOOK_SECRET"):
        Settings(webhook_secret=unusable).checked()


async def test_endpoints_get_the_types_they_asked_for(database: Database) -> None:
    async with receiving() as receiver, delivering(database):
        for path, types in (("/images", ["image.*"]), ("/exact", ["video.cancelled"]), ("/all", []), ("/no", ["x.y"])):
            await database.run(store.create_endpoint, "t", "", receiver.url(path), types, new_secret())
        await database.run(store.create_endpoint, "other", "", receiver.url("/other"), [], new_secret())
        for kind in ("image", "video"):
            await end_job(database, kind=kind)
        got = await receiver.got(4)
        await until(database, all_in("delivered"))
    assert sorted((each.path, json.loads(each.body)["type"]) for each in got) == [
        ("/all", "image.cancelled"),
        ("/all", "video.cancelled"),
        ("/exact", "video.cancelled"),
        ("/images", "image.cancelled"),
    ]
    assert len({each.id for each in got}) == 2  # an event's id is the same at every receiver


async def test_both_secrets_sign_for_a_day_after_a_rotation(clocked: Clocked) -> None:
    database, first, second = clocked.database, new_secret(), new_secret()
    async with receiving() as receiver, delivering(database):
        made = await database.run(store.create_endpoint, "t", "", receiver.url(), [], first)
        await database.run(store.rotate, "t", made.id, second, keep_previous=True)
        await end_job(database)
        (both,) = await receiver.got(1)
        await clocked.advance(24 * HOURS)
        await end_job(database)
        _, later = await receiver.got(2)
    assert len(both.headers["webhook-signature"].split(" ")) == 2
    for key in (first, second):
        assert Webhook(key).verify(both.body, both.headers)["id"] == both.id
    assert len(later.headers["webhook-signature"].split(" ")) == 1


async def test_a_rotation_that_keeps_nothing_signs_with_the_new_secret_alone(database: Database) -> None:
    first, second = new_secret(), new_secret()
    async with receiving() as receiver, delivering(database):
        made = await database.run(store.create_endpoint, "t", "", receiver.url(), [], first)
        await database.run(store.rotate, "t", made.id, second, keep_previous=False)
        await end_job(database)
        (got,) = await receiver.got(1)
    assert Webhook(second).verify(got.body, got.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(first).verify(got.body, got.headers)


# ---------------------------------------------------------------------- when it is sent again


def test_delays_triple_up_to_an_hour() -> None:
    assert [retry_delay(tries, 0.5) for tries in (1, 2, 3, 4, 5, 6, 7, 8, 10_000)] == [
        5, 15, 45, 135, 405, 1215, 3600, 3600, 3600,
    ]  # fmt: skip
    assert (retry_delay(1, 0.0), retry_delay(1, 1.0)) == (4.0, 6.0)


async def test_a_failed_delivery_is_tried_again_on_the_databases_clock(clocked: Clocked) -> None:
    database = clocked.database
    async with receiving(status(500), status(503), status(204)) as receiver, delivering(database):
        await end_job(database, receiver.url())
        await receiver.got(1)
        (first,) = await until(database, failed_once)
        assert (first.state, first.status, first.error) == ("pending", 500, "the receiver answered 500")
        assert first.next_at - clocked.now == pytest.approx(5.0)
        await clocked.advance(4.9)
        assert (await database.run(outbox.claim, 8, 8, {})).due == []
        await clocked.advance(0.2)
        await receiver.got(2)
        (second,) = await until(database, lambda found: found[0].status == 503)
        assert second.next_at - clocked.now == pytest.approx(15.0)
        await clocked.advance(15.1)
        (last,) = await until(database, all_in("delivered"))
    assert (last.tries, last.status, last.error) == (3, 204, None)
    assert len({got.id for got in receiver.received}) == 1
    stamps = [int(got.headers["webhook-timestamp"]) for got in receiver.received]
    assert stamps[1] - stamps[0] in (5, 6)  # each try is signed for its own time
    assert stamps[2] - stamps[1] in (15, 16)


async def test_after_three_days_a_delivery_is_given_up(clocked: Clocked) -> None:
    database = clocked.database
    async with receiving(status(500), status(501), status(502)) as receiver, delivering(database):
        await end_job(database, receiver.url())
        await until(database, failed_once)
        await clocked.advance(70 * HOURS)
        (late,) = await until(database, lambda found: found[0].status == 501)
        assert late.state == "pending"
        await clocked.advance(2 * HOURS)
        (last,) = await until(database, all_in("failed"))
        await clocked.advance(100 * HOURS)
        await database.run(rows, "SELECT 1 AS one")
    assert (last.tries, last.status) == (3, 502)
    assert last.finished is not None
    assert len(receiver.received) == 3


async def test_gone_is_gone_at_once(database: Database) -> None:
    async with receiving(status(410)) as receiver, delivering(database):
        await end_job(database, receiver.url())
        (delivery,) = await until(database, all_in("failed"))
    assert (delivery.tries, delivery.status) == (1, 410)


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
async def test_a_redirect_is_a_failure_and_not_followed(database: Database, code: int) -> None:
    async with receiving() as elsewhere, receiving(status(code, f"location: {elsewhere.url()}")) as receiver:
        async with delivering(database):
            await end_job(database, receiver.url())
            (delivery,) = await until(database, failed_once)
    assert (delivery.state, delivery.status) == ("pending", code)
    assert elsewhere.received == []


async def test_a_receiver_that_never_answers_fails(database: Database) -> None:
    async with receiving(silence) as receiver, delivering(database, terms=steady(seconds=0.2)):
        await end_job(database, receiver.url())
        (delivery,) = await until(database, failed_once)
    assert (delivery.state, delivery.error) == ("pending", "no answer within 0.2 s")


async def test_a_name_server_that_does_not_answer_is_not_waited_for(database: Database) -> None:
    answered = threading.Event()

    def resolve(host: str, port: int) -> list[str]:
        if host == "silent.test":
            answered.wait(PATIENCE)
        return ["127.0.0.1"]

    terms = Terms(seconds=0.3, resolve=resolve)
    try:
        async with receiving() as receiver, delivering(database, allowing("silent.test", "127.0.0.1"), terms):
            await end_job(database, receiver.url(host="silent.test"))
            (delivery,) = await until(database, failed_once)
            await end_job(database, receiver.url())
            await receiver.got(1)
    finally:
        answered.set()
    assert delivery.error == "no answer within 0.3 s"


@pytest.mark.parametrize("answer", [b"this is not HTTP\r\n\r\n", b"HTTP/1.1 200 OK\r\nx: " + b"y" * 200_000])
async def test_what_is_no_answer_is_a_failure(database: Database, answer: bytes) -> None:
    async with receiving(answer) as receiver, delivering(database, terms=steady(seconds=5.0)):
        await end_job(database, receiver.url())
        (delivery,) = await until(database, failed_once)
    assert (delivery.state, delivery.status) == ("pending", None)


async def test_nobody_listens(database: Database) -> None:
    async with receiving() as receiver:
        url = receiver.url()
    async with delivering(database):
        await end_job(database, url)
        (delivery,) = await until(database, failed_once)
    assert delivery.error is not None
    assert "could not be reached" in delivery.error


async def test_an_endless_answer_is_read_for_64_kb_only(database: Database) -> None:
    sent = 0
    cut = anyio.Event()

    async def endless(client: ByteStream) -> None:
        nonlocal sent
        await client.send(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while True:
                await client.send(b"x" * 8192)
                sent += 8192
        finally:
            cut.set()

    async with receiving(endless) as receiver, delivering(database, terms=steady(seconds=PATIENCE)):
        await end_job(database, receiver.url())
        (delivery,) = await until(database, all_in("delivered"))
        with anyio.fail_after(PATIENCE):
            await cut.wait()
    assert delivery.status == 200
    assert sent < 20_000_000  # what the two sockets' buffers hold, besides


async def test_a_status_counts_though_the_rest_of_the_answer_never_comes(database: Database) -> None:
    async def half(client: ByteStream) -> None:
        await client.send(b"HTTP/1.1 202 Accepted\r\ncontent-length: 10\r\n\r\nhalf")
        await anyio.sleep_forever()

    async with receiving(half) as receiver, delivering(database, terms=steady(seconds=0.3)):
        await end_job(database, receiver.url())
        (delivery,) = await until(database, all_in("delivered"))
    assert delivery.status == 202


# ---------------------------------------------------------------------- where it may go


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "0x7f000001", "2130706433"])
async def test_inside_addresses_are_refused_when_connecting(database: Database, host: str) -> None:
    async with receiving() as receiver, delivering(database, Settings(), Terms()):
        await end_job(database, receiver.url(host=host))
        (delivery,) = await until(database, failed_once)
    assert delivery.error == f"{host.strip('[]')} is not a public address (SONOREEL_WEBHOOK_ALLOWED_HOSTS)"
    assert receiver.received == []


async def test_a_name_that_resolves_inside_is_refused(database: Database) -> None:
    async with receiving() as receiver, delivering(database, allowing("allowed.test")):
        await end_job(database, receiver.url(host="rebinds.test"))
        (delivery,) = await until(database, failed_once)
        await end_job(database, receiver.url(host="Allowed.test"))
        (got,) = await receiver.got(1)
    assert delivery.error is not None
    assert "rebinds.test is not a public address" in delivery.error
    assert got.headers["host"] == f"Allowed.test:{receiver.port}"


async def test_a_url_that_was_never_checked_is_given_up(database: Database) -> None:
    async with delivering(database):
        await end_job(database, "gopher://[")
        (delivery,) = await until(database, all_in("failed"))
    assert delivery.tries == 1


async def test_a_certificate_is_for_the_name_and_not_the_address(database: Database, tmp_path: Path) -> None:
    server, trusted = certificate("secure.test", tmp_path)
    hosts = allowing("secure.test", "impostor.test")
    async with receiving(tls=server) as receiver:
        async with delivering(database, hosts, steady(tls=trusted)):
            await end_job(database, receiver.url(host="secure.test"))
            await until(database, all_in("delivered"))
            await end_job(database, receiver.url(host="impostor.test"))
            _, impostor = await until(database, lambda found: found[-1].error is not None)
        async with delivering(database, hosts):
            await end_job(database, receiver.url(host="secure.test"))
            *_, unknown = await until(database, lambda found: found[-1].error is not None)
    assert "Hostname mismatch" in str(impostor.error)
    assert "certificate verify failed" in str(unknown.error)
    assert len(receiver.received) == 1
