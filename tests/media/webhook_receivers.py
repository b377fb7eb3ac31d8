"""Receivers of webhooks on loopback, and databases whose clock a test can move."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest
from anyio.abc import ByteStream, SocketAttribute
from anyio.streams.tls import TLSListener
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from media.database import Database, Notify, Operation, Statement
from media.database.opening import open_database
from media.database.sqlite import SqliteDatabase, wall_clock
from media.jobs import store
from media.jobs.events import HOOKS_TOPIC
from media.jobs.states import Job, NewJob
from media.settings import Settings
from media.webhook_store import Delivery, deliveries
from media.webhooks import Terms, WebhookDeliverer
from tests.databases import AT, fresh_postgres

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
PATIENCE = 20.0
"""Seconds that a test waits for what has to happen."""


def status(code: int, *headers: str) -> bytes:
    """An answer without a body."""
    return "\r\n".join([f"HTTP/1.1 {code} Status", *headers, "content-length: 0", "", ""]).encode()


@dataclass
class Received:
    """A request that a receiver got."""

    path: str
    headers: dict[str, str]
    body: str

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


Answer = bytes | Callable[[ByteStream], Awaitable[None]]


@dataclass
class Receiver:
    """An HTTP server that takes down what it gets, and gives its answers in turn, the last one for ever."""

    port: int
    answers: list[Answer]
    scheme: str = "http"
    received: list[Received] = field(default_factory=list)
    open: int = 0
    most_open: int = 0
    _news: anyio.Event = field(default_factory=anyio.Event)

    def url(self, path: str = "/hook", host: str = "127.0.0.1") -> str:
        return f"{self.scheme}://{host}:{self.port}{path}"

    async def got(self, count: int) -> list[Received]:
        """Wait for that many requests."""
        with anyio.fail_after(PATIENCE):
            while len(self.received) < count:
                await self._news.wait()
        return self.received

    async def serve(self, client: ByteStream) -> None:
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            async with client:
                while True:
                    await self._take(client)
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, ssl.SSLError):
            pass
        finally:
            self.open -= 1

    async def _take(self, client: ByteStream) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            data += await client.receive()
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        while len(body) < int(headers["content-length"]):
            body += await client.receive()
        self.received.append(Received(first.split(" ")[1], headers, body.decode()))
        self._news.set()
        self._news = anyio.Event()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, bytes):
            await client.send(answer)
        else:
            await answer(client)


@asynccontextmanager
async def receiving(*answers: Answer, tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    """A receiver while the context lasts; it answers 200 unless told otherwise."""
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as sockets:
        port = sockets.extra(SocketAttribute.local_port)  # noqa: S610 - not Django's
        receiver = Receiver(port, [*answers] or [OK], "https" if tls else "http")
        listener = TLSListener(sockets, tls, standard_compatible=False) if tls else sockets
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, receiver.serve)
            yield receiver
            tasks.cancel_scope.cancel()


def certificate(host: str, folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """What a server of that name identifies itself with, and what trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / f"{host}.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(private + signed.public_bytes(Encoding.PEM))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(path)
    return server, ssl.create_default_context(cadata=signed.public_bytes(Encoding.PEM).decode())


async def silence(client: ByteStream) -> None:
    """No answer, ever."""
    await anyio.sleep_forever()


@asynccontextmanager
async def delivering(
    database: Database, settings: Settings | None = None, terms: Terms | None = None
) -> AsyncIterator[None]:
    """A deliverer at work while the context lasts. Loopback is allowed unless the settings say otherwise."""
    deliverer = WebhookDeliverer(database, settings or allowing("127.0.0.1"), terms or steady())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(deliverer.run)
        yield
        tasks.cancel_scope.cancel()


def allowing(*hosts: str, secret: str = "") -> Settings:
    return Settings(webhook_allowed_hosts=hosts, webhook_secret=secret)


def steady(**terms: object) -> Terms:
    """Delays are as long as they are on average; every name is this machine's."""
    return Terms(jitter=lambda: 0.5, resolve=lambda host, port: ["127.0.0.1"], **terms)  # type: ignore[arg-type]


async def end_job(database: Database, webhook: str = "", *, tenant: str = "t", kind: str = "image") -> Job:
    """A job that was cancelled, with everything its end writes down."""
    job = NewJob(id=store.new_id(), tenant=tenant, kind=kind, model="m", request={}, webhook=webhook)
    await database.run(store.submit, [job])
    ended = await database.run(store.cancel, tenant, job.id)
    assert ended is not None
    return ended


async def log(database: Database, tenant: str = "t") -> list[Delivery]:
    """Every delivery, oldest first."""
    return (await database.run(deliveries, tenant, 1000) or [])[::-1]


async def until(database: Database, condition: Callable[[list[Delivery]], bool], tenant: str = "t") -> list[Delivery]:
    """The log as soon as the condition holds for it."""
    with anyio.fail_after(PATIENCE):
        while not condition(found := await log(database, tenant)):
            pass
    return found


def all_in(state: str) -> Callable[[list[Delivery]], bool]:
    """Every delivery has come to that state."""
    return lambda found: bool(found) and all(delivery.state == state for delivery in found)


def failed_once(found: list[Delivery]) -> bool:
    """The only delivery has been tried once, and the failure was written down."""
    return found[0].tries == 1 and found[0].error is not None


@dataclass
class Clocked:
    """A database, and its clock, which stands still unless it is moved."""

    database: Database
    now: float = field(default_factory=wall_clock)

    async def advance(self, seconds: float) -> None:
        """Move the clock, and have everybody look who delivers."""
        self.now += seconds
        await self.database.run(_set_clock, self.now if self.database.name == "postgresql" else None)


def _set_clock(now: float | None) -> Operation[None]:
    if now is not None:
        yield Statement(f"{AT} 'SELECT {now!r}::double precision'")
    yield Notify(HOOKS_TOPIC)


@pytest.fixture(params=["sqlite", "postgresql"])
async def clocked(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Clocked]:
    """An empty database of each kind whose clock can be moved."""
    if request.param == "postgresql":
        async with fresh_postgres(request.getfixturevalue("postgres_server")) as url:
            async with open_database(url, "", tmp_path) as database:
                clock = Clocked(database)
                await clock.advance(0.0)
                yield clock
        return
    clock = Clocked(None)  # type: ignore[arg-type]
    clock.database = await SqliteDatabase.connect(tmp_path / "clocked.db", lambda: clock.now)
    yield clock
    await clock.database.close()
