"""Servers and runners on one ledger, with the scripted painter as their model; and who listens to their webhooks."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

from tests.journeys.server_process import ServerProcess

CARD = """
[[card]]
id = "painter"
task = "image"
engine = "tests.fakes"
name = "Painter"
size_multiple = 8
default_size = [64, 64]
default_steps = 5
edits = true
inpaints = true
max_n = 10
concurrency = 2
options = {{ trace = "{trace}" }}
"""
WORKER = ("media.cli", "worker", "--slots", "2")


def painter(folder: Path) -> dict[str, str]:
    """Settings of a server whose only image model is the painter; attempts leave a line each in FOLDER/trace."""
    cards = folder / "cards"
    cards.mkdir(exist_ok=True)
    (cards / "painter.toml").write_text(CARD.format(trace=folder / "trace"))
    return {"SONOREEL_MODELS_DIR": str(cards), "SONOREEL_WARM": "", "SONOREEL_DRAIN_SECONDS": "5"}


def submit(client: httpx.Client, url: str, prompt: str, **body: Any) -> dict[str, Any]:
    """Queue a picture; the job."""
    key = body.pop("key", None)
    headers = {"prefer": "respond-async"} | ({"idempotency-key": key} if key else {})
    answer = client.post(
        f"{url}/v1/images/generations", json={"model": "painter", "prompt": prompt, **body}, headers=headers
    )
    assert answer.status_code == 202, answer.text
    job: dict[str, Any] = answer.json()
    return job


def events(client: httpx.Client, url: str, id: str, **headers: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and job of every event until the stream ends."""
    with client.stream("GET", f"{url}/v1/jobs/{id}/events", headers=headers) as answer:
        name = ""
        for line in answer.iter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                yield name, json.loads(line.removeprefix("data: "))


def until(client: httpx.Client, url: str, id: str, *states: str, attempt: int = 0) -> dict[str, Any]:
    """The job as soon as it is in one of the states, at that attempt or a later one."""
    for _, job in events(client, url, id):
        if job["status"] in states and job["attempt"] >= attempt:
            return job
    raise AssertionError(f"the job never was {states}")


class Receiver:
    """Counts webhooks by event id and remembers their bodies."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.counts: Counter[str] = Counter()
        self.jobs: dict[str, set[str]] = {}
        self._changed = threading.Condition()

    def take(self, event: str, body: dict[str, Any]) -> None:
        with self._changed:
            self.counts[event] += 1
            self.jobs.setdefault(body["data"]["id"], set()).add(event)
            self._changed.notify_all()

    def wait_for(self, jobs: int, seconds: float) -> bool:
        """Whether so many jobs were heard of in time."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self.jobs) >= jobs, seconds)


@contextmanager
def receiving_webhooks() -> Iterator[Receiver]:
    """A receiver on a loopback port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            receiver.take(self.headers["webhook-id"], body)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver = Receiver(f"http://127.0.0.1:{server.server_port}/hook")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def processes(
    data_dir: Path, environ: dict[str, str], *, servers: int, workers: int
) -> Iterator[tuple[list[ServerProcess], list[ServerProcess]]]:
    """Ready servers that run no jobs themselves, and workers beside them, on one ledger."""
    serving = [ServerProcess(data_dir, environ | {"SONOREEL_RUN_JOBS": "false"}) for _ in range(servers)]
    working = [ServerProcess(data_dir, environ, WORKER) for _ in range(workers)]
    try:
        for server in serving:
            server.wait_ready()
        yield serving, working
    finally:
        for process in (*working, *serving):
            process.terminate()
