"""Recordings of every kind from clients of every kind. Whatever happens, nothing is left on the disk or running."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import socketserver
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import numpy as np
import pytest

from streaming.audio import Samples
from streaming.encode import AudioFormat
from tests.journeys.painting import until
from tests.journeys.recordings import spoken_samples, word_error_rate
from tests.journeys.server_process import ServerProcess, running_server
from tests.journeys.uploading import (
    BOUNDARY,
    TRANSCRIPTIONS,
    TRANSLATIONS,
    Field,
    Part,
    chords,
    contained,
    encoded,
    file,
    form,
    gauge,
    left_behind,
    noise,
    raw_client,
    running,
    silent_film,
    upload,
    wait_for,
    wav,
)

pytestmark = pytest.mark.journey

LIMIT_MB = 4
SENTENCE = "I would like a cup of coffee."
SCRIPTED = """
[[card]]
id = "{id}"
task = "{task}"
engine = "tests.scripted_transcriber"
name = "Scripted"
concurrency = 4
queue = 0
translates = true
cancel_grace = 1.0
idle_ttl = 0.0
"""
EARS = ("model", "ears")
SPEAKERS = ("diarization_model", "who")
SPHINX = ("model", "pocketsphinx")
TOO_LARGE = f"the upload is larger than this server takes: {LIMIT_MB} MB (SONOREEL_MAX_UPLOAD_MB)"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that takes small uploads only, with scripted engines beside the embedded ones."""
    folder = tmp_path_factory.mktemp("uploads")
    cards = folder / "cards"
    cards.mkdir()
    tasks = {"ears": "transcription", "who": "diarization"}
    (cards / "scripted.toml").write_text("".join(SCRIPTED.format(id=id, task=task) for id, task in tasks.items()))
    with running_server(
        folder / "data",
        SONOREEL_MODELS_DIR=str(cards),
        SONOREEL_WARM="espeak-ng,pocketsphinx,ears,who",
        SONOREEL_MAX_UPLOAD_MB=str(LIMIT_MB),
        SONOREEL_FETCH_ALLOWED_HOSTS="localhost",
        SONOREEL_FETCH_SECONDS="2",
    ) as server:
        yield server
        assert not unexpected(server.log), "".join(server.log)


def unexpected(log: Sequence[str]) -> list[str]:
    """What the server complains of; the scripted engine raises because it is told to."""
    surprises = [before for before, line in itertools.pairwise(log) if line.startswith("Traceback")]
    return [line for line in surprises if "sonoreel.worker[" not in line]


@pytest.fixture(autouse=True)
def _nothing_left(server: ServerProcess) -> Iterator[None]:
    yield
    wait_for(lambda: not left_behind(server), "files are left in the spool directory")
    wait_for(lambda: not running(server), "something is still running")


@pytest.fixture(scope="module")
def speech(server: ServerProcess) -> Samples:
    return spoken_samples(server, SENTENCE)


# ---------------------------------------------------------------------- recordings


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


# ---------------------------------------------------------------------- speakers


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


# ---------------------------------------------------------------------- streams


def test_events_add_up_to_the_text(server: ServerProcess) -> None:
    body = form(EARS, ("stream", "true"), file(b"say hello there\nsay \nsay how are you\n"))
    with raw_client(server, len(body)) as client:
        client.send(body)
        assert client.response.headers["content-type"] == "text/event-stream; charset=utf-8"
        *deltas, done = client.events()
    assert [delta["type"] for delta in deltas] == ["transcript.text.delta"] * 2
    assert "".join(delta["delta"] for delta in deltas) == done["text"] == "hello there how are you"
    assert (done["type"], done["usage"]["seconds"], done["usage"]["output_tokens"]) == ("transcript.text.done", 3, 5)


def test_events_of_silence(server: ServerProcess) -> None:
    body = form(SPHINX, ("stream", "true"), file(wav(np.zeros(16_000, np.float32))))
    with raw_client(server, len(body)) as client:
        client.send(body)
        (done,) = client.events()
    assert (done["type"], done["text"], done["usage"]["total_tokens"]) == ("transcript.text.done", "", 10)


def test_events_of_speakers(server: ServerProcess) -> None:
    fields = [EARS, SPEAKERS, ("stream", "true"), ("response_format", "diarized_json")]
    body = form(*fields, file(b"say a b\nsay c d\n"))
    with raw_client(server, len(body)) as client:
        client.send(body)
        events = client.events()
    segments = [event for event in events if event["type"] == "transcript.text.segment"]
    assert [(segment["id"], segment["speaker"], segment["text"]) for segment in segments] == [
        ("seg_000", "A", "a b"),
        ("seg_001", "B", "c d"),
    ]
    assert events[-1]["type"] == "transcript.text.done"


def test_what_is_heard_is_told_before_the_upload_ends(server: ServerProcess) -> None:
    """Every line is answered before the next one is sent, in the middle of a body of one file."""
    script = [b"say one\n", b"say two\n", b"say three\n"]
    body = form(EARS, ("stream", "true"), file(b"".join(script)))
    with raw_client(server, len(body)) as client:
        sent = body.index(script[0])
        client.send(body[:sent])
        for number, line in enumerate(script):
            client.send(line)
            assert client.event()["segment_id"] == f"seg_{number:03}"
        client.send(body[sent + len(b"".join(script)) :])
        assert client.event()["text"] == "one two three"


@pytest.mark.parametrize(
    ("verb", "code", "param"), [("raise", "engine_failed", None), ("invalid", "corrupt_audio", "file")]
)
def test_what_goes_wrong_in_a_stream_is_its_last_event(
    server: ServerProcess, verb: str, code: str, param: str | None
) -> None:
    body = form(EARS, ("stream", "true"), file(f"say one\n{verb}\n".encode()))
    with raw_client(server, len(body)) as client:
        client.send(body)
        delta, error = client.events()
    assert delta["delta"] == "one"
    assert (error["error"]["code"], error["error"]["param"]) == (code, param)
    body = form(EARS, ("stream", "true"), file(f"{verb}\n".encode()))
    with raw_client(server, len(body)) as client:
        client.send(body)
        assert client.answer().error[1] == code


def test_a_form_that_breaks_off_ends_its_stream_with_an_error(server: ServerProcess) -> None:
    body = form(EARS, ("stream", "true"), file(b"say one\nsay two\n"))[:-10]
    with raw_client(server, len(body)) as client:
        client.send(body[: body.index(b"say two")])
        assert client.event()["delta"] == "one"
        client.send(body[body.index(b"say two") :])
        assert client.events()[-1]["error"]["code"] == "invalid_multipart"


def test_a_field_that_comes_too_late_for_a_stream_is_not_passed_over(server: ServerProcess) -> None:
    body = form(EARS, ("stream", "true"), file(b"say one\nsay two\n"), ("language", "fr"))
    with raw_client(server, len(body)) as client:
        cut = body.index(b"say two")
        client.send(body[:cut])
        assert client.event()["delta"] == "one"
        client.send(body[cut:])
        error = client.events()[-1]["error"]
    assert (error["code"], error["param"]) == ("field_too_late", "language")


# ---------------------------------------------------------------------- clients that leave, lie or send too much


def test_a_body_shorter_than_it_was_said_to_be(server: ServerProcess) -> None:
    """The server waits for the rest; when the client ends the connection instead, that was no request."""
    before = gauge(server, "sonoreel_requests_total", route=TRANSCRIPTIONS, status="499")
    body = form(EARS, file(b"say one\n"))
    with raw_client(server, len(body) + 100) as client:
        client.send(body)
        client.stop_sending()
        with pytest.raises(http.client.RemoteDisconnected):
            client.answer()
    wait_for(
        lambda: gauge(server, "sonoreel_requests_total", route=TRANSCRIPTIONS, status="499") == before + 1,
        "the request was not counted as one whose client left",
    )


def test_a_body_longer_than_it_was_said_to_be(server: ServerProcess) -> None:
    body = form(EARS, file(b"say one\n"))
    with raw_client(server, len(body) - 20) as client:
        client.send(body[:-20])
        assert client.answer().error == (
            400,
            "invalid_multipart",
            None,
            "the form ends in the middle: its last boundary is missing",
        )
    with raw_client(server, len(body) - 20) as client:
        client.send(body)  # what is left over is no request
        assert client.answer().status == 400


@pytest.mark.parametrize("leave", ["vanish", "close"])
def test_a_client_that_leaves_in_the_middle_of_its_upload(server: ServerProcess, leave: str) -> None:
    with raw_client(server, 1_000_000) as client:
        client.send(form(EARS, file(b"say one\n"))[:-10])
        wait_for(lambda: running(server) == 1, "the work did not begin")
        assert left_behind(server)
        getattr(client, leave)()


@pytest.mark.parametrize("stream", ["true", "false"])
def test_a_client_that_does_not_wait_for_its_answer(server: ServerProcess, stream: str) -> None:
    body = form(EARS, SPEAKERS, ("diarize", "true"), ("stream", stream), file(b"say one\nwait\n"))
    with raw_client(server, len(body)) as client:
        client.send(body)
        wait_for(lambda: running(server) == 2, "the work did not begin")
        client.vanish()


def test_a_client_that_leaves_a_recogniser_at_work(server: ServerProcess, speech: Samples) -> None:
    """A real engine notices too: 100 seconds of speech would take it half a minute."""
    body = form(SPHINX, file(wav(np.tile(speech, 1_600_000 // len(speech)))))
    with raw_client(server, len(body)) as client:
        client.send(body)
        wait_for(lambda: running(server) == 1, "the work did not begin")
        client.vanish()
    began = time.monotonic()
    wait_for(lambda: not running(server), "the recogniser is still at work")
    assert time.monotonic() - began < 5


def over(megabytes: float) -> bytes:
    return form(EARS, file(bytes(round(1_000_000 * megabytes))))


@pytest.mark.parametrize("megabytes", [LIMIT_MB + 1, LIMIT_MB + 20])
@pytest.mark.parametrize("chunked", [False, True])
def test_httpx_sees_that_its_upload_is_too_large(server: ServerProcess, megabytes: int, chunked: bool) -> None:
    body = over(megabytes)
    content: Any = (body[at : at + 65_536] for at in range(0, len(body), 65_536)) if chunked else body
    headers = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
    answer = httpx.post(f"{server.url}{TRANSCRIPTIONS}", content=content, headers=headers, timeout=30)
    assert (answer.status_code, answer.json()["error"]["message"]) == (413, TOO_LARGE)
    assert answer.json()["error"]["code"] == "file_too_large"


@pytest.mark.parametrize("megabytes", [LIMIT_MB + 1, LIMIT_MB + 20])
def test_a_client_that_closes_after_each_request_sees_it_too(server: ServerProcess, megabytes: int) -> None:
    """urllib sends everything before it looks for an answer, and asks for the connection to be closed after it."""
    request = urllib.request.Request(  # noqa: S310 - a server of this test
        f"{server.url}{TRANSCRIPTIONS}",
        over(megabytes),
        {"content-type": f"multipart/form-data; boundary={BOUNDARY}"},
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=30)  # noqa: S310
    with refused.value as answer:
        assert answer.code == 413
        assert TOO_LARGE.encode() in answer.read()


def test_a_raw_client_sees_it_before_it_has_sent_anything(server: ServerProcess) -> None:
    with raw_client(server, 500_000_000) as client:
        assert client.answer().error == (413, "file_too_large", "file", TOO_LARGE)


def test_a_client_that_asks_first_is_told_before_it_sends(server: ServerProcess) -> None:
    with raw_client(server, 500_000_000, expect="100-continue") as client:
        assert client.socket.recv(12) == b"HTTP/1.1 413"


def test_a_model_that_does_not_exist_is_refused_while_the_upload_has_just_begun(server: ServerProcess) -> None:
    body = form(("model", "nobody"), file(bytes(3_000_000)))
    with raw_client(server, len(body)) as client:
        client.send(body[:100_000])
        assert client.answer().error[:3] == (404, "model_not_found", "model")
        # Whoever sends the rest all the same is heard out, and can use the connection again.
        client.send(body[100_000:])
    body = form(EARS, ("response_format", "xml"), file(bytes(3_000_000)))
    with raw_client(server, len(body), connection="close") as client:
        client.send(body[:100_000])
        assert client.answer().error[:3] == (400, "invalid_value", "response_format")


def test_a_recording_that_cannot_be_read_is_refused_while_it_arrives(server: ServerProcess) -> None:
    body = form(EARS, file(b"invalid\n" + bytes(3_000_000)))
    with raw_client(server, len(body)) as client:
        client.send(body[:100_000])
        assert client.answer().error == (400, "corrupt_audio", "file", "there is no audio in it")


def test_too_many_at_once_are_turned_away_while_their_upload_has_just_begun(server: ServerProcess) -> None:
    body = form(EARS, file(b"say one\n" + bytes(1000)))
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(raw_client(server, len(body))) for _ in range(4)]
        for client in clients:
            client.send(body[:-500])
        wait_for(lambda: running(server) == 4, "the work did not begin")
        refused = stack.enter_context(raw_client(server, len(body)))
        refused.send(body[:-500])
        answer = refused.answer()
        assert answer.error[:2] == (503, "server_overloaded")
        assert int(answer.headers["retry-after"]) >= 1


def test_a_worker_that_dies_takes_only_its_requests_along(server: ServerProcess) -> None:
    assert upload(server, EARS, file(b"say one\nkill\n")).error[:2] == (500, "engine_failed")
    assert upload(server, EARS, file(b"say one\n")).json["text"] == "one"


def test_uploads_arrive_side_by_side(server: ServerProcess) -> None:
    bodies = [form(EARS, file(f"say {name}\n".encode() * 50)) for name in ("left", "right")]
    with raw_client(server, len(bodies[0])) as one, raw_client(server, None) as other:
        for at in range(0, max(map(len, bodies)), 50):
            if piece := bodies[0][at : at + 50]:
                one.send(piece)
            if piece := bodies[1][at : at + 50]:
                other.send(piece)
        other.end()
        assert one.answer().json["text"] == " ".join(["left"] * 50)
        assert other.answer().json["text"] == " ".join(["right"] * 50)


def test_a_connection_serves_one_upload_after_another(server: ServerProcess) -> None:
    """Refusals included; none keeps the next one waiting."""
    began = time.monotonic()
    with httpx.Client(base_url=server.url, timeout=30) as client:
        for model, status in [("ears", 200), ("nobody", 404), ("ears", 200), ("ears", 200)]:
            answer = client.post(TRANSCRIPTIONS, data={"model": model}, files={"file": ("a.wav", b"say one\n")})
            assert answer.status_code == status
    assert time.monotonic() - began < 3


# ---------------------------------------------------------------------- URLs


class Website(BaseHTTPRequestHandler):
    """What a URL may lead to."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        target = {
            "/inside": "http://127.0.0.1:1/",
            "/metadata": "http://169.254.169.254/latest/meta-data",
            "/moved": "/script",
            "/file": "file:///etc/passwd",
        }
        if self.path == "/script":
            return self._send(200, b"say one two\n")
        if self.path in target:
            return self._send(302, b"", location=target[self.path])
        if self.path == "/large":
            return self._send(200, bytes(5_000_000))
        if self.path in ("/endless", "/slow"):
            return self._endless(0.0 if self.path == "/endless" else 0.05)
        return self._send(404, b"gone")

    def _send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(body)

    def _endless(self, pause: float) -> None:
        self.send_response(200)
        self.send_header("connection", "close")
        self.end_headers()
        waiting = threading.Event()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(b"say one\n")
            while True:
                self.wfile.write(bytes(1000 if pause else 65_536))
                waiting.wait(pause)

    def log_message(self, *_: object) -> None:
        pass


class _Quiet(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Clients that leave are part of these tests."""


@pytest.fixture(scope="module")
def website() -> Iterator[int]:
    """The port of a web server on loopback, which the server under test may reach as `localhost` only."""
    socketserver.TCPServer.allow_reuse_address = True
    with _Quiet(("127.0.0.1", 0), Website) as site:
        thread = threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield site.server_address[1]
        site.shutdown()
        thread.join()


@pytest.mark.parametrize("page", ["script", "moved"])
def test_a_url_is_as_good_as_a_file(server: ServerProcess, website: int, page: str) -> None:
    answer = upload(server, EARS, ("file", f"http://localhost:{website}/{page}"))
    assert (answer.status, answer.json["text"]) == (200, "one two")
    answer = upload(server, ("file", f"http://localhost:{website}/{page}"), EARS, ("response_format", "text"))
    assert answer.body == b"one two\n"


def inside(host: str) -> str:
    return f"{host} is not a public address: URLs may only name hosts on the internet"


@pytest.mark.parametrize(
    ("url", "status", "code", "message"),
    [
        ("http://127.0.0.1:{port}/script", 400, "url_not_allowed", inside("127.0.0.1")),
        ("http://169.254.169.254/latest/meta-data", 400, "url_not_allowed", inside("169.254.169.254")),
        ("http://[::1]:{port}/script", 400, "url_not_allowed", inside("::1")),
        ("http://0x7f000001:{port}/script", 400, "url_not_allowed", inside("0x7f000001")),
        ("http://localhost:{port}/inside", 400, "url_not_allowed", inside("127.0.0.1")),
        ("http://localhost:{port}/metadata", 400, "url_not_allowed", inside("169.254.169.254")),
        ("http://localhost:{port}/file", 400, "url_not_allowed", "only http and https URLs are pulled"),
        ("http://localhost:{port}/gone", 400, "url_unreachable", "the URL answered 404"),
        (
            "http://localhost:{port}/large",
            413,
            "file_too_large",
            f"the URL holds more than this server takes: {LIMIT_MB} MB (SONOREEL_MAX_UPLOAD_MB)",
        ),
        (
            "http://localhost:{port}/endless",
            413,
            "file_too_large",
            f"the URL holds more than this server takes: {LIMIT_MB} MB (SONOREEL_MAX_UPLOAD_MB)",
        ),
        ("http://localhost:{port}/slow", 400, "url_timeout", "the URL took longer than 2 s (SONOREEL_FETCH_SECONDS)"),
    ],
)
def test_urls_that_are_refused(
    server: ServerProcess, website: int, url: str, status: int, code: str, message: str
) -> None:
    assert upload(server, EARS, ("file", url.format(port=website))).error == (status, code, "file", message)


def test_a_client_that_leaves_while_its_url_is_pulled(server: ServerProcess, website: int) -> None:
    body = form(EARS, ("file", f"http://localhost:{website}/slow"))
    with raw_client(server, len(body)) as client:
        client.send(body)
        wait_for(lambda: running(server) == 1, "the work did not begin")
        client.vanish()
