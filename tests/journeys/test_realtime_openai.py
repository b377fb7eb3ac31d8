"""/v1/realtime in both of OpenAI's dialects, frame by frame."""

from __future__ import annotations

from typing import Any

import pytest
import soxr

from streaming.audio import PcmEncoding, Samples
from tests.journeys.realtime_sessions import (
    BETA,
    CLEAR,
    COMMIT,
    COMPLETED,
    DELTA,
    MANUAL_16K,
    OPENAI,
    PATH,
    hear,
    session,
    speech,
    understood,
    update,
)
from tests.journeys.recordings import word_error_rate
from tests.journeys.server_process import ServerProcess
from tests.journeys.sockets import kinds, of_kind, open_socket

__all__ = ["speech"]

pytestmark = pytest.mark.journey


async def test_openai_turns_come_in_order_with_settled_deltas(server: ServerProcess, speech: Samples) -> None:
    async with session(server, OPENAI) as socket:
        created = socket.frames[0]["session"]
        assert (created["type"], created["object"]) == ("transcription", "realtime.transcription_session")
        vad = {"type": "server_vad", "threshold": 0.4, "silence_duration_ms": 400}
        changed = await update(
            socket,
            "session.update",
            {
                "type": "transcription",
                "audio": {"input": {"transcription": {"model": "auto", "language": "en"}, "turn_detection": vad}},
            },
        )
        assert changed["audio"]["input"]["transcription"] == {"model": "pocketsphinx", "language": "en"}
        assert changed["audio"]["input"]["turn_detection"]["prefix_padding_ms"] == 300
        await hear(socket, soxr.resample(speech, 16_000, 24_000), 24_000)
        completed = (await socket.until(COMPLETED))[-1]
        heard = socket.frames[2:]
        assert [kind for kind in kinds(heard) if kind != DELTA] == [
            "input_audio_buffer.speech_started",
            "input_audio_buffer.speech_stopped",
            "input_audio_buffer.committed",
            "conversation.item.added",
            "conversation.item.done",
            COMPLETED,
        ]
        assert {frame.get("item_id") or frame["item"]["id"] for frame in heard} == {completed["item_id"]}
        assert len({frame["event_id"] for frame in heard}) == len(heard)
        assert understood(completed["transcript"])
        appended = "".join(frame["delta"] for frame in of_kind(heard, DELTA))
        assert appended.split()
        assert word_error_rate([completed["transcript"]], [appended]) <= 0.34
        started, stopped = heard[0]["audio_start_ms"], of_kind(heard, "input_audio_buffer.speech_stopped")[0]
        assert 0 <= started < 400 < stopped["audio_end_ms"] <= len(speech) / 16 + 1
        assert completed["usage"]["type"] == "duration"
        assert completed["usage"]["seconds"] >= (stopped["audio_end_ms"] - started) / 1000 - 0.01
        assert [word["word"] for word in completed["words"]] == completed["transcript"].split()


async def test_openai_manual_commits(server: ServerProcess, speech: Samples) -> None:
    async with session(server, OPENAI) as socket:
        changed = await update(socket, "session.update", MANUAL_16K)
        assert changed["audio"]["input"]["turn_detection"] is None
        previous = None
        for _ in range(2):
            await hear(socket, speech)
            await socket.send(COMMIT, event_id="mine")
            frames = await socket.until(COMPLETED)
            assert [kind for kind in kinds(frames) if kind != DELTA] == [
                "input_audio_buffer.committed",
                "conversation.item.added",
                "conversation.item.done",
                COMPLETED,
            ]
            committed = of_kind(frames, "input_audio_buffer.committed")[0]
            assert committed["previous_item_id"] == previous
            previous = committed["item_id"]
            assert understood(frames[-1]["transcript"])


async def test_openai_refuses_an_empty_commit_by_its_event_id(server: ServerProcess, speech: Samples) -> None:
    async with session(server, OPENAI) as socket:
        await update(socket, "session.update", MANUAL_16K)
        await socket.send(COMMIT, event_id="first")
        refused = await socket.receive()
        assert refused["type"] == "error"
        assert (refused["error"]["code"], refused["error"]["event_id"]) == ("input_audio_buffer_commit_empty", "first")
        await hear(socket, speech)
        await socket.send(CLEAR)
        await socket.until("input_audio_buffer.cleared")
        await socket.send(COMMIT, event_id="second")
        assert (await socket.until("error"))[-1]["error"]["event_id"] == "second"


@pytest.mark.parametrize(("kind", "encoding"), [("audio/pcmu", PcmEncoding.MULAW), ("audio/pcma", PcmEncoding.ALAW)])
async def test_openai_telephone_audio(server: ServerProcess, speech: Samples, kind: str, encoding: PcmEncoding) -> None:
    async with session(server, OPENAI) as socket:
        changed = await update(
            socket, "session.update", {"type": "transcription", "audio": {"input": {"format": {"type": kind}}}}
        )
        assert changed["audio"]["input"]["format"] == {"type": kind}
        await hear(socket, soxr.resample(speech, 16_000, 8_000), 8_000, encoding)
        frames = await socket.until(COMPLETED)
        assert frames[-1]["transcript"]
        assert of_kind(frames, "input_audio_buffer.speech_stopped")[0]["audio_end_ms"] <= len(speech) / 16


async def test_openai_updates_merge(server: ServerProcess) -> None:
    async with session(server, OPENAI | {"model": "auto"}) as socket:
        before = socket.frames[0]["session"]["audio"]["input"]
        assert before["transcription"]["model"] == "pocketsphinx"

        async def change(given: dict[str, Any]) -> dict[str, Any]:
            session = await update(socket, "session.update", {"type": "transcription", "audio": {"input": given}})
            found: dict[str, Any] = session["audio"]["input"]
            return found

        assert await change({}) == before
        silence = {"type": "server_vad", "silence_duration_ms": 350}
        assert (await change({"turn_detection": silence}))["turn_detection"]["threshold"] == 0.5
        assert (await change({"turn_detection": None}))["turn_detection"] is None
        last = await change({"transcription": {"language": "en"}})
        assert last["transcription"] == {"model": "pocketsphinx", "language": "en"}
        assert last["turn_detection"] is None
        assert last["format"] == before["format"]


@pytest.mark.parametrize("by", ["header", "subprotocol"])
async def test_openai_beta(server: ServerProcess, speech: Samples, by: str) -> None:
    options: dict[str, Any] = {"headers": BETA}
    if by == "subprotocol":
        options = {"subprotocols": ["realtime", "openai-beta.realtime-v1"]}
    async with session(server, OPENAI, **options) as socket:
        assert socket.connection.subprotocol == ("realtime" if by == "subprotocol" else None)
        assert socket.frames[0]["session"]["input_audio_format"] == "pcm16"
        changed = await update(
            socket,
            "transcription_session.update",
            {
                "input_audio_format": "pcm16",
                "input_audio_transcription": {"model": "auto", "language": "en", "prompt": ""},
                "turn_detection": {"type": "server_vad", "silence_duration_ms": 400},
                "input_audio_noise_reduction": None,
            },
        )
        assert changed["input_audio_transcription"]["model"] == "pocketsphinx"
        assert changed["turn_detection"]["silence_duration_ms"] == 400
        await hear(socket, soxr.resample(speech, 16_000, 24_000), 24_000)
        completed = (await socket.until(COMPLETED))[-1]
        assert understood(completed["transcript"])
        assert [kind for kind in kinds(socket.frames[2:]) if kind != DELTA] == [
            "input_audio_buffer.speech_started",
            "input_audio_buffer.speech_stopped",
            "input_audio_buffer.committed",
            "conversation.item.created",
            COMPLETED,
        ]


async def test_livekit_sends_its_settings_without_waiting(server: ServerProcess, speech: Samples) -> None:
    async with open_socket(server, PATH, {"intent": "transcription", "model": "auto"}) as socket:
        given = {
            "format": {"type": "audio/pcm", "rate": 24_000},
            "transcription": {
                "model": "auto", "language": "en", "prompt": "..", "keywords": [], "languages": [], "delay": "low",
            },
            "turn_detection": {
                "type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 600, "silence_duration_ms": 350,
            },
            "noise_reduction": {"type": "near_field", "strength": 1.0},
        }  # fmt: skip
        include = ["item.input_audio_transcription.logprobs"]
        await socket.send(
            "session.update", session={"type": "transcription", "audio": {"input": given}, "include": include}
        )
        await hear(socket, soxr.resample(speech, 16_000, 24_000), 24_000)
        assert understood((await socket.until(COMPLETED))[-1]["transcript"])
        assert kinds(socket.frames[:2]) == ["session.created", "session.updated"]
        assert of_kind(socket.frames, "error") == []
        effective = socket.frames[1]["session"]["audio"]["input"]
        assert effective["turn_detection"]["prefix_padding_ms"] == 600
        assert effective["noise_reduction"] == {"type": "near_field", "strength": 1.0}


async def test_a_model_may_come_with_the_session_update(server: ServerProcess) -> None:
    async with session(server, OPENAI) as socket:
        unknown = {"type": "transcription", "audio": {"input": {"transcription": {"model": "no-such-model"}}}}
        await socket.send("session.update", session=unknown, event_id="wrong")
        refused = await socket.receive()
        assert refused["error"]["event_id"] == "wrong"
        assert refused["error"]["code"] == "model_not_found"
        unchanged = await update(socket, "session.update", {"type": "transcription"})
        assert unchanged["audio"]["input"]["transcription"]["model"] == "pocketsphinx"
        known = {"type": "transcription", "audio": {"input": {"transcription": {"model": "pocketsphinx"}}}}
        changed = await update(socket, "session.update", known)
        assert changed["audio"]["input"]["transcription"]["model"] == "pocketsphinx"
