"""/v1/realtime spoken to frame by frame, in Together's dialect and in both of OpenAI's."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import soxr

from streaming.audio import PcmEncoding, Samples
from tests.journeys.recordings import frames_of, spoken_samples, with_pauses, word_error_rate
from tests.journeys.server_process import ServerProcess, running_server
from tests.journeys.sockets import Frame, Socket, encoded, kinds, of_kind, open_socket

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

pytestmark = pytest.mark.journey


@pytest.fixture(scope="module")
def speech(server: ServerProcess) -> Samples:
    """One sentence between two silences, 16 kHz."""
    return with_pauses(spoken_samples(server, SENTENCE))


@pytest.fixture(scope="module")
def hasty_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that waits one second for audio."""
    with running_server(tmp_path_factory.mktemp("hasty"), SONOREEL_REALTIME_IDLE_SECONDS="1") as server:
        yield server


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


# ---------------------------------------------------------------------- Together


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


# ---------------------------------------------------------------------- OpenAI


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


# ---------------------------------------------------------------------- whose dialect it is

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
