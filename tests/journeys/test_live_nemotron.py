"""A cache-aware transducer hears live speech over /v1/realtime, and the same as a file; its weights are random."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import anyio
import httpx
import pytest

from streaming.audio import PcmEncoding, decode_pcm
from tests.journeys.recordings import frames_of, speak, with_pauses
from tests.journeys.server_process import ServerProcess, running_server
from tests.journeys.sockets import encoded, of_kind, open_socket
from tests.journeys.uploading import TRANSCRIPTIONS, wav

pytestmark = [
    pytest.mark.journey,
    pytest.mark.skipif(
        not all(map(importlib.util.find_spec, ("transformers", "torch"))),
        reason="transformers and torch are not installed",
    ),
]

MODEL = "tiny-nemotron"
SAMPLE_RATE = 16_000
TRANSCRIPTION = "conversation.item.input_audio_transcription"
CARD = """
[[card]]
id = "{model}"
task = "transcription"
engine = "nemotron"
name = "Tiny Nemotron"
weights = "{weights}"
languages = ["en"]
word_timestamps = true
live = true
concurrency = 4
[card.options]
dtype = "float32"
threads = 1
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    from tests.models.tiny_nemotron import build_nemotron

    weights = build_nemotron(tmp_path_factory.mktemp("nemotron"))
    cards: Path = tmp_path_factory.mktemp("cards")
    (cards / "tiny.toml").write_text(CARD.format(model=MODEL, weights=weights))
    data = tmp_path_factory.mktemp("data")
    with running_server(data, SONOREEL_MODELS_DIR=str(cards), SONOREEL_WARM=f"espeak-ng,{MODEL}") as server:
        yield server


async def test_sessions_at_once_and_a_file_are_heard(server: ServerProcess) -> None:
    speech = speak(server, "I would like a cup of coffee and a glass of cold water.", model="espeak-ng")
    samples = with_pauses(decode_pcm(speech, PcmEncoding.S16LE))
    finals: list[str] = []

    async def converse() -> None:
        query = {"model": MODEL, "input_audio_format": "pcm_s16le_16000"}
        async with open_socket(server, "/v1/realtime", query) as socket:
            for frame in frames_of(samples, SAMPLE_RATE):
                await socket.send("input_audio_buffer.append", audio=encoded(frame))
            completed = (await socket.until(f"{TRANSCRIPTION}.completed"))[-1]
            deltas = of_kind(socket.frames, f"{TRANSCRIPTION}.delta")
            assert len(deltas) > 3
            assert completed["transcript"].startswith(deltas[0]["transcript"].rpartition(" ")[0])
            assert [word["word"] for word in completed["words"]] == completed["transcript"].split()
            finals.append(completed["transcript"])

    async with anyio.create_task_group() as sessions:
        for _ in range(3):
            sessions.start_soon(converse)
    assert finals[0]
    assert finals == 3 * finals[:1]
    async with httpx.AsyncClient(base_url=server.url, timeout=30) as client:
        answer = await client.post(
            TRANSCRIPTIONS,
            data={"model": MODEL, "response_format": "verbose_json", "timestamp_granularities[]": "word"},
            files={"file": ("turn.wav", wav(samples))},
        )
        metrics = (await client.get("/metrics")).text
    heard = answer.raise_for_status().json()
    assert heard["language"] in ("en", "english")
    assert " ".join(word["word"] for word in heard["words"]) == heard["text"] != ""
    assert f'sonoreel_listen_lag_seconds_count{{model="{MODEL}"}}' in metrics
