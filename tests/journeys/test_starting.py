"""What keeps a process from starting is said in one line; what a killed one left behind goes at the next start."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from tests.journeys.painting import WORKER
from tests.journeys.server_process import ServerProcess, running_server
from tests.journeys.uploading import file, form, raw_client

pytestmark = [pytest.mark.journey, pytest.mark.timeout(60)]

UNUSABLE = [
    ({"SONOREEL_DATABASE_URL": "mysql://host/name"}, "use sqlite:///PATH or postgresql://"),
    ({"SONOREEL_DATABASE_URL": "sqlite:////proc/none/ledger.db"}, "cannot be opened"),
    ({"SONOREEL_BLOB_URL": "ftp://host"}, "use s3://BUCKET/PREFIX"),
]


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def end_of(process: ServerProcess) -> tuple[int, str]:
    """Exit status and log of a process that ends by itself."""
    status = process.process.wait(30)
    process.terminate()
    return status, "".join(process.log)


@pytest.mark.parametrize(("settings", "said"), UNUSABLE)
def test_a_server_says_why_it_cannot_start(tmp_path: Path, settings: dict[str, str], said: str) -> None:
    status, log = end_of(ServerProcess(tmp_path, {"SONOREEL_WARM": ""} | settings))
    assert status != 0
    assert said in log
    assert "Traceback" not in log


@pytest.mark.parametrize(("settings", "said"), UNUSABLE)
def test_a_worker_says_why_it_cannot_start(tmp_path: Path, settings: dict[str, str], said: str) -> None:
    status, log = end_of(ServerProcess(tmp_path, settings, WORKER))
    assert status == 1
    assert said in log
    assert "Traceback" not in log


def test_a_database_that_is_not_there_is_said(tmp_path: Path) -> None:
    url = f"postgresql://user:secret@127.0.0.1:{free_port()}/name"
    status, log = end_of(ServerProcess(tmp_path, {"SONOREEL_WARM": "", "SONOREEL_DATABASE_URL": url}))
    assert status != 0
    assert "PostgreSQL cannot be used" in log
    assert "secret" not in log


def test_what_a_killed_server_was_receiving_is_swept_at_the_next_start(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, {"SONOREEL_WARM": ""})
    server.wait_ready()
    head, _ = form(("model", "pocketsphinx"), file(b"@@")).split(b"@@")
    with raw_client(server, len(head) + 1_000_000) as client:
        client.send(head + bytes(100_000))
        while not any(path.name.startswith("upload-") for path in (tmp_path / "spool").glob("*/**/*")):
            pass
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
    server.terminate()
    assert any((tmp_path / "spool").glob("*/request-*"))
    with running_server(tmp_path, SONOREEL_WARM=""):
        assert not any((tmp_path / "spool").glob("*/request-*"))
