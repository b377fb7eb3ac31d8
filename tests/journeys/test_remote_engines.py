"""One server whose models another server runs: what comes through, and what of its life and death is felt."""

from __future__ import annotations

import base64
import io
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.fakes import square
from tests.journeys.filming import decoded, film, filmer
from tests.journeys.painting import events, painter, submit, until
from tests.journeys.server_process import ServerProcess, running_server

pytestmark = [pytest.mark.journey, pytest.mark.timeout(120)]

CARDS = """
[[card]]
id = "painter"
task = "image"
engine = "remote"
name = "Painter elsewhere"
size_multiple = 8
default_size = [64, 64]
default_steps = 5
edits = true
inpaints = true
max_n = 10
concurrency = 4
cancel_grace = 10.0
options = {{ base_url = "{url}/v1", style = "{style}", patience = {patience} }}

[[card]]
id = "filmer"
task = "video"
engine = "remote"
name = "Filmer elsewhere"
size_multiple = 16
default_size = [64, 48]
frame_multiple = 4
frame_remainder = 1
min_frames = 5
default_frames = 9
max_frames = 81
default_fps = 8
default_steps = 4
frame_images = ["first", "last"]
max_reference_images = 1
concurrency = 4
cancel_grace = 10.0
options = {{ base_url = "{url}", style = "{style}", patience = {patience} }}
"""
SECONDS = 60.0


class Pair(NamedTuple):
    """The server that is asked, and the one that does the work."""

    outer: ServerProcess
    inner: ServerProcess


class Inner:
    """The server that does the work, which may be killed and come back at its address."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data_dir = folder / "inner-data"
        self._environ = painter(folder) | filmer(folder) | {"SONOREEL_JOB_LEASE_SECONDS": "2"}
        self.server = ServerProcess(self.data_dir, self._environ)

    @cached_property
    def url(self) -> str:
        """Where it was when it was first asked for, and stays."""
        return self.server.url

    def kill(self, *, forget: bool) -> None:
        """kill -9; to `forget`, it loses its data too."""
        self.server.process.send_signal(signal.SIGKILL)
        self.server.process.wait()
        self.server.terminate()
        if forget:
            shutil.rmtree(self.data_dir)

    def start(self) -> None:
        port = self.url.rpartition(":")[2]
        self.server = ServerProcess(self.data_dir, self._environ | {"SONOREEL_PORT": port})
        self.server.wait_ready()

    @property
    def attempts(self) -> list[str]:
        """The prompts of all attempts so far."""
        trace = self.folder / "trace"
        return trace.read_text().splitlines() if trace.exists() else []


def outer_settings(folder: Path, url: str, *, style: str = "sonoreel", patience: float = 30.0) -> dict[str, str]:
    cards = folder / "outer-cards"
    cards.mkdir(exist_ok=True)
    (cards / "remote.toml").write_text(CARDS.format(url=url, style=style, patience=patience))
    return {"SONOREEL_MODELS_DIR": str(cards), "SONOREEL_WARM": "", "SONOREEL_DRAIN_SECONDS": "5"}


@pytest.fixture(scope="module", params=["sonoreel", "any"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Both, told which style it is, and not."""
    folder = tmp_path_factory.mktemp("remote")
    settings = painter(folder) | filmer(folder)
    with running_server(folder / "inner-data", **settings) as inner:
        with running_server(folder / "data", **outer_settings(folder, inner.url, style=request.param)) as outer:
            yield Pair(outer, inner)


@pytest.fixture
def inner(tmp_path: Path) -> Iterator[Inner]:
    inner = Inner(tmp_path)
    try:
        inner.server.wait_ready()
        yield inner
    finally:
        inner.server.terminate()


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=30) as client:
        yield client


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    path = tmp_path / "gate"
    os.mkfifo(path)
    return path


def inner_job(client: httpx.Client, server: ServerProcess, *states: str) -> dict[str, Any]:
    """The newest job there, once there is one in one of the states."""
    give_up = time.monotonic() + SECONDS
    while True:
        jobs: list[dict[str, Any]] = client.get(f"{server.url}/v1/jobs", params={"limit": 1}).json()["data"]
        if jobs and jobs[0]["status"] in states:
            return jobs[0]
        assert time.monotonic() < give_up, jobs


def image(client: httpx.Client, server: ServerProcess, **body: Any) -> bytes:
    answer = client.post(
        f"{server.url}/v1/images/generations",
        json={"model": "painter", "response_format": "b64_json", "seed": 3} | body,
    )
    assert answer.status_code == 200, answer.text
    return base64.b64decode(answer.json()["data"][0]["b64_json"])


def clip(client: httpx.Client, server: ServerProcess, id: str) -> bytes:
    answer = client.get(f"{server.url}/v1/videos/{id}/content")
    assert answer.status_code == 200, answer.text
    return answer.content


@pytest.mark.parametrize("format", ["png", "jpeg", "webp"])
def test_an_image_is_what_it_would_be_there(pair: Pair, client: httpx.Client, format: str) -> None:
    asked = {"prompt": "paint", "size": "32x24", "output_format": format}
    assert image(client, pair.outer, **asked) == image(client, pair.inner, **asked)


def test_an_edit_is_as_large_as_its_image(pair: Pair, client: httpx.Client) -> None:
    mask = io.BytesIO()
    Image.new("L", (24, 16), "white").save(mask, "PNG")
    answer = client.post(
        f"{pair.outer.url}/v1/images/edits",
        data={"model": "painter", "prompt": "paint"},
        files={"image": ("a.webp", square("webp", 24, 16)), "mask": ("m.png", mask.getvalue())},
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["size"] == "24x16"
    assert inner_job(client, pair.inner, "succeeded")["type"] == "image"


@pytest.mark.parametrize("format", ["mp4", "webm"])
def test_a_video_is_what_it_would_be_there(pair: Pair, client: httpx.Client, format: str) -> None:
    asked = {"num_frames": 13, "size": "96x64", "fps": 12, "seed": 9, "output_format": format}
    frames = []
    for server in pair:
        video = film(client, server.url, "film", **asked)
        until(client, server.url, video["id"], "succeeded")
        found = decoded(clip(client, server, video["id"]))
        assert found.fps == 12
        assert found.codec.endswith({"mp4": "h264", "webm": "vp9"}[format])
        frames.append(found.frames.astype(int))
    assert frames[0].shape == frames[1].shape == (13, 64, 96, 3)
    assert np.abs(frames[0] - frames[1]).max() < 6  # encoded again, where the other server makes no such files
    assert len(client.get(f"{pair.inner.url}/v1/videos").json()["data"]) == 1  # the other was fetched, and forgotten
    client.delete(f"{pair.inner.url}/v1/videos/{video['id']}")


def test_the_first_picture_of_a_video_goes_there(pair: Pair, client: httpx.Client) -> None:
    red = "data:image/png;base64," + base64.b64encode(square("png", 64, 48)).decode()
    video = film(client, pair.outer.url, "film", frame_images=[red])
    until(client, pair.outer.url, video["id"], "succeeded")
    first = decoded(clip(client, pair.outer, video["id"])).frames[0]
    assert np.abs(first.mean(axis=(0, 1)) - (255, 0, 0)).max() < 12


def test_what_is_wrong_there_is_the_users_to_put_right(pair: Pair, client: httpx.Client) -> None:
    answer = client.post(f"{pair.outer.url}/v1/images/generations", json={"model": "painter", "prompt": "invalid"})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["param"], error["message"]) == ("prompt", "no such thing can be painted")
    video = film(client, pair.outer.url, "invalid")
    failed = until(client, pair.outer.url, video["id"], "failed")
    assert (failed["attempt"], failed["error"]["message"]) == (1, "no such thing can be filmed")


def test_a_video_that_is_cancelled_here_is_cancelled_there(pair: Pair, client: httpx.Client) -> None:
    video = film(client, pair.outer.url, "step")
    there = inner_job(client, pair.inner, "running")
    client.post(f"{pair.outer.url}/v1/videos/{video['id']}/cancel")
    until(client, pair.outer.url, video["id"], "cancelled")
    until(client, pair.inner.url, there["id"], "cancelled")
    assert image(client, pair.outer, prompt="paint")


def test_an_image_that_is_cancelled_here_is_cancelled_there(pair: Pair, client: httpx.Client) -> None:
    job = submit(client, pair.outer.url, "step")
    there = inner_job(client, pair.inner, "running")
    client.post(f"{pair.outer.url}/v1/jobs/{job['id']}/cancel")
    until(client, pair.outer.url, job["id"], "cancelled")
    until(client, pair.inner.url, there["id"], "cancelled")
    assert image(client, pair.outer, prompt="paint")


def test_nobody_waits_for_a_video_that_nobody_wants(pair: Pair, client: httpx.Client) -> None:
    """The worker there does not stop when it is told to; here that costs nothing."""
    video = film(client, pair.outer.url, "stubborn")
    inner_job(client, pair.inner, "running")
    pids = pair.outer.worker_pids()
    client.post(f"{pair.outer.url}/v1/videos/{video['id']}/cancel")
    until(client, pair.outer.url, video["id"], "cancelled")
    assert pair.outer.worker_pids() == pids


def test_a_server_that_comes_back_with_its_jobs_goes_on_with_them(
    inner: Inner, tmp_path: Path, client: httpx.Client, gate: Path
) -> None:
    with running_server(tmp_path / "data", **outer_settings(tmp_path, inner.url)) as outer:
        video = film(client, outer.url, f"wait {gate}")
        there = inner_job(client, inner.server, "running")
        wait_for_attempts(inner, 1)
        inner.kill(forget=False)
        inner.start()
        wait_for_attempts(inner, 2)
        open_gate(gate)
        ended = until(client, outer.url, video["id"], "succeeded", "failed")
        assert (ended["status"], ended["attempt"]) == ("succeeded", 1)
        assert len(decoded(clip(client, outer, video["id"])).frames) == 9
        assert client.get(f"{inner.url}/v1/videos/{there['id']}").status_code == 404  # fetched, and forgotten


@pytest.mark.parametrize("kind", ["video", "image"])
def test_a_server_that_has_lost_its_jobs_is_asked_again(
    inner: Inner, tmp_path: Path, client: httpx.Client, gate: Path, kind: str
) -> None:
    with running_server(tmp_path / "data", **outer_settings(tmp_path, inner.url)) as outer:
        job = (film if kind == "video" else submit)(client, outer.url, f"wait {gate}")
        wait_for_attempts(inner, 1)
        inner.kill(forget=True)
        inner.start()
        seen = []
        for _, now in events(client, outer.url, job["id"]):
            seen.append((now["status"], now["attempt"]))
            if seen[-1] == ("running", 2) and seen.count(seen[-1]) == 1:
                wait_for_attempts(inner, 2)
                open_gate(gate)
        assert seen[-1] == ("succeeded", 2)
        assert len(inner.attempts) == 2


def test_a_server_that_does_not_come_back_fails_the_job(inner: Inner, tmp_path: Path, client: httpx.Client) -> None:
    with running_server(tmp_path / "data", **outer_settings(tmp_path, inner.url, patience=0.2)) as outer:
        video = film(client, outer.url, "step")
        wait_for_attempts(inner, 1)
        inner.kill(forget=False)
        ended = until(client, outer.url, video["id"], "succeeded", "failed")
        assert (ended["status"], ended["attempt"], ended["error"]["code"]) == ("failed", 3, "engine_failed")
        assert "127.0.0.1" not in ended["error"]["message"]


def wait_for_attempts(inner: Inner, count: int) -> None:
    give_up = time.monotonic() + SECONDS
    pause = threading.Event()
    while len(inner.attempts) < count:
        assert time.monotonic() < give_up, "".join(inner.server.log)
        pause.wait(0.02)


def open_gate(gate: Path) -> None:
    """Let whoever waits at the gate go on; waits until somebody does."""
    with gate.open("w"):
        pass
