"""Recordings and forms of every kind. Whatever happens, nothing is left on the disk or running."""

from __future__ import annotations

import httpx
import numpy as np
import pytest

from streaming.audio import Samples
from streaming.encode import AudioFormat
from tests.journeys.painting import until
from tests.journeys.recordings import word_error_rate
from tests.journeys.server_process import ServerProcess
from tests.journeys.upload_server import EARS, SENTENCE, SPEAKERS, SPHINX, _nothing_left, server, speech
from tests.journeys.uploading import (
    TRANSCRIPTIONS,
    TRANSLATIONS,
    Field,
    Part,
    chords,
    contained,
    encoded,
    file,
    form,
    noise,
    raw_client,
    running,
    silent_film,
    upload,
    wait_for,
    wav,
)

__all__ = ["_nothing_left", "server", "speech"]

pytestmark = pytest.mark.journey


@pytest.mark.parametrize("audio_format", ["wav", "mp3", "flac", "opus", "aac"])
def test_every_format_it_writes_is_one_it_reads(server: ServerProcess, speech: Samples, audio_format: str) -> None:
    answer = upload(server, SPHINX, file(encoded(speech, AudioFormat(audio_format)), f"a.{audio_format}"))
    assert (answer.status, word_error_rate([SENTENCE], [answer.json["text"]]) <= 0.5) == (200, True)


@pytest.mark.parametrize(
    ("container", "codec"),
    [
        ("ipod", "aac"),
        ("mp4", "aac"),
        ("matroska", "libopus"),
        ("webm", "libopus"),
        ("wav", "pcm_mulaw"),
        ("wav", "pcm_alaw"),
        ("aiff", "pcm_s16be"),
        ("au", "pcm_mulaw"),
    ],
)
def test_other_containers_and_codecs_are_read(
    server: ServerProcess, speech: Samples, container: str, codec: str
) -> None:
    rate = 48_000 if codec == "libopus" else 16_000
    samples = np.repeat(speech, 3) if codec == "libopus" else speech
    answer = upload(server, SPHINX, file(contained(samples, container, codec, rate), "a"))
    assert (answer.status, len(answer.json["text"].split()) >= 3) == (200, True)


def test_192_khz_in_eight_channels(server: ServerProcess, speech: Samples) -> None:
    wide = np.repeat(speech[:16_000], 12)[:, None].repeat(8, axis=1) * np.float32(0.7)
    answer = upload(server, SPHINX, ("response_format", "verbose_json"), file(wav(wide, 192_000)))
    assert answer.status == 200
    assert answer.json["duration"] == pytest.approx(1.0, abs=0.01)
    assert answer.json["text"]


@pytest.mark.parametrize("samples", [np.zeros(48_000, np.float32), noise(3), noise(3, 0.001), chords(4)])
def test_where_nobody_speaks_nothing_is_said(server: ServerProcess, samples: Samples) -> None:
    recording = file(wav(samples))
    answer = upload(server, SPHINX, recording)
    seconds = -(-len(samples) // 16_000)
    assert answer.status == 200
    assert answer.json == {"text": "", "usage": {"type": "duration", "seconds": seconds}}


@pytest.mark.parametrize(
    ("response_format", "body"), [("text", b"\n"), ("srt", b""), ("vtt", b"WEBVTT\n\n")]
)  # fmt: skip
def test_silence_is_an_empty_file_of_every_kind(server: ServerProcess, response_format: str, body: bytes) -> None:
    recording = file(wav(np.zeros(16_000, np.float32)))
    answer = upload(server, SPHINX, ("response_format", response_format), recording)
    assert (answer.status, answer.body) == (200, body)


def test_a_recording_that_was_cut_off_is_read_as_far_as_it_goes(server: ServerProcess, speech: Samples) -> None:
    whole = wav(speech)
    answer = upload(server, SPHINX, ("response_format", "verbose_json"), file(whole[: len(whole) // 2]))
    assert answer.status == 200
    assert answer.json["duration"] == pytest.approx(len(speech) / 32_000, abs=0.01)


UNREADABLE = {
    "nothing at all": (b"", "empty_file", "The file is empty."),
    "a WAV without samples": (
        wav(np.zeros(0, np.float32)),
        "empty_file",
        "The audio track of the file holds no audio.",
    ),
    "a text called .wav": (
        b"Dear Sir or Madam,\n" * 100,
        "unsupported_format",
        "The file is not in an audio or video format we can read.",
    ),
    "a film without sound": (silent_film(), "no_audio_stream", "The file has no audio track."),
    "half an MP4": (
        contained(noise(1), "mp4", "aac")[:2000],
        "corrupt_audio",
        "The file is damaged or incomplete and cannot be decoded.",
    ),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_is_no_recording_is_a_400_that_says_so(server: ServerProcess, name: str) -> None:
    data, code, message = UNREADABLE[name]
    assert upload(server, SPHINX, file(data)).error == (400, code, "file", message)


# ---------------------------------------------------------------------- forms


def test_fields_may_follow_the_file(server: ServerProcess) -> None:
    recording = file(b"say hello there\n")
    answer = upload(server, recording, EARS, ("response_format", "srt"))
    assert (answer.status, answer.headers["content-type"]) == (200, "application/x-subrip; charset=utf-8")
    assert b"hello there" in answer.body
    assert upload(server, recording, SPHINX).error[1] == "unsupported_format"
    assert upload(server, recording, ("model", "nobody")).error[:3] == (404, "model_not_found", "model")


def test_fields_may_stand_on_both_sides_of_the_file(server: ServerProcess) -> None:
    """Work begins with the first ones, and again when the others have come."""
    before, after = form(EARS, file(b"say hello there\n" * 3)), form(("response_format", "text"), ("language", "fr"))
    cut = before.rindex(b"\r\n--")
    body = before[:cut] + b"\r\n" + after
    with raw_client(server, len(body)) as client:
        client.send(body[: cut - 20])
        wait_for(lambda: running(server) > 0, "the work did not begin")
        client.send(body[cut - 20 :])
        answer = client.answer()
    assert (answer.status, answer.body) == (200, b"hello there hello there hello there\n")


def test_a_field_behind_the_file_can_put_right_what_came_before_it(server: ServerProcess) -> None:
    reference = "data:audio/wav;base64,AAAA"
    parts: list[Field] = [
        EARS,
        SPEAKERS,
        ("diarize", "1"),
        ("known_speaker_names[]", "Ann"),
        file(b"say a b\nsay c d\n"),
    ]
    answer = upload(server, *parts, ("known_speaker_references[]", reference))
    assert [word["speaker_id"] for word in answer.json["words"]] == ["Ann", "Ann", "SPEAKER_00", "SPEAKER_00"]
    assert upload(server, *parts).error[:3] == (400, "invalid_value", "known_speaker_references")


@pytest.mark.parametrize(
    "fields",
    [
        [("timestamp_granularities[]", "word"), ("timestamp_granularities[]", "segment")],
        [("timestamp_granularities", "word")],
        [("timestamp_granularities", "segment,word")],
    ],
)
def test_lists_in_every_spelling(server: ServerProcess, fields: list[tuple[str, str]]) -> None:
    answer = upload(server, EARS, ("response_format", "verbose_json"), *fields, file(b"say hello there\n"))
    assert [word["word"] for word in answer.json["words"]] == ["hello", "there"]


@pytest.mark.parametrize(("text", "speakers"), [("True", True), ("true", True), ("1", True), ("False", False)])
def test_flags_in_every_spelling(server: ServerProcess, text: str, speakers: bool) -> None:
    answer = upload(server, EARS, SPEAKERS, ("diarize", text), file(b"say a b\nsay c d\n"))
    assert ("speaker_segments" in answer.json) is speakers


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("response_format", "xml"),
        ("temperature", "warm"),
        ("temperature", "2"),
        ("timestamp_granularities[]", "syllable"),
        ("stream", "maybe"),
        ("diarize", "perhaps"),
        ("min_speakers", "-1"),
        ("channels", "left"),
    ],
)
def test_a_value_that_cannot_be_is_a_400_that_names_the_field(server: ServerProcess, name: str, value: str) -> None:
    status, code, param, message = upload(server, EARS, (name, value), file(b"say a\n")).error
    assert (status, code, param) == (400, "invalid_value", name.removesuffix("[]"))
    assert message


def test_speakers_that_cannot_be(server: ServerProcess) -> None:
    asked: list[Field] = [EARS, SPEAKERS, ("diarize", "true"), file(b"say a\n")]
    assert upload(server, ("min_speakers", "3"), ("max_speakers", "2"), *asked).error[1:3] == (
        "invalid_value",
        "min_speakers",
    )
    assert upload(server, ("channels", "split"), *asked).error[1:3] == ("unsupported_parameter", "channels")
    fields = [("known_speaker_names[]", "Ann"), ("known_speaker_references[]", "not a data URL")]
    assert upload(server, *fields, *asked).error[1:3] == ("invalid_value", "known_speaker_references")


def test_a_form_without_a_recording(server: ServerProcess) -> None:
    assert upload(server, EARS).error == (
        400,
        "missing_required_parameter",
        "file",
        "file is missing: send the recording as a multipart form field named file, or its URL",
    )
    refused = upload(server, EARS, ("file", "/etc/passwd"))
    assert refused.error[:3] == (400, "missing_required_parameter", "file")
    refused = upload(server, EARS, Part("recording", b"say a\n", "a.wav"))
    assert refused.error[:3] == (400, "missing_required_parameter", "file")


def test_another_content_type(server: ServerProcess) -> None:
    refused = httpx.post(f"{server.url}{TRANSCRIPTIONS}", json={"file": "x"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_content_type")


def test_translations_are_into_english(server: ServerProcess) -> None:
    recording = file(b"say hello\n")
    answer = upload(server, EARS, ("response_format", "verbose_json"), recording, path=TRANSLATIONS)
    assert (answer.status, answer.json["task"]) == (200, "translate")
    refused = upload(server, EARS, ("language", "fr"), recording, path=TRANSLATIONS)
    assert refused.error[:3] == (400, "invalid_value", "language")
    assert upload(server, recording, path=TRANSLATIONS).json["text"] == "hello"  # the only one here that can
    refused = upload(server, SPHINX, recording, path=TRANSLATIONS)
    assert refused.error[:3] == (400, "unsupported_parameter", "model")


def test_a_later_answer_is_the_same_answer(server: ServerProcess) -> None:
    answer = upload(server, EARS, file(b"say hello\n"), prefer="respond-async")
    assert (answer.status, answer.json["status"]) == (202, "queued")
    with httpx.Client(timeout=30) as client:
        done = until(client, server.url, answer.json["id"], "succeeded")
    assert done["result"] == upload(server, EARS, file(b"say hello\n")).json


def test_speakers_in_both_vendors_shapes(server: ServerProcess) -> None:
    recording = file(b"say a b\nsay c d\nsay e f\n")
    together = upload(server, EARS, SPEAKERS, ("diarize", "true"), recording).json
    assert [each["speaker_id"] for each in together["speaker_segments"]] == ["SPEAKER_00", "SPEAKER_01", "SPEAKER_00"]
    openai = upload(server, EARS, SPEAKERS, ("response_format", "diarized_json"), recording).json
    assert openai["text"] == "A: a b\nB: c d\nA: e f"
    subtitles = upload(server, EARS, SPEAKERS, ("diarize", "true"), ("response_format", "vtt"), recording)
    assert b"<v SPEAKER_01>c d" in subtitles.body


@pytest.mark.parametrize(("count", "status"), [("9", 500), ("10", 500)])
def test_a_diarizer_that_fails(server: ServerProcess, count: str, status: int) -> None:
    asked: list[Field] = [EARS, SPEAKERS, ("diarize", "true"), ("num_speakers", count), file(b"say a\nwait\n")]
    assert upload(server, *asked).error[:2] == (status, "engine_failed")
