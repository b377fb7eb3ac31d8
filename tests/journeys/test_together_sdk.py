"""Together's Python SDK against this server: nothing changes but its base URL."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import numpy as np
import pytest
import together
from together import AsyncTogether, Together
from together.lib.realtime import (
    EchoResponseEvent,
    RealtimeSessionError,
    SessionCreatedEvent,
    TranscriptCompleted,
    TranscriptDelta,
    TranscriptionCompletedEvent,
)

from streaming.audio import PcmEncoding, Samples, decode_pcm
from tests.journeys.recordings import frames_of, seconds_of, speak, spoken_samples, with_pauses, word_error_rate
from tests.journeys.server_process import ServerProcess

SENTENCE = "I would like a cup of coffee."
AUTO: Any = "auto"
"""The SDK's types know the vendor's models only."""

pytestmark = pytest.mark.journey


@pytest.fixture(params=["", "/v1"], ids=["root", "v1"])
def client(server: ServerProcess, request: pytest.FixtureRequest) -> Iterator[Together]:
    """Strict: an answer that is not of the SDK's declared shape raises. 3.x wants the root, its forerunners `/v1`."""
    base_url = server.url + request.param
    with Together(api_key="any", base_url=base_url, max_retries=0, _strict_response_validation=True) as client:
        yield client


@pytest.fixture(params=["", "/v1"], ids=["root", "v1"])
async def async_client(server: ServerProcess, request: pytest.FixtureRequest) -> AsyncIterator[AsyncTogether]:
    async with AsyncTogether(api_key="any", base_url=server.url + request.param, max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def speech(server: ServerProcess) -> Samples:
    """One sentence between two silences, 16 kHz."""
    return with_pauses(spoken_samples(server, SENTENCE))


@pytest.mark.parametrize("audio_format", ["wav", "mp3"])
def test_speech_files_play(client: Together, audio_format: Any) -> None:
    speech = client.audio.speech.create(
        model="auto", input="Good morning, everybody.", voice="alloy", response_format=audio_format
    )
    assert 0.8 < seconds_of(speech.read()) < 3


def test_raw_speech_is_pcm_at_the_rate_asked_for(client: Together) -> None:
    def raw(rate: int, encoding: Any) -> bytes:
        answer = client.audio.speech.create(
            model="auto",
            input="Good morning, everybody.",
            voice="alloy",
            response_format="raw",
            response_encoding=encoding,
            sample_rate=rate,
        )
        return answer.read()

    whole = decode_pcm(raw(24_000, "pcm_s16le"), PcmEncoding.S16LE)
    assert 0.8 < len(whole) / 24_000 < 3
    floats = decode_pcm(raw(16_000, "pcm_f32le"), PcmEncoding.F32LE)
    assert len(floats) / 16_000 == pytest.approx(len(whole) / 24_000, abs=0.01)
    telephone = decode_pcm(raw(8_000, "pcm_mulaw"), PcmEncoding.MULAW)
    assert len(telephone) / 8_000 == pytest.approx(len(whole) / 24_000, abs=0.01)
    for samples in (whole, floats, telephone):
        assert 0.05 < float(np.max(np.abs(samples))) <= 1


def test_without_a_format_speech_is_wav(client: Together) -> None:
    assert client.audio.speech.create(model="auto", input="Hello.", voice="alloy").read().startswith(b"RIFF")


def test_streamed_speech_comes_in_chunks_that_add_up(client: Together, server: ServerProcess) -> None:
    text = "Good morning, everybody. This is a second sentence."
    stream = client.audio.speech.create(
        model="auto", input=text, voice="alloy", response_format="raw", response_encoding="pcm_s16le", stream=True
    )
    chunks = list(stream)
    assert len(chunks) > 3
    assert {chunk.object for chunk in chunks} == {"audio.tts.chunk"}
    assert {chunk.model for chunk in chunks} == {"espeak-ng"}
    audio = b"".join(base64.b64decode(chunk.b64) for chunk in chunks)
    assert audio == speak(server, text, sample_rate=24_000)
    # What Together's own examples read.
    assert [cast(Any, chunk).delta for chunk in chunks] == [chunk.b64 for chunk in chunks]


def test_streamed_words_have_times(server: ServerProcess) -> None:
    with Together(api_key="any", base_url=server.url) as client:
        stream = client.audio.speech.create(
            model="auto", input="Two words.", voice="alloy", stream=True, extra_body={"alignment": "word"}
        )
        timed = [cast(Any, chunk) for chunk in stream if cast(Any, chunk).type.endswith("word_timestamps")]
    assert [word for chunk in timed for word in chunk.words] == ["Two", "words"]
    assert all(chunk.start_seconds[0] < chunk.end_seconds[0] for chunk in timed)


def test_voices_are_listed_by_model(client: Together) -> None:
    listed = {entry.model: [voice.id for voice in entry.voices] for entry in client.audio.voices.list().data}
    assert {"alloy", "en-us+klatt6"} <= set(listed["espeak-ng"])


def test_models_are_a_bare_array(client: Together) -> None:
    """`models.list()` of 3.x asks a v2 path that names a project; this is the list its forerunners ask."""
    listed = cast(list[dict[str, Any]], client.get("/v1/models", cast_to=object))
    assert {"espeak-ng": "audio", "pocketsphinx": "transcribe"}.items() <= {
        model["id"]: model["type"] for model in listed
    }.items()


def test_a_file_is_transcribed(client: Together, server: ServerProcess) -> None:
    wav = speak(server, SENTENCE, response_format="wav")
    result = client.audio.transcriptions.create(model=AUTO, file=("speech.wav", wav))
    assert word_error_rate([SENTENCE], [result.text]) <= 0.5


def test_verbose_json_has_segments_and_words(client: Together, server: ServerProcess) -> None:
    wav = speak(server, SENTENCE, response_format="wav")
    result = client.audio.transcriptions.create(
        model=AUTO,
        file=("speech.wav", wav),
        language="en",
        response_format="verbose_json",
        timestamp_granularities=["segment", "word"],
    )
    verbose = cast(Any, result)
    assert verbose.language == "en"
    assert verbose.duration == pytest.approx(seconds_of(wav), abs=0.01)
    assert " ".join(segment.text for segment in verbose.segments) == verbose.text
    assert [word.word for word in verbose.words] == verbose.text.split()
    times = [time for word in verbose.words for time in (word.start, word.end)]
    assert times == sorted(times)
    assert 0 <= times[0] < times[-1] <= verbose.duration


def test_errors_have_their_classes(client: Together) -> None:
    with pytest.raises(together.NotFoundError, match="no-such-model") as unknown:
        client.audio.speech.create(model="no-such-model", input="Hello.", voice="alloy")
    body = cast(dict[str, Any], unknown.value.body)
    assert body["error"]["code"] == "model_not_found"
    with pytest.raises(together.BadRequestError, match="voice"):
        client.audio.speech.create(model="auto", input="Hello.", voice="nobody")
    with pytest.raises(together.BadRequestError, match="input"):
        client.audio.speech.create(model="auto", input="", voice="alloy")
    with pytest.raises(together.BadRequestError, match="file"):
        client.audio.transcriptions.create(model=AUTO, file=("empty.wav", b""))
    with pytest.raises(together.NotFoundError):
        client.audio.transcriptions.create(model=cast(Any, "no-such-model"), file=("speech.wav", b"RIFF"))


async def test_speech_asynchronously(async_client: AsyncTogether) -> None:
    speech = await async_client.audio.speech.create(model="auto", input="Good morning.", voice="nova")
    assert 0.4 < seconds_of(await speech.read()) < 3


async def test_realtime_transcription_session(async_client: AsyncTogether, speech: Samples) -> None:
    """The high-level session, which sends `echo` and reconnects when nothing comes back."""
    transcription = async_client.beta.realtime.transcription(
        model="auto", sample_rate=16_000, language="auto", prompt="drinks", turn_detection={"type": "server_vad"}
    )
    async with asyncio.timeout(30):
        async with transcription as session:
            session._echo_interval = 0.05
            for frame in frames_of(speech):
                await session.append(frame)
            heard: list[Any] = []
            async for event in session:
                heard.append(event)
                if isinstance(event, TranscriptCompleted):
                    break
            assert word_error_rate([SENTENCE], [heard[-1].text]) <= 0.5
            assert any(isinstance(event, TranscriptDelta) for event in heard)
            assert await session.flush(quiescence=0.5) == " ".join(session.transcripts)
            assert session.metrics.reconnects == 0
            await session.close()


async def test_flush_commits_what_was_said(async_client: AsyncTogether, speech: Samples) -> None:
    async with asyncio.timeout(30):
        async with async_client.beta.realtime.transcription(
            model="auto", sample_rate=16_000, turn_detection={"type": "none"}
        ) as session:
            await session.append(b"".join(frames_of(speech)))
            assert word_error_rate([SENTENCE], [await session.flush()]) <= 0.5
            assert len(session.transcripts) == 1
            await session.close()


async def test_realtime_connection(async_client: AsyncTogether, speech: Samples) -> None:
    """The raw connection, which updates the session before it has read `session.created`."""
    async with asyncio.timeout(30):
        async with async_client.beta.realtime.connect(model="auto", prompt="drinks") as connection:
            created = await connection.recv()
            assert isinstance(created, SessionCreatedEvent)
            assert created.session is not None
            assert created.session.model == "pocketsphinx"
            await connection.echo(7)
            for frame in frames_of(speech):
                await connection.input_audio_buffer.append(frame)
            echoes: list[EchoResponseEvent] = []
            while not isinstance(event := await connection.recv(), TranscriptionCompletedEvent):
                echoes += [event] if isinstance(event, EchoResponseEvent) else []
            assert [echo.echo_id for echo in echoes] == [7]
            assert word_error_rate([SENTENCE], [event.transcript]) <= 0.5
            assert event.start is not None
            assert event.duration is not None
            assert event.start + event.duration <= len(speech) / 16_000


# The SDK connects without the context manager that websockets 17 has begun to ask for.
@pytest.mark.filterwarnings("ignore:connect.. must be used as a context manager:DeprecationWarning")
def test_realtime_connection_without_asyncio(client: Together, speech: Samples) -> None:
    with client.beta.realtime.connect(model="auto", turn_detection={"type": "none"}) as connection:
        for frame in frames_of(speech):
            connection.input_audio_buffer.append(frame)
        connection.input_audio_buffer.commit()
        while not isinstance(event := connection.recv(timeout=30), TranscriptionCompletedEvent):
            pass
        assert word_error_rate([SENTENCE], [event.transcript]) <= 0.5


async def test_a_bad_model_ends_a_realtime_session_at_once(async_client: AsyncTogether) -> None:
    before = len(asyncio.all_tasks())
    async with asyncio.timeout(10):
        async with async_client.beta.realtime.transcription(model="no-such-model", sample_rate=16_000) as session:
            with pytest.raises(RealtimeSessionError, match="no-such-model") as refused:
                [event async for event in session]
    assert refused.value.code == "model_not_available"
    async with asyncio.timeout(20):
        # The SDK closes its connection in the background, and says nothing when it has.
        while len(asyncio.all_tasks()) > before:  # noqa: ASYNC110
            await asyncio.sleep(0)
