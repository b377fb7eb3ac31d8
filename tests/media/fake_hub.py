"""A model hub on loopback that speaks as much of the hub's API as getting a repository takes."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "a-token-that-opens-it"


@dataclass
class FakeHub:
    """`repositories`: id -> path -> content. `served` are the paths of files whose content was asked for."""

    url: str
    repositories: dict[str, dict[str, bytes]]
    private: frozenset[str] = frozenset()
    gated: frozenset[str] = frozenset()
    silent: frozenset[str] = frozenset()
    """Repositories about which the hub never says anything."""
    served: list[str] = field(default_factory=list)
    half_way: threading.Event = field(default_factory=threading.Event)
    """Set when half of a file has been sent, and nothing more comes until `going_on` is set."""
    going_on: threading.Event = field(default_factory=threading.Event)


@contextmanager
def fake_hub(repositories: dict[str, dict[str, bytes]], **behaviour: Any) -> Iterator[FakeHub]:
    """A hub as long as the scope lasts. Files do not wait half way unless `going_on` is cleared."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, request: object, client_address: object) -> None:
            """Clients leave in the middle here."""

    server = Server(("127.0.0.1", 0), Handler)
    hub = FakeHub(f"http://127.0.0.1:{server.server_address[1]}", repositories, **behaviour)
    hub.going_on.set()
    Handler.hub = hub
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        hub.going_on.set()
        server.shutdown()
        server.server_close()
        thread.join()


class Handler(BaseHTTPRequestHandler):
    """GET /api/models/ID[/revision/R], GET /api/models/ID/tree/R, HEAD and GET /ID/resolve/R/PATH."""

    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = urlsplit(self.path).path.strip("/").split("/")
        is_api = parts[:2] == ["api", "models"]
        owner, name, *rest = parts[2:] if is_api else parts
        repository = f"{owner}/{name}"
        if repository in self.hub.silent:
            self.hub.going_on.clear()
            self.hub.going_on.wait(60)
            return
        files = self.hub.repositories.get(repository)
        authorized = self.headers.get("authorization") == f"Bearer {TOKEN}"
        if files is None or (repository in self.hub.private and not authorized):
            self._refuse(401, "RepoNotFound")
        elif repository in self.hub.gated and not authorized:
            self._refuse(403, "GatedRepo")
        elif not is_api:
            self._file("/".join(rest[2:]), files["/".join(rest[2:])])
        elif rest[:1] == ["tree"]:
            self._json(
                [{"type": "file", "path": path, "size": len(data), "oid": _etag(data)} for path, data in files.items()]
            )
        else:
            siblings = [{"rfilename": path, "size": len(data), "blobId": _etag(data)} for path, data in files.items()]
            self._json({"id": repository, "sha": COMMIT, "siblings": siblings})

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("x-error-code", code)
        self.send_header("content-length", "0")
        self.end_headers()

    def _json(self, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _file(self, path: str, content: bytes) -> None:
        first = int(self.headers.get("range", "bytes=0-")[len("bytes=") :].rstrip("-"))
        self.send_response(206 if first else 200)
        if first:
            self.send_header("content-range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.send_header("content-length", str(len(content) - first))
        self.send_header("etag", f'"{_etag(content)}"')
        self.send_header("x-repo-commit", COMMIT)
        self.send_header("accept-ranges", "bytes")
        self.end_headers()
        if self.command == "HEAD":
            return
        self.hub.served.append(path)
        half = first + (len(content) - first) // 2
        self.wfile.write(content[first:half])
        if not self.hub.going_on.is_set():
            self.hub.half_way.set()
            self.hub.going_on.wait(60)
        self.wfile.write(content[half:])


def _etag(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()
