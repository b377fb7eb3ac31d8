"""Videos whose makers are stopped, killed and started again: each ends once, whole or without a trace."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.journeys.filming import decoded, film, filmer
from tests.journeys.painting import WORKER, events, processes, until
from tests.journeys.server_process import ServerProcess, running_server

pytestmark = [pytest.mark.journey, pytest.mark.timeout(90)]
LEASE = {"SONOREEL_JOB_LEASE_SECONDS": "2"}


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=40) as client:
        yield client


def fifo(folder: Path) -> Path:
    path = folder / "gate"
    os.mkfifo(path)
    return path


def open_gate(gate: Path) -> None:
    """Let whoever waits at the gate go on; waits until somebody does."""
    with gate.open("w"):
        pass


def files_of(data_dir: Path, id: str) -> list[str]:
    return sorted(path.name for path in data_dir.rglob("*") if path.is_file() and id in str(path))


def left_behind(data_dir: Path) -> list[str]:
    """Video files anywhere in what the server keeps, and in its spools."""
    kinds = (".mp4", ".webm", ".webp")
    return [path.name for path in data_dir.rglob("*") if path.suffix in kinds]


@pytest.mark.parametrize("prompt", ["step", "decode step"])
def test_cancelled_between_steps_or_frames_it_leaves_no_file(tmp_path: Path, client: httpx.Client, prompt: str) -> None:
    with running_server(tmp_path / "data", **filmer(tmp_path)) as server:
        video = film(client, server.url, prompt, previews=False)
        until(client, server.url, video["id"], "running")
        answer = client.post(f"{server.url}/v1/videos/{video['id']}/cancel")
        assert answer.json()["status"] in ("in_progress", "cancelled")
        assert answer.json()["cancel_requested"] is True
        until(client, server.url, video["id"], "cancelled")
        found = client.get(f"{server.url}/v1/videos/{video['id']}").json()
        assert (found["status"], found["error"], found["outputs"]) == ("cancelled", None, None)
        content = client.get(f"{server.url}/v1/videos/{video['id']}/content")
        assert content.status_code == 409
        assert "retry-after" not in content.headers
        assert left_behind(tmp_path / "data") == []
        # The worker is as good as before.
        until(client, server.url, film(client, server.url, "film")["id"], "succeeded")


def test_deleted_while_it_is_made_it_is_stopped_first(tmp_path: Path, client: httpx.Client) -> None:
    with running_server(tmp_path / "data", **filmer(tmp_path)) as server:
        video = film(client, server.url, "decode step")
        until(client, server.url, video["id"], "running")
        answer = client.delete(f"{server.url}/v1/videos/{video['id']}")
        assert answer.json() == {"id": video["id"], "object": "video.deleted", "deleted": True}
        assert client.get(f"{server.url}/v1/videos/{video['id']}").status_code == 404
        assert files_of(tmp_path / "data", video["id"]) == []


def test_one_that_never_checks_is_cancelled_with_its_worker(tmp_path: Path, client: httpx.Client) -> None:
    with running_server(tmp_path / "data", **filmer(tmp_path)) as server:
        video = film(client, server.url, "decode stubborn")
        until(client, server.url, video["id"], "running")
        client.post(f"{server.url}/v1/videos/{video['id']}/cancel")
        until(client, server.url, video["id"], "cancelled")
        assert left_behind(tmp_path / "data") == []


@pytest.mark.parametrize("verb", ["wait", "decode wait"])
def test_a_killed_model_worker_is_another_attempt(tmp_path: Path, client: httpx.Client, verb: str) -> None:
    gate = fifo(tmp_path)
    with running_server(tmp_path / "data", **filmer(tmp_path)) as server:
        video = film(client, server.url, f"{verb} {gate}")
        killed: list[int] = []
        seen = []
        for _, job in events(client, server.url, video["id"]):
            seen.append((job["status"], job["attempt"]))
            if not killed and job["progress"]:
                killed = server.worker_pids()
                for pid in killed:
                    os.kill(pid, signal.SIGKILL)
            elif seen[-1] == ("running", 2) and seen.count(seen[-1]) == 1:
                open_gate(gate)
        assert seen[-1] == ("succeeded", 2)
        whole(client, server, video["id"])


def test_server_and_worker_killed_and_started_again(tmp_path: Path, client: httpx.Client) -> None:
    gate, settings = fifo(tmp_path), filmer(tmp_path) | LEASE
    data_dir = tmp_path / "data"
    with processes(data_dir, settings, servers=1, workers=1) as (servers, workers):
        video = film(client, servers[0].url, f"wait {gate}")
        until(client, servers[0].url, video["id"], "running")
        for process in (*servers, *workers):
            process.process.send_signal(signal.SIGKILL)
            process.process.wait()
            process.terminate()
        servers[0] = ServerProcess(data_dir, settings | {"SONOREEL_RUN_JOBS": "false"})
        servers[0].wait_ready()
        after = client.get(f"{servers[0].url}/v1/videos/{video['id']}").json()
        assert after["status"] in ("queued", "in_progress")
        assert after["attempt"] == 1
        workers[0] = ServerProcess(data_dir, settings, WORKER)
        again = until(client, servers[0].url, video["id"], "running", attempt=2)
        assert again["status"] == "running"
        open_gate(gate)
        until(client, servers[0].url, video["id"], "succeeded")
        found = whole(client, servers[0], video["id"])
        assert (found["attempt"], found["progress"]) == (2, 100)
        assert len([name for name in files_of(data_dir, video["id"]) if name.startswith("video.mp4")]) == 1


def test_of_a_failed_attempt_no_picture_is_promised(tmp_path: Path, client: httpx.Client) -> None:
    with running_server(tmp_path / "data", **filmer(tmp_path)) as server:
        video = film(client, server.url, "decode raise")
        seen = [job for _, job in events(client, server.url, video["id"]) if job["progress"]]
        assert (seen[-1]["status"], seen[-1]["progress"]["previews"]) == ("failed", [])
        assert client.get(f"{server.url}/v1/videos/{video['id']}").json()["progress_details"]["previews"] == []


def test_a_video_outlives_its_model(tmp_path: Path, client: httpx.Client) -> None:
    settings = filmer(tmp_path)
    with running_server(tmp_path / "data", **settings) as server:
        video = film(client, server.url, "film")
        until(client, server.url, video["id"], "succeeded")
    (tmp_path / "cards" / "filmer.toml").unlink()
    with running_server(tmp_path / "data", **settings) as server:
        (found,) = client.get(f"{server.url}/v1/videos").json()["data"]
        assert (found["id"], found["status"], found["outputs"]["cost"]) == (video["id"], "completed", 0.0)
        whole(client, server, video["id"])
        remix = client.post(f"{server.url}/v1/videos/{video['id']}/remix", json={"prompt": "film"})
        assert remix.json()["error"]["code"] == "model_not_found"


def whole(client: httpx.Client, server: ServerProcess, id: str) -> dict[str, object]:
    """The completed video; its file has every frame."""
    video: dict[str, object] = client.get(f"{server.url}/v1/videos/{id}").json()
    assert video["status"] == "completed"
    assert len(decoded(client.get(f"{server.url}/v1/videos/{id}/content").content).frames) == 9
    return video
