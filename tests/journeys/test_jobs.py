"""Jobs as their owners see them: real servers, real runners, and everything that may come between."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.databases import database_url, postgres_server
from tests.fakes import square
from tests.journeys.painting import WORKER, events, painter, processes, submit, until
from tests.journeys.server_process import ServerProcess, running_server

__all__ = ["database_url", "postgres_server"]
pytestmark = [pytest.mark.journey, pytest.mark.timeout(90)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("jobs")
    with running_server(folder / "data", **painter(folder)) as server:
        yield server


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=30) as client:
        yield client


def generate(client: httpx.Client, server: ServerProcess, body: dict[str, Any], **headers: str) -> httpx.Response:
    return client.post(f"{server.url}/v1/images/generations", json={"model": "painter"} | body, headers=headers)


def error(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()["error"]
    return found


def test_a_job_is_taken_followed_and_opened(server: ServerProcess, client: httpx.Client) -> None:
    answer = generate(client, server, {"prompt": "paint", "n": 2, "seed": 5}, prefer="respond-async, wait=5")
    assert answer.status_code == 202
    assert answer.headers["preference-applied"] == "respond-async"
    job = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert job["status"] == "queued"
    done = until(client, server.url, job["id"], "succeeded")
    assert [output["seed"] for output in done["outputs"]] == [5, 6]
    image = client.get(done["outputs"][0]["url"])
    assert image.headers["content-type"] == "image/png"
    assert image.content.startswith(b"\x89PNG")
    assert len(image.content) == done["outputs"][0]["bytes"]


def test_clients_that_cannot_set_headers_ask_in_the_query(server: ServerProcess, client: httpx.Client) -> None:
    answer = client.post(
        f"{server.url}/v1/images/generations?async=true&priority=batch", json={"model": "painter", "prompt": "paint"}
    )
    assert answer.status_code == 202
    assert "preference-applied" not in answer.headers
    assert answer.json()["priority"] == "batch"


def test_speech_as_a_job_is_a_file(server: ServerProcess, client: httpx.Client) -> None:
    body = {"model": "espeak-ng", "input": "One two three.", "voice": "alloy", "response_format": "wav"}
    answer = client.post(f"{server.url}/v1/audio/speech", json=body, headers={"prefer": "respond-async"})
    done = until(client, server.url, answer.json()["id"], "succeeded")
    sound = client.get(done["outputs"][0]["url"])
    assert sound.headers["content-type"] == "audio/wav"
    assert int.from_bytes(sound.content[4:8], "little") == len(sound.content) - 8
    assert done["outputs"][0]["seconds"] > 0.5


def test_a_transcription_as_a_job_answers_what_the_call_would_have(server: ServerProcess, client: httpx.Client) -> None:
    speech = {"model": "espeak-ng", "input": "go forward ten meters", "voice": "alloy", "response_format": "wav"}
    sound = client.post(f"{server.url}/v1/audio/speech", json=speech).content
    form = {"model": "auto", "response_format": "verbose_json"}
    url = f"{server.url}/v1/audio/transcriptions"
    at_once = client.post(url, data=form, files={"file": ("a.wav", sound)}).json()
    answer = client.post(url, data=form, files={"file": ("a.wav", sound)}, headers={"prefer": "respond-async"})
    done = until(client, server.url, answer.json()["id"], "succeeded")
    assert done["result"] == at_once
    assert client.get(done["outputs"][0]["url"]).json() == at_once


def test_subtitles_as_a_job_are_a_file(server: ServerProcess, client: httpx.Client) -> None:
    speech = {"model": "espeak-ng", "input": "go forward ten meters", "voice": "alloy", "response_format": "wav"}
    sound = client.post(f"{server.url}/v1/audio/speech", json=speech).content
    answer = client.post(
        f"{server.url}/v1/audio/transcriptions",
        data={"response_format": "srt"},
        files={"file": ("a.wav", sound)},
        headers={"prefer": "respond-async"},
    )
    done = until(client, server.url, answer.json()["id"], "succeeded")
    assert "-->" in client.get(done["outputs"][0]["url"]).text


@pytest.mark.parametrize(
    ("files", "data", "code", "param"),
    [
        ({"file": ("a.wav", b"")}, {}, "empty_file", "file"),
        ({"file": ("a.wav", b"RIFF")}, {"stream": "true"}, "unsupported_parameter", "stream"),
        ({"file": ("a.wav", b"RIFF")}, {"known_speaker_names": "Ann"}, "invalid_value", "known_speaker_references"),
    ],
)
def test_a_transcription_that_cannot_be_queued_is_refused(
    server: ServerProcess,
    client: httpx.Client,
    files: dict[str, Any],
    data: dict[str, str],
    code: str,
    param: str,
) -> None:
    answer = client.post(
        f"{server.url}/v1/audio/transcriptions", data=data, files=files, headers={"prefer": "respond-async"}
    )
    refused = error(answer, 400)
    assert (refused["code"], refused["param"]) == (code, param)


def test_what_is_no_recording_fails_the_job_once(server: ServerProcess, client: httpx.Client) -> None:
    answer = client.post(
        f"{server.url}/v1/audio/transcriptions",
        files={"file": ("a.wav", b"no recording at all")},
        headers={"prefer": "respond-async"},
    )
    failed = until(client, server.url, answer.json()["id"], "failed")
    assert failed["error"]["code"] == "unsupported_format"
    assert failed["attempt"] == 1


def test_the_same_key_is_the_same_job(server: ServerProcess, client: httpx.Client) -> None:
    body = {"prompt": "paint", "seed": None}
    headers = {"prefer": "respond-async", "idempotency-key": "the-same"}
    first, second = (generate(client, server, body, **headers).json() for _ in range(2))
    assert first["id"] == second["id"]
    refused = error(generate(client, server, body | {"prompt": "paint else"}, **headers), 409)
    assert refused["code"] == "idempotency_key_reused"
    refused = error(generate(client, server, body, **{"idempotency-key": "k" * 256}), 400)
    assert refused["param"] == "Idempotency-Key"


def test_a_running_job_is_cancelled_at_its_next_step(server: ServerProcess, client: httpx.Client) -> None:
    job = submit(client, server.url, "step")
    until(client, server.url, job["id"], "running")
    asked = client.post(f"{server.url}/v1/jobs/{job['id']}/cancel").json()
    assert asked["cancel_requested"] is True
    ended = until(client, server.url, job["id"], "cancelled")
    assert ended["outputs"] == []
    assert files_of(server, job["id"]) == []


def test_one_that_never_checks_is_cancelled_with_its_worker(server: ServerProcess, client: httpx.Client) -> None:
    job = submit(client, server.url, "stubborn")
    until(client, server.url, job["id"], "running")
    client.post(f"{server.url}/v1/jobs/{job['id']}/cancel")
    assert until(client, server.url, job["id"], "cancelled")["error"] is None
    after = submit(client, server.url, "paint")
    assert until(client, server.url, after["id"], "succeeded", "failed")["status"] == "succeeded"


def test_a_client_that_hangs_up_cancels_what_it_waited_for(server: ServerProcess, client: httpx.Client) -> None:
    with pytest.raises(httpx.ReadTimeout):
        client.post(
            f"{server.url}/v1/images/generations",
            json={"model": "painter", "prompt": "step", "metadata": {"who": "left"}},
            timeout=1.0,
        )
    jobs = client.get(f"{server.url}/v1/jobs", params={"limit": 5}).json()["data"]
    left = next(job for job in jobs if job["metadata"] == {"who": "left"})
    assert until(client, server.url, left["id"], "cancelled")["priority"] == "realtime"


def test_who_comes_back_with_the_key_gets_what_the_broken_connection_asked_for(
    server: ServerProcess, client: httpx.Client, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    body = {"model": "painter", "prompt": f"wait {gate}"}
    key = {"idempotency-key": "comes-back"}
    with pytest.raises(httpx.ReadTimeout):
        client.post(f"{server.url}/v1/images/generations", json=body, headers=key, timeout=1.0)
    job = generate(client, server, body, prefer="respond-async", **key).json()
    until(client, server.url, job["id"], "running")
    gate.write_bytes(b"")  # returns when the painter has opened it
    answer = generate(client, server, body, **key)
    assert (answer.status_code, answer.json()["id"]) == (200, job["id"])


def test_files_of_a_request_that_was_sent_before_are_not_kept_twice(
    server: ServerProcess, client: httpx.Client
) -> None:
    def edit(prompt: str) -> httpx.Response:
        return client.post(
            f"{server.url}/v1/images/edits?async=true",
            data={"model": "painter", "prompt": prompt},
            files={"image": ("a.png", square("png", 16, 16))},
            headers={"idempotency-key": "with-a-file"},
        )

    job = edit("paint").json()["id"]
    until(client, server.url, job, "succeeded")
    before = jobs_with_files(server)
    assert edit("paint").json()["id"] == job
    assert error(edit("paint else"), 409)["code"] == "idempotency_key_reused"
    assert jobs_with_files(server) == before


def test_nobody_waits_for_ever_where_nobody_works(client: httpx.Client, tmp_path: Path) -> None:
    with running_server(tmp_path / "data", **painter(tmp_path), SONOREEL_RUN_JOBS="false") as idle:
        refused = generate(client, idle, {"prompt": "paint"})
        assert error(refused, 503)["code"] == "no_healthy_workers"
        assert refused.headers["retry-after"] == "10"
        assert [job["status"] for job in client.get(f"{idle.url}/v1/jobs").json()["data"]] == ["cancelled"]


def test_a_dead_worker_is_retried_and_then_told(server: ServerProcess, client: httpx.Client) -> None:
    failed = until(client, server.url, submit(client, server.url, "kill")["id"], "failed")
    assert failed["attempt"] >= 2
    assert failed["error"]["code"] in ("engine_failed", "poisoned_request")
    after = submit(client, server.url, "paint")
    assert until(client, server.url, after["id"], "succeeded")["attempt"] == 1


def test_bad_input_fails_at_once_with_its_field(server: ServerProcess, client: httpx.Client) -> None:
    failed = until(client, server.url, submit(client, server.url, "invalid")["id"], "failed")
    assert (failed["attempt"], failed["error"]["param"]) == (1, "prompt")
    refused = error(generate(client, server, {"prompt": "invalid"}), 400)
    assert refused["message"] == failed["error"]["message"]


def test_pages_of_jobs(server: ServerProcess, client: httpx.Client) -> None:
    ids = [submit(client, server.url, f"paint {number}")["id"] for number in range(5)]
    seen: list[str] = []
    after = ""
    while len(seen) < 5:
        page = client.get(f"{server.url}/v1/jobs", params={"limit": 2, "after": after, "type": "image"}).json()
        seen += [job["id"] for job in page["data"]]
        assert page["last_id"] == seen[-1]
        after = page["last_id"]
    assert seen[:5] == ids[::-1]
    assert error(client.get(f"{server.url}/v1/jobs", params={"after": "job_no"}), 400)["param"] == "after"
    assert error(client.get(f"{server.url}/v1/jobs", params={"limit": 1000}), 400)["param"] == "limit"
    assert error(client.get(f"{server.url}/v1/jobs/job_no"), 404)["code"] == "job_not_found"


def test_a_finished_job_is_deleted_with_its_files(server: ServerProcess, client: httpx.Client) -> None:
    done = until(client, server.url, submit(client, server.url, "paint")["id"], "succeeded")
    assert files_of(server, done["id"])
    assert client.delete(f"{server.url}/v1/jobs/{done['id']}").json()["deleted"] is True
    assert files_of(server, done["id"]) == []
    assert client.get(done["outputs"][0]["url"]).status_code == 404
    running = submit(client, server.url, "step")
    until(client, server.url, running["id"], "running")
    assert error(client.delete(f"{server.url}/v1/jobs/{running['id']}"), 409)["code"] == "job_not_finished"
    client.post(f"{server.url}/v1/jobs/{running['id']}/cancel")
    until(client, server.url, running["id"], "cancelled")


def test_events_go_on_where_they_were_left(server: ServerProcess, client: httpx.Client) -> None:
    job = submit(client, server.url, "brush", steps=3)
    seen = list(events(client, server.url, job["id"]))
    assert [name for name, _ in seen][0] == "state"
    assert seen[-1][1]["status"] == "succeeded"
    revisions = [each["revision"] for _, each in seen]
    assert revisions == sorted(set(revisions))
    assert list(events(client, server.url, job["id"], **{"last-event-id": str(revisions[-1])})) == []
    again = list(events(client, server.url, job["id"], **{"last-event-id": str(revisions[-1] - 1)}))
    assert [each["status"] for _, each in again] == ["succeeded"]
    refused = client.get(f"{server.url}/v1/jobs/{job['id']}/events", headers={"last-event-id": "x"})
    assert error(refused, 400)["param"] == "Last-Event-ID"
    for odd in (b"9" * 5000, b"\xb2"):
        refused = client.get(f"{server.url}/v1/jobs/{job['id']}/events", headers=[(b"last-event-id", odd)])
        assert error(refused, 400)["param"] == "Last-Event-ID"
    assert list(events(client, server.url, job["id"], **{"last-event-id": ""}))


def test_a_paused_pool_starts_nothing(server: ServerProcess, client: httpx.Client) -> None:
    assert client.post(f"{server.url}/v1/pools/default/pause").json()["paused"] is True
    job = submit(client, server.url, "paint")
    waiting = client.get(f"{server.url}/v1/jobs/{job['id']}").json()
    assert (waiting["status"], waiting["queue"]["position"]) == ("queued", 1)
    assert client.post(f"{server.url}/v1/pools/default/resume").json()["paused"] is False
    until(client, server.url, job["id"], "succeeded")
    assert error(client.post(f"{server.url}/v1/pools/none/pause"), 404)["code"] == "pool_not_found"


def test_keys_see_their_own_jobs_only(tmp_path: Path, client: httpx.Client) -> None:
    settings = painter(tmp_path) | {"SONOREEL_API_KEYS": "one,two", "SONOREEL_MAX_QUEUED_JOBS": "2"}
    with running_server(tmp_path / "data", **settings) as server:
        one, two = ({"authorization": f"Bearer {key}"} for key in ("one", "two"))
        client.post(f"{server.url}/v1/pools/default/pause", headers=one)
        jobs = [
            generate(client, server, {"prompt": "paint"}, prefer="respond-async", **one).json()["id"] for _ in range(2)
        ]
        full = generate(client, server, {"prompt": "paint"}, prefer="respond-async", **one)
        assert error(full, 429)["code"] == "queue_full"
        assert int(full.headers["retry-after"]) >= 1
        other = generate(client, server, {"prompt": "paint"}, prefer="respond-async", **two)
        assert other.status_code == 202
        assert client.get(f"{server.url}/v1/jobs/{jobs[0]}", headers=two).status_code == 404
        assert client.post(f"{server.url}/v1/jobs/{jobs[0]}/cancel", headers=two).status_code == 404
        assert [job["id"] for job in client.get(f"{server.url}/v1/jobs", headers=two).json()["data"]] == [
            other.json()["id"]
        ]


def test_everything_killed_and_started_again_goes_on(tmp_path: Path, client: httpx.Client) -> None:
    settings = painter(tmp_path) | {"SONOREEL_JOB_LEASE_SECONDS": "30"}
    server = ServerProcess(tmp_path / "data", settings)
    server.wait_ready()
    jobs = [submit(client, server.url, "brush", steps=4)["id"] for _ in range(20)]
    until(client, server.url, jobs[0], "running", "succeeded")
    for pid in [*server.worker_pids(), server.process.pid]:
        os.kill(pid, signal.SIGKILL)
    server.terminate()
    with running_server(tmp_path / "data", **settings) as again:
        # Leases of thirty seconds are not waited for: the dead are known to be dead.
        ended = [until(client, again.url, id, "succeeded", "failed") for id in jobs]
        assert [job["status"] for job in ended] == ["succeeded"] * 20
        listed = client.get(f"{again.url}/v1/jobs", params={"limit": 100, "status": "succeeded"}).json()["data"]
        assert {job["id"] for job in listed} == set(jobs)


def test_a_server_that_leaves_gives_its_job_back(tmp_path: Path, client: httpx.Client) -> None:
    settings = painter(tmp_path) | {"SONOREEL_DRAIN_SECONDS": "1"}
    with processes(tmp_path / "data", settings, servers=1, workers=1) as (servers, workers):
        job = submit(client, servers[0].url, "step")
        until(client, servers[0].url, job["id"], "running")
        assert workers[0].terminate() == 0
        left = client.get(f"{servers[0].url}/v1/jobs/{job['id']}").json()
        assert (left["status"], left["failures"]) == ("queued", 0)


def test_a_zombie_is_refused(tmp_path: Path, client: httpx.Client) -> None:
    settings = painter(tmp_path) | {"SONOREEL_JOB_LEASE_SECONDS": "1.5"}
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with processes(tmp_path / "data", settings, servers=1, workers=1) as (servers, workers):
        url = servers[0].url
        job = submit(client, url, f"wait {gate}")
        next(each for _, each in events(client, url, job["id"]) if each["progress"])  # the model is at it
        zombie = workers[0]
        (model,) = zombie.worker_pids()
        for pid in (zombie.process.pid, model):
            os.kill(pid, signal.SIGSTOP)
        workers.append(ServerProcess(tmp_path / "data", settings, WORKER))
        second = next(each for _, each in events(client, url, job["id"]) if each["attempt"] == 2)
        assert second["status"] == "running"
        with gate.open("w"):  # the second attempt goes on
            pass
        done = until(client, url, job["id"], "succeeded")
        for pid in (model, zombie.process.pid):
            os.kill(pid, signal.SIGCONT)
        opened = threading.Thread(target=lambda: gate.open("w").close(), daemon=True)
        opened.start()  # and the first may, if it still wants to
        assert zombie.terminate() == 0
        assert client.get(f"{url}/v1/jobs/{job['id']}").json()["outputs"] == same_but_for_urls(done["outputs"])
        assert {file.parent.name for file in files(servers[0], job["id"])} == {"2"}
        if opened.is_alive():
            os.close(os.open(gate, os.O_RDONLY | os.O_NONBLOCK))


SKEW = """
import datetime, time
real, now = datetime.datetime, time.time
class Skewed(real):
    @classmethod
    def now(cls, tz=None):
        return real.now(tz) + datetime.timedelta(hours=1)
datetime.datetime = Skewed
time.time = lambda: now() + 3600
"""


async def test_a_clock_that_is_an_hour_ahead_changes_nothing(
    tmp_path: Path, client: httpx.Client, database_url: str
) -> None:
    settings = painter(tmp_path) | {"SONOREEL_JOB_LEASE_SECONDS": "2", "SONOREEL_DATABASE_URL": database_url}
    gate, skew = tmp_path / "gate", tmp_path / "skew"
    os.mkfifo(gate)
    skew.mkdir()
    (skew / "sitecustomize.py").write_text(SKEW)
    with processes(tmp_path / "data", settings, servers=1, workers=1) as (servers, workers):
        url = servers[0].url
        held = submit(client, url, f"wait {gate}")
        next(each for _, each in events(client, url, held["id"]) if each["progress"])
        workers.append(ServerProcess(tmp_path / "data", settings | {"PYTHONPATH": str(skew)}, WORKER))
        # The first worker's second slot may take some of them; so many are not done without the other.
        ids = [submit(client, url, "brush", steps=20)["id"] for _ in range(12)]
        assert {until(client, url, id, "succeeded", "failed")["attempt"] for id in ids} == {1}
        with gate.open("w"):
            pass
        assert until(client, url, held["id"], "succeeded", "failed")["attempt"] == 1


def test_two_servers_one_ledger(tmp_path: Path, client: httpx.Client) -> None:
    with processes(tmp_path / "data", painter(tmp_path), servers=2, workers=1) as (servers, _):
        job = submit(client, servers[0].url, "brush")
        seen = list(events(client, servers[1].url, job["id"]))
        assert seen[-1][1]["status"] == "succeeded"
        assert client.get(seen[-1][1]["outputs"][0]["url"]).status_code == 200
        waiting = submit(client, servers[1].url, "step")
        until(client, servers[0].url, waiting["id"], "running")
        client.post(f"{servers[0].url}/v1/jobs/{waiting['id']}/cancel")
        assert until(client, servers[1].url, waiting["id"], "cancelled")["attempt"] == 1


def same_but_for_urls(outputs: list[dict[str, Any]]) -> Any:
    """Equal to the same outputs, whatever their URLs' signatures."""

    class Same:
        def __eq__(self, other: object) -> bool:
            def stripped(found: Any) -> str:
                return json.dumps([{k: v for k, v in each.items() if k != "url"} for each in found])

            return stripped(outputs) == stripped(other)

        __hash__ = None  # type: ignore[assignment]

    return Same()


def files(server: ServerProcess, id: str) -> list[Path]:
    return [path for path in (server.data_dir / "blobs" / "jobs" / id).glob("**/*") if path.is_file()]


def files_of(server: ServerProcess, id: str) -> list[str]:
    return [path.name for path in files(server, id)]


def jobs_with_files(server: ServerProcess) -> set[str]:
    return {path.name for path in (server.data_dir / "blobs" / "jobs").iterdir()}
