"""Together's text-to-speech socket on the wire: every frame there is, and every way a frame can be wrong."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings, strategies as st

from media.dialects.speech import failed, read_frame, server_frame, session_created
from media.dialects.speech_options import model_name, read_options, settings_changes
from media.errors import ApiError
from models.errors import EngineFailed, UnknownModel, WeightsMissing
from streaming import speech_events, synthesis
from streaming.audio import PcmEncoding
from streaming.encode import AudioFormat
from streaming.speech_events import SpeechSettings
from streaming.speech_output import OutputFormat, TimedWord
from tests.media.frames import BROKEN, DEEP, frames_of

TYPES = [
    "input_text_buffer.append",
    "input_text_buffer.commit",
    "input_text_buffer.clear",
    "tts_session.updated",
    "context.cancel",
]
KEYS = [
    "text", "context_id", "session", "voice", "model", "model_id", "language", "speed", "response_format",
    "response_encoding", "sample_rate", "bit_rate", "max_partial_length", "alignment", "segment", "pacing",
    "extra_params", "pronunciations", "instructions",
]  # fmt: skip


def find_model(name: str) -> str:
    if name == "absent":
        raise UnknownModel("no model is called absent", field="model")
    return f"card of {name}"


def read(frame: object) -> speech_events.ClientEvent:
    return read_frame(json.dumps(frame), find_model)


def refusal(frame: object) -> ApiError:
    with pytest.raises(ApiError) as caught:
        read_frame(frame if isinstance(frame, str) else json.dumps(frame), find_model)
    return caught.value


def over_the_wire(frame: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(msgspec.json.encode(frame))
    return found


@pytest.mark.parametrize(
    ("frame", "event"),
    [
        ({"type": "input_text_buffer.append", "text": "Hi", "context_id": "c1"}, speech_events.Append("c1", "Hi")),
        ({"type": "input_text_buffer.append", "text": "Hi"}, speech_events.Append("default", "Hi")),
        ({"type": "input_text_buffer.append", "text": "Hi", "context_id": None}, speech_events.Append("default", "Hi")),
        ({"type": "input_text_buffer.append", "text": "", "event_id": 5}, speech_events.Append("default", "")),
        ({"type": "input_text_buffer.commit", "context_id": "c1"}, speech_events.Commit("c1")),
        ({"type": "input_text_buffer.commit"}, speech_events.Commit("default")),
        ({"type": "input_text_buffer.clear", "context_id": "c1"}, speech_events.Clear("c1")),
        ({"type": "input_text_buffer.clear"}, speech_events.Clear("default")),
        ({"type": "context.cancel", "context_id": "c1"}, speech_events.Cancel("c1")),
        ({"type": "context.cancel"}, speech_events.Cancel("default")),
        (
            {
                "type": "tts_session.updated",
                "session": {
                    "voice": "af_heart",
                    "language": "it",
                    "speed": None,
                    "extra_params": {"temperature": 0.6, "pronunciation_dict": ["SQL/sequel", "a/"]},
                    "pronunciations": {"GIF": "jif"},
                },
            },
            speech_events.Configure(
                {
                    "voice": "af_heart",
                    "language": "it",
                    "extra_params": {"temperature": 0.6},
                    "pronunciations": {"SQL": "sequel", "a": "", "GIF": "jif"},
                },
                None,
            ),
        ),
        (
            {"type": "tts_session.updated", "session": {"speed": 2}, "context_id": "c1"},
            speech_events.Configure({"speed": 2.0}, "c1"),
        ),
        ({"type": "tts_session.updated", "session": {}}, speech_events.Configure({}, None)),
        (
            {"type": "tts_session.updated", "session": {"model": "kokoro"}},
            speech_events.Configure({"model": "card of kokoro"}, None),
        ),
    ],
)
def test_client_frames(frame: dict[str, Any], event: speech_events.ClientEvent) -> None:
    assert read(frame) == event


def test_every_option_of_a_session() -> None:
    query = {
        "model_id": "old name",
        "voice": "af_bella af_heart",  # '+' arrives as a blank
        "response_format": "mp3",
        "response_encoding": "pcm_alaw",
        "sample_rate": "44100",
        "bit_rate": "64000",
        "language": "zh-hk",
        "speed": "1.25",
        "max_partial_length": "100",
        "alignment": "word",
        "segment": "never",
        "pacing": "none",
        "extra_params": '{"pronunciation_dict":["a/b"], "seed": 1}',
        "instructions": "softly",
        "api_key": "k",
        "anything": "else",
    }
    options = read_options(query)
    assert model_name(options) == "old name"
    assert SpeechSettings(model="m").changed(settings_changes(options)) == SpeechSettings(
        model="m",
        voice="af_bella+af_heart",
        language="zh-hk",
        speed=1.25,
        output=OutputFormat(AudioFormat.MP3, PcmEncoding.ALAW, 44_100, 64_000),
        segment="never",
        max_partial_length=100,
        word_timestamps=True,
        paced=False,
        instructions="softly",
        pronunciations={"a": "b"},
        extra_params={"seed": 1},
    )
    assert settings_changes(read_options({})) == {}
    assert model_name(read_options({"model": "new", "model_id": "old"})) == "new"


@pytest.mark.parametrize("name", ["mp3", "opus", "aac", "flac", "wav", "pcm", "raw", "mulaw", "alaw"])
def test_every_format(name: str) -> None:
    assert settings_changes(read_options({"response_format": name})).keys() == {"format"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("speed", "0.1"),
        ("speed", "nan"),
        ("speed", "inf"),
        ("speed", "fast"),
        ("sample_rate", "11"),
        ("sample_rate", "24000.5"),
        ("bit_rate", "1"),
        ("max_partial_length", "0"),
        ("max_partial_length", "9" * 40),
        ("response_format", "ogg"),
        ("response_encoding", "s16"),
        ("alignment", "letter"),
        ("segment", "paragraph"),
        ("pacing", "slow"),
        ("pronunciations", "SQL/sequel"),
        ("pronunciations", '{"": "x"}'),
        ("pronunciations", '{"x": "' + "y" * 201 + '"}'),
        ("pronunciations", json.dumps({str(number): "x" for number in range(1001)})),
        ("extra_params", "[]"),
        ("extra_params", json.dumps({"prompt": "x" * 17_000})),
    ],
)
def test_a_wrong_option_is_named(name: str, value: str) -> None:
    with pytest.raises(ApiError) as caught:
        settings_changes(read_options({name: value}))
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, "invalid_value", name)


@pytest.mark.parametrize("entries", ["a/b", [1], ["no slash"]])
def test_a_wrong_dictionary_is_told(entries: object) -> None:
    session = {"extra_params": {"pronunciation_dict": entries}}
    error = refusal({"type": "tts_session.updated", "session": session})
    assert (error.code, error.param) == ("invalid_value", "extra_params.pronunciation_dict")


def test_instructions_have_a_longest_length() -> None:
    error = refusal({"type": "tts_session.updated", "session": {"instructions": "x" * 4097}})
    assert (error.code, error.param) == ("string_above_max_length", "instructions")


@pytest.mark.parametrize(
    ("frame", "code", "param"),
    [
        ({"type": "input_text_buffer.append"}, "invalid_event", None),
        ({"type": "input_text_buffer.append", "text": 5}, "invalid_event", "text"),
        ({"type": "input_text_buffer.append", "text": None}, "invalid_event", "text"),
        ({"type": "input_text_buffer.append", "text": "a", "context_id": 7}, "invalid_event", "context_id"),
        ({"type": "tts_session.updated", "session": {"voice": 1}}, "invalid_event", "session.voice"),
        ({"type": "tts_session.updated", "session": {"speed": 9}}, "invalid_value", "speed"),
        ({"type": "tts_session.updated", "session": []}, "invalid_event", "session"),
        ({"type": "tts_session.update", "session": {}}, "invalid_event", "type"),
        ({"type": 5}, "invalid_event", "type"),
        ({}, "invalid_event", None),
        ([], "invalid_event", None),
        ("{", "invalid_json", None),
    ],
)
def test_a_wrong_frame_is_answered_with_its_field(frame: object, code: str, param: str | None) -> None:
    error = refusal(frame)
    assert (error.status, error.code, error.param) == (400, code, param)


@pytest.mark.parametrize("frame", BROKEN, ids=range(len(BROKEN)))
def test_broken_json_is_refused(frame: str) -> None:
    assert refusal(frame).status == 400


def test_deep_nesting_is_refused_wherever_it_is() -> None:
    nest = "[" * DEEP + "]" * DEEP
    for frame in (
        '{"type":"input_text_buffer.append","text":"a","more":' + nest + "}",
        '{"type":"tts_session.updated","session":{"extra_params":{"a":' + nest + "}}}",
    ):
        assert refusal(frame).code == "invalid_json"


def test_an_unknown_model_is_the_catalogs_own_error() -> None:
    with pytest.raises(UnknownModel):
        read({"type": "tts_session.updated", "session": {"model": "absent"}})


@settings(max_examples=120, deadline=None)
@given(frame=frames_of(TYPES, KEYS))
def test_any_frame_is_an_event_or_a_refusal_that_can_be_sent(frame: str) -> None:
    session = synthesis.SynthesisSession(SpeechSettings())
    try:
        session.receive(read_frame(frame, lambda name: name), 0.0)
    except ApiError as error:
        session.refuse(speech_events.Refused(None, error.code, error.message, error.param))
    while (answer := session.next_event(0.0)) is not None:
        sent = over_the_wire(server_frame(answer))
        assert sent["type"] != "conversation.item.tts.failed" or sent["error"]["message"]


@settings(max_examples=80, deadline=None)
@given(query=st.dictionaries(st.sampled_from([*KEYS, "api_key"]), st.text(max_size=8)))
def test_any_query_is_options_or_a_refusal(query: dict[str, str]) -> None:
    refused: ApiError | None = None
    try:
        SpeechSettings().changed(settings_changes(read_options(query)))
    except ApiError as error:
        refused = error
    assert refused is None or refused.param in query


def test_session_created_is_what_clients_wait_for() -> None:
    frame = session_created("id", "model", "voice")
    assert frame["type"] == "session.created"
    assert frame["event_id"]
    assert frame["session"] == {
        "id": "id",
        "object": "realtime.tts.session",
        "modalities": ["text", "audio"],
        "model": "model",
        "voice": "voice",
    }


@pytest.mark.parametrize(
    ("event", "frame"),
    [
        (
            speech_events.TextReceived("c1", "Hello"),
            {"type": "conversation.item.input_text.received", "text": "Hello", "context_id": "c1"},
        ),
        (
            speech_events.AudioDelta("c1", "tts_1", b"\x00\xff", 0.1),
            {
                "type": "conversation.item.audio_output.delta",
                "item_id": "tts_1",
                "delta": base64.b64encode(b"\x00\xff").decode(),
                "context_id": "c1",
            },
        ),
        (
            speech_events.WordTimestamps("c1", "tts_1", (TimedWord("Hi", 0.0, 0.40049), TimedWord("you", 0.5, 0.9))),
            {
                "type": "conversation.item.word_timestamps",
                "item_id": "tts_1",
                "words": ["Hi", "you"],
                "start_seconds": [0.0, 0.5],
                "end_seconds": [0.4, 0.9],
                "context_id": "c1",
            },
        ),
        (
            speech_events.ItemDone("c1", "tts_1"),
            {"type": "conversation.item.audio_output.done", "item_id": "tts_1", "context_id": "c1"},
        ),
        (
            speech_events.ContextCancelled("c1", "Hello ", "there"),
            {"type": "context.cancelled", "context_id": "c1", "text_spoken": "Hello ", "text_remaining": "there"},
        ),
        (
            speech_events.TextCleared("c1", "rest"),
            {"type": "input_text_buffer.cleared", "text": "rest", "context_id": "c1"},
        ),
        (
            speech_events.Refused("c1", "too_many_contexts", "no", "context_id"),
            {
                "type": "conversation.item.tts.failed",
                "error": {
                    "message": "no",
                    "type": "invalid_request_error",
                    "param": "context_id",
                    "code": "too_many_contexts",
                },
                "context_id": "c1",
            },
        ),
        (
            speech_events.ItemFailed("c1", "tts_1", EngineFailed("it broke"), "rest"),
            {
                "type": "conversation.item.tts.failed",
                "error": {"message": "it broke", "type": "server_error", "param": None, "code": "engine_failed"},
                "item_id": "tts_1",
                "text_remaining": "rest",
                "context_id": "c1",
            },
        ),
    ],
)
def test_server_frames(event: speech_events.ServerEvent, frame: dict[str, Any]) -> None:
    assert over_the_wire(server_frame(event)) == frame


def test_an_update_is_answered_with_what_holds_now() -> None:
    changed = SpeechSettings(voice="v", word_timestamps=True)
    frame = over_the_wire(server_frame(speech_events.SettingsChanged(None, changed)))
    assert frame["type"] == "tts_session.updated"
    assert "context_id" not in frame
    assert frame["session"]["voice"] == "v"
    assert frame["session"]["alignment"] == "word"
    for_one = server_frame(speech_events.SettingsChanged("c1", changed))
    assert for_one["context_id"] == "c1"
    # What is answered can be sent back.
    assert isinstance(read({"type": "tts_session.updated", "session": frame["session"]}), speech_events.Configure)


@pytest.mark.parametrize("error", [UnknownModel("no such model", field="model"), WeightsMissing("pull it first")])
def test_a_model_that_is_not_there_has_togethers_code(error: Exception) -> None:
    assert failed(error)["error"]["code"] == "model_not_available"
    assert "context_id" not in failed(error)


def test_the_text_of_an_unexpected_error_stays_here() -> None:
    assert "secret" not in json.dumps(failed(ValueError("secret")))
