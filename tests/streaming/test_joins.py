"""Pieces put together: no doubled pauses, no clicks, and every moment of an engine's clock known on the item's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from streaming.joins import (
    CLAUSE_PAUSE,
    COMMA_PAUSE,
    FADE_SECONDS,
    LONGEST_SILENCE,
    PARAGRAPH_PAUSE,
    SENTENCE_PAUSE,
    START_SECONDS,
    TAIL_SECONDS,
    Block,
    Joiner,
    Samples,
    pause_between,
)

RATE = 24_000


def tone(seconds: float, pitch: float = 220.0) -> Samples:
    return (0.5 * np.sin(2 * np.pi * pitch * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def silence(seconds: float) -> Samples:
    return np.zeros(round(seconds * RATE), np.float32)


def heard(blocks: list[Block]) -> Samples:
    return np.concatenate([silence(0.0), *(block.samples for block in blocks)])


def spoken(pieces: list[tuple[float, Samples]], *, chunk: int = 1_000_000) -> Samples:
    """Pieces with the pause before each, handed over in chunks."""
    joiner, blocks = Joiner(), list[Block]()
    for pause, samples in pieces:
        joiner.begin(pause)
        for start in range(0, len(samples), chunk):
            blocks += joiner.add(samples[start : start + chunk], RATE)
        joiner.end()
    return heard(blocks + joiner.finish())


def quiet_stretches(samples: Samples) -> list[float]:
    """Seconds of each silence between sounds."""
    loud = np.flatnonzero(np.abs(samples) > 0.0032)
    gaps = np.diff(loud) / RATE
    return [float(gap) for gap in gaps if gap > 0.01]


@pytest.mark.parametrize(
    ("before", "after", "pause"),
    [
        ("It rains.", " So?", SENTENCE_PAUSE),
        ('He said "no."', " She left.", SENTENCE_PAUSE),
        ("雨です。", "傘を", SENTENCE_PAUSE),
        ("One", "\nTwo", SENTENCE_PAUSE),
        ("The end.", "\n\nChapter two", PARAGRAPH_PAUSE),
        ("The end.\n", "\nChapter two", PARAGRAPH_PAUSE),
        ("Well,", " no", COMMA_PAUSE),
        ("three things:", " first", CLAUSE_PAUSE),
        ("the quick brown", " fox", 0.0),
        ("", "anything", 0.0),
    ],
)
def test_punctuation_asks_for_a_pause(before: str, after: str, pause: float) -> None:
    assert pause_between(before, after) == pause


@pytest.mark.parametrize("own", [0.0, 0.05, 0.3, 0.7])
@pytest.mark.parametrize("pause", [COMMA_PAUSE, SENTENCE_PAUSE])
def test_a_pause_is_as_long_as_asked_whatever_the_engine_adds(own: float, pause: float) -> None:
    samples = spoken(
        [(0.0, np.concatenate([tone(0.5), silence(own)])), (pause, np.concatenate([silence(own), tone(0.5)]))]
    )
    assert quiet_stretches(samples) == pytest.approx([pause], abs=0.003)


def test_without_punctuation_there_is_hardly_a_gap() -> None:
    samples = spoken(
        [(0.0, np.concatenate([tone(0.5), silence(0.3)])), (0.0, np.concatenate([silence(0.2), tone(0.5)]))]
    )
    assert len(samples) / RATE == pytest.approx(1.0, abs=0.02)


def test_silence_inside_a_piece_and_at_the_end_of_the_item_is_left_alone() -> None:
    inside = np.concatenate([tone(0.3), silence(0.6), tone(0.3), silence(0.4)])
    assert np.allclose(spoken([(0.0, inside)], chunk=700)[100:-100], inside[100:-100])


def test_the_silence_before_an_answer_is_cut() -> None:
    samples = spoken([(0.0, np.concatenate([silence(0.4), tone(0.3)]))])
    assert len(samples) / RATE == pytest.approx(0.3 + START_SECONDS, abs=0.001)


def test_a_long_silence_was_meant() -> None:
    joiner = Joiner()
    joiner.begin()
    assert heard(joiner.add(silence(LONGEST_SILENCE), RATE)).size == 0
    joiner.add(silence(5.0), RATE)
    joiner.add(tone(0.1), RATE)
    joiner.end()
    joiner.finish()
    assert joiner.seconds == pytest.approx(LONGEST_SILENCE + 5.1)


def test_a_silent_piece_is_no_more_than_the_pause_around_it() -> None:
    samples = spoken([(0.0, tone(0.5)), (SENTENCE_PAUSE, silence(0.5)), (COMMA_PAUSE, tone(0.5))])
    assert quiet_stretches(samples) == pytest.approx([SENTENCE_PAUSE], abs=0.003)
    alone = spoken([(0.0, silence(0.5))])
    assert len(alone) == len(silence(0.5)), "an item of nothing but silence is that silence"


def test_only_silence_waits() -> None:
    joiner = Joiner()
    joiner.begin()
    given_out = heard(joiner.add(tone(0.5), RATE))
    assert len(given_out) / RATE > 0.49
    assert joiner.add(silence(TAIL_SECONDS), RATE)[0].seconds < 0.01
    assert joiner.add(silence(0.5), RATE) == []


def test_another_model_may_speak_on_at_another_rate() -> None:
    joiner = Joiner()
    joiner.begin()
    blocks = joiner.add(tone(0.5), RATE)
    joiner.end()
    joiner.begin(SENTENCE_PAUSE)
    blocks += joiner.add(np.full(8_000, 0.5, np.float32), 16_000)
    joiner.end()
    blocks += joiner.finish()
    assert {block.sample_rate for block in blocks} == {RATE, 16_000}
    assert sum(block.seconds for block in blocks) == pytest.approx(1.0 + SENTENCE_PAUSE, abs=0.01)


quiets = st.just(0.0) | st.floats(0.001, 0.6)
noises = st.tuples(quiets, st.floats(0.05, 0.4), quiets, st.integers(0, 10_000))


@settings(max_examples=40, deadline=None)
@given(
    pieces=st.lists(st.tuples(st.sampled_from([0.0, COMMA_PAUSE, SENTENCE_PAUSE]), noises), min_size=2, max_size=5),
    chunk=st.sampled_from([480, 1_323, 48_000]),
)
def test_no_join_clicks_and_the_clock_of_every_piece_is_known(
    pieces: list[tuple[float, tuple[float, float, float, int]]], chunk: int
) -> None:
    """A step at a join is no larger than those inside pieces, though they may end in full sound."""
    joiner, blocks = Joiner(), list[Block]()
    inside: list[float] = []
    ranges: list[tuple[int, int, int]] = []
    for pause, (lead, sound, tail, seed) in pieces:
        pitch = 100.0 + seed % 300
        body = tone(sound + 0.01, pitch)[seed % 97 :]
        inside += np.abs(np.diff(body)).tolist()
        ramp = np.minimum(np.arange(len(body)) / 240, 1.0).astype(np.float32)  # engines do not click by themselves
        body = body * (ramp if lead else 1.0) * (ramp[::-1] if tail else 1.0)
        voice = np.concatenate([silence(lead), body, silence(tail)])
        joiner.begin(pause)
        for start in range(0, len(voice), chunk):
            blocks += joiner.add(voice[start : start + chunk], RATE)
        assert joiner.origin is not None
        ranges.append((round(joiner.origin * RATE), len(silence(lead)), len(voice) - len(silence(tail))))
        joiner.end()
    samples = heard(blocks + joiner.finish())
    assert joiner.seconds == pytest.approx(len(samples) / RATE)
    fade = 0.5 * np.pi / 2 / (FADE_SECONDS * RATE)
    limit = float(np.percentile(inside, 99.9)) + fade
    edges = [place for origin, first, last in ranges for place in (origin + first, origin + last)]
    for edge in edges:
        assert np.abs(np.diff(samples[max(0, edge - 200) : edge + 200])).max(initial=0.0) <= limit * 1.001
    starts = [origin + first for origin, first, _ in ranges]
    assert starts == sorted(starts)
