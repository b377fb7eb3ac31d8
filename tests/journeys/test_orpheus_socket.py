"""Orpheus behind the speech socket: its tokens from a scripted server, its codec's real classes with random weights."""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import numpy as np
import pytest

from streaming.audio import PcmEncoding, decode_pcm
from tests.journeys.server_process import ServerProcess, running_server
from tests.journeys.sockets import Frame, Socket, decoded, of_kind, open_socket
from tests.models.tiny_orpheus import SAID, ScriptedServer, build_codec

pytestmark = [
    pytest.mark.journey,
    pytest.mark.skipif(
        not all(map(importlib.util.find_spec, ("snac", "torch", "transformers"))), reason="snac is not installed"
    ),
]

PATH = "/v1/audio/speech/websocket"
APPEND, COMMIT = "input_text_buffer.append", "input_text_buffer.commit"
AUDIO, DONE = "conversation.item.audio_output.delta", "conversation.item.audio_output.done"
FAILED = "conversation.item.tts.failed"
CARD = """
[[card]]
id = "{id}"
task = "speech"
engine = "orpheus"
name = "Orpheus on another server"
requires = ["snac", "torch"]
sample_rate = 24000
languages = ["en"]
default_voice = "tara"
live = true
concurrency = 4

[card.options]
backend = "openai"
base_url = "{url}"
model = "{model}"
codec = "{codec}"
device = "cpu"
threads = 1
"""


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedServer]:
    with ScriptedServer().running() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, upstream: ScriptedServer) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("orpheus-server")
    cards, codec = folder / "cards", build_codec(folder / "codec")
    cards.mkdir()
    models = {"orpheus-there": "orpheus", "orpheus-dying": "dying", "orpheus-hanging": "hanging"}
    (cards / "orpheus.toml").write_text(
        "".join(CARD.format(id=id, url=upstream.url, model=model, codec=codec) for id, model in models.items())
    )
    with running_server(folder / "data", SONOREEL_MODELS_DIR=str(cards), SONOREEL_WARM="orpheus-there") as server:
        yield server


@asynccontextmanager
async def orpheus_socket(server: ServerProcess, model: str = "orpheus-there") -> AsyncIterator[Socket]:
    async with open_socket(server, PATH, {"model": model, "voice": "zoe", "pacing": "none"}) as socket:
        assert (await socket.receive())["type"] == "session.created"
        yield socket


async def say(socket: Socket, text: str, until: str = DONE) -> list[Frame]:
    await socket.send(APPEND, text=text)
    await socket.send(COMMIT)
    return await socket.until(until)


async def test_the_voice_and_the_tags_reach_the_server_and_its_sound_the_client(
    server: ServerProcess, upstream: ScriptedServer
) -> None:
    async with orpheus_socket(server) as socket:
        frames = await say(socket, "Well <laugh> I never.")
    found = SAID.fullmatch(upstream.requests[-1]["prompt"])
    assert found is not None
    assert found[1] == "zoe"
    assert "<laugh>" in found[2]
    audio = decode_pcm(decoded(of_kind(frames, AUDIO)), PcmEncoding.S16LE)
    assert len(audio) > 4096
    assert float(np.abs(audio).max()) > 0.01


async def test_a_server_that_breaks_off_fails_the_item_and_not_the_session(server: ServerProcess) -> None:
    async with orpheus_socket(server, "orpheus-dying") as socket:
        for _ in range(2):
            failed = (await say(socket, "The quick brown fox jumps over the lazy dog.", FAILED))[-1]
            assert "server of this model" in failed["error"]["message"]


async def test_what_is_cancelled_is_cancelled_there_too(server: ServerProcess, upstream: ScriptedServer) -> None:
    upstream.gone.clear()
    async with orpheus_socket(server, "orpheus-hanging") as socket:
        await say(socket, "The quick brown fox jumps over the lazy dog.", AUDIO)
        await socket.send("context.cancel", context_id="default")
        await socket.until("context.cancelled")
        assert upstream.gone.wait(20)
