"""OpenAI's `session.update`, GA and beta: absent is unchanged, null clears, what is refused changes nothing."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from media.dialects.openai_realtime import OpenAIRealtime
from media.dialects.openai_session import LONGEST_TURN
from media.dialects.realtime import Action, Configure
from media.errors import ApiError
from streaming import listening_events
from streaming.audio import PcmEncoding
from streaming.listening_events import ListeningSettings

VAD = {"type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 300, "silence_duration_ms": 500}


def dialect(*, beta: bool = False) -> OpenAIRealtime:
    return OpenAIRealtime("sess_1", "whisper", beta=beta)


def read(frame: object, speaker: OpenAIRealtime | None = None) -> Action:
    return (speaker or dialect()).read(frame if isinstance(frame, str) else json.dumps(frame), 0.0)


def update(speaker: OpenAIRealtime, **audio_input: Any) -> ListeningSettings:
    """A GA update as the API does it, its model found under its own name."""
    frame = {"type": "session.update", "session": {"type": "transcription", "audio": {"input": audio_input}}}
    return applied(read(frame, speaker), speaker)


def beta_update(speaker: OpenAIRealtime, **session: Any) -> ListeningSettings:
    return applied(read({"type": "transcription_session.update", "session": session}, speaker), speaker)


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


def test_what_livekit_sends_on_connecting() -> None:
    speaker = dialect()
    found = update(
        speaker,
        format={"type": "audio/pcm", "rate": 24_000},
        transcription={
            "model": "gpt-4o-mini-transcribe",
            "language": "en",
            "prompt": "..",
            "keywords": [],
            "languages": [],
            "delay": "low",
        },
        turn_detection={
            "type": "server_vad",
            "threshold": 0.6,
            "prefix_padding_ms": 600,
            "silence_duration_ms": 350,
            "create_response": False,
        },
        noise_reduction={"type": "near_field", "strength": 1.0},
    )
    assert (found.encoding, found.sample_rate) == (PcmEncoding.S16LE, 24_000)
    assert (found.language, found.prompt) == ("en", "..")
    assert found.turn_detection is not None
    assert found.turn_detection.threshold == 0.6
    assert found.turn_detection.prefix_padding == 0.6
    assert found.turn_detection.silence_duration == 0.35
    assert found.turn_detection.max_speech == LONGEST_TURN
    assert shown(speaker)["audio"]["input"]["noise_reduction"] == {"type": "near_field", "strength": 1.0}


def test_an_update_merges_absent_is_unchanged_and_null_clears() -> None:
    speaker = dialect()
    update(speaker, transcription={"language": "de", "prompt": "p"}, turn_detection={"threshold": 0.9})
    update(speaker, noise_reduction={"type": "far_field"})
    session = shown(speaker)["audio"]["input"]
    assert session["transcription"] == {"model": "whisper", "language": "de", "prompt": "p"}
    assert session["turn_detection"] == {**VAD, "threshold": 0.9}
    found = update(speaker, transcription={"language": None}, turn_detection=None, noise_reduction=None)
    assert (found.language, found.prompt, found.turn_detection) == ("", "p", None)
    session = shown(speaker)["audio"]["input"]
    assert session["turn_detection"] is None
    assert session["noise_reduction"] is None
    assert update(speaker).turn_detection is None
    again = update(speaker, turn_detection={"type": "server_vad"}).turn_detection
    assert again is not None
    assert again.threshold == 0.5, "what was cleared begins with the defaults"
    assert update(speaker, transcription=None).prompt == ""


def test_a_beta_update_merges_the_same_way() -> None:
    speaker = dialect(beta=True)
    found = beta_update(speaker, input_audio_format="g711_ulaw", input_audio_transcription={"language": "de"})
    assert (found.encoding, found.sample_rate, found.language) == (PcmEncoding.MULAW, 8_000, "de")
    found = beta_update(speaker, turn_detection=None, include=["item.input_audio_transcription.logprobs"])
    assert (found.turn_detection, found.language) == (None, "de")
    assert shown(speaker) == {
        "id": "sess_1",
        "object": "realtime.transcription_session",
        "expires_at": None,
        "include": ["item.input_audio_transcription.logprobs"],
        "modalities": ["text"],
        "input_audio_format": "g711_ulaw",
        "input_audio_transcription": {"model": "whisper", "language": "de"},
        "turn_detection": None,
        "input_audio_noise_reduction": None,
    }


@pytest.mark.parametrize(
    ("ga", "beta", "encoding", "rate"),
    [
        ({"type": "audio/pcm", "rate": 24_000}, "pcm16", PcmEncoding.S16LE, 24_000),
        ({"type": "audio/pcmu"}, "g711_ulaw", PcmEncoding.MULAW, 8_000),
        ({"type": "audio/pcma"}, "g711_alaw", PcmEncoding.ALAW, 8_000),
    ],
)
def test_audio_formats(ga: dict[str, Any], beta: str, encoding: PcmEncoding, rate: int) -> None:
    for found in (update(dialect(), format=ga), beta_update(dialect(beta=True), input_audio_format=beta)):
        assert (found.encoding, found.sample_rate) == (encoding, rate)
    speaker = dialect()
    update(speaker, format=ga)
    assert shown(speaker)["audio"]["input"]["format"] == ga


def test_pcm_without_a_rate_is_24_khz() -> None:
    speaker = dialect()
    update(speaker, format={"type": "audio/pcmu"})
    assert update(speaker, format={"type": "audio/pcm"}).sample_rate == 24_000


def test_an_update_that_names_a_model_holds_when_the_model_was_found() -> None:
    speaker = dialect()
    frame = {"audio": {"input": {"transcription": {"model": "other", "language": "de"}}}, "include": []}
    action = read({"type": "session.update", "session": frame}, speaker)
    assert isinstance(action, Configure)
    assert (action.model, action.settings.language) == ("other", "de")
    assert shown(speaker)["audio"]["input"]["transcription"] == {"model": "whisper"}
    assert shown(speaker)["include"] is None
    speaker.resolved("other")
    assert shown(speaker)["audio"]["input"]["transcription"] == {"model": "other", "language": "de"}
    assert shown(speaker)["include"] == []


@pytest.mark.parametrize("beta", [False, True])
def test_an_update_that_is_refused_changes_nothing(beta: bool) -> None:
    speaker = dialect(beta=beta)
    before = shown(speaker)
    wrong = {"type": "psychic_vad"}
    if beta:
        session: dict[str, Any] = {"turn_detection": wrong, "input_audio_format": "g711_alaw", "include": []}
        error = refusal({"type": "transcription_session.update", "session": session}, speaker)
    else:
        session = {"audio": {"input": {"turn_detection": wrong, "format": {"type": "audio/pcma"}}}, "include": []}
        error = refusal({"type": "session.update", "session": session}, speaker)
    assert error.param == ("session.turn_detection.type" if beta else "session.audio.input.turn_detection.type")
    assert shown(speaker) == before
