"""Whose dialect a session of /v1/realtime speaks, and what ends it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import soxr

from streaming.audio import Samples
from tests.journeys.realtime_sessions import (
    BETA,
    COMPLETED,
    FAILED,
    MANUAL_16K,
    OPENAI,
    PATH,
    TOGETHER,
    hear,
    session,
    speech,
    understood,
    update,
)
from tests.journeys.server_process import ServerProcess, running_server
from tests.journeys.sockets import kinds, of_kind, open_socket

__all__ = ["speech"]

pytestmark = pytest.mark.journey


@pytest.fixture(scope="module")
def hasty_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that waits one second for audio."""
    with running_server(tmp_path_factory.mktemp("hasty"), SONOREEL_REALTIME_IDLE_SECONDS="1") as server:
        yield server


VAD_ONLY = {"model": "auto", "min_silence_duration_ms": 400}


@pytest.mark.parametrize(
    ("query", "headers", "object_name", "key"),
    [
        (TOGETHER, None, "realtime.session", "modalities"),
        (TOGETHER, BETA, "realtime.session", "modalities"),
        (TOGETHER | OPENAI | {"turn_detection": "none"}, BETA, "realtime.session", "modalities"),
        (VAD_ONLY, None, "realtime.session", "modalities"),
        ({"model": "pocketsphinx"}, None, "realtime.session", "modalities"),
        (OPENAI, None, "realtime.transcription_session", "audio"),
        (OPENAI | {"model": "auto"}, None, "realtime.transcription_session", "audio"),
        (OPENAI, BETA, "realtime.transcription_session", "input_audio_format"),
    ],
)
async def test_the_query_decides_the_dialect(
    server: ServerProcess, query: dict[str, object], headers: dict[str, str] | None, object_name: str, key: str
) -> None:
    async with session(server, query, headers=headers) as socket:
        created = socket.frames[0]["session"]
        assert created["object"] == object_name
        assert key in created


@pytest.mark.parametrize("query", [{"model": "pocketsphinx"}, OPENAI, TOGETHER])
@pytest.mark.parametrize(
    ("first", "change", "key"),
    [
        ("session.update", {"type": "transcription"}, "audio"),
        ("transcription_session.update", {}, "input_audio_format"),
        ("transcription_session.updated", {}, "turn_detection"),
    ],
)
async def test_the_first_frame_overrides_it(
    server: ServerProcess, query: dict[str, object], first: str, change: dict[str, Any], key: str
) -> None:
    async with session(server, query) as socket:
        assert key in await update(socket, first, change)
        await socket.send("no such event")
        answer = await socket.receive()
        assert answer["type"] == (FAILED if first.endswith("updated") else "error")


async def test_an_override_sets_the_audio_format_it_promises(server: ServerProcess, speech: Samples) -> None:
    async with session(server, {"model": "pocketsphinx"}) as socket:
        changed = await update(socket, "session.update", {"type": "transcription"})
        assert changed["audio"]["input"]["format"] == {"type": "audio/pcm", "rate": 24_000}
        await hear(socket, soxr.resample(speech, 16_000, 24_000), 24_000)
        frames = await socket.until(COMPLETED)
        assert understood(frames[-1]["transcript"])
        stopped = of_kind(frames, "input_audio_buffer.speech_stopped")[0]
        assert stopped["audio_end_ms"] <= len(speech) / 16 + 1


@pytest.mark.parametrize("query", [{"model": "gpt-realtime"}, {"model": "espeak-ng"}])
async def test_a_conversation_is_refused_clearly(server: ServerProcess, query: dict[str, object]) -> None:
    async with open_socket(server, PATH, query) as socket:
        frames, closed = await socket.until_closed()
        assert kinds(frames) == ["error"]
        assert frames[0]["error"]["code"] == "conversation_not_supported"
        assert "intent=transcription" in frames[0]["error"]["message"]
        assert closed == 1008


@pytest.mark.parametrize(
    "frame",
    [
        {"type": "session.update", "session": {"type": "realtime"}},
        {"type": "response.create"},
        {"type": "conversation.item.create", "item": {}},
    ],
)
async def test_a_transcription_session_says_that_it_holds_no_conversation(
    server: ServerProcess, frame: dict[str, Any]
) -> None:
    async with session(server, OPENAI) as socket:
        await socket.connection.send(json.dumps(frame | {"event_id": "mine"}))
        answer = await socket.receive()
        assert answer["type"] == "error"
        assert answer["error"]["code"] == "conversation_not_supported"
        assert answer["error"]["event_id"] == "mine"
        await update(socket, "session.update", MANUAL_16K)


@pytest.mark.parametrize("query", [TOGETHER, OPENAI])
async def test_a_session_without_audio_ends_with_idle_timeout(
    hasty_server: ServerProcess, query: dict[str, object]
) -> None:
    async with session(hasty_server, query) as socket:
        frames, closed = await socket.until_closed()
        together = query is TOGETHER
        assert kinds(frames) == [FAILED if together else "error"]
        assert frames[0]["error"]["code"] == "idle_timeout"
        assert "Timeout" in frames[0]["error"]["message"]
        assert closed == (1000 if together else 1008)
