"""What this server says, it understands; and real recordings are understood as well live as from a file."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

import anyio
import httpx
import pytest

from streaming.audio import Samples
from tests.journeys.recordings import frames_of, plain, read, speak, spoken_samples, word_error_rate
from tests.journeys.server_process import ServerProcess
from tests.journeys.sockets import encoded, of_kind, open_socket
from tests.models.engines.sentences import SENTENCES

Item = TypeVar("Item")
COMPLETED = "conversation.item.input_audio_transcription.completed"
RECORDINGS = {
    "go-forward.wav": "go forward ten meters",
    "jfk.flac": (
        "and so my fellow americans ask not what your country can do for you ask what you can do for your country"
    ),
    "librivox-0870.wav": (
        "and mister john dashwood had then leisure to consider how much there might be prudently in his power to do "
        "for them"
    ),
    "librivox-0930.wav": "he might even have been made amiable himself",
}
NOTED = {"go-forward.wav": 0.0, "jfk.flac": 0.59, "librivox-0870.wav": 0.41, "librivox-0930.wav": 0.12}
"""The word error rates that the recordings' README tells of this recogniser."""
TOLERANCE = 0.05
UNDERSTOOD = 0.30

pytestmark = [pytest.mark.journey, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def recordings(shared_audio: Path) -> dict[str, Samples]:
    """The real recordings at 16 kHz, by name."""
    return {name: read(shared_audio / name) for name in RECORDINGS}


@pytest.fixture(scope="module")
def files(shared_audio: Path) -> dict[str, bytes]:
    """The same as they are uploaded."""
    return {name: (shared_audio / name).read_bytes() for name in RECORDINGS}


async def from_file(server: ServerProcess, file: bytes) -> str:
    """What the REST interface makes of a recording."""
    async with httpx.AsyncClient(base_url=server.url, timeout=120) as client:
        answer = await client.post("/v1/audio/transcriptions", data={"model": "auto"}, files={"file": ("speech", file)})
    answer.raise_for_status()
    return plain(answer.json()["text"])


async def live(server: ServerProcess, samples: Samples, **query: object) -> str:
    """What a session makes of a recording that is sent in frames of 100 ms, as fast as they are taken."""
    options = {"model": "auto", "input_audio_format": "pcm_s16le_16000"} | query
    async with open_socket(server, "/v1/realtime", options) as socket:
        for frame in frames_of(samples):
            await socket.send("input_audio_buffer.append", audio=encoded(frame))
        if query.get("turn_detection") != "none":
            await socket.send("input_audio_buffer.commit")
            # Turns are answered in their order: all of them have been when a silence, committed by hand, has.
            await socket.send("transcription_session.updated", session={"turn_detection": None})
            await socket.send("input_audio_buffer.append", audio=encoded(bytes(6400)))
        await socket.send("input_audio_buffer.commit")
        while True:
            received = await socket.until(COMPLETED)
            if query.get("turn_detection") == "none" or received[-1]["transcript"] == "":
                break
        return plain(" ".join(frame["transcript"] for frame in of_kind(socket.frames, COMPLETED)))


async def all_of(work: Callable[[Item], Awaitable[str]], items: Sequence[Item]) -> list[str]:
    """The answers in order, two at a time: a model has two workers."""
    answers = [""] * len(items)
    slots = asyncio.Semaphore(2)

    async def answer(index: int) -> None:
        async with slots:
            answers[index] = await work(items[index])

    async with anyio.create_task_group() as tasks:
        for index in range(len(items)):
            tasks.start_soon(answer, index)
    return answers


async def test_the_embedded_voice_is_understood(server: ServerProcess) -> None:
    files = [speak(server, sentence, response_format="wav", sample_rate=24_000) for sentence in SENTENCES]
    spoken = [spoken_samples(server, sentence) for sentence in SENTENCES]
    written = word_error_rate(SENTENCES, await all_of(lambda file: from_file(server, file), files))
    heard = word_error_rate(SENTENCES, await all_of(lambda samples: live(server, samples), spoken))
    assert max(written, heard) <= UNDERSTOOD, (written, heard)
    assert abs(heard - written) <= TOLERANCE, (written, heard)


async def test_recordings_are_understood_no_worse_than_noted_and_live_like_a_file(
    server: ServerProcess, files: dict[str, bytes], recordings: dict[str, Samples]
) -> None:
    written = await all_of(lambda file: from_file(server, file), list(files.values()))
    heard = await all_of(lambda samples: live(server, samples, turn_detection="none"), list(recordings.values()))
    for texts in (written, heard):
        for name, text in zip(RECORDINGS, texts, strict=True):
            assert word_error_rate([RECORDINGS[name]], [text]) <= NOTED[name] + TOLERANCE, (name, text)
        assert texts[0] == RECORDINGS["go-forward.wav"]
    references = list(RECORDINGS.values())
    assert abs(word_error_rate(references, heard) - word_error_rate(references, written)) <= TOLERANCE


@pytest.mark.parametrize("name", RECORDINGS)
async def test_recordings_are_understood_in_the_turns_of_a_conversation(
    server: ServerProcess, recordings: dict[str, Samples], name: str
) -> None:
    text = await live(server, recordings[name])
    assert word_error_rate([RECORDINGS[name]], [text]) <= NOTED[name] + TOLERANCE, text
    if name == "go-forward.wav":
        assert text == RECORDINGS[name]
