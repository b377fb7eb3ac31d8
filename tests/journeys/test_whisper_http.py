"""Whisper's real classes behind the HTTP surface. The weights are random: what is written means nothing, but how it was
asked for, when it came and where it belongs in the recording do.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import srt
import webvtt

from streaming.audio import Samples
from streaming.encode import AudioFormat
from tests.journeys.recordings import spoken_samples
from tests.journeys.server_process import ServerProcess
from tests.journeys.uploading import (
    TRANSCRIPTIONS,
    TRANSLATIONS,
    Field,
    chords,
    contained,
    encoded,
    file,
    form,
    left_behind,
    noise,
    raw_client,
    running,
    silent_film,
    upload,
    wait_for,
    wav,
)
from tests.models.engines.sentences import SENTENCES

pytestmark = pytest.mark.journey

TINY = ("model", "random")
ENGLISH = ("language", "en")
VERBOSE = ("response_format", "verbose_json")
WORDS = ("timestamp_granularities[]", "word")
STREAM = ("stream", "true")


@pytest.fixture(scope="module")
def server(whisper_server: ServerProcess) -> ServerProcess:
    return whisper_server


@pytest.fixture(autouse=True)
def _nothing_left(server: ServerProcess) -> Iterator[None]:
    yield
    wait_for(lambda: not left_behind(server), "files are left in the spool directory")
    wait_for(lambda: not running(server), "something is still running")


@pytest.fixture(scope="module")
def speech(server: ServerProcess) -> Samples:
    """Some 22 seconds: all in one window of the model."""
    return spoken_samples(server, " ".join(SENTENCES[:14]))


@pytest.fixture(scope="module")
def longer_speech(speech: Samples) -> Samples:
    """Enough that the model has heard a whole window long before the end."""
    return np.tile(np.concatenate((speech, np.zeros(24_000, np.float32))), 3)


@pytest.fixture(scope="module")
def recording(speech: Samples) -> Field:
    return file(wav(speech))


@pytest.fixture(scope="module")
def long_speech(speech: Samples) -> Samples:
    """Two windows of the model."""
    return np.tile(np.concatenate((speech, np.zeros(24_000, np.float32))), 2)


def verbose(server: ServerProcess, *fields: Field, path: str = TRANSCRIPTIONS) -> Any:
    answer = upload(server, VERBOSE, *fields, path=path)
    assert answer.status == 200, answer.body
    return answer.json


def test_segments_have_whispers_numbers(server: ServerProcess, recording: Field) -> None:
    found = verbose(server, TINY, ENGLISH, recording)
    assert found["segments"]
    for segment in found["segments"]:
        assert segment["tokens"]
        assert segment["avg_logprob"] < 0 < segment["compression_ratio"]
        assert 0 <= segment["no_speech_prob"] <= 1
        assert segment["temperature"] == 0
        assert 0 <= segment["start"] < segment["end"] <= found["duration"]
    assert found["text"] == " ".join(segment["text"] for segment in found["segments"])


def test_words_lie_in_their_segments(server: ServerProcess, long_speech: Samples) -> None:
    found = verbose(server, TINY, ENGLISH, WORDS, file(wav(long_speech)))
    assert len(found["words"]) > 20
    assert [word["word"] for word in found["words"]] == found["text"].split()
    times = [(word["start"], word["end"]) for word in found["words"]]
    assert all(start <= end for start, end in times)
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(times))
    words = iter(found["words"])
    for segment in found["segments"]:
        inside = list(itertools.islice(words, len(segment["text"].split())))
        assert segment["start"] <= inside[0]["start"]
        assert inside[-1]["end"] <= segment["end"] <= found["duration"]


def test_subtitles_are_read_by_others(server: ServerProcess, long_speech: Samples) -> None:
    asked: list[Field] = [TINY, ENGLISH, WORDS, file(wav(long_speech))]
    text = verbose(server, *asked)["text"]
    cues = list(srt.parse(upload(server, ("response_format", "srt"), *asked).body.decode(), ignore_errors=False))
    assert [cue.index for cue in cues] == list(range(1, len(cues) + 1))
    assert " ".join(" ".join(cue.content.split()) for cue in cues) == text
    captions = webvtt.from_string(upload(server, ("response_format", "vtt"), *asked).body.decode()).captions
    assert " ".join(" ".join(caption.text.split()) for caption in captions) == text
    for (start, end), (following, _) in itertools.pairwise((cue.start, cue.end) for cue in cues):
        assert start <= end <= following


@pytest.mark.parametrize("samples", [np.zeros(48_000, np.float32), noise(5), chords(5)])
def test_where_nobody_speaks_nothing_is_made_up(server: ServerProcess, samples: Samples) -> None:
    found = verbose(server, TINY, WORDS, file(wav(samples)))
    assert (found["text"], found["segments"], found["words"]) == ("", [], [])
    assert found["duration"] == pytest.approx(len(samples) / 16_000, abs=0.01)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "empty_file"),
        (wav(np.zeros(0, np.float32)), "empty_file"),
        (b"no recording at all" * 100, "unsupported_format"),
        (silent_film(), "no_audio_stream"),
        (contained(noise(1), "mp4", "aac")[:2000], "corrupt_audio"),
    ],
)
def test_what_is_no_recording_is_a_400_that_says_so(server: ServerProcess, data: bytes, code: str) -> None:
    assert upload(server, TINY, file(data)).error[:3] == (400, code, "file")


def test_192_khz_in_eight_channels(server: ServerProcess, speech: Samples) -> None:
    wide = np.repeat(speech[:48_000], 12)[:, None].repeat(8, axis=1) * np.float32(0.7)
    found = verbose(server, TINY, file(wav(wide, 192_000)))
    assert found["duration"] == pytest.approx(3.0, abs=0.01)
    assert found["text"]


# ---------------------------------------------------------------------- what can be asked for


def test_a_language_is_detected_or_forced(server: ServerProcess, recording: Field) -> None:
    detected = verbose(server, TINY, recording)
    assert len(detected["language"]) in (2, 3)
    assert verbose(server, TINY, ("language", "auto"), recording) == detected
    assert verbose(server, TINY, ("language", detected["language"]), recording)["text"] == detected["text"]
    forced = verbose(server, TINY, ("language", "fr"), recording)
    assert forced["language"] == "fr"
    assert forced["text"] != verbose(server, TINY, ("language", "de"), recording)["text"]
    refused = upload(server, TINY, ("language", "klingon"), recording)
    assert refused.error[:3] == (400, "invalid_value", "language")


def test_a_language_behind_the_file_counts(server: ServerProcess, recording: Field) -> None:
    assert verbose(server, TINY, recording, ("language", "fr"))["language"] == "fr"


def test_translating_is_another_task(server: ServerProcess, recording: Field) -> None:
    translated = verbose(server, TINY, recording, path=TRANSLATIONS)
    assert translated["task"] == "translate"
    assert translated["text"] != verbose(server, TINY, recording)["text"]
    assert verbose(server, TINY, ENGLISH, recording, path=TRANSLATIONS)["text"] == translated["text"]


def test_a_prompt_and_a_temperature_reach_the_model(server: ServerProcess, recording: Field) -> None:
    plain = verbose(server, TINY, ENGLISH, recording)
    prompted = verbose(server, TINY, ENGLISH, ("prompt", "Coffee and tea."), recording)
    assert prompted["text"] != plain["text"]
    warm = verbose(server, TINY, ENGLISH, ("temperature", "0.6"), recording)
    assert {segment["temperature"] for segment in warm["segments"]} <= {0.6}
    assert warm["text"] != plain["text"]


def test_text_that_cannot_be_trusted_is_tried_again_at_other_temperatures(
    server: ServerProcess, speech: Samples
) -> None:
    found = verbose(server, ("model", "random-strict"), ENGLISH, WORDS, file(wav(speech[:48_000])))
    temperatures = {segment["temperature"] for segment in found["segments"]}
    assert temperatures <= {0.0, 0.2, 0.4, 0.6, 0.8, 1.0}
    again = verbose(server, ("model", "random-strict"), ENGLISH, ("temperature", "1"), file(wav(speech[:48_000])))
    assert {segment["temperature"] for segment in again["segments"]} <= {1.0}


def test_channels_are_written_down_each_by_itself(server: ServerProcess, speech: Samples) -> None:
    left, right = speech.copy(), speech.copy()
    left[len(left) // 2 :] = 0
    right[: len(right) // 2] = 0
    asked: list[Field] = [TINY, ENGLISH, WORDS, file(wav(np.stack([left, right], axis=1)))]
    split = verbose(server, ("channels", "split"), *asked)
    assert {segment["channel"] for segment in split["segments"]} == {0, 1}
    middle = len(speech) / 32_000
    for segment in split["segments"]:
        assert segment["end"] <= middle + 0.6 if segment["channel"] == 0 else segment["start"] >= middle - 0.6
    starts = [segment["start"] for segment in split["segments"]]
    assert starts == sorted(starts)
    assert all("channel" not in segment for segment in verbose(server, *asked)["segments"])


# ---------------------------------------------------------------------- batches


def test_batches_change_nothing(server: ServerProcess, long_speech: Samples) -> None:
    asked: list[Field] = [ENGLISH, WORDS, file(wav(long_speech))]
    assert verbose(server, TINY, *asked) == verbose(server, ("model", "random-unbatched"), *asked)


def test_requests_at_once_get_what_they_would_get_alone(server: ServerProcess, speech: Samples) -> None:
    """Their windows share batches, whatever their languages, tasks, prompts and temperatures."""
    requests: list[list[Field]] = [
        [("language", language), *more, file(wav(speech[1000 * start :]))]
        for start, (language, more) in enumerate(
            [
                ("en", []),
                ("fr", [WORDS]),
                ("en", [("prompt", "Coffee and tea.")]),
                ("en", [WORDS]),
                ("en", []),
            ]
        )
    ]
    alone = [verbose(server, TINY, *fields) for fields in requests]
    with ThreadPoolExecutor(len(requests)) as threads:
        together = list(threads.map(lambda fields: verbose(server, TINY, *fields), requests))
    assert together == alone


# ---------------------------------------------------------------------- while the upload arrives


@pytest.mark.parametrize("audio_format", ["wav", "mp3", "flac", "opus"])
def test_the_first_words_come_before_the_upload_ends(
    server: ServerProcess, longer_speech: Samples, audio_format: str
) -> None:
    """The client holds the last fifth of its recording back until it has seen something."""
    data = encoded(longer_speech, AudioFormat(audio_format))
    whole = upload(server, TINY, ENGLISH, file(data)).json["text"]
    body = form(TINY, ENGLISH, STREAM, file(data))
    with raw_client(server, len(body)) as client:
        held_back = len(body) - len(data) // 5
        client.send(body[:held_back])
        first = client.event()
        assert first["type"] == "transcript.text.delta"
        client.send(body[held_back:])
        *deltas, done = client.events()
    assert done["type"] == "transcript.text.done"
    assert "".join(delta["delta"] for delta in [first, *deltas]) == done["text"]
    # Which spans share a batch depends on when they arrived, and what random weights say on how a batch rounds.
    assert done["text"].split()[:50] == whole.split()[:50]
    assert len(done["text"].split()) > 0.8 * len(whole.split())


def test_a_container_with_its_index_at_the_end_is_heard_when_it_is_there(
    server: ServerProcess, longer_speech: Samples
) -> None:
    body = form(TINY, ENGLISH, STREAM, file(contained(longer_speech, "mp4", "aac")))
    with raw_client(server, len(body)) as client:
        client.send(body[:-1000])
        wait_for(lambda: running(server) == 1, "the work did not begin")
        client.send(body[-1000:])
        *deltas, done = client.events()
    assert deltas
    assert done["type"] == "transcript.text.done"


def test_a_form_that_breaks_off_ends_its_stream_with_an_error(server: ServerProcess, longer_speech: Samples) -> None:
    body = form(TINY, ENGLISH, STREAM, file(wav(longer_speech)))[:-20]
    with raw_client(server, len(body)) as client:
        client.send(body[:-100_000])
        assert client.event()["type"] == "transcript.text.delta"
        client.send(body[-100_000:])
        error = client.events()[-1]["error"]
    assert (error["code"], error["type"]) == ("invalid_multipart", "invalid_request_error")


def test_a_client_that_leaves_in_the_middle_of_its_upload_frees_the_worker(
    server: ServerProcess, longer_speech: Samples
) -> None:
    body = form(TINY, ENGLISH, STREAM, file(wav(longer_speech)))
    with raw_client(server, len(body)) as client:
        client.send(body[: len(body) * 4 // 5])
        assert client.event()["delta"]
        assert left_behind(server)
        client.vanish()
