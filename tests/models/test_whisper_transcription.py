"""Recordings of hours, with a recogniser that answers at once: order, memory and progress without a model."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models import speech_reader
from models.interfaces import MediaInfo, SegmentResult, TranscriptionRequest
from models.speech_reader import SpeechReader
from models.whisper_decoding import TEMPERATURES, Decoded, Thresholds
from models.whisper_jobs import Job, Outcome
from models.whisper_transcription import WhisperTranscription
from streaming.audio import AudioChunk
from streaming.segmentation import Cutting, RecordingSegmenter, SpeechSpan
from streaming.voice_activity import SAMPLE_RATE, WINDOW
from tests.models.engines.conformance import Steps

BLOCK = 312 * WINDOW
"""About ten seconds."""
SIX_HOURS = 6 * 360 * BLOCK / SAMPLE_RATE


class LoudIsSpeech:
    """Voice activity by level: the model's, an hour of it, would take a minute."""

    def over_many(self, streams: Sequence[object], blocks: Sequence[Any], *, last: bool = False) -> list[Any]:
        return [np.where(block[: len(block) // WINDOW * WINDOW : WINDOW] > 0, 0.99, 0.0) for block in blocks]


class Instant:
    """A recogniser that writes the same few tokens, and counts the features that are alive."""

    ahead = 5
    cutting = Cutting()
    timestamp_begin = 1000
    thresholds = Thresholds()
    temperatures = TEMPERATURES

    def __init__(self) -> None:
        self.voice_activity: Any = LoudIsSpeech()
        self.alive: weakref.WeakSet[Any] = weakref.WeakSet()
        self.most_alive = 0
        self.jobs = 0

    def features(self, span: SpeechSpan) -> Any:
        features = Features()
        self.alive.add(features)
        self.most_alive = max(self.most_alive, len(self.alive))
        return features

    def submit(self, job: Job, deadline: float) -> Future[Outcome]:
        self.jobs += 1
        future: Future[Outcome] = Future()
        future.set_result(Outcome(job.language or "en", Decoded((1, 2), " some words", 0.0, -0.3, 0.0)))
        return future

    def text(self, tokens: Sequence[int]) -> str:
        return " some words"


class Features:
    """Stands for the features of a span; may be weakly referenced."""


def hours(monkeypatch: pytest.MonkeyPatch, blocks: Iterator[tuple[AudioChunk, ...]], duration: float | None) -> None:
    """Make the reader read these blocks, whatever its path."""
    monkeypatch.setattr(SpeechReader, "_decoded", lambda reader, source: blocks)
    monkeypatch.setattr(speech_reader, "probe", lambda path: type("Facts", (), {"duration": duration}))


def mono(count: int, speech_blocks: int, of: int) -> Iterator[tuple[AudioChunk, ...]]:
    """`speech_blocks` of every `of` blocks are speech."""
    for index in range(count):
        level = 0.5 if index % of < speech_blocks else 0.0
        yield (AudioChunk(np.full(BLOCK, level, np.float32), SAMPLE_RATE, index * BLOCK),)


def run(recogniser: Any, steps: Steps, **fields: Any) -> tuple[list[MediaInfo], list[SegmentResult]]:
    request = TranscriptionRequest(path="made up", **fields)
    results = list(WhisperTranscription(recogniser, request, steps, language="", prompt=()).results())
    facts = [each for each in results if isinstance(each, MediaInfo)]
    assert results[0] is facts[0]
    return facts, [each for each in results if isinstance(each, SegmentResult)]


def test_six_hours_are_no_more_in_memory_than_a_few_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    recogniser, steps = Instant(), Steps()
    hours(monkeypatch, mono(6 * 360, speech_blocks=5, of=6), duration=SIX_HOURS)
    held: list[int] = []
    push = RecordingSegmenter.push

    def pushed(segmenter: Any, block: Any) -> Any:
        spans = push(segmenter, block)
        held.append(segmenter.held)
        return spans

    monkeypatch.setattr(RecordingSegmenter, "push", pushed)
    facts, results = run(recogniser, steps)
    assert facts == [MediaInfo(SIX_HOURS, "en")]
    assert results[-1].segment.end == pytest.approx(SIX_HOURS - 10, abs=1)
    assert len(results) == recogniser.jobs > 600
    assert recogniser.most_alive <= recogniser.ahead + 2
    assert max(held) <= 3 * 30 * SAMPLE_RATE
    starts = [result.segment.start for result in results]
    assert starts == sorted(starts)
    steps.assert_monotonic()
    assert steps.calls[-1] == (SIX_HOURS, SIX_HOURS)


def test_hours_of_silence_say_nothing_and_move_on(monkeypatch: pytest.MonkeyPatch) -> None:
    recogniser, steps = Instant(), Steps()
    hours(monkeypatch, mono(6 * 360, speech_blocks=0, of=1), duration=SIX_HOURS)
    assert run(recogniser, steps) == ([MediaInfo(SIX_HOURS, "")], [])
    steps.assert_monotonic()


def test_a_duration_that_was_not_true_is_put_right_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    recogniser = Instant()
    hours(monkeypatch, mono(60, speech_blocks=1, of=1), duration=9999.0)
    facts, _ = run(recogniser, Steps())
    assert facts[-1] == MediaInfo(60 * BLOCK / SAMPLE_RATE, "en")


def test_channels_come_out_in_one_order(monkeypatch: pytest.MonkeyPatch) -> None:
    def two() -> Iterator[tuple[AudioChunk, ...]]:
        for index in range(120):
            loud, quiet = (np.full(BLOCK, level, np.float32) for level in (0.5, 0.0))
            pair = [quiet, quiet]
            if index % 7 < 5:
                pair[index // 7 % 2] = loud
            yield tuple(AudioChunk(each, SAMPLE_RATE, index * BLOCK) for each in pair)

    recogniser = Instant()
    hours(monkeypatch, two(), duration=1200.0)
    _, results = run(recogniser, Steps(), split_channels=True)
    starts = [result.segment.start for result in results]
    assert starts == sorted(starts)
    assert {result.segment.channel for result in results} == {0, 1}


def test_what_the_decoder_raises_reaches_the_caller(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken() -> Iterator[tuple[AudioChunk, ...]]:
        yield from mono(3, speech_blocks=1, of=1)
        raise OSError("the disk is gone")

    hours(monkeypatch, broken(), duration=None)
    copy = tmp_path / "copy.pcm"
    with pytest.raises(OSError, match="the disk is gone"):
        run(Instant(), Steps(), pcm_path=str(copy))
    assert list(tmp_path.iterdir()) == []
