"""Another server that makes images and videos, on a loopback port, and does what a test has written for it.

A script is what it answers to a kind of request: one reply for every time, or a list whose last one is repeated. Kinds
are create, look, content, cancel and delete of `/v1/videos`, and paint and edit of `/v1/images`.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeAlias

SECONDS = 20.0
"""To wait for what has to happen, before a test fails."""


@dataclass(frozen=True)
class Reply:
    """An answer. A `body` that is no bytes is sent as JSON.

    `length` is announced instead of the body's own; below 0 it is sent in chunks, without one. `hang_up` breaks the
    connection where the reply ends. `hold` is waited for before all else, `pause` before the second half of the body.
    """

    body: Any = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None
    hang_up: bool = False
    hold: threading.Event | None = None
    pause: threading.Event | None = None


Script: TypeAlias = "Reply | Sequence[Reply]"


@dataclass(frozen=True)
class Seen:
    """A request that arrived."""

    kind: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def parts(self) -> list[tuple[str, str | None, bytes]]:
        """Name, file name and bytes of every part of a form."""
        header = f"content-type: {self.headers['content-type']}\r\n\r\n".encode()
        message = message_from_bytes(header + self.body, policy=policy.HTTP)
        found: list[tuple[str, str | None, bytes]] = []
        for part in message.iter_parts():
            data = part.get_payload(decode=True)
            assert isinstance(data, bytes)
            found.append((str(part.get_param("name", header="content-disposition")), part.get_filename(), data))
        return found

    @property
    def fields(self) -> dict[str, Any]:
        """What is asked, of a form or of JSON, without files."""
        if self.headers["content-type"] == "application/json":
            asked: dict[str, Any] = json.loads(self.body)
            return asked
        return {name: data.decode() for name, file, data in self.parts if file is None}

    @property
    def files(self) -> dict[str, bytes]:
        return {name: data for name, file, data in self.parts if file is not None}


class ScriptedUpstream:
    """See the module. `seen` are the requests so far, `gone` the kinds of those whose client left before the end."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.gone: list[str] = []
        self.scripts: dict[str, Script] = {}
        self.connections: list[socket.socket] = []
        self._changed = threading.Condition()
        self._over = threading.Event()
        self._port = 0
        self.rise()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    def rise(self) -> None:
        """Listen (again, at the same port)."""
        upstream = self

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def process_request(self, request: Any, client_address: Any) -> None:
                upstream.connections.append(request)
                super().process_request(request, client_address)

            def handle_error(self, request: object, client_address: object) -> None:
                """Clients leave in the middle here."""

        class Handler(_Handler):
            scripted = upstream

        self._server = Server(("127.0.0.1", self._port), Handler)
        self._port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def die(self) -> None:
        """Stop listening, in the middle of whatever it is."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        while self.connections:
            with suppress(OSError):  # the client was faster
                self.connections.pop().shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._over.set()
        self.die()

    def of(self, kind: str) -> list[Seen]:
        """The requests of a kind."""
        return [seen for seen in self.seen if seen.kind == kind]

    @property
    def kinds(self) -> list[str]:
        """What was asked, in order; looks that follow each other are told once."""
        kinds = [seen.kind for seen in self.seen]
        return [kind for place, kind in enumerate(kinds) if kind != "look" or kinds[place - 1 : place] != ["look"]]

    def wait_for(self, kind: str, times: int = 1) -> None:
        """Return when so many requests of a kind have arrived."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.of(kind)) >= times, SECONDS), self.kinds

    def wait_gone(self, kind: str) -> None:
        """Return when the client of such a request has hung up."""
        with self._changed:
            assert self._changed.wait_for(lambda: kind in self.gone, SECONDS), self.gone

    # ------------------------------------------------------------------ called by the handlers' threads

    def take(self, seen: Seen) -> Reply:
        with self._changed:
            script = self.scripts.get(seen.kind, Reply({"detail": "Not Found"}, 404))
            before = len(self.of(seen.kind))
            self.seen.append(seen)
            self._changed.notify_all()
        return script if isinstance(script, Reply) else script[min(before, len(script) - 1)]

    def wait(self, event: threading.Event, connection: socket.socket, kind: str) -> bool:
        """Whether the event came while the client was there."""
        connection.settimeout(0.02)
        while not event.is_set() and not self._over.is_set():
            try:
                if connection.recv(1, socket.MSG_PEEK):
                    event.wait(0.02)
                    continue
            except TimeoutError:
                continue
            except ConnectionError:
                pass
            with self._changed:
                self.gone.append(kind)
                self._changed.notify_all()
            return False
        connection.settimeout(None)
        return event.is_set()


class _Handler(BaseHTTPRequestHandler):
    scripted: ScriptedUpstream
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        kind = _kind(self.command, self.path.partition("?")[0].removeprefix("/v1/").split("/"))
        headers = {name.lower(): value for name, value in self.headers.items()}
        reply = self.scripted.take(Seen(kind, self.path, headers, body))
        if reply.hold is not None and not self.scripted.wait(reply.hold, self.connection, kind):
            self.close_connection = True
            return
        self._send(reply, kind)

    do_POST = do_DELETE = do_GET

    def _send(self, reply: Reply, kind: str) -> None:
        body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        if reply.hang_up and not body:
            self.close_connection = True
            return
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        chunked = reply.length is not None and reply.length < 0
        if chunked:
            self.send_header("transfer-encoding", "chunked")
        else:
            self.send_header("content-length", str(len(body) if reply.length is None else reply.length))
        self.end_headers()
        half = len(body) // 2
        for place, part in enumerate((body[:half], body[half:])):
            if place and reply.pause is not None and not self.scripted.wait(reply.pause, self.connection, kind):
                self.close_connection = True
                return
            if part:
                self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n" if chunked else part)
        if chunked and not reply.hang_up:
            self.wfile.write(b"0\r\n\r\n")
        self.close_connection = self.close_connection or reply.hang_up or reply.length is not None


def _kind(method: str, path: list[str]) -> str:
    match method, path:
        case "POST", ["videos"]:
            return "create"
        case "GET", ["videos", _]:
            return "look"
        case "GET", ["videos", _, "content"]:
            return "content"
        case "POST", ["videos", _, "cancel"]:
            return "cancel"
        case "DELETE", ["videos", _]:
            return "delete"
        case "POST", ["images", "generations"]:
            return "paint"
        case "POST", ["images", "edits"]:
            return "edit"
    return "/".join(path)


@contextmanager
def scripted_upstream(**scripts: Script) -> Iterator[ScriptedUpstream]:
    """A server with these scripts."""
    upstream = ScriptedUpstream()
    upstream.scripts |= scripts
    try:
        yield upstream
    finally:
        upstream.close()
