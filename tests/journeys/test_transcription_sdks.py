"""Both vendors' SDKs transcribe recordings with a Whisper, and with speakers; nothing changes but the base URL."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import openai
import pytest
import srt
import together
import webvtt
from openai import OpenAI
from together import Together

from streaming.audio import PcmEncoding, Samples, decode_pcm
from tests.journeys.recordings import speak
from tests.journeys.server_process import ServerProcess
from tests.journeys.uploading import left_behind, wait_for, wav
from tests.models.engines.sentences import SENTENCES

pytestmark = pytest.mark.journey

MODEL: Any = "random"
SPEAKERS = ("en-us+m5", "en-us+f3")
Subtitles: TypeAlias = Literal["srt", "vtt"]


@pytest.fixture(scope="module")
def server(whisper_server: ServerProcess) -> ServerProcess:
    return whisper_server


@pytest.fixture(autouse=True)
def _nothing_left(server: ServerProcess) -> Iterator[None]:
    yield
    wait_for(lambda: not left_behind(server), "files are left in the spool directory")


@pytest.fixture(scope="module")
def openai_client(server: ServerProcess) -> Iterator[OpenAI]:
    """Strict: an answer that is not of the SDK's declared shape raises."""
    with OpenAI(api_key="any", base_url=f"{server.url}/v1", max_retries=0, _strict_response_validation=True) as client:
        yield client


@pytest.fixture(scope="module", params=["", "/v1"], ids=["root", "v1"])
def together_client(server: ServerProcess, request: pytest.FixtureRequest) -> Iterator[Together]:
    with Together(
        api_key="any", base_url=server.url + request.param, max_retries=0, _strict_response_validation=True
    ) as client:
        yield client


def said(server: ServerProcess, voice: str, first: int, count: int = 2) -> Samples:
    text = " ".join(SENTENCES[first : first + count])
    return decode_pcm(speak(server, text, model="espeak-ng", voice=voice), PcmEncoding.S16LE)


@pytest.fixture(scope="module")
def dialogue(server: ServerProcess) -> bytes:
    """Two voices take turns, twice."""
    pause = np.zeros(8_000, np.float32)
    turns = [said(server, SPEAKERS[turn % 2], 2 * turn) for turn in range(4)]
    return wav(np.concatenate([part for turn in turns for part in (turn, pause)]))


@pytest.fixture(scope="module")
def clip(server: ServerProcess) -> str:
    """Some seconds of the second voice, as a data URL."""
    return "data:audio/wav;base64," + base64.b64encode(wav(said(server, SPEAKERS[1], 0, 3))).decode()


# ---------------------------------------------------------------------- openai


def test_openai_json(openai_client: OpenAI, dialogue: bytes) -> None:
    answer = openai_client.audio.transcriptions.create(
        model=MODEL, file=("a.wav", dialogue), language="en", chunking_strategy="auto", include=["logprobs"]
    )
    assert answer.text
    assert answer.usage is not None
    assert answer.usage.type == "duration"
    assert answer.usage.seconds > 5


def test_openai_text(openai_client: OpenAI, dialogue: bytes) -> None:
    asked: Any = {"model": MODEL, "file": ("a.wav", dialogue), "language": "en"}
    text = openai_client.audio.transcriptions.create(**asked, response_format="text")
    assert isinstance(text, str)
    assert text == openai_client.audio.transcriptions.create(**asked).text + "\n"


@pytest.mark.parametrize("response_format", ["srt", "vtt"])
def test_openai_subtitles(openai_client: OpenAI, dialogue: bytes, response_format: Subtitles) -> None:
    asked: Any = {"model": MODEL, "file": ("a.wav", dialogue), "language": "en"}
    subtitles = openai_client.audio.transcriptions.create(**asked, response_format=response_format)
    assert isinstance(subtitles, str)
    if response_format == "srt":
        lines = [cue.content for cue in srt.parse(subtitles)]
    else:
        lines = [caption.text for caption in webvtt.from_string(subtitles).captions]
    whole = openai_client.audio.transcriptions.create(**asked, response_format="verbose_json")
    assert " ".join(" ".join(lines).split()) == whole.text


def test_openai_verbose_json(openai_client: OpenAI, dialogue: bytes) -> None:
    answer = openai_client.audio.transcriptions.create(
        model=MODEL,
        file=("a.wav", dialogue),
        language="en",
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
        temperature=0,
        prompt="Coffee.",
    )
    assert answer.language == "en"
    assert answer.segments
    assert answer.words
    assert all(segment.avg_logprob < 0 and segment.tokens for segment in answer.segments)
    assert [word.word for word in answer.words] == answer.text.split()
    assert answer.words[-1].end <= answer.segments[-1].end <= answer.duration


def test_openai_diarized_json(openai_client: OpenAI, dialogue: bytes, clip: str) -> None:
    answer = openai_client.audio.transcriptions.create(
        model=MODEL,
        file=("a.wav", dialogue),
        language="en",
        response_format="diarized_json",
        chunking_strategy={"type": "server_vad", "threshold": 0.4},
        known_speaker_names=["agent"],
        known_speaker_references=[clip],
        extra_body={"num_speakers": 2},
    )
    assert {segment.speaker for segment in answer.segments} == {"A", "agent"}
    assert answer.text == "\n".join(f"{segment.speaker}: {segment.text}" for segment in answer.segments)
    assert all(segment.type == "transcript.text.segment" for segment in answer.segments)


def test_openai_streams(openai_client: OpenAI, dialogue: bytes) -> None:
    stream = openai_client.audio.transcriptions.create(
        model=MODEL, file=("a.wav", dialogue), language="en", stream=True
    )
    *deltas, done = [cast(Any, event) for event in stream]
    assert deltas
    assert {delta.type for delta in deltas} == {"transcript.text.delta"}
    assert done.type == "transcript.text.done"
    assert "".join(delta.delta for delta in deltas) == done.text != ""


def test_openai_streams_speakers(openai_client: OpenAI, dialogue: bytes) -> None:
    stream = openai_client.audio.transcriptions.create(
        model=MODEL,
        file=("a.wav", dialogue),
        language="en",
        stream=True,
        response_format="diarized_json",
        extra_body={"num_speakers": 2},
    )
    events = [cast(Any, event) for event in stream]
    speakers = {event.speaker for event in events if event.type == "transcript.text.segment"}
    assert speakers == {"A", "B"}
    assert events[-1].type == "transcript.text.done"


# The SDK calls its own overloads deprecated.
@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
@pytest.mark.parametrize("response_format", ["json", "verbose_json", "text", "srt", "vtt"])
def test_openai_translations(openai_client: OpenAI, dialogue: bytes, response_format: Any) -> None:
    answer: Any = openai_client.audio.translations.create(
        model=MODEL, file=("a.wav", dialogue), response_format=response_format
    )
    text = answer if isinstance(answer, str) else answer.text
    assert text
    if response_format == "verbose_json":
        assert answer.duration > 5
        assert answer.segments


def test_openai_errors(openai_client: OpenAI, dialogue: bytes) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        openai_client.audio.transcriptions.create(model=MODEL, file=("a.wav", b""))
    assert (refused.value.code, refused.value.param) == ("empty_file", "file")
    with pytest.raises(openai.BadRequestError) as refused:
        openai_client.audio.transcriptions.create(model=MODEL, file=("a.wav", dialogue), language="xx")
    assert refused.value.param == "language"
    with pytest.raises(openai.NotFoundError):
        openai_client.audio.transcriptions.create(model="nobody", file=("a.wav", dialogue), stream=True)


# ---------------------------------------------------------------------- together


def test_together_json(together_client: Together, dialogue: bytes) -> None:
    answer: Any = together_client.audio.transcriptions.create(model=MODEL, file=("a.wav", dialogue), language="en")
    assert answer.text
    again: Any = together_client.audio.transcriptions.create(
        model=MODEL, file=("a.wav", dialogue), language="en", response_format="json"
    )
    assert again.text == answer.text


def test_together_verbose_json_with_words(together_client: Together, dialogue: bytes) -> None:
    answer: Any = together_client.audio.transcriptions.create(
        model=MODEL,
        file=("a.wav", dialogue),
        language="en",
        response_format="verbose_json",
        timestamp_granularities="word",
        temperature=0,
    )
    assert (answer.task, answer.language) == ("transcribe", "en")
    assert [word.word for word in answer.words] == answer.text.split()
    assert answer.segments[0].start >= 0
    without: Any = together_client.audio.transcriptions.create(
        model=MODEL, file=("a.wav", dialogue), response_format="verbose_json", timestamp_granularities=["segment"]
    )
    assert without.words is None
    assert without.segments


@pytest.mark.parametrize("response_format", ["json", "verbose_json"])
def test_together_diarizes(together_client: Together, dialogue: bytes, response_format: Any) -> None:
    answer: Any = together_client.audio.transcriptions.create(
        model=MODEL,
        file=("a.wav", dialogue),
        language="en",
        response_format=response_format,
        diarize=True,
        min_speakers=2,
        max_speakers=2,
    )
    assert {segment.speaker_id for segment in answer.speaker_segments} == {"SPEAKER_00", "SPEAKER_01"}
    words = [word for segment in answer.speaker_segments for word in segment.words]
    assert [word.word for word in words] == [word.word for word in answer.words] == answer.text.split()
    for segment in answer.speaker_segments:
        assert {word.speaker_id for word in segment.words} == {segment.speaker_id}
        assert segment.text == " ".join(word.word for word in segment.words)


@pytest.mark.parametrize("response_format", ["json", "verbose_json"])
def test_together_translates(together_client: Together, dialogue: bytes, response_format: Any) -> None:
    answer: Any = together_client.audio.translations.create(
        model=MODEL, file=("a.wav", dialogue), language="en", response_format=response_format
    )
    assert answer.text
    if response_format == "verbose_json":
        assert answer.task == "translate"


def test_together_errors(together_client: Together, dialogue: bytes) -> None:
    with pytest.raises(together.NotFoundError, match="nobody"):
        together_client.audio.transcriptions.create(model=cast(Any, "nobody"), file=("a.wav", dialogue))
    with pytest.raises(together.BadRequestError, match="empty"):
        together_client.audio.transcriptions.create(model=MODEL, file=("a.wav", b""))
