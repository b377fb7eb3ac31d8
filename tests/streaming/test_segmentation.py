from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from streaming.audio import AudioChunk, Samples
from streaming.decode import decode
from streaming.segmentation import (
    Cutting,
    Piece,
    RecordingSegmenter,
    SpeechSegmenter,
    SpeechSpan,
    Timeline,
    speech_spans,
)
from streaming.voice_activity import SAMPLE_RATE, WINDOW, SileroVoiceActivity

SECOND = SAMPLE_RATE // WINDOW + 1
"""Windows in a second, or a few milliseconds more."""


def talk(*parts: tuple[float, float]) -> list[float]:
    """Probabilities of parts of (seconds, probability)."""
    return [probability for seconds, probability in parts for _ in range(round(seconds * SAMPLE_RATE / WINDOW))]


def numbered(count: int) -> Samples:
    """Samples that tell where they are in the recording."""
    return np.arange(count, dtype=np.float32)


def cut(probabilities: Sequence[float], cutting: Cutting | None = None, block: int = 10 * SECOND) -> list[SpeechSpan]:
    segmenter = SpeechSegmenter(cutting)
    audio = numbered(len(probabilities) * WINDOW)
    spans: list[SpeechSpan] = []
    for at in range(0, len(probabilities), block):
        part = probabilities[at : at + block]
        spans += segmenter.push(audio[at * WINDOW : (at + len(part)) * WINDOW], part)
    return spans + segmenter.finish()


def assert_true_to_the_recording(spans: Iterable[SpeechSpan], total: int, cutting: Cutting) -> None:
    before = 0
    for span in spans:
        timeline = span.timeline
        assert 0 < len(span.samples) == timeline.length <= cutting.max_span * SAMPLE_RATE
        for piece in timeline.pieces:
            held = span.samples[piece.offset : piece.offset + piece.end - piece.start]
            assert np.array_equal(held, np.arange(piece.start, piece.end, dtype=np.float32))
            assert before <= piece.start < piece.end <= total
            before = piece.end
        for start, end in timeline.voiced:
            assert any(piece.start <= start <= end <= piece.end for piece in timeline.pieces)


@settings(max_examples=60, deadline=None)
@given(
    parts=st.lists(
        st.tuples(
            st.sampled_from([0.05, 0.2, 0.4, 1.0, 3.0, 20.0, 45.0]), st.sampled_from([0.0, 0.2, 0.45, 0.6, 0.99])
        ),
        max_size=14,
    ),
    block=st.sampled_from([1, 7, 312, 10_000]),
    max_span=st.sampled_from([5.0, 30.0]),
)
def test_every_sample_of_a_span_is_the_recordings_own(
    parts: list[tuple[float, float]], block: int, max_span: float
) -> None:
    cutting = Cutting(max_span=max_span, max_reach=60.0)
    probabilities = talk(*parts)
    spans = cut(probabilities, cutting, block)
    assert_true_to_the_recording(spans, len(probabilities) * WINDOW, cutting)
    assert all(span.timeline.end - span.timeline.start <= 60 * SAMPLE_RATE + 31 * SAMPLE_RATE for span in spans)


@settings(max_examples=30, deadline=None)
@given(
    parts=st.lists(
        st.tuples(st.sampled_from([0.2, 1.0, 3.0, 20.0]), st.sampled_from([0.0, 0.45, 0.99])), min_size=1, max_size=10
    ),
    block=st.integers(1, 400),
)
def test_all_speech_is_in_a_span_however_the_blocks_were_cut(parts: list[tuple[float, float]], block: int) -> None:
    probabilities = talk(*parts)
    spans = cut(probabilities, block=block)
    covered = np.zeros(len(probabilities) * WINDOW, bool)
    for span in spans:
        for piece in span.timeline.pieces:
            covered[piece.start : piece.end] = True
    windows = np.asarray(covered.reshape(-1, WINDOW).all(axis=1))
    run = 0
    for index, probability in enumerate([*probabilities, 0.0]):
        if probability >= 0.5:
            run += 1
            continue
        if run >= 8:  # a quarter of a second: no click
            assert windows[index - run : index].all()
        run = 0


def test_nothing_comes_of_silence_and_of_clicks() -> None:
    assert cut(talk((30, 0.1))) == []
    assert cut(talk((5, 0.0), (0.06, 0.9), (5, 0.0), (0.06, 0.9))) == []


def test_speech_keeps_padding_on_both_sides() -> None:
    (span,) = cut(talk((5, 0.0), (2, 0.99), (5, 0.0)))
    (piece,) = span.timeline.pieces
    ((start, end),) = span.timeline.voiced
    assert start == pytest.approx(5 * SAMPLE_RATE, abs=WINDOW)
    assert end == pytest.approx(7 * SAMPLE_RATE, abs=WINDOW)
    assert start - piece.start == round(0.3 * SAMPLE_RATE)
    assert piece.end - end == round(0.3 * SAMPLE_RATE)


def test_a_short_pause_stays_whole_and_a_long_one_is_cut_out() -> None:
    (span,) = cut(talk((1, 0.0), (2, 0.99), (0.7, 0.0), (2, 0.99), (20, 0.0), (2, 0.99), (1, 0.0)))
    first, second = span.timeline.pieces
    assert len(span.timeline.voiced) == 3
    assert first.end - first.start == pytest.approx((4.7 + 0.6) * SAMPLE_RATE, abs=3 * WINDOW)
    assert second.start - first.end == pytest.approx((20 - 0.6) * SAMPLE_RATE, abs=3 * WINDOW)


@pytest.mark.parametrize("pause", [1.3, 1.4, 1.5, 1.6, 1.7, 1.8])
@pytest.mark.parametrize("block", [1, 3, 20])
def test_speech_after_a_pause_that_was_padded_away_is_kept(pause: float, block: int) -> None:
    """Padding brings the open span nearer to what follows; audio that is gone must not be joined to it all the same."""
    probabilities = talk((1, 0.0), (1.2, 0.99), (pause, 0.0), (1.5, 0.99), (1, 0.0))
    spans = cut(probabilities, block=block)
    assert sum(len(span.timeline.voiced) for span in spans) == 2
    assert_true_to_the_recording(spans, len(probabilities) * WINDOW, Cutting())


def test_long_speech_is_cut_at_its_quietest_window() -> None:
    probabilities = talk((25, 0.99)) + [0.6] + talk((20, 0.99))
    first, second = cut(probabilities)
    quietest = 25 * SAMPLE_RATE
    assert first.timeline.end == second.timeline.start == pytest.approx(quietest, abs=WINDOW)


def test_spans_are_as_full_as_pauses_allow() -> None:
    spans = cut(talk(*[(2.8, 0.99), (0.2, 0.0)] * 60))
    assert len(spans) == 6 + 1  # 180 s
    assert all(span.timeline.length > 26 * SAMPLE_RATE for span in spans[:-1])


def test_sparse_speech_is_not_held_back_for_long() -> None:
    spans = cut(talk(*[(1, 0.99), (60, 0.0)] * 6))
    assert sum(len(span.timeline.pieces) for span in spans) == 6
    assert all(span.timeline.end - span.timeline.start < 130 * SAMPLE_RATE for span in spans)


def test_memory_is_a_span_and_a_block() -> None:
    segmenter = SpeechSegmenter()
    block = 313
    held = []
    for probabilities in [talk((10, 0.99)), talk((10, 0.0)), talk((5, 0.99), (5, 0.0)), talk((10, 0.45))] * 30:
        segmenter.push(np.zeros(block * WINDOW, np.float32), (probabilities * 2)[:block])
        held.append(segmenter.held)
    assert max(held) <= (30 + 30 + 10) * SAMPLE_RATE
    for _ in range(20):
        segmenter.push(np.zeros(block * WINDOW, np.float32), [0.0] * block)
    assert segmenter.held < SAMPLE_RATE


def test_no_span_begins_before_what_was_promised() -> None:
    segmenter = SpeechSegmenter()
    promised = 0
    for probabilities in [talk((10, 0.0)), talk((4, 0.99), (6, 0.0)), talk((10, 0.99))] * 12:
        windows = (probabilities + [0.0] * 4)[:312]
        for span in segmenter.push(np.zeros(len(windows) * WINDOW, np.float32), windows):
            assert span.timeline.start >= promised
        assert segmenter.open_from >= promised
        promised = segmenter.open_from
    assert promised > 300 * SAMPLE_RATE
    assert all(span.timeline.start >= promised for span in segmenter.finish())


# ---------------------------------------------------------------------- the timeline

TIMELINE = Timeline(
    pieces=(Piece(16_000, 48_000, 0), Piece(160_000, 176_000, 32_000)),
    voiced=((20_000, 44_000), (164_000, 172_000)),
)
"""Seconds 1 to 3 and 10 to 11 of a recording."""


@pytest.mark.parametrize(
    ("span", "recording"),
    [
        ((0.0, 0.5), (1.0, 1.5)),
        ((0.5, 2.0), (1.5, 3.0)),
        ((2.0, 2.5), (10.0, 10.5)),
        ((1.5, 2.5), (2.5, 10.5)),
        ((2.9, 7.0), (10.9, 11.0)),
        ((-1.0, 0.2), (1.0, 1.2)),
    ],
)
def test_times_of_a_span_are_times_of_the_recording(span: tuple[float, float], recording: tuple[float, float]) -> None:
    assert TIMELINE.place(*span) == pytest.approx(recording)


@pytest.mark.parametrize(
    ("span", "recording"),
    [
        ((0.5, 1.0), (1.5, 2.0)),
        ((1.5, 2.2), (2.5, 2.85)),  # most of it is before the cut, and there the speech ends at 2.75
        ((1.8, 2.9), (10.15, 10.85)),
        ((1.95, 1.99), (2.95, 2.99)),  # silence: stays where it is
    ],
)
def test_a_word_stays_on_one_side_of_a_cut_and_in_its_speech(
    span: tuple[float, float], recording: tuple[float, float]
) -> None:
    assert TIMELINE.place_word(*span) == pytest.approx(recording)


@given(st.lists(st.floats(0, 3), min_size=2, max_size=20))
def test_placing_keeps_the_order(times: list[float]) -> None:
    times.sort()
    placed = [TIMELINE.place(one, other) for one, other in pairwise(times)]
    assert all(start <= end for start, end in placed)
    assert [start for start, _ in placed] == sorted(start for start, _ in placed)
    assert TIMELINE.length == 48_000


# ---------------------------------------------------------------------- with the model


@pytest.fixture(scope="module")
def voice_activity() -> SileroVoiceActivity:
    return SileroVoiceActivity()


def test_a_real_recording_becomes_one_span(voice_activity: SileroVoiceActivity, shared_audio: Path) -> None:
    (span,) = speech_spans(decode(shared_audio / "jfk.flac"), voice_activity)
    assert 10 < span.timeline.length / SAMPLE_RATE < 11
    assert sum(end - start for start, end in span.timeline.voiced) / SAMPLE_RATE > 6


def test_channels_are_cut_apart_as_if_alone(voice_activity: SileroVoiceActivity, shared_audio: Path) -> None:
    (block,) = decode(shared_audio / "jfk.flac", block_seconds=20)
    shifted = np.concatenate((np.zeros(3 * SAMPLE_RATE, np.float32), block.samples))[: len(block.samples)]
    size = SAMPLE_RATE
    together = RecordingSegmenter(voice_activity)
    spans: list[tuple[int, SpeechSpan]] = []
    for at in range(0, len(shifted), size):
        pair = tuple(AudioChunk(each[at : at + size], SAMPLE_RATE, at) for each in (block.samples, shifted))
        spans += together.push(pair)
    spans += together.finish()
    assert together.position == len(shifted)
    for channel, samples in enumerate((block.samples, shifted)):
        alone = list(speech_spans([AudioChunk(samples, SAMPLE_RATE)], voice_activity))
        assert [span.timeline for index, span in spans if index == channel] == [span.timeline for span in alone]
