"""A server that takes small uploads only, and is found clean after every test."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import pytest

from streaming.audio import Samples
from tests.journeys.recordings import spoken_samples
from tests.journeys.server_process import ServerProcess, running_server
from tests.journeys.uploading import (
    left_behind,
    running,
    wait_for,
)

LIMIT_MB = 4
SENTENCE = "I would like a cup of coffee."
SCRIPTED = """
[[card]]
id = "{id}"
task = "{task}"
engine = "tests.scripted_transcriber"
name = "Scripted"
concurrency = 4
queue = 0
translates = true
cancel_grace = 1.0
idle_ttl = 0.0
"""
EARS = ("model", "ears")
SPEAKERS = ("diarization_model", "who")
SPHINX = ("model", "pocketsphinx")
TOO_LARGE = f"the upload is larger than this server takes: {LIMIT_MB} MB (SONOREEL_MAX_UPLOAD_MB)"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that takes small uploads only, with scripted engines beside the embedded ones."""
    folder = tmp_path_factory.mktemp("uploads")
    cards = folder / "cards"
    cards.mkdir()
    tasks = {"ears": "transcription", "who": "diarization"}
    (cards / "scripted.toml").write_text("".join(SCRIPTED.format(id=id, task=task) for id, task in tasks.items()))
    with running_server(
        folder / "data",
        SONOREEL_MODELS_DIR=str(cards),
        SONOREEL_WARM="espeak-ng,pocketsphinx,ears,who",
        SONOREEL_MAX_UPLOAD_MB=str(LIMIT_MB),
        SONOREEL_FETCH_ALLOWED_HOSTS="localhost",
        SONOREEL_FETCH_SECONDS="2",
    ) as server:
        yield server
        assert not unexpected(server.log), "".join(server.log)


def unexpected(log: Sequence[str]) -> list[str]:
    """What the server complains of; the scripted engine raises because it is told to."""
    surprises = [before for before, line in itertools.pairwise(log) if line.startswith("Traceback")]
    return [line for line in surprises if "sonoreel.worker[" not in line]


@pytest.fixture(autouse=True)
def _nothing_left(server: ServerProcess) -> Iterator[None]:
    yield
    wait_for(lambda: not left_behind(server), "files are left in the spool directory")
    wait_for(lambda: not running(server), "something is still running")


@pytest.fixture(scope="module")
def speech(server: ServerProcess) -> Samples:
    return spoken_samples(server, SENTENCE)
