"""A Whisper that understands: it was taught 45 words (`deploy/train_small_whisper.py`), so its text is right or wrong.

The speech is the embedded engine's, which also tells when it says which word.
"""

from __future__ import annotations

import importlib.util
import itertools
import threading
import wave
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jiwer
import msgspec
import numpy as np
import pytest

from models import catalog
from models.catalog import Card, Catalog
from models.engines import espeak
from models.errors import InvalidInput
from models.interfaces import Samples, SegmentResult, SpeechRequest, TranscriptionRequest
from models.spool import SpoolWriter
from models.whisper_jobs import Job
from streaming.audio import Resampler
from streaming.segmentation import Piece, SpeechSpan, Timeline
from streaming.transcript import Segment, Word
from tests.models.engines.conformance import SAMPLE_RATE, Steps, TranscriptionConformance, noise, speak, write_wav

pytestmark = pytest.mark.skipif(
    not importlib.util.find_spec("faster_whisper"), reason="faster-whisper is not installed"
)

WEIGHTS = Path(catalog.__file__).parent / "weights" / "whisper-words"
COMMANDS = (
    "turn on the kitchen light",
    "please open the door",
    "stop the music now",
    "start the timer ten minutes",
    "close the window please",
    "pause the yellow timer",
    "seven three zero nine",
    "go left and right",
    "red green blue black white",
    "hello yes please",
    "turn off the light now",
    "one two four five six eight",
    "play the music",
    "no down and up",
)
VOICES = ("en-us+klatt6", "en-us+klatt4", "en-us+m7", "en-us+f5", "en-gb-x-rp", "en-us+f3", "en-us+m1")
NEVER_HEARD = ("en-us+m4", "en-gb+f4")
"""Voices that the training left out."""


class Spoken(NamedTuple):
    """Samples at 16 kHz, and the words in them with their times as the synthesizer tells them."""

    samples: Samples
    words: tuple[Word, ...]

    @property
    def text(self) -> str:
        return " ".join(word.text for word in self.words)


def say(text: str, voice: str = "en-us+klatt6", speed: float = 1.0) -> Spoken:
    card = Catalog.load().find("espeak-ng", "speech").card
    audio, words = speak(espeak.load(card), SpeechRequest(text, voice, speed=speed))
    resampler = Resampler(card.sample_rate, SAMPLE_RATE)
    samples = np.concatenate((resampler.process(audio), resampler.finish()))
    return Spoken(samples, tuple(Word(text[w.start_char : w.end_char], w.start, w.end) for w in words))


def silence(seconds: float) -> Samples:
    return np.zeros(round(seconds * SAMPLE_RATE), np.float32)


def one_after_another(parts: Sequence[Spoken], gap: float) -> Spoken:
    """With so many seconds of silence before each, and after the last."""
    samples, words = [silence(gap)], list[Word]()
    for part in parts:
        at = sum(map(len, samples)) / SAMPLE_RATE
        words += [replace(word, start=word.start + at, end=word.end + at) for word in part.words]
        samples += [part.samples, silence(gap)]
    return Spoken(np.concatenate(samples), tuple(words))


def card_of(**options: Any) -> Card:
    fields = {"id": "whisper-words", "task": "transcription", "engine": "whisper", "name": "Whisper words"}
    return msgspec.convert(
        fields | {"weights": str(WEIGHTS), "concurrency": 4, "options": {"workers": 1} | options}, Card
    )


@pytest.fixture(scope="module")
def card() -> Card:
    return card_of()


@pytest.fixture(scope="module")
def engine(card: Card) -> Iterator[Any]:
    from models.engines import whisper

    loaded = whisper.load(card)
    yield loaded
    loaded.close()


@pytest.fixture(scope="module")
def speech() -> Samples:
    return one_after_another([say(text) for text in COMMANDS[:3]], 0.3).samples


class TestConformance(TranscriptionConformance):
    pass


def transcribe(engine: Any, path: Path, **fields: Any) -> list[Segment]:
    results = engine.transcribe(TranscriptionRequest(path=str(path), **fields), Steps())
    return [result.segment for result in results if isinstance(result, SegmentResult)]


def text_of(segments: Sequence[Segment]) -> str:
    return " ".join(segment.text for segment in segments)


def hear(engine: Any, spoken: Spoken, path: Path, **fields: Any) -> str:
    padded = np.concatenate((silence(0.5), spoken.samples, silence(0.5)))
    return text_of(transcribe(engine, write_wav(path, padded), **fields))


def pairs(said: Sequence[Word], heard: Sequence[Word]) -> Iterator[tuple[Word, Word]]:
    """Words that were said and heard, in spite of some that were not."""
    one, other = (" ".join(word.text for word in words) for words in (said, heard))
    for chunk in jiwer.process_words(one, other).alignments[0]:
        if chunk.type == "equal":
            own = said[chunk.ref_start_idx : chunk.ref_end_idx]
            yield from zip(own, heard[chunk.hyp_start_idx : chunk.hyp_end_idx], strict=True)


@pytest.mark.parametrize("timestamps", [True, False], ids=["timestamps", "plain"])
def test_commands_come_out_word_for_word(engine: Any, tmp_path: Path, timestamps: bool) -> None:
    pacing = zip(COMMANDS, itertools.cycle(VOICES), itertools.cycle((0.9, 1.0, 1.2)))
    heard = [hear(engine, say(*each), tmp_path / "a.wav", segment_timestamps=timestamps) for each in pacing]
    assert jiwer.wer(list(COMMANDS), heard) <= 0.05


@pytest.mark.parametrize("voice", NEVER_HEARD)
def test_a_voice_it_never_heard_is_understood(engine: Any, tmp_path: Path, voice: str) -> None:
    heard = [hear(engine, say(text, voice), tmp_path / "a.wav") for text in COMMANDS[:7]]
    assert jiwer.wer(list(COMMANDS[:7]), heard) <= 0.15


def test_commands_are_understood_in_noise(engine: Any, tmp_path: Path) -> None:
    spoken = one_after_another([say(text, "en-us+klatt4") for text in COMMANDS], 0.7)
    hiss = noise(len(spoken.samples) / SAMPLE_RATE, 0.005)
    segments = transcribe(engine, write_wav(tmp_path / "a.wav", spoken.samples + hiss))
    assert jiwer.wer(spoken.text, text_of(segments)) <= 0.1


@pytest.mark.parametrize("pause", [0.4, 1.0, 1.5, 1.6, 2.0, 3.0])
def test_words_are_where_the_synthesizer_says_them(engine: Any, tmp_path: Path, pause: float) -> None:
    spoken = one_after_another([say(text, voice) for text, voice in zip(COMMANDS, VOICES * 2, strict=True)], pause)
    segments = transcribe(engine, write_wav(tmp_path / "a.wav", spoken.samples), word_timestamps=True)
    matched = list(pairs(spoken.words, [word for segment in segments for word in segment.words]))
    assert len(matched) >= 0.95 * len(spoken.words)
    for misplaced in (
        np.abs([heard.start - said.start for said, heard in matched]),
        np.abs([heard.end - said.end for said, heard in matched]),
    ):
        assert np.median(misplaced) < 0.05
        assert np.quantile(misplaced, 0.9) < 0.15
        assert misplaced.max() < 0.3
    assert all(word.probability is not None and word.probability > 0.2 for _, word in matched)


def test_sentences_between_pauses_are_segments_with_their_own_times(engine: Any, tmp_path: Path) -> None:
    parts = [say(text) for text in COMMANDS[:4]]
    spoken = one_after_another(parts, 0.8)
    segments = transcribe(engine, write_wav(tmp_path / "a.wav", spoken.samples))
    assert [segment.text for segment in segments] == list(COMMANDS[:4])
    words = iter(spoken.words)
    for segment, part in zip(segments, parts, strict=True):
        own = list(itertools.islice(words, len(part.words)))
        assert segment.start == pytest.approx(own[0].start, abs=0.2)
        assert segment.end == pytest.approx(own[-1].end, abs=0.2)


def hold_back(engine: Any, monkeypatch: pytest.MonkeyPatch, jobs: int) -> None:
    """Let the first batch wait until so many jobs were submitted: those after it meet in one."""
    encode, submit, submitted = engine._model.encode, engine.lane.submit, threading.Semaphore(0)

    def encode_later(features: Any) -> Any:
        monkeypatch.setattr(engine._model, "encode", encode)
        assert all(submitted.acquire(timeout=10) for _ in range(jobs))
        return encode(features)

    def submit_counted(job: Any, **terms: Any) -> Any:
        submitted.release()
        return submit(job, **terms)

    monkeypatch.setattr(engine._model, "encode", encode_later)
    monkeypatch.setattr(engine.lane, "submit", submit_counted)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_two_minutes_keep_their_order_and_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_size: int
) -> None:
    from models.engines import whisper

    spoken = one_after_another([say(text, voice) for voice in VOICES[:4] for text in COMMANDS], 1.0)
    assert len(spoken.samples) > 120 * SAMPLE_RATE
    path = write_wav(tmp_path / "a.wav", spoken.samples)
    engine = whisper.load(card_of(batch_size=batch_size))
    hold_back(engine, monkeypatch, jobs=3)
    segments = transcribe(engine, path, word_timestamps=True)
    engine.close()
    assert engine.lane.items >= 5
    assert (engine.lane.batches == engine.lane.items) == (batch_size == 1)
    assert jiwer.wer(spoken.text, text_of(segments)) <= 0.05
    heard = [word for segment in segments for word in segment.words]
    assert all(one.end <= other.start for one, other in itertools.pairwise(heard))
    matched = list(pairs(spoken.words, heard))
    assert len(matched) >= 0.95 * len(spoken.words)
    assert max(abs(heard.start - said.start) for said, heard in matched) < 0.3


def test_requests_at_once_get_each_its_own_words(engine: Any, tmp_path: Path) -> None:
    before = engine.lane.batches
    heard: dict[str, str] = {}

    def ask(number: int, text: str) -> None:
        heard[text] = hear(engine, say(text), tmp_path / f"{number}.wav", word_timestamps=True)

    requests = [threading.Thread(target=ask, args=each) for each in enumerate(COMMANDS)]
    for request in requests:
        request.start()
    for request in requests:
        request.join(10)
    assert len(heard) == len(COMMANDS)
    assert jiwer.wer(list(heard), list(heard.values())) <= 0.05
    assert engine.lane.batches - before < len(COMMANDS)


@pytest.mark.parametrize("timestamps", [True, False], ids=["timestamps", "plain"])
@pytest.mark.parametrize("level", [0.0, 0.0003, 0.003, 0.03])
def test_the_model_itself_writes_nothing_for_silence_and_noise(engine: Any, level: float, timestamps: bool) -> None:
    samples = noise(6, level)
    whole = Piece(0, len(samples), 0)
    features = engine.features(SpeechSpan(samples, Timeline((whole,), ())))
    job = Job(features, 6.0, "en", "transcribe", (), 0.0, timestamps, words=False)
    decoded = engine.submit(job, 0.0).result(10).decoded
    assert decoded.text.strip() == "" or engine.thresholds.silent(decoded)


def test_channels_hold_each_its_own_words(engine: Any, tmp_path: Path) -> None:
    left = one_after_another([say(text, "en-us+m7") for text in COMMANDS[:3]], 3.0)
    right = one_after_another([say(text, "en-us+f5") for text in COMMANDS[3:6]], 4.0)
    length = max(len(left.samples), len(right.samples))
    both = np.stack([np.pad(each.samples, (0, length - len(each.samples))) for each in (left, right)], axis=1)
    with wave.open(str(tmp_path / "call.wav"), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((both * 32767).astype("<i2").tobytes())
    segments = transcribe(engine, tmp_path / "call.wav", split_channels=True, word_timestamps=True)
    assert [segment.start for segment in segments] == sorted(segment.start for segment in segments)
    for channel, spoken in enumerate((left, right)):
        own = [segment for segment in segments if segment.channel == channel]
        assert text_of(own) == spoken.text
        for said, heard in pairs(spoken.words, [word for segment in own for word in segment.words]):
            assert heard.start == pytest.approx(said.start, abs=0.3)


def test_a_prompt_does_not_get_into_the_text(engine: Any, tmp_path: Path) -> None:
    heard = [hear(engine, say(text), tmp_path / "a.wav", prompt="hello stop the timer") for text in COMMANDS[:7]]
    assert jiwer.wer(list(COMMANDS[:7]), heard) <= 0.05


def test_words_come_while_the_upload_is_still_arriving(engine: Any, tmp_path: Path) -> None:
    spoken = one_after_another([say(text) for _ in range(3) for text in COMMANDS], 0.6)
    whole = write_wav(tmp_path / "whole.wav", spoken.samples).read_bytes()
    spool = SpoolWriter(tmp_path / "spool")
    spool.write(whole[: len(whole) // 2])
    results = engine.transcribe(TranscriptionRequest(path=str(spool.path)), Steps())
    first = [next(results) for _ in range(2)]
    spool.write(whole[len(whole) // 2 :])
    spool.finish()
    segments = [each.segment for each in (*first, *results) if isinstance(each, SegmentResult)]
    assert text_of(segments[:2]) == " ".join(COMMANDS[:2])
    assert jiwer.wer(spoken.text, text_of(segments)) <= 0.05


def test_speech_without_a_pause_loses_few_words_where_it_is_cut(engine: Any, tmp_path: Path) -> None:
    spoken = say(" ".join(COMMANDS * 3))
    assert len(spoken.samples) > 45 * SAMPLE_RATE
    assert jiwer.wer(spoken.text, hear(engine, spoken, tmp_path / "a.wav", word_timestamps=True)) <= 0.1


def test_it_understands_english_only(engine: Any, tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", say("play the music").samples)
    with pytest.raises(InvalidInput, match="English only"):
        transcribe(engine, path, language="de")
    with pytest.raises(InvalidInput, match="cannot translate"):
        transcribe(engine, path, task="translate")
