"""Together's transcription socket on the wire: every frame there is, and every way a frame can be wrong."""

from __future__ import annotations

import base64
import contextlib
import json
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings, strategies as st

from media.dialects.realtime import (
    Action,
    Answer,
    AppendAudio,
    ClearAudio,
    CommitAudio,
    Configure,
)
from media.dialects.together_realtime import TURN_DETECTION, TogetherRealtime, read_query
from media.errors import ApiError
from models.errors import AtCapacity, EngineFailed, UnknownModel
from streaming import listening_events
from streaming.audio import PcmEncoding
from streaming.listening_events import ListeningSettings
from streaming.recognition import RecognitionSession
from streaming.transcript import Word
from streaming.voice_activity import TurnDetection
from tests.media.frames import BROKEN, DEEP, frames_of

TYPES = [
    "input_audio_buffer.append",
    "input_audio_buffer.commit",
    "input_audio_buffer.clear",
    "transcription_session.updated",
    "echo",
]
KEYS = [
    "audio", "session", "turn_detection", "prompt", "rolling_prompt", "energy_gate_rms", "type", "threshold",
    "min_silence_duration_ms", "min_speech_duration_ms", "max_speech_duration_s", "speech_pad_ms", "echo_id",
    "client_sent_at", "payload",
]  # fmt: skip
START = ListeningSettings(turn_detection=TURN_DETECTION)


def dialect(start: ListeningSettings = START) -> TogetherRealtime:
    return TogetherRealtime("sess_1", "whisper", start)


def read(frame: object, speaker: TogetherRealtime | None = None) -> Action:
    text = frame if isinstance(frame, str) else json.dumps(frame)
    return (speaker or dialect()).read(text, 1234.5)


def write(event: listening_events.ServerEvent) -> list[dict[str, Any]]:
    """Frames as a client gets them, without the event ids, which every one of them has."""
    frames = [json.loads(msgspec.json.encode(frame)) for frame in dialect().write(event)]
    assert all(frame.pop("event_id").startswith("event_") for frame in frames)
    return frames


def refusal(frame: object) -> ApiError:
    with pytest.raises(ApiError) as caught:
        read(frame)
    return caught.value


# ---------------------------------------------------------------------- the handshake


def test_defaults_are_the_documented_ones() -> None:
    assert read_query({"model": "whisper"}) == ListeningSettings(
        encoding=PcmEncoding.S16LE,
        sample_rate=16_000,
        turn_detection=TurnDetection(
            threshold=0.3,
            silence_duration=0.5,
            min_speech=0.25,
            max_speech=5.0,
            prefix_padding=0.25,
            trailing_padding=0.25,
        ),
    )


def test_every_parameter_of_the_query() -> None:
    found = read_query(
        {
            "input_audio_format": "pcm_s16le_8000",
            "turn_detection": "server_vad",
            "threshold": "0.2",
            "min_silence_duration_ms": "400",
            "min_speech_duration_ms": "100",
            "max_speech_duration_s": "7.5",
            "speech_pad_ms": "100",
            "language": "de",
            "prompt": "names",
            "intent": "transcription",
            "authorization": "Bearer k",
        }
    )
    expected = TurnDetection(
        threshold=0.2,
        silence_duration=0.4,
        min_speech=0.1,
        max_speech=7.5,
        prefix_padding=0.1,
        trailing_padding=0.1,
    )
    assert found == ListeningSettings(PcmEncoding.S16LE, 8_000, expected, "de", "names")
    assert read_query({"turn_detection": "none", "threshold": "0.2"}).turn_detection is None
    assert read_query({"language": "auto"}).language == ""


@pytest.mark.parametrize(
    ("name", "rate"),
    [
        ("pcm_s16le_16000", 16_000),
        ("pcm_s16le_8000", 8_000),
        ("pcm_s16le_24000", 24_000),
        ("pcm16", 24_000),
        ("pcm_s16", 24_000),
        ("pcm_s16le", 24_000),
    ],
)
def test_formats_of_the_sdk(name: str, rate: int) -> None:
    found = read_query({"input_audio_format": name})
    assert (found.encoding, found.sample_rate) == (PcmEncoding.S16LE, rate)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("threshold", "2"),
        ("threshold", "nan"),
        ("threshold", "loud"),
        ("min_silence_duration_ms", "-1"),
        ("min_silence_duration_ms", "inf"),
        ("min_speech_duration_ms", "nan"),
        ("max_speech_duration_s", "0"),
        ("max_speech_duration_s", "nan"),
        ("max_speech_duration_s", "0.01"),
        ("speech_pad_ms", "1e9"),
        ("turn_detection", "psychic_vad"),
        ("input_audio_format", "mp3"),
    ],
)
def test_a_wrong_parameter_is_named(name: str, value: str) -> None:
    with pytest.raises(ApiError) as caught:
        read_query({name: value})
    assert (caught.value.status, caught.value.param) == (400, name)


def test_a_wrong_format_is_told_in_the_words_the_sdk_looks_for() -> None:
    with pytest.raises(ApiError, match="unsupported format"):
        read_query({"input_audio_format": "mp3"})


def test_session_created() -> None:
    frame = dialect().created()
    assert frame["type"] == "session.created"
    assert frame["session"] == {
        "id": "sess_1",
        "object": "realtime.session",
        "modalities": ["audio"],
        "model": "whisper",
    }


# ---------------------------------------------------------------------- client frames


def test_audio_and_what_becomes_of_it() -> None:
    audio = bytes(range(256))
    encoded = base64.b64encode(audio).decode()
    assert read({"type": "input_audio_buffer.append", "audio": encoded}) == AppendAudio(audio)
    assert read({"type": "input_audio_buffer.append", "audio": ""}) == AppendAudio(b"")
    assert read({"type": "input_audio_buffer.commit"}) == CommitAudio(None)
    assert read({"type": "input_audio_buffer.clear", "event_id": "e"}) == ClearAudio()


def test_settings_change_one_by_one() -> None:
    speaker = dialect()
    change = {"type": "transcription_session.updated"}
    first = read({**change, "session": {"turn_detection": {"type": "server_vad", "threshold": 0.6}}}, speaker)
    assert first == Configure(replace(START, turn_detection=replace(TURN_DETECTION, threshold=0.6)))
    second = read({**change, "session": {"turn_detection": {"speech_pad_ms": 100}, "prompt": "p"}}, speaker)
    both = replace(TURN_DETECTION, threshold=0.6, prefix_padding=0.1, trailing_padding=0.1)
    assert second == Configure(replace(START, turn_detection=both, prompt="p"))
    assert read({**change, "session": {"rolling_prompt": True, "energy_gate_rms": 0.01}}, speaker) == second
    off = read({**change, "session": {"turn_detection": None}}, speaker)
    assert off == Configure(replace(START, turn_detection=None, prompt="p"))
    assert read({**change, "session": {"turn_detection": {"type": "none"}}}, speaker) == off
    on = read({**change, "session": {"turn_detection": {"type": "server_vad"}}}, speaker)
    assert on == Configure(replace(START, prompt="p"))


def test_an_echo_comes_back_with_everything_it_brought() -> None:
    answer = read({"type": "echo", "echo_id": 1471461, "client_sent_at": 12.5, "payload": {"a": [1, None, "x"]}})
    assert answer == Answer(
        {
            "type": "echo.response",
            "echo_id": 1471461,
            "client_sent_at": 12.5,
            "server_received_at": 1234.5,
            "server_sent_at": 1234.5,
            "payload": {"a": [1, None, "x"]},
        }
    )
    plain = read({"type": "echo", "echo_id": "text"})
    assert isinstance(plain, Answer)
    assert plain.frame.keys() == {"type", "echo_id", "server_received_at", "server_sent_at"}


@pytest.mark.parametrize(
    ("frame", "code", "param"),
    [
        ({"type": "input_audio_buffer.append"}, "invalid_event", None),
        ({"type": "input_audio_buffer.append", "audio": 1}, "invalid_event", "audio"),
        ({"type": "input_audio_buffer.append", "audio": "not base64!"}, "invalid_event", "audio"),
        ({"type": "input_audio_buffer.append", "audio": "QQ"}, "invalid_event", "audio"),
        (
            {"type": "transcription_session.updated", "session": {"turn_detection": {"threshold": 2}}},
            "invalid_event",
            "session.turn_detection.threshold",
        ),
        (
            {"type": "transcription_session.updated", "session": {"turn_detection": {"type": "psychic_vad"}}},
            "invalid_event",
            "session.turn_detection.type",
        ),
        ({"type": "transcription_session.updated"}, "invalid_event", None),
        ({"type": "session.update", "session": {}}, "invalid_event", "type"),
        ({"type": ["echo"]}, "invalid_event", "type"),
        ("[]", "invalid_event", None),
        ("", "invalid_json", None),
    ],
)
def test_a_wrong_frame_is_answered_with_its_field(frame: object, code: str, param: str | None) -> None:
    error = refusal(frame)
    assert (error.status, error.code, error.param) == (400, code, param)


BROKEN_HERE = [*BROKEN, '{"type":"echo","payload":' + "[" * DEEP + "]" * DEEP + "}"]


@pytest.mark.parametrize("frame", BROKEN_HERE, ids=range(len(BROKEN_HERE)))
def test_broken_json_is_refused(frame: str) -> None:
    assert refusal(frame).status == 400


@settings(max_examples=120, deadline=None)
@given(frame=frames_of(TYPES, KEYS), query=st.dictionaries(st.sampled_from(KEYS), st.text(max_size=6)))
def test_any_frame_is_an_action_or_a_refusal_that_can_be_sent(frame: str, query: dict[str, str]) -> None:
    speaker = dialect()
    frames: list[dict[str, Any]] = []
    with contextlib.suppress(ApiError):
        speaker = dialect(read_query(query))
    try:
        action = read(frame, speaker)
    except ApiError as error:
        frames = speaker.refused(error, frame)
    else:
        if isinstance(action, Answer):
            frames = [action.frame]
        if isinstance(action, Configure):
            session = RecognitionSession(START)
            session.configure(action.settings)
            event = session.next_event()
            assert event is not None
            frames = speaker.write(event)
    for sent in json.loads(msgspec.json.encode(frames)):
        assert "error" not in sent or (sent["error"]["message"] and sent["event_type"] == "delta")


# ---------------------------------------------------------------------- server frames


def test_deltas_hold_the_whole_belief_under_both_names() -> None:
    (frame,) = write(listening_events.Partial("item_1", "The quick", " quick", 0.0, 0.9004))
    assert frame == {
        "type": "conversation.item.input_audio_transcription.delta",
        "item_id": "item_1",
        "content_index": 0,
        "delta": "The quick",
        "transcript": "The quick",
        "start": 0.0,
        "duration": 0.9,
    }


def test_completed_brings_the_words() -> None:
    words = (Word("The", 0.1, 0.2), Word("fox", 0.3, 0.45678))
    (frame,) = write(listening_events.Completed("item_1", "The fox", "fox", words, 0.1, 1.7, "en"))
    assert frame == {
        "type": "conversation.item.input_audio_transcription.completed",
        "item_id": "item_1",
        "content_index": 0,
        "transcript": "The fox",
        "start": 0.1,
        "duration": 1.7,
        "words": [{"word": "The", "start": 0.1, "end": 0.2}, {"word": "fox", "start": 0.3, "end": 0.457}],
    }


def test_a_failed_turn_says_that_the_session_goes_on() -> None:
    (frame,) = write(listening_events.TurnFailed("item_1", EngineFailed("it broke"), 1.0, 2.0))
    assert frame["type"] == "conversation.item.input_audio_transcription.failed"
    assert (frame["event_type"], frame["item_id"]) == ("completed", "item_1")
    assert frame["error"] == {"message": "it broke", "type": "server_error", "param": None, "code": "engine_failed"}
    (refused,) = dialect().refused(ApiError(400, "invalid_event", "what?"), "{}")
    assert refused["event_type"] == "delta"


def test_a_fatal_failure_has_no_event_type_and_closes_normally() -> None:
    for error, code in ((UnknownModel("no"), "model_not_available"), (AtCapacity("full"), "server_overloaded")):
        frame = dialect().ended(error)
        assert frame["type"] == "conversation.item.input_audio_transcription.failed"
        assert "event_type" not in frame
        assert "item_id" not in frame
        assert frame["error"]["code"] == code
        assert dialect().close_code(error) == 1000


def test_an_update_is_answered_with_the_effective_turn_detection() -> None:
    (off,) = write(listening_events.Reconfigured(replace(START, turn_detection=None)))
    assert off == {"type": "transcription_session.updated", "session": {"turn_detection": None}}
    (on,) = write(listening_events.Reconfigured(START))
    assert on["session"]["turn_detection"] == {
        "type": "server_vad",
        "threshold": 0.3,
        "min_silence_duration_ms": 500,
        "min_speech_duration_ms": 250,
        "max_speech_duration_s": 5.0,
        "speech_pad_ms": 250,
    }
    assert read({"type": "transcription_session.updated", "session": on["session"]}) == Configure(START)


def test_the_other_events() -> None:
    assert write(listening_events.Committed("item_1", None)) == [
        {"type": "input_audio_buffer.committed", "item_id": "item_1"}
    ]
    assert write(listening_events.Cleared()) == [{"type": "input_audio_buffer.cleared"}]
    for silent in (
        listening_events.SpeechStarted("item_1", 0.0),
        listening_events.SpeechStopped("item_1", 1.0),
        listening_events.CommitRefused(0.0),
    ):
        assert write(silent) == []
