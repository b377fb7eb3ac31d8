"""Kokoro's real classes behind the speech socket. The weights are random: what is heard means nothing, but when it
comes, which words it is, and that it stops, does.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import httpx
import numpy as np
import pytest

from streaming.audio import PcmEncoding, decode_pcm
from tests.journeys.server_process import ServerProcess, running_server
from tests.journeys.sockets import Frame, Socket, decoded, of_kind, open_socket
from tests.models.tiny_kokoro import VOICES, tiny_kokoro

pytestmark = [
    pytest.mark.journey,
    pytest.mark.skipif(
        not all(map(importlib.util.find_spec, ("kokoro", "misaki", "torch"))), reason="kokoro is not installed"
    ),
]

PATH = "/v1/audio/speech/websocket"
APPEND, COMMIT, CANCEL = "input_text_buffer.append", "input_text_buffer.commit", "context.cancel"
AUDIO, DONE = "conversation.item.audio_output.delta", "conversation.item.audio_output.done"
WORDS, FAILED = "conversation.item.word_timestamps", "conversation.item.tts.failed"
CARD = """
[[card]]
id = "tiny-kokoro"
task = "speech"
engine = "kokoro"
name = "Tiny Kokoro"
weights = "{weights}"
sample_rate = 24000
default_voice = "af_heart"
word_timestamps = true
live = true
concurrency = 4
options = {{ device = "cpu", threads = 1 }}

[card.openai_voices]
alloy = "af_bella"
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("kokoro-server")
    cards = folder / "cards"
    cards.mkdir()
    weights = tiny_kokoro(tmp_path_factory.getbasetemp())
    (cards / "tiny.toml").write_text(CARD.format(weights=weights))
    with running_server(folder / "data", SONOREEL_MODELS_DIR=str(cards), SONOREEL_WARM="tiny-kokoro") as server:
        yield server


@asynccontextmanager
async def kokoro_socket(server: ServerProcess, **query: object) -> AsyncIterator[Socket]:
    query = {"model": "tiny-kokoro", "voice": "af_heart", "pacing": "none", "alignment": "word"} | query
    async with open_socket(server, PATH, query) as socket:
        assert (await socket.receive())["type"] == "session.created"
        yield socket


async def say(socket: Socket, text: str, context_id: str = "default") -> list[Frame]:
    await socket.send(APPEND, text=text, context_id=context_id)
    await socket.send(COMMIT, context_id=context_id)
    return await socket.until(DONE, context_id=context_id)


def samples_of(frames: list[Frame]) -> np.ndarray:
    return decode_pcm(decoded(of_kind(frames, AUDIO)), PcmEncoding.S16LE)


async def test_its_audio_arrives_and_every_word_of_the_text_has_its_time(server: ServerProcess) -> None:
    text = "Dr. Smith doesn't mind, does he? It is one of the best."
    async with kokoro_socket(server) as socket:
        frames = await say(socket, text)
        timed = of_kind(frames, WORDS)
        words = [word for frame in timed for word in frame["words"]]
        starts = [start for frame in timed for start in frame["start_seconds"]]
        ends = [end for frame in timed for end in frame["end_seconds"]]
        assert re.findall(r"[\w']+", " ".join(words)) == re.findall(r"[\w']+", text)
        assert starts == sorted(starts)
        assert all(start < end for start, end in zip(starts, ends, strict=True))
        audio = samples_of(frames)
        assert ends[-1] <= len(audio) / 24_000 + 0.05
        assert float(np.abs(audio).max()) > 0.05


async def test_the_same_words_sound_the_same_and_a_mix_like_none_of_its_voices(server: ServerProcess) -> None:
    heard: dict[str, bytes] = {}
    async with kokoro_socket(server) as socket:
        for voice in ("af_heart", "af_heart", "am_adam", "af_heart(2)+am_adam(1)", "alloy"):
            context = f"{voice} {len(heard)}"
            await socket.send("tts_session.updated", session={"voice": voice}, context_id=context)
            heard[context] = decoded(of_kind(await say(socket, "Good morning.", context), AUDIO))
    one, again, *others = heard.values()
    assert one == again
    assert len({one, *others}) == 4


async def test_other_languages_have_their_words_timed(server: ServerProcess) -> None:
    async with kokoro_socket(server, voice="ff_siwis", language="fr") as socket:
        frames = await say(socket, "C'est la vie, mon ami.")
        assert [word.strip(",.") for frame in of_kind(frames, WORDS) for word in frame["words"]] == [
            "C'est",
            "la",
            "vie",
            "mon",
            "ami",
        ]


async def test_a_voice_it_does_not_have_fails_the_item_and_not_the_session(server: ServerProcess) -> None:
    async with kokoro_socket(server) as socket:
        await socket.send("tts_session.updated", session={"voice": "af_bella(2"}, context_id="bad")
        await socket.send(APPEND, text="Hello.", context_id="bad")
        await socket.send(COMMIT, context_id="bad")
        failed = (await socket.until(FAILED))[-1]
        assert failed["error"]["param"] == "voice"
        assert len(samples_of(await say(socket, "Hello.", "good")))


async def test_what_is_cancelled_stops_and_the_next_context_is_heard_by_the_same_worker(server: ServerProcess) -> None:
    workers = server.worker_pids()
    text = "This goes on for a good while and then some. " * 40
    async with kokoro_socket(server) as socket:
        await socket.send(APPEND, text=text, context_id="long")
        await socket.send(COMMIT, context_id="long")
        await socket.until(AUDIO, context_id="long")
        await socket.send(CANCEL, context_id="long")
        await socket.until("context.cancelled", context_id="long")
        assert len(samples_of(await say(socket, "Now this.", "next")))
        assert of_kind(socket.frames, DONE, context_id="long") == []
        # All of it would be a minute and a half.
        assert len(samples_of(of_kind(socket.frames, AUDIO, context_id="long"))) < 30 * 24_000
    assert server.worker_pids() == workers


def test_its_voices_are_listed_and_http_speaks_too(server: ServerProcess) -> None:
    with httpx.Client(base_url=server.url, timeout=60) as client:
        listed = client.get("/v1/voices", params={"model": "tiny-kokoro"}).json()["data"]
        voices = {voice["id"] for model in listed for voice in model["voices"]}
        assert set(VOICES) <= voices
        body = {"model": "tiny-kokoro", "voice": "af_bella+af_heart", "input": "Hello.", "response_format": "wav"}
        answer = client.post("/v1/audio/speech", json=body)
        assert answer.status_code == 200, answer.text
        assert answer.content[:4] == b"RIFF"
        refused = client.post("/v1/audio/speech", json=body | {"voice": "nobody"})
        assert refused.status_code == 400
        assert refused.json()["error"]["param"] == "voice"
