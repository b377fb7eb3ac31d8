"""Whatever is killed, every accepted job ends once."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from media.database.opening import open_database
from tests.databases import database_url, postgres_server, rows
from tests.journeys.painting import WORKER, Receiver, painter, processes, receiving_webhooks, submit
from tests.journeys.server_process import ServerProcess

__all__ = ["database_url", "postgres_server"]
pytestmark = [pytest.mark.journey, pytest.mark.timeout(150)]

JOBS = 320
CHAOS_SECONDS = 12.0
SEED = 7


class Chaos:
    """Kills something every now and then, and starts it again, as a supervisor would."""

    def __init__(
        self, data_dir: Path, environ: dict[str, str], servers: list[ServerProcess], workers: list[ServerProcess]
    ) -> None:
        self._data_dir = data_dir
        self._environ = environ
        self.servers = servers
        self.workers = workers
        self._chance = random.Random(SEED)  # noqa: S311
        self.killed = {"server": 0, "worker": 0, "model": 0}

    def strike(self) -> None:
        """One kill."""
        kind = self._chance.choice(["server", "worker", "worker", "model", "model"])
        if kind == "model":
            pids = [pid for worker in self.workers for pid in worker.worker_pids()]
            if not pids:
                return
            os.kill(self._chance.choice(pids), signal.SIGKILL)
        else:
            group = self.servers if kind == "server" else self.workers
            place = self._chance.randrange(len(group))
            group[place].process.send_signal(signal.SIGKILL)
            group[place].process.wait()
            group[place].terminate()
            extra = {"SONOREEL_RUN_JOBS": "false"} if kind == "server" else {}
            command = ("media.cli", "serve") if kind == "server" else WORKER
            group[place] = ServerProcess(self._data_dir, self._environ | extra, command)
        self.killed[kind] += 1


def keep_submitting(chaos: Chaos, webhook: str, accepted: dict[str, set[str]], stop: threading.Event) -> None:
    """Submit every key, again and again at whichever server answers, until it was accepted; some keys twice."""
    chance = random.Random(SEED)  # noqa: S311
    with httpx.Client(timeout=10) as client:
        for number in range(JOBS):
            for _ in range(2 if number % 10 == 0 else 1):
                while not stop.is_set():
                    try:
                        url = chance.choice(chaos.servers).url
                        job = submit(client, url, "brush", key=f"key-{number}", seed=number, webhook=webhook)
                    except (httpx.TransportError, AssertionError):  # killed, or not yet listening
                        continue
                    accepted.setdefault(f"key-{number}", set()).add(job["id"])
                    break


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving_webhooks() as receiver:
        yield receiver


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> dict[str, str]:
    return painter(tmp_path) | {
        "SONOREEL_DATABASE_URL": database_url,
        "SONOREEL_JOB_LEASE_SECONDS": "3",
        "SONOREEL_WEBHOOK_ALLOWED_HOSTS": "127.0.0.1",
    }


async def test_every_accepted_job_ends_once(
    settings: dict[str, str], database_url: str, tmp_path: Path, receiver: Receiver
) -> None:
    data_dir = tmp_path / "data"
    accepted: dict[str, set[str]] = {}
    with processes(data_dir, settings, servers=2, workers=3) as (servers, workers):
        chaos = Chaos(data_dir, settings, servers, workers)
        stop = threading.Event()
        submitting = threading.Thread(target=keep_submitting, args=(chaos, receiver.url, accepted, stop))
        submitting.start()
        try:
            give_up = time.monotonic() + CHAOS_SECONDS
            while time.monotonic() < give_up:
                chaos.strike()
                stop.wait(0.4)
            submitting.join(60)
            told = receiver.wait_for(JOBS, 60)
        finally:
            stop.set()
            submitting.join()
        everything = f"{len(receiver.jobs)} of {JOBS} jobs told, killed {chaos.killed}"
        assert told, everything + "".join(worker.log[-1] for worker in workers if worker.log)
    assert min(chaos.killed.values()) > 0, everything
    assert [key for key, ids in accepted.items() if len(ids) > 1] == []
    ids = {id for found in accepted.values() for id in found}
    assert len(ids) == JOBS
    assert receiver.jobs.keys() == ids
    assert all(len(found) == 1 for found in receiver.jobs.values()), "a job was told of under two event ids"
    states = await outcome(database_url, data_dir)
    assert states.keys() == ids
    # Killed three times by chance is no failure of the ledger; it is told as one, once.
    assert {state for state, _ in states.values()} <= {"succeeded", "failed"}
    assert sum(state == "succeeded" for state, _ in states.values()) > JOBS * 0.95
    check_blobs(data_dir, states)
    assert processes_of(data_dir) == []


async def outcome(url: str, data_dir: Path) -> dict[str, tuple[str, int]]:
    """State and attempt of every job; a job that ended well has one usage row, and each one line in the outbox."""
    async with open_database(url, "", data_dir) as database:
        jobs = await database.run(rows, "SELECT id, state, attempt FROM jobs")
        used = await database.run(rows, "SELECT job FROM usage")
        hooks = await database.run(rows, "SELECT job FROM hooks")
    ended = sorted(str(job["id"]) for job in jobs if job["state"] == "succeeded")
    assert sorted(str(row["job"]) for row in used) == ended
    assert sorted(str(row["job"]) for row in hooks) == sorted(str(job["id"]) for job in jobs)
    return {str(job["id"]): (str(job["state"]), int(str(job["attempt"]))) for job in jobs}


def check_blobs(data_dir: Path, states: dict[str, tuple[str, int]]) -> None:
    """Of every job that ended well the files of one attempt, and no others."""
    folder = data_dir / "blobs" / "jobs"
    kept = {job.name: {attempt.name for attempt in job.iterdir() if any(attempt.iterdir())} for job in folder.iterdir()}
    for id, (state, attempt) in states.items():
        if state == "succeeded":
            assert kept[id] == {str(attempt)}, id
    assert list((data_dir / "blobs").glob("**/*.tmp")) == []


def processes_of(data_dir: Path) -> list[int]:
    """Processes that were started with this data directory and are still there."""
    mark = f"SONOREEL_DATA_DIR={data_dir}".encode()
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark in environ.read_bytes().split(b"\0"):
                found.append(int(environ.parent.name))
        except OSError:
            continue
    return found
