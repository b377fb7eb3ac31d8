"""/v1/realtime in Together's dialect, frame by frame."""

from __future__ import annotations

import pytest
import soxr

from streaming.audio import Samples
from tests.journeys.realtime_sessions import (
    CLEAR,
    COMMIT,
    COMPLETED,
    DELTA,
    FAILED,
    MANUAL_16K,
    OPENAI,
    PATH,
    SENTENCE,
    TOGETHER,
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


async def test_together_deltas_are_whole_hypotheses(server: ServerProcess, speech: Samples) -> None:
    async with session(server, TOGETHER) as socket:
        created = socket.frames[0]["session"]
        assert (created["object"], created["model"]) == ("realtime.session", "pocketsphinx")
        await hear(socket, speech)
        completed = (await socket.until(COMPLETED))[-1]
        deltas = of_kind(socket.frames, DELTA)
        assert deltas
        assert all(frame["delta"] == frame["transcript"] for frame in deltas)
        assert {frame["item_id"] for frame in deltas} == {completed["item_id"]}
        assert understood(completed["transcript"])
        assert [word["word"] for word in completed["words"]] == completed["transcript"].split()
        start, end = completed["start"], completed["start"] + completed["duration"]
        times = [time for word in completed["words"] for time in (word["start"], word["end"])]
        assert all(start - 0.01 <= time <= end + 0.01 for time in times)
        assert 0 <= start < 0.5
        assert end <= len(speech) / 16_000


async def test_together_turns_advance_on_one_clock(server: ServerProcess, speech: Samples) -> None:
    async with session(server, TOGETHER | {"min_silence_duration_ms": 400, "threshold": 0.2}) as socket:
        for _ in range(3):
            await hear(socket, speech)
        while len(finals := of_kind(socket.frames, COMPLETED)) < 3:
            await socket.receive()
        assert all(understood(final["transcript"]) for final in finals)
        assert len({final["item_id"] for final in finals}) == 3
        length = len(speech) / 16_000
        for number, final in enumerate(finals):
            assert number * length <= final["start"] < final["start"] + final["duration"] <= (number + 1) * length


@pytest.mark.parametrize("in_band", [False, True])
async def test_together_without_turn_detection_waits_for_the_commit(
    server: ServerProcess, speech: Samples, in_band: bool
) -> None:
    query = TOGETHER if in_band else TOGETHER | {"turn_detection": "none"}
    async with session(server, query) as socket:
        if in_band:
            changed = await update(socket, "transcription_session.updated", {"turn_detection": None})
            assert changed["turn_detection"] is None
        await hear(socket, speech)
        await hear(socket, speech)
        await socket.send("echo", echo_id=1)
        await socket.until("echo.response")
        assert of_kind(socket.frames, COMPLETED) == []
        await socket.send(COMMIT)
        completed = (await socket.until(COMPLETED))[-1]
        assert word_error_rate([f"{SENTENCE} {SENTENCE}"], [completed["transcript"]]) <= 0.5
        await socket.send(COMMIT)
        await socket.send("echo", echo_id=2)
        await socket.until("echo.response", echo_id=2)
        assert len(of_kind(socket.frames, COMPLETED)) == 1
        assert of_kind(socket.frames, FAILED) == []


async def test_together_commit_ends_a_turn_that_is_still_spoken(server: ServerProcess, speech: Samples) -> None:
    async with session(server, TOGETHER) as socket:
        await hear(socket, speech[: len(speech) - 16_000])
        await socket.send(COMMIT)
        assert understood((await socket.until(COMPLETED))[-1]["transcript"])


async def test_together_echo_brings_back_what_it_was_given(server: ServerProcess) -> None:
    async with session(server, TOGETHER) as socket:
        await socket.send("echo", echo_id=1471461, client_sent_at=12.5, payload={"a": [1]})
        answer = await socket.receive()
        assert answer["type"] == "echo.response"
        assert (answer["echo_id"], answer["client_sent_at"], answer["payload"]) == (1471461, 12.5, {"a": [1]})
        assert answer["server_sent_at"] >= answer["server_received_at"] > 1_700_000_000


async def test_together_settings_merge(server: ServerProcess) -> None:
    async with session(server, TOGETHER | {"threshold": 0.2}) as socket:
        vad = {"type": "server_vad", "min_silence_duration_ms": 700}
        changed = await update(socket, "transcription_session.updated", {"turn_detection": vad})
        assert changed["turn_detection"]["threshold"] == 0.2
        assert changed["turn_detection"]["min_silence_duration_ms"] == 700
        hints = {"prompt": "names", "rolling_prompt": True, "energy_gate_rms": 0.01}
        again = await update(socket, "transcription_session.updated", hints)
        assert again["turn_detection"] == changed["turn_detection"]


async def test_together_clear_forgets_what_was_not_committed(server: ServerProcess, speech: Samples) -> None:
    async with session(server, TOGETHER | {"turn_detection": "none"}) as socket:
        await hear(socket, speech)
        await socket.send(CLEAR)
        await socket.send(COMMIT)
        await hear(socket, speech)
        await socket.send(COMMIT)
        completed = (await socket.until(COMPLETED))[-1]
        assert understood(completed["transcript"])
        assert completed["start"] >= len(speech) / 16_000 - 0.1


@pytest.mark.parametrize(
    ("query", "code", "words"),
    [
        ({"model": "no-such-model"}, "model_not_available", "no-such-model"),
        ({"model": "espeak-ng"}, "model_not_available", "espeak-ng"),
        ({"input_audio_format": "wax_cylinder"}, "invalid_value", "unsupported format"),
        ({"threshold": "loud"}, "invalid_value", "threshold"),
        ({"turn_detection": "telepathy"}, "invalid_value", "telepathy"),
    ],
)
async def test_together_fatal_errors_come_in_band_with_a_normal_close(
    server: ServerProcess, query: dict[str, str], code: str, words: str
) -> None:
    async with open_socket(server, PATH, TOGETHER | query) as socket:
        frames, closed = await socket.until_closed()
        assert kinds(frames) == ["session.created", FAILED]
        assert "event_type" not in frames[1]
        error = frames[1]["error"]
        assert error["code"] == code
        assert words in error["message"] + (error["param"] or "")
        assert closed == 1000


BAD_FRAMES: list[str | bytes] = [
    "",
    "no JSON",
    "[]",
    "{}",
    '{"type": "input_audio_buffer.shout"}',
    '{"type": "input_audio_buffer.append"}',
    '{"type": "input_audio_buffer.append", "audio": 7}',
    '{"type": "input_audio_buffer.append", "audio": "not base64!"}',
    b"\x00\x01",
]


@pytest.mark.parametrize("dialect", ["together", "openai"])
async def test_bad_frames_are_answered_and_the_session_survives(
    server: ServerProcess, speech: Samples, dialect: str
) -> None:
    query, refusal = (TOGETHER, FAILED) if dialect == "together" else (OPENAI, "error")
    async with session(server, query) as socket:
        for bad in BAD_FRAMES:
            await socket.connection.send(bad)
            answer = await socket.receive()
            assert answer["type"] == refusal, bad
            assert answer["error"]["message"], bad
            assert answer["error"]["type"] == "invalid_request_error", bad
            if dialect == "together":
                assert answer["event_type"], bad
        if dialect == "openai":
            await update(socket, "session.update", MANUAL_16K)
        await hear(socket, speech)
        await socket.send(COMMIT)
        assert understood((await socket.until(COMPLETED))[-1]["transcript"])


@pytest.mark.parametrize(("audio_format", "rate"), [("pcm_s16le_8000", 8_000), ("pcm_s16le", 24_000)])
async def test_together_takes_other_rates(server: ServerProcess, speech: Samples, audio_format: str, rate: int) -> None:
    async with session(server, TOGETHER | {"input_audio_format": audio_format}) as socket:
        await hear(socket, soxr.resample(speech, 16_000, rate), rate)
        completed = (await socket.until(COMPLETED))[-1]
        assert completed["start"] + completed["duration"] <= len(speech) / 16_000
        # Half the band is gone at 8 kHz, and with it much of what this recogniser goes by.
        assert understood(completed["transcript"]) or rate == 8_000
