"""Both blob stores, for tests: a directory, and a bucket in a server that speaks S3, on loopback."""

from __future__ import annotations

import re
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from media.blobs import BlobStore
from media.local_blobs import LocalBlobs
from media.signed_urls import UrlSigner

RUNNING = re.compile(r"Running on (http://\S+)")
KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}


@pytest.fixture(scope="session")
def moto_server() -> Iterator[str]:
    """URL of a moto server of this run's own."""
    pytest.importorskip("moto")
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert process.stderr is not None
    try:
        said: list[str] = []
        for line in process.stderr:
            said.append(line)
            if found := RUNNING.search(line):
                break
        else:
            pytest.fail("moto did not start: " + "".join(said))
        # It writes a line per request; a full pipe would stop it.
        rest = threading.Thread(target=process.stderr.read, daemon=True)
        rest.start()
        yield found[1]
    finally:
        process.terminate()
        process.wait(10)
    rest.join(5)
    process.stderr.close()


@pytest.fixture
def bucket(moto_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of an empty bucket, with keys for it in the environment."""
    pytest.importorskip("obstore")
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    name = f"test-{secrets.token_hex(6)}"
    httpx.put(f"{moto_server}/{name}").raise_for_status()
    return name


@pytest.fixture(scope="session", params=["directory", "s3"])
def endpoint(request: pytest.FixtureRequest) -> str:
    """Which kind of store: nothing for a directory, a URL for S3. Of the session's scope, so that what guards a test
    against leaks comes later than the server."""
    return "" if request.param == "directory" else str(request.getfixturevalue("moto_server"))


@pytest.fixture
async def blobs(endpoint: str, request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    """An empty store of each kind."""
    if not endpoint:
        return await LocalBlobs.open(tmp_path / "blobs", UrlSigner("key"))
    from media.s3_blobs import S3Blobs

    return await S3Blobs.connect(request.getfixturevalue("bucket"), "some/prefix", endpoint, tmp_path / "spool")
