"""Whisper hears live speech over /v1/realtime: a real server, and a small model that understands 45 words."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import numpy as np
import pytest

from streaming.audio import PcmEncoding, Samples, decode_pcm
from tests.journeys.recordings import frames_of, speak, with_pauses, word_error_rate
from tests.journeys.server_process import ServerProcess, running_server
from tests.journeys.sockets import Frame, Socket, encoded, of_kind, open_socket
from tests.journeys.uploading import TRANSCRIPTIONS, noise, wav

pytestmark = [
    pytest.mark.journey,
    pytest.mark.skipif(not importlib.util.find_spec("faster_whisper"), reason="faster-whisper is not installed"),
]

MODEL = "whisper-words"
SAMPLE_RATE = 16_000
APPEND = "input_audio_buffer.append"
TRANSCRIPTION = "conversation.item.input_audio_transcription"
DELTA, COMPLETED = f"{TRANSCRIPTION}.delta", f"{TRANSCRIPTION}.completed"
TOGETHER = {"model": MODEL, "input_audio_format": "pcm_s16le_16000"}
OPENAI = {"intent": "transcription"}
OPENAI_SESSION = {
    "type": "transcription",
    "audio": {
        "input": {"format": {"type": "audio/pcm", "rate": SAMPLE_RATE}, "transcription": {"model": MODEL}},
    },
}
SENTENCES = (
    "turn on the kitchen light and open the door please",
    "stop the music now and close the window",
    "start the timer ten minutes",
    "red green blue black white",
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    data = tmp_path_factory.mktemp("live-whisper")
    with running_server(data, SONOREEL_WARM=f"espeak-ng,{MODEL}") as server:
        yield server


@pytest.fixture(scope="module")
def spoken(server: ServerProcess) -> list[Samples]:
    """The sentences, in voices the model knows."""
    voices = ("en-us+klatt6", "en-us+f3", "en-us+klatt4", "en-gb-x-rp")
    parts = (speak(server, text, model="espeak-ng", voice=voice) for text, voice in zip(SENTENCES, voices, strict=True))
    return [decode_pcm(part, PcmEncoding.S16LE) for part in parts]


@asynccontextmanager
async def session(server: ServerProcess, query: dict[str, Any]) -> AsyncIterator[Socket]:
    async with open_socket(server, "/v1/realtime", query) as socket:
        assert (await socket.receive())["type"] == "session.created"
        if "intent" in query:
            await socket.send("session.update", session=OPENAI_SESSION)
            await socket.until("session.updated")
        yield socket


async def hear(socket: Socket, samples: Samples) -> None:
    for frame in frames_of(samples, SAMPLE_RATE):
        await socket.send(APPEND, audio=encoded(frame))


def beginnings_agree(one: str, other: str, words: int) -> bool:
    return one.split()[:words] == other.split()[:words] != []


def in_a_file(server: ServerProcess, samples: Samples) -> str:
    answer = httpx.post(
        server.url + TRANSCRIPTIONS, data={"model": MODEL}, files={"file": ("turn.wav", wav(samples))}, timeout=30
    )
    answer.raise_for_status()
    text: str = answer.json()["text"]
    return text


async def test_words_come_while_the_sentence_is_still_spoken(server: ServerProcess, spoken: list[Samples]) -> None:
    async with session(server, TOGETHER) as socket:
        samples = with_pauses(spoken[0])
        middle = 2 * SAMPLE_RATE
        await hear(socket, samples[:middle])
        early = (await socket.until(DELTA))[-1]
        assert beginnings_agree(early["transcript"], SENTENCES[0], 2)
        await hear(socket, samples[middle:])
        completed = (await socket.until(COMPLETED))[-1]
        assert completed["transcript"] == SENTENCES[0]
        deltas = of_kind(socket.frames, DELTA)
        assert all(frame["delta"] == frame["transcript"] for frame in deltas)
        assert len({frame["transcript"] for frame in deltas}) >= 3
        assert [word["word"] for word in completed["words"]] == SENTENCES[0].split()
        times = [time for word in completed["words"] for time in (word["start"], word["end"])]
        assert times == sorted(times)
        assert 0.2 <= times[0] <= times[-1] <= len(samples) / SAMPLE_RATE


async def test_where_text_is_only_appended_nothing_is_taken_back(server: ServerProcess, spoken: list[Samples]) -> None:
    async with session(server, OPENAI) as socket:
        samples = with_pauses(spoken[0])
        middle = 3 * SAMPLE_RATE
        await hear(socket, samples[:middle])
        early = (await socket.until(DELTA))[-1]["delta"]
        assert beginnings_agree(early, SENTENCES[0], 1)
        await hear(socket, samples[middle:])
        completed = (await socket.until(COMPLETED))[-1]
        deltas = of_kind(socket.frames, DELTA)
        assert len(deltas) >= 3
        assert "".join(frame["delta"] for frame in deltas) == completed["transcript"] == SENTENCES[0]


@pytest.mark.parametrize("query", [TOGETHER, OPENAI], ids=["together", "openai"])
async def test_finals_are_what_a_file_of_the_turn_gives(
    server: ServerProcess, spoken: list[Samples], query: dict[str, Any]
) -> None:
    async with session(server, query) as socket:
        for samples in spoken:
            await hear(socket, with_pauses(samples, after=1.2))
        while len(of_kind(socket.frames, COMPLETED)) < len(spoken):
            await socket.receive()
    finals = [frame["transcript"] for frame in of_kind(socket.frames, COMPLETED)]
    assert finals == [in_a_file(server, with_pauses(samples)) for samples in spoken]
    assert word_error_rate(SENTENCES, finals) <= 0.05


async def test_a_pause_within_a_turn_does_not_end_it(server: ServerProcess, spoken: list[Samples]) -> None:
    """The final that is begun in the pause is dropped."""
    async with session(server, TOGETHER | {"min_silence_duration_ms": 900}) as socket:
        pause = np.zeros(SAMPLE_RATE // 2, np.float32)
        await hear(socket, with_pauses(np.concatenate((spoken[2], pause, spoken[3])), after=1.5))
        completed = (await socket.until(COMPLETED))[-1]
        assert completed["transcript"] == f"{SENTENCES[2]} {SENTENCES[3]}"


async def test_noise_and_silence_say_nothing(server: ServerProcess, spoken: list[Samples]) -> None:
    async with session(server, TOGETHER) as socket:
        await hear(socket, np.concatenate((np.zeros(2 * SAMPLE_RATE, np.float32), noise(3.0, 0.05))))
        await hear(socket, with_pauses(spoken[2]))
        completed = (await socket.until(COMPLETED))[-1]
        assert completed["transcript"] == SENTENCES[2]
        assert {frame["item_id"] for frame in of_kind(socket.frames, DELTA)} == {completed["item_id"]}


async def test_sessions_and_an_upload_at_once_get_each_their_own(server: ServerProcess, spoken: list[Samples]) -> None:
    conversations: dict[int, list[Frame]] = {}

    async def converse(number: int) -> None:
        async with session(server, TOGETHER) as socket:
            await hear(socket, with_pauses(spoken[number % len(spoken)]))
            await socket.until(COMPLETED)
            conversations[number] = socket.frames

    long = np.concatenate([with_pauses(samples) for samples in spoken] * 4)
    upload, *_ = await asyncio.gather(asyncio.to_thread(in_a_file, server, long), *map(converse, range(6)))
    assert len(conversations) == 6
    for number, received in conversations.items():
        assert of_kind(received, DELTA)
        assert of_kind(received, COMPLETED)[-1]["transcript"] == SENTENCES[number % len(spoken)]
    assert word_error_rate([" ".join(SENTENCES * 4)], [str(upload)]) <= 0.05


def lag_counts(server: ServerProcess) -> float:
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    wanted = f'sonoreel_listen_lag_seconds_count{{model="{MODEL}"}}'
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(wanted))


async def test_how_far_hypotheses_are_behind_is_measured(server: ServerProcess, spoken: list[Samples]) -> None:
    before = lag_counts(server)
    async with session(server, TOGETHER) as socket:
        await hear(socket, with_pauses(spoken[1]))
        await socket.until(COMPLETED)
        deltas = of_kind(socket.frames, DELTA)
    assert lag_counts(server) - before >= len(deltas) > 1
