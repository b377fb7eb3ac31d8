"""Sessions of /v1/realtime, frame by frame."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from streaming.audio import PcmEncoding, Samples
from tests.journeys.recordings import frames_of, spoken_samples, with_pauses, word_error_rate
from tests.journeys.server_process import ServerProcess
from tests.journeys.sockets import Frame, Socket, encoded, open_socket

PATH = "/v1/realtime"
SENTENCE = "I would like a cup of coffee."
APPEND, COMMIT, CLEAR = "input_audio_buffer.append", "input_audio_buffer.commit", "input_audio_buffer.clear"
TRANSCRIPTION = "conversation.item.input_audio_transcription"
DELTA, COMPLETED, FAILED = (f"{TRANSCRIPTION}.{kind}" for kind in ("delta", "completed", "failed"))
TOGETHER = {"model": "auto", "input_audio_format": "pcm_s16le_16000"}
OPENAI = {"intent": "transcription"}
BETA = {"OpenAI-Beta": "realtime=v1"}
MANUAL_16K = {
    "type": "transcription",
    "audio": {
        "input": {
            "format": {"type": "audio/pcm", "rate": 16_000},
            "transcription": {"model": "auto"},
            "turn_detection": None,
        }
    },
}


@pytest.fixture(scope="module")
def speech(server: ServerProcess) -> Samples:
    """One sentence between two silences, 16 kHz."""
    return with_pauses(spoken_samples(server, SENTENCE))


@asynccontextmanager
async def session(server: ServerProcess, query: dict[str, Any], **options: Any) -> AsyncIterator[Socket]:
    """A session whose first frame has come."""
    async with open_socket(server, PATH, query, **options) as socket:
        assert (await socket.receive())["type"] == "session.created"
        yield socket


async def hear(socket: Socket, samples: Samples, rate: int = 16_000, encoding: PcmEncoding = PcmEncoding.S16LE) -> None:
    """Send samples in frames of 100 ms, as fast as they are taken."""
    for frame in frames_of(samples, rate, encoding):
        await socket.send(APPEND, audio=encoded(frame))


async def update(socket: Socket, kind: str, session: dict[str, Any]) -> Frame:
    """Change the session; the answer's session."""
    await socket.send(kind, session=session)
    answers = {"session.update": "session.updated", "transcription_session.update": "transcription_session.updated"}
    answered: Frame = (await socket.until(answers.get(kind, kind)))[-1]["session"]
    return answered


def understood(transcript: str) -> bool:
    """Most words of the sentence are there: a robot listens to a robot."""
    return word_error_rate([SENTENCE], [transcript]) <= 0.5
