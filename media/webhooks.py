"""Delivers the outbox to its receivers; every API process runs one deliverer.

A delivery happens at least once: the row that says that it did is written after the receiver has answered. Receivers
tell repeats by `webhook-id`. Deliveries to one host are few at a time, so that one that is slow delays its own only.
"""

from __future__ import annotations

import logging
import random
import ssl
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import anyio
import httpcore
from anyio.abc import TaskGroup

from media import webhook_outbox as outbox, webhook_signing as signing
from media.database import Database, DatabaseError
from media.database.opening import secret
from media.errors import ApiError
from media.guarded_network import GuardedNetwork, NotPublic, Resolve, resolve
from media.jobs.events import HOOKS_TOPIC
from media.settings import Settings
from media.webhook_outbox import Due
from media.webhook_urls import check_webhook_url, host_of

logger = logging.getLogger("sonoreel.webhooks")

FIRST_DELAY, LONGEST_DELAY = 5.0, 3600.0
"""Seconds before a failed try is repeated: tripled each time."""
JITTER = 0.2
"""Part of a delay by which it is longer or shorter, so that receivers that come back are not hit all at once."""
MAX_ANSWER = 64 * 1024
"""Bytes of an answer that are read, for its connection to be used again; what they say does not matter."""
SAFETY_SECONDS = 5.0
"""The longest sleep without a look at the outbox: wake-ups may be lost."""
SHORTEST_SECONDS = 0.1
"""The shortest sleep, while another process has what is due."""
DATABASE_RETRY_SECONDS = 1.0
FORGET_EVERY_SECONDS = 3600.0
KEEP_ALIVE_SECONDS = 5.0
GONE = 410


@dataclass(frozen=True, slots=True)
class Terms:
    """How deliveries are made: `seconds` for a try in all, and how many at once, to one host and together.

    `jitter` gives numbers from 0 to 1; `tls` is who is trusted, by default whom the system and certifi trust.
    """

    seconds: float = 10.0
    per_host: int = 4
    at_once: int = 64
    jitter: Callable[[], float] = random.random
    resolve: Resolve = resolve
    tls: ssl.SSLContext | None = None


class _Failure(Exception):
    """A try that failed; the message is what the log says. After a `final` one there is no other."""

    def __init__(self, message: str, status: int | None = None, *, final: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.final = final


def retry_delay(tries: int, jitter: float) -> float:
    """Seconds until the next try, after `tries` of them; `jitter` from 0 to 1."""
    # Beyond these many the power would only overflow.
    delay = min(FIRST_DELAY * 3.0 ** min(tries - 1, 20), LONGEST_DELAY)
    return delay * (1 + JITTER * (2 * jitter - 1))


class WebhookDeliverer:
    """Delivers what is due, until its task is cancelled."""

    def __init__(self, database: Database, settings: Settings, terms: Terms = Terms()) -> None:
        self._database = database
        self._terms = terms
        self._key = settings.webhook_secret
        self._master = ""
        self._network = GuardedNetwork(
            {host.lower() for host in settings.webhook_allowed_hosts},
            terms.resolve,
            anyio.CapacityLimiter(terms.at_once),
        )
        self._in_flight: Counter[str] = Counter()
        self._wake = anyio.Event()

    async def run(self) -> None:
        """Deliver until cancelled; what is under way then is delivered again by whoever comes next."""
        tls = self._terms.tls or await anyio.to_thread.run_sync(httpcore.default_ssl_context)
        pool = httpcore.AsyncConnectionPool(
            tls,
            max_connections=self._terms.at_once,
            keepalive_expiry=KEEP_ALIVE_SECONDS,
            network_backend=self._network,
        )
        async with pool, anyio.create_task_group() as tasks:
            tasks.start_soon(self._listen)
            tasks.start_soon(self._forget)
            while True:
                self._wake = anyio.Event()  # before the look: what comes during it counts
                seconds = await self._start_due(pool, tasks)
                with anyio.move_on_after(seconds):
                    await self._wake.wait()

    async def _listen(self) -> None:
        with self._database.watch(HOOKS_TOPIC) as watch:
            while True:
                await watch.changed()
                self._wake.set()

    async def _forget(self) -> None:
        while True:
            try:
                await self._database.run(outbox.forget_log)
            except DatabaseError as error:
                logger.warning("the old log of webhooks could not be deleted: %s", error)
            await anyio.sleep(FORGET_EVERY_SECONDS)

    async def _start_due(self, pool: httpcore.AsyncConnectionPool, tasks: TaskGroup) -> float:
        """Start what is due; returns how many seconds to sleep if nothing happens."""
        room = self._terms.at_once - self._in_flight.total()
        if room == 0:
            return SAFETY_SECONDS
        try:
            self._master = self._master or await self._database.run(secret, signing.MASTER, signing.new_secret())
            claim = await self._database.run(outbox.claim, room, self._terms.per_host, dict(self._in_flight))
        except DatabaseError as error:
            logger.warning("webhooks wait for the database: %s", error)
            return DATABASE_RETRY_SECONDS
        for due in claim.due:
            self._in_flight[host_of(due.url)] += 1
            tasks.start_soon(self._deliver, pool, due)
        if len(claim.due) == room or claim.next_seconds is None:
            return SAFETY_SECONDS
        return min(max(claim.next_seconds, SHORTEST_SECONDS), SAFETY_SECONDS)

    async def _deliver(self, pool: httpcore.AsyncConnectionPool, due: Due) -> None:
        host = host_of(due.url)
        try:
            await self._try(pool, due)
        except DatabaseError as error:
            logger.warning("webhook %s was tried, which could not be written down: %s", due.id, error)
        finally:
            self._in_flight[host] -= 1
            if not self._in_flight[host]:
                del self._in_flight[host]
            self._wake.set()

    async def _try(self, pool: httpcore.AsyncConnectionPool, due: Due) -> None:
        try:
            status = await self._post(pool, due)
        except _Failure as failure:
            repeated = due.job and not failure.final  # a test says what is, not what becomes of it
            delay = retry_delay(due.tries, self._terms.jitter()) if repeated else None
            given_up = await self._database.run(outbox.failed, due, failure.status, str(failure), delay)
            logger.log(
                logging.WARNING if given_up else logging.INFO,
                "webhook %s failed at try %d%s: %s",
                due.id,
                due.tries,
                " and is given up" if given_up else "",
                failure,
            )
        else:
            await self._database.run(outbox.delivered, due, status)

    async def _post(self, pool: httpcore.AsyncConnectionPool, due: Due) -> int:
        """Send it once; returns the status that acknowledged it. Raises: _Failure."""
        status: int | None = None
        try:
            url, headers, body = self._request(due)
            with anyio.move_on_after(self._terms.seconds):
                async with pool.stream("POST", url, headers=headers, content=body) as response:
                    status = response.status
                    await _read_some(response)
        except NotPublic as refused:
            message = f"{refused} is not a public address (SONOREEL_WEBHOOK_ALLOWED_HOSTS)"
            raise _Failure(message) from None
        except ApiError as refused:
            raise _Failure(refused.message, final=True) from None
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, OSError) as error:
            raise _Failure(f"the receiver could not be reached: {error or type(error).__name__}") from error
        if status is None:
            raise _Failure(f"no answer within {self._terms.seconds:g} s")
        if not 200 <= status < 300:
            hint = ", and redirects are not followed" if 300 <= status < 400 else ""
            raise _Failure(f"the receiver answered {status}{hint}", status, final=status == GONE)
        return status

    def _request(self, due: Due) -> tuple[httpcore.URL, list[tuple[str, str]], bytes]:
        parts = check_webhook_url(due.url, "url")
        url = httpcore.URL(
            scheme=parts.scheme,
            host=parts.hostname or "",
            port=parts.port,
            target=(parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
        )
        body = due.body.encode()
        headers = [
            ("host", parts.netloc),
            ("user-agent", "sonoreel"),
            ("content-type", "application/json"),
            ("content-length", str(len(body))),
            *signing.headers(due.event, due.now, due.body, due.keys or [self._key_of(due.tenant)]),
        ]
        return url, headers, body

    def _key_of(self, tenant: str) -> str:
        """What signs a webhook that a request has named."""
        return self._key or signing.tenant_secret(self._master, tenant)


async def _read_some(response: httpcore.Response) -> None:
    """Read an answer to its end if that is near. Its status has been said, whatever comes of the rest."""
    received = 0
    try:
        async for chunk in response.aiter_stream():
            received += len(chunk)
            if received > MAX_ANSWER:
                return
    except (httpcore.NetworkError, httpcore.ProtocolError):
        return
