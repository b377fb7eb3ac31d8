"""OpenAI's Python SDK against this server: nothing changes but its base URL."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import openai
import pytest
import soxr
from openai import AsyncOpenAI, OpenAI
from openai.resources.realtime.realtime import AsyncRealtimeConnection

from streaming.audio import PcmEncoding, Samples, decode_pcm
from streaming.encode import MEDIA_TYPES, AudioFormat
from tests.journeys.recordings import frames_of, seconds_of, speak, spoken_samples, with_pauses, word_error_rate
from tests.journeys.server_process import ServerProcess
from tests.journeys.sockets import encoded

SENTENCE = "I would like a cup of coffee."
TEXT = "Good morning, everybody. This is a second sentence."
SpeechFormat: TypeAlias = Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]
FORMATS: tuple[SpeechFormat, ...] = ("mp3", "opus", "aac", "flac", "wav", "pcm")

pytestmark = pytest.mark.journey


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> Iterator[OpenAI]:
    """Strict: an answer that is not of the SDK's declared shape raises."""
    with OpenAI(api_key="any", base_url=f"{server.url}/v1", max_retries=0, _strict_response_validation=True) as client:
        yield client


@pytest.fixture
async def async_client(server: ServerProcess) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(api_key="any", base_url=f"{server.url}/v1", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def speech(server: ServerProcess) -> Samples:
    """One sentence between two silences, 24 kHz, which is what the API's PCM is."""
    resampled: Samples = soxr.resample(with_pauses(spoken_samples(server, SENTENCE)), 16_000, 24_000)
    return resampled


@pytest.mark.parametrize("audio_format", FORMATS)
def test_speech_plays_in_every_format(client: OpenAI, audio_format: SpeechFormat) -> None:
    speech = client.audio.speech.create(model="auto", input=TEXT, voice="nova", response_format=audio_format)
    assert speech.response.headers["content-type"].startswith(MEDIA_TYPES[AudioFormat(audio_format)])
    if audio_format == "pcm":
        samples = decode_pcm(speech.read(), PcmEncoding.S16LE)
        assert 1.5 < len(samples) / 24_000 < 6
        assert float(np.max(np.abs(samples))) > 0.05
    else:
        assert 1.5 < seconds_of(speech.read()) < 6


def test_without_a_format_speech_is_mp3(client: OpenAI) -> None:
    speech = client.audio.speech.create(model="auto", input="Hello.", voice="alloy")
    assert speech.response.headers["content-type"] == "audio/mpeg"
    assert seconds_of(speech.read()) > 0.3


@pytest.mark.parametrize(
    "voice", ["alloy", "ash", "ballad", "coral", "echo", "fable", "onyx", "nova", "sage", "shimmer", "verse", "marin",
              "cedar"]
)  # fmt: skip
def test_every_voice_of_openai_speaks(client: OpenAI, voice: str) -> None:
    speech = client.audio.speech.create(model="auto", input="Hello.", voice=voice, response_format="pcm")
    assert len(speech.read()) > 24_000 // 4


def test_speed_makes_speech_shorter(client: OpenAI) -> None:
    def length(speed: float) -> int:
        speech = client.audio.speech.create(model="auto", input=TEXT, voice="alloy", response_format="pcm", speed=speed)
        return len(speech.read())

    assert length(0.5) > 1.3 * length(1.0) > 1.3**2 * length(2.0)


def test_speech_streams_as_bytes(client: OpenAI, server: ServerProcess) -> None:
    with client.audio.speech.with_streaming_response.create(
        model="auto", input=TEXT, voice="alloy", response_format="pcm"
    ) as response:
        chunks = list(response.iter_bytes())
    assert len(chunks) > 3
    assert b"".join(chunks) == speak(server, TEXT, sample_rate=24_000)


@pytest.mark.parametrize("audio_format", FORMATS)
def test_speech_streams_as_events(client: OpenAI, audio_format: SpeechFormat) -> None:
    with client.audio.speech.with_streaming_response.create(
        model="auto", input=TEXT, voice="alloy", response_format=audio_format, stream_format="sse"
    ) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in response.iter_lines() if line]
    assert all(line.startswith("data: ") for line in lines)
    *deltas, done = [json.loads(line.removeprefix("data: ")) for line in lines]
    assert {delta["type"] for delta in deltas} == {"speech.audio.delta"}
    assert len(deltas) > 3
    audio = b"".join(base64.b64decode(delta["audio"]) for delta in deltas)
    assert (len(audio) / 48_000 if audio_format == "pcm" else seconds_of(audio)) > 1.5
    assert done["type"] == "speech.audio.done"
    usage = done["usage"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"] > 0


async def test_speech_asynchronously(async_client: AsyncOpenAI) -> None:
    speech = await async_client.audio.speech.create(model="auto", input="Good morning.", voice="nova")
    assert 0.4 < seconds_of(await speech.aread()) < 3


def test_a_file_is_transcribed(client: OpenAI, server: ServerProcess) -> None:
    wav = speak(server, SENTENCE, response_format="wav")
    result = client.audio.transcriptions.create(model="auto", file=("speech.wav", wav))
    assert word_error_rate([SENTENCE], [result.text]) <= 0.5
    assert result.usage is not None
    assert result.usage.type == "duration"
    text = client.audio.transcriptions.create(model="auto", file=("speech.wav", wav), response_format="text")
    assert text == result.text + "\n"


@pytest.mark.parametrize("audio_format", FORMATS[:-1])
def test_every_format_it_speaks_is_one_it_reads(
    client: OpenAI, server: ServerProcess, audio_format: SpeechFormat
) -> None:
    file = speak(server, SENTENCE, response_format=audio_format, sample_rate=24_000)
    result = client.audio.transcriptions.create(model="auto", file=(f"speech.{audio_format}", file), language="en")
    assert len(result.text.split()) >= 4


def test_verbose_json_has_words_with_times(server: ServerProcess) -> None:
    wav = speak(server, SENTENCE, response_format="wav")
    # Not strict: the SDK's segments demand Whisper's inner numbers, which other recognisers do not have.
    with OpenAI(api_key="any", base_url=f"{server.url}/v1") as client:
        result = client.audio.transcriptions.create(
            model="auto",
            file=("speech.wav", wav),
            response_format="verbose_json",
            timestamp_granularities=["word", "segment"],
        )
    assert result.duration == pytest.approx(seconds_of(wav), abs=0.01)
    assert result.segments is not None
    assert result.words is not None
    assert " ".join(segment.text for segment in result.segments) == result.text
    assert [word.word for word in result.words] == result.text.split()
    times = [time for word in result.words for time in (word.start, word.end)]
    assert times == sorted(times)
    assert 0 <= times[0] < times[-1] <= result.duration


def test_models_are_listed_and_retrieved(client: OpenAI) -> None:
    models = {model.id: model for model in client.models.list()}
    assert {"espeak-ng", "pocketsphinx"} <= models.keys()
    found = client.models.retrieve("pocketsphinx")
    assert found == models["pocketsphinx"]
    assert found.object == "model"
    with pytest.raises(openai.NotFoundError, match="no-such-model"):
        client.models.retrieve("no-such-model")


def test_errors_have_their_classes_and_name_the_field(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="no-such-model") as unknown:
        client.audio.speech.create(model="no-such-model", input="Hello.", voice="alloy")
    assert unknown.value.code == "model_not_found"
    assert unknown.value.request_id
    with pytest.raises(openai.BadRequestError) as wrong_voice:
        client.audio.speech.create(model="auto", input="Hello.", voice="nobody")
    assert wrong_voice.value.param == "voice"
    with pytest.raises(openai.BadRequestError) as wrong_speed:
        client.audio.speech.create(model="auto", input="Hello.", voice="alloy", speed=9)
    assert wrong_speed.value.param == "speed"
    with pytest.raises(openai.BadRequestError) as wrong_file:
        client.audio.transcriptions.create(model="auto", file=("noise.wav", b"\x01" * 5000))
    assert wrong_file.value.param == "file"
    with pytest.raises(openai.NotFoundError):
        client.post("/no/such/path", cast_to=object, body={})


async def test_errors_asynchronously(async_client: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="no-such-model"):
        await async_client.audio.transcriptions.create(model="no-such-model", file=("speech.wav", b"RIFF"))


# ---------------------------------------------------------------------- realtime

VAD: dict[str, Any] = {"type": "server_vad", "threshold": 0.5, "silence_duration_ms": 400}


def transcription_session(turn_detection: dict[str, Any] | None) -> Any:
    return {
        "type": "transcription",
        "audio": {
            "input": {
                "format": {"type": "audio/pcm", "rate": 24_000},
                "transcription": {"model": "auto", "language": "en"},
                "turn_detection": turn_detection,
            }
        },
    }


async def send(connection: AsyncRealtimeConnection, speech: Samples) -> None:
    for frame in frames_of(speech, 24_000):
        await connection.input_audio_buffer.append(audio=encoded(frame))


async def until_completed(connection: AsyncRealtimeConnection) -> list[Any]:
    """Every event up to the transcript, as the SDK's own types."""
    events: list[Any] = []
    async for event in connection:
        events.append(event)
        if event.type == "conversation.item.input_audio_transcription.completed":
            return events
    raise AssertionError("the connection was closed")


@pytest.mark.parametrize("query", [{"intent": "transcription"}, {"intent": "transcription", "model": "auto"}])
async def test_realtime_with_turn_detection(
    async_client: AsyncOpenAI, speech: Samples, query: dict[str, object]
) -> None:
    async with asyncio.timeout(30), async_client.realtime.connect(extra_query=query) as connection:
        created = cast(Any, await connection.recv())
        assert (created.type, created.session.type) == ("session.created", "transcription")
        await connection.session.update(session=transcription_session(VAD))
        updated = cast(Any, await connection.recv())
        assert updated.session.audio.input.transcription.model == "pocketsphinx"
        assert updated.session.audio.input.turn_detection.silence_duration_ms == 400
        for _ in range(2):
            await send(connection, speech)
            events = await until_completed(connection)
            kinds = [event.type for event in events]
            order = [
                "input_audio_buffer.speech_started",
                "input_audio_buffer.speech_stopped",
                "input_audio_buffer.committed",
                "conversation.item.added",
                "conversation.item.done",
            ]
            assert [kind for kind in kinds if kind in order] == order
            assert word_error_rate([SENTENCE], [events[-1].transcript]) <= 0.5
            assert events[-1].usage.type == "duration"
            assert any(event.type.endswith("transcription.delta") and event.delta for event in events)


async def test_realtime_with_manual_commit(async_client: AsyncOpenAI, speech: Samples) -> None:
    async with (
        asyncio.timeout(30),
        async_client.realtime.connect(extra_query={"intent": "transcription"}) as connection,
    ):
        await connection.session.update(session=transcription_session(None))
        await send(connection, speech)
        await connection.input_audio_buffer.commit()
        events = await until_completed(connection)
        assert [event.type for event in events[:2]] == ["session.created", "session.updated"]
        assert word_error_rate([SENTENCE], [events[-1].transcript]) <= 0.5
        await connection.input_audio_buffer.commit(event_id="empty")
        refused = cast(Any, await connection.recv())
        assert (refused.error.code, refused.error.event_id) == ("input_audio_buffer_commit_empty", "empty")
        await connection.input_audio_buffer.clear()
        assert (await connection.recv()).type == "input_audio_buffer.cleared"


# The SDK connects without the context manager that websockets 17 has begun to ask for.
@pytest.mark.filterwarnings("ignore:connect.. must be used as a context manager:DeprecationWarning")
def test_realtime_without_asyncio(client: OpenAI, speech: Samples) -> None:
    with client.realtime.connect(extra_query={"intent": "transcription"}) as connection:
        connection.session.update(session=transcription_session(None))
        for frame in frames_of(speech, 24_000):
            connection.input_audio_buffer.append(audio=encoded(frame))
        connection.input_audio_buffer.commit()
        while (event := connection.recv()).type != "conversation.item.input_audio_transcription.completed":
            assert event.type != "error"
        assert word_error_rate([SENTENCE], [event.transcript]) <= 0.5


async def test_a_realtime_conversation_is_refused_clearly(async_client: AsyncOpenAI) -> None:
    async with asyncio.timeout(10), async_client.realtime.connect(model="gpt-realtime") as connection:
        refused = cast(Any, await connection.recv())
        assert refused.type == "error"
        assert refused.error.code == "conversation_not_supported"
