"""Recordings by URL, from a web server that does what web servers do."""

from __future__ import annotations

import contextlib
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.journeys.server_process import ServerProcess
from tests.journeys.upload_server import EARS, LIMIT_MB, _nothing_left, server
from tests.journeys.uploading import (
    form,
    left_behind,
    raw_client,
    running,
    upload,
    wait_for,
)

__all__ = ["_nothing_left", "server"]

pytestmark = pytest.mark.journey


class Website(BaseHTTPRequestHandler):
    """What a URL may lead to."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        target = {
            "/inside": "http://127.0.0.1:1/",
            "/metadata": "http://169.254.169.254/latest/meta-data",
            "/moved": "/script",
            "/file": "file:///etc/passwd",
        }
        if self.path == "/script":
            return self._send(200, b"say one two\n")
        if self.path in target:
            return self._send(302, b"", location=target[self.path])
        if self.path == "/large":
            return self._send(200, bytes(5_000_000))
        if self.path in ("/endless", "/slow"):
            return self._endless(0.0 if self.path == "/endless" else 0.05)
        return self._send(404, b"gone")

    def _send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(body)

    def _endless(self, pause: float) -> None:
        self.send_response(200)
        self.send_header("connection", "close")
        self.end_headers()
        waiting = threading.Event()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(b"say one\n")
            while True:
                self.wfile.write(bytes(1000 if pause else 65_536))
                waiting.wait(pause)

    def log_message(self, *_: object) -> None:
        pass


class _Quiet(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Clients that leave are part of these tests."""


@pytest.fixture(scope="module")
def website() -> Iterator[int]:
    """The port of a web server on loopback, which the server under test may reach as `localhost` only."""
    socketserver.TCPServer.allow_reuse_address = True
    with _Quiet(("127.0.0.1", 0), Website) as site:
        thread = threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield site.server_address[1]
        site.shutdown()
        thread.join()


@pytest.mark.parametrize("page", ["script", "moved"])
def test_a_url_is_as_good_as_a_file(server: ServerProcess, website: int, page: str) -> None:
    answer = upload(server, EARS, ("file", f"http://localhost:{website}/{page}"))
    assert (answer.status, answer.json["text"]) == (200, "one two")
    answer = upload(server, ("file", f"http://localhost:{website}/{page}"), EARS, ("response_format", "text"))
    assert answer.body == b"one two\n"


def inside(host: str) -> str:
    return f"{host} is not a public address: URLs may only name hosts on the internet"


@pytest.mark.parametrize(
    ("url", "status", "code", "message"),
    [
        ("http://127.0.0.1:{port}/script", 400, "url_not_allowed", inside("127.0.0.1")),
        ("http://169.254.169.254/latest/meta-data", 400, "url_not_allowed", inside("169.254.169.254")),
        ("http://[::1]:{port}/script", 400, "url_not_allowed", inside("::1")),
        ("http://0x7f000001:{port}/script", 400, "url_not_allowed", inside("0x7f000001")),
        ("http://localhost:{port}/inside", 400, "url_not_allowed", inside("127.0.0.1")),
        ("http://localhost:{port}/metadata", 400, "url_not_allowed", inside("169.254.169.254")),
        ("http://localhost:{port}/file", 400, "url_not_allowed", "only http and https URLs are pulled"),
        ("http://localhost:{port}/gone", 400, "url_unreachable", "the URL answered 404"),
        (
            "http://localhost:{port}/large",
            413,
            "file_too_large",
            f"the URL holds more than this server takes: {LIMIT_MB} MB (SONOREEL_MAX_UPLOAD_MB)",
        ),
        (
            "http://localhost:{port}/endless",
            413,
            "file_too_large",
            f"the URL holds more than this server takes: {LIMIT_MB} MB (SONOREEL_MAX_UPLOAD_MB)",
        ),
        ("http://localhost:{port}/slow", 400, "url_timeout", "the URL took longer than 2 s (SONOREEL_FETCH_SECONDS)"),
    ],
)
def test_urls_that_are_refused(
    server: ServerProcess, website: int, url: str, status: int, code: str, message: str
) -> None:
    assert upload(server, EARS, ("file", url.format(port=website))).error == (status, code, "file", message)


def test_a_client_that_leaves_while_its_url_is_pulled(server: ServerProcess, website: int) -> None:
    body = form(EARS, ("file", f"http://localhost:{website}/slow"))
    with raw_client(server, len(body)) as client:
        client.send(body)
        wait_for(lambda: running(server) == 1, "the work did not begin")
        assert left_behind(server)
        client.vanish()
    wait_for(lambda: not running(server), "the work goes on for nobody")
