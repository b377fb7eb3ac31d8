"""The servers a bench talks to, each a process of its own: Sonoreel with a probe, and the
bare Starlette applications it is held against.

`python -m tests.bench.servers sonoreel|echo|sink` is what the processes run.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from media.app import create_app
from media.server import run
from media.services import Services
from media.settings import load_settings
from models.catalog import Catalog
from tests.bench.probe import PATH, Probe, Readings, cores
from tests.journeys.server_process import ServerProcess

TRANSCRIPTIONS = "/v1/audio/transcriptions"
ENVIRON = {"SONOREEL_MAX_LIVE_SESSIONS": "4096"}


class ProbedServer(ServerProcess):
    """A server process under measurement."""

    async def readings(self) -> Readings:
        """What the probe saw since the last time."""
        return msgspec.json.decode(await anyio.to_thread.run_sync(self._read_probe), type=Readings)

    async def cpu(self, seconds: float) -> float:
        """Cores in use by the API process, over so long."""
        before = await self.readings()
        await anyio.sleep(seconds)
        return cores(before, await self.readings())

    def _read_probe(self) -> bytes:
        address = urlsplit(self.url)
        connection = HTTPConnection(str(address.hostname), address.port, timeout=30)
        try:
            connection.request("GET", PATH)
            return connection.getresponse().read()
        finally:
            connection.close()


@contextmanager
def probed_server(name: str, **environ: str) -> Iterator[ProbedServer]:
    """Start `sonoreel` or `echo`, wait until it is ready, and end it with SIGTERM."""
    with tempfile.TemporaryDirectory(prefix="sonoreel-bench-") as data_dir:
        server = ProbedServer(Path(data_dir), ENVIRON | environ, ("tests.bench.servers", name))
        try:
            server.wait_ready()
            yield server
        finally:
            server.terminate()


def echo_app() -> Starlette:
    """What Starlette alone makes of a WebSocket: every text comes back."""

    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            await websocket.send_text(text)

    async def ready(request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    return Starlette(routes=[WebSocketRoute("/echo", echo), Route("/readyz", ready)])


def sink_app(directory: Path) -> Starlette:
    """What Starlette alone makes of an upload: every byte of the body is in a file."""

    async def sink(request: Request) -> Response:
        path = directory / "body"
        with path.open("wb") as file:
            async for chunk in request.stream():
                file.write(chunk)
        path.unlink()
        return JSONResponse({"text": ""})

    async def ready(request: Request) -> Response:
        directory.mkdir(parents=True, exist_ok=True)
        return JSONResponse({"status": "ok"})

    return Starlette(routes=[Route(TRANSCRIPTIONS, sink, methods=["POST"]), Route("/readyz", ready)])


def main(name: str) -> None:
    """Run one of the servers until SIGTERM."""
    settings = load_settings()
    if name in ("echo", "sink"):
        bare = echo_app() if name == "echo" else sink_app(settings.data_dir)
        run(Probe(bare), Services(settings, Catalog(())))
    else:
        app = create_app(settings)
        run(Probe(app), app.state.services)


if __name__ == "__main__":
    main(sys.argv[1])
