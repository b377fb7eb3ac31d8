"""A chapter of a book spoken as a job, and as a stream that is read while it is made."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.journeys.painting import until
from tests.journeys.server_process import ServerProcess, running_server

pytestmark = [pytest.mark.journey, pytest.mark.timeout(180)]
SENTENCE = "It was a bright cold day, and all the clocks of the town struck at once. "
AT_ONCE = 30_000
"""Characters that a request may have which is answered at once."""
CHAPTER = SENTENCE * 500
BODY = {"model": "espeak-ng", "voice": "alloy", "response_format": "mulaw", "sample_rate": 8000, "speed": 2.0}
MEMORY = 48 * 1024 * 1024
"""Bytes by which a server may have grown when it has spoken a chapter, whose samples have more than twice as many."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with running_server(tmp_path_factory.mktemp("long"), SONOREEL_MAX_INPUT_CHARS=str(AT_ONCE)) as server:
        yield server


def test_a_chapter_is_spoken_as_a_job_in_the_memory_of_a_page(server: ServerProcess) -> None:
    with httpx.Client(base_url=server.url, timeout=60) as client:
        page = client.post("/v1/audio/speech", json=BODY | {"input": SENTENCE * 20}).content
        before = server.memory()
        refused = client.post("/v1/audio/speech", json=BODY | {"input": CHAPTER})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "input")
        answer = client.post("/v1/audio/speech", json=BODY | {"input": CHAPTER}, headers={"prefer": "respond-async"})
        assert answer.status_code == 202
        done = until(client, server.url, answer.json()["id"], "succeeded")
        assert server.memory() - before < MEMORY
        (output,) = done["outputs"]
        assert output["bytes"] == pytest.approx(25 * len(page), rel=0.05)


def test_a_long_stream_that_is_read_slowly_waits_outside(server: ServerProcess) -> None:
    """Unread audio waits in the engine, not in the server."""
    body = BODY | {"input": CHAPTER[:AT_ONCE], "response_format": "pcm", "sample_rate": 48_000, "speed": 1.0}
    with httpx.Client(base_url=server.url, timeout=60) as client:
        before = server.memory()
        with client.stream("POST", "/v1/audio/speech", json=body) as answer:
            assert answer.status_code == 200
            chunks = answer.iter_raw(65_536)
            heard = sum(len(next(chunks)) for _ in range(200))
            assert heard > 10_000_000
            assert server.memory() - before < MEMORY
        assert client.get("/readyz").status_code == 200
