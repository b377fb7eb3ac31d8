"""OpenAI's transcription sessions on the wire, GA and beta: every frame there is, and every way one can be wrong."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings

from media.dialects.openai_realtime import CONVERSATION_ONLY, OpenAIRealtime
from media.dialects.realtime import Action, AppendAudio, ClearAudio, CommitAudio, Configure
from media.errors import ApiError
from models.errors import EngineFailed, UnknownModel
from streaming import listening_events
from streaming.listening_events import ListeningSettings
from streaming.recognition import RecognitionSession
from streaming.transcript import Word
from tests.media.frames import BROKEN, DEEP, frames_of

TYPES = [
    "session.update",
    "transcription_session.update",
    "input_audio_buffer.append",
    "input_audio_buffer.commit",
    "input_audio_buffer.clear",
    *CONVERSATION_ONLY,
]
KEYS = [
    "audio", "session", "event_id", "type", "input", "format", "rate", "transcription", "model", "language", "prompt",
    "turn_detection", "threshold", "prefix_padding_ms", "silence_duration_ms", "noise_reduction", "include",
    "input_audio_format", "input_audio_transcription", "input_audio_noise_reduction",
]  # fmt: skip
VAD = {"type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 300, "silence_duration_ms": 500}


def dialect(*, beta: bool = False) -> OpenAIRealtime:
    return OpenAIRealtime("sess_1", "whisper", beta=beta)


def read(frame: object, speaker: OpenAIRealtime | None = None) -> Action:
    return (speaker or dialect()).read(frame if isinstance(frame, str) else json.dumps(frame), 0.0)


def update(speaker: OpenAIRealtime, **audio_input: Any) -> ListeningSettings:
    """A GA update as the API does it, its model found under its own name."""
    frame = {"type": "session.update", "session": {"type": "transcription", "audio": {"input": audio_input}}}
    return applied(read(frame, speaker), speaker)


def applied(action: Action, speaker: OpenAIRealtime) -> ListeningSettings:
    assert isinstance(action, Configure)
    if action.model is not None:
        speaker.resolved(action.model)
    return action.settings


def write(event: listening_events.ServerEvent, speaker: OpenAIRealtime | None = None) -> list[dict[str, Any]]:
    """Frames as a client gets them, without the event ids, which every one of them has."""
    frames = [json.loads(msgspec.json.encode(frame)) for frame in (speaker or dialect()).write(event)]
    assert all(frame.pop("event_id").startswith("event_") for frame in frames)
    return frames


def shown(speaker: OpenAIRealtime) -> dict[str, Any]:
    """The session as the client is told of it."""
    (frame,) = write(listening_events.Reconfigured(speaker.settings), speaker)
    session: dict[str, Any] = frame["session"]
    return session


def refusal(frame: object, speaker: OpenAIRealtime | None = None) -> ApiError:
    with pytest.raises(ApiError) as caught:
        read(frame, speaker)
    return caught.value


# ---------------------------------------------------------------------- the session


def test_the_session_of_a_ga_client() -> None:
    frame = dialect().created()
    assert frame["type"] == "session.created"
    assert frame["session"] == {
        "type": "transcription",
        "id": "sess_1",
        "object": "realtime.transcription_session",
        "expires_at": None,
        "include": None,
        "audio": {
            "input": {
                "format": {"type": "audio/pcm", "rate": 24_000},
                "transcription": {"model": "whisper"},
                "noise_reduction": None,
                "turn_detection": VAD,
            }
        },
    }


def test_the_session_of_a_beta_client() -> None:
    frame = dialect(beta=True).created()
    assert frame["session"] == {
        "id": "sess_1",
        "object": "realtime.transcription_session",
        "expires_at": None,
        "include": None,
        "modalities": ["text"],
        "input_audio_format": "pcm16",
        "input_audio_transcription": {"model": "whisper"},
        "turn_detection": VAD,
        "input_audio_noise_reduction": None,
    }


# ---------------------------------------------------------------------- client frames


def test_the_other_client_frames() -> None:
    audio = base64.b64encode(b"\x01\x02").decode()
    assert read({"type": "input_audio_buffer.append", "audio": audio, "event_id": "e"}) == AppendAudio(b"\x01\x02")
    assert read({"type": "input_audio_buffer.commit", "event_id": "mine"}) == CommitAudio("mine")
    assert read({"type": "input_audio_buffer.commit"}) == CommitAudio(None)
    assert read({"type": "input_audio_buffer.clear"}) == ClearAudio()


@pytest.mark.parametrize("kind", CONVERSATION_ONLY)
def test_conversation_is_refused_by_name(kind: str) -> None:
    error = refusal({"type": kind})
    assert error.code == "conversation_not_supported"
    assert kind in error.message


def test_a_conversation_session_is_refused() -> None:
    error = refusal({"type": "session.update", "session": {"type": "realtime"}})
    assert (error.code, error.param) == ("conversation_not_supported", "session.type")


@pytest.mark.parametrize(
    ("frame", "param"),
    [
        ({"type": "input_audio_buffer.append", "audio": "%%%"}, "audio"),
        ({"type": "input_audio_buffer.append", "audio": None}, "audio"),
        ({"type": "input_audio_buffer.commit", "event_id": 5}, "event_id"),
        ({"type": "session.update", "session": {"audio": {"input": 5}}}, "session.audio.input"),
        (
            {"type": "session.update", "session": {"audio": {"input": {"format": {"type": "audio/mp3"}}}}},
            "session.audio.input.format.type",
        ),
        (
            {"type": "session.update", "session": {"audio": {"input": {"format": {"type": "audio/pcm", "rate": 11}}}}},
            "session.audio.input.format.rate",
        ),
        (
            {"type": "session.update", "session": {"audio": {"input": {"turn_detection": {"threshold": 1.5}}}}},
            "session.audio.input.turn_detection.threshold",
        ),
        (
            {"type": "transcription_session.update", "session": {"input_audio_format": "mp3"}},
            "session.input_audio_format",
        ),
        ({"type": "session.updated"}, "type"),
        ({"type": None}, "type"),
    ],
)
def test_a_wrong_frame_is_answered_with_its_field(frame: object, param: str) -> None:
    error = refusal(frame)
    assert (error.status, error.param) == (400, param)


@pytest.mark.parametrize("frame", BROKEN, ids=range(len(BROKEN)))
def test_broken_json_is_refused(frame: str) -> None:
    error = refusal(frame)
    assert error.status == 400
    (answer,) = dialect().refused(error, frame)
    assert answer["error"]["event_id"] is None


def test_a_refusal_names_the_event_it_answers() -> None:
    frame = json.dumps({"type": "session.update", "event_id": "mine", "session": 5})
    (answer,) = dialect().refused(refusal(frame), frame)
    assert answer["type"] == "error"
    assert answer["error"].keys() == {"type", "code", "message", "param", "event_id"}
    assert (answer["error"]["event_id"], answer["error"]["param"]) == ("mine", "session")
    deep = '{"type":"session.update","event_id":"mine","session":{"more":' + "[" * DEEP + "]" * DEEP + "}}"
    assert dialect().refused(refusal(deep), deep)[0]["error"]["code"] == "invalid_json"


@settings(max_examples=120, deadline=None)
@given(frame=frames_of(TYPES, KEYS))
def test_any_frame_is_an_action_or_a_refusal_that_can_be_sent(frame: str) -> None:
    for beta in (False, True):
        speaker = dialect(beta=beta)
        try:
            action = read(frame, speaker)
        except ApiError as error:
            (sent,) = json.loads(msgspec.json.encode(speaker.refused(error, frame)))
            assert sent["error"]["message"]
        else:
            if isinstance(action, Configure):
                session = RecognitionSession(ListeningSettings())
                session.configure(applied(action, speaker))
                json.loads(msgspec.json.encode(shown(speaker)))


# ---------------------------------------------------------------------- server frames


def test_a_turn_from_its_start_to_its_commit() -> None:
    assert write(listening_events.SpeechStarted("item_1", 0.9996)) == [
        {"type": "input_audio_buffer.speech_started", "audio_start_ms": 1000, "item_id": "item_1"}
    ]
    assert write(listening_events.SpeechStopped("item_1", 2.4)) == [
        {"type": "input_audio_buffer.speech_stopped", "audio_end_ms": 2400, "item_id": "item_1"}
    ]
    frames = write(listening_events.Committed("item_2", "item_1"))
    assert [frame["type"] for frame in frames] == [
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
    ]
    assert all(frame["previous_item_id"] == "item_1" for frame in frames)
    assert frames[0]["item_id"] == "item_2"
    assert frames[1]["item"] == frames[2]["item"]
    assert frames[1]["item"] | {"object": None} == {
        "id": "item_2",
        "object": None,
        "type": "message",
        "role": "user",
        "status": "completed",
        "content": [{"type": "input_audio", "transcript": None}],
    }
    beta = write(listening_events.Committed("item_2", "item_1"), dialect(beta=True))
    assert [frame["type"] for frame in beta] == ["input_audio_buffer.committed", "conversation.item.created"]


def test_deltas_only_append() -> None:
    assert write(listening_events.Partial("item_1", "Hey the", "Hey", 0.0, 1.0)) == [
        {
            "type": "conversation.item.input_audio_transcription.delta",
            "item_id": "item_1",
            "content_index": 0,
            "delta": "Hey",
        }
    ]
    assert write(listening_events.Partial("item_1", "Hey them", "", 0.0, 1.0)) == []
    words = (Word("Hey", 0.1, 0.2), Word("there", 0.3, 0.45678))
    delta, done = write(listening_events.Completed("item_1", "Hey there", " there", words, 0.0, 1.2, "en"))
    assert delta["delta"] == " there"
    assert done == {
        "type": "conversation.item.input_audio_transcription.completed",
        "item_id": "item_1",
        "content_index": 0,
        "transcript": "Hey there",
        "usage": {"type": "duration", "seconds": 2},
        "words": [{"word": "Hey", "start": 0.1, "end": 0.2}, {"word": "there", "start": 0.3, "end": 0.457}],
        "languages": [{"code": "en"}],
    }
    (alone,) = write(listening_events.Completed("item_1", "", "", (), 0.0, 0.0, ""))
    assert "languages" not in alone


def test_a_failed_turn() -> None:
    (frame,) = write(listening_events.TurnFailed("item_1", EngineFailed("it broke"), 0.0, 1.0))
    assert frame == {
        "type": "conversation.item.input_audio_transcription.failed",
        "item_id": "item_1",
        "content_index": 0,
        "error": {"message": "it broke", "type": "server_error", "param": None, "code": "engine_failed"},
    }


def test_a_commit_of_nothing_is_an_error_with_the_callers_event_id() -> None:
    (frame,) = write(listening_events.CommitRefused(0.05, "mine"))
    assert frame["type"] == "error"
    assert frame["error"]["code"] == "input_audio_buffer_commit_empty"
    assert frame["error"]["event_id"] == "mine"
    assert "at least 100ms of audio" in frame["error"]["message"]
    assert "50.00ms" in frame["error"]["message"]
    (frame,) = write(listening_events.CommitRefused(5.0))
    assert "no speech" in frame["error"]["message"]


def test_cleared_and_updated() -> None:
    assert write(listening_events.Cleared()) == [{"type": "input_audio_buffer.cleared"}]
    for beta, kind in ((False, "session.updated"), (True, "transcription_session.updated")):
        (frame,) = write(listening_events.Reconfigured(ListeningSettings()), dialect(beta=beta))
        assert frame["type"] == kind


def test_a_session_that_ends_with_an_error() -> None:
    frame = dialect().ended(UnknownModel("no such model", field="model"))
    assert frame["type"] == "error"
    assert frame["error"]["code"] == "model_not_found"
    assert dialect().close_code(UnknownModel("no")) == 1008
    assert "secret" not in json.dumps(dialect().ended(ValueError("secret")))
