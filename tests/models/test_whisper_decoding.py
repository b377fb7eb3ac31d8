from __future__ import annotations

import math

import pytest
from hypothesis import given, strategies as st

from models.whisper_decoding import (
    AlignedWord,
    Decoded,
    Stretch,
    Thresholds,
    segments,
    stretches,
    without_loop,
)
from streaming.segmentation import Piece, Timeline
from streaming.transcript import Segment

TIMESTAMPS = 1000
"""Tokens from here on are timestamps, 20 ms each."""


def at(seconds: float) -> int:
    return TIMESTAMPS + round(seconds / 0.02)


def is_text(token: int) -> bool:
    return token < TIMESTAMPS


def decoded(text: str = "some words", **scores: float) -> Decoded:
    values = {"temperature": 0.0, "avg_logprob": -0.3, "no_speech_prob": 0.0} | scores
    return Decoded((1, 2), text, values["temperature"], values["avg_logprob"], values["no_speech_prob"])


# ---------------------------------------------------------------------- trust


@pytest.mark.parametrize(
    ("result", "accepted", "silent"),
    [
        (decoded(), True, False),
        (decoded(avg_logprob=-1.1), False, False),
        (decoded("ha " * 60), False, False),
        (decoded(avg_logprob=-1.1, no_speech_prob=0.7), True, True),
        (decoded(no_speech_prob=0.9), True, False),  # sure of its words, whatever it thinks of the sound
    ],
)
def test_text_is_trusted_within_the_thresholds(result: Decoded, accepted: bool, silent: bool) -> None:
    assert Thresholds().accepts(result) is accepted
    assert Thresholds().silent(result) is silent


def test_a_loop_is_not_trusted_unless_that_gate_is_off() -> None:
    result = Decoded((1,), "some words", 0.0, -0.1, 0.0, looped=True)
    assert not Thresholds().accepts(result)
    assert Thresholds(loops=False).accepts(result)


def test_the_best_of_bad_attempts_is_the_likeliest_that_does_not_repeat_itself() -> None:
    loop, likely, unlikely = decoded("ha " * 60, avg_logprob=-0.1), decoded(avg_logprob=-1.5), decoded(avg_logprob=-2.0)
    assert Thresholds().best([loop, unlikely, likely]) is likely
    assert Thresholds().best([loop]) is loop


@pytest.mark.parametrize(
    ("tokens", "kept"),
    [
        ([1, 2, 3], [1, 2, 3]),
        ([1, 2, *[7] * 30], [1, 2, 7]),
        ([1, 2, *[7, 8, 9] * 4], [1, 2, 7, 8, 9]),
        ([*[7, 8] * 5, 9], [*[7, 8] * 5, 9]),  # went on after it: perhaps it was said so often
        ([1, 7, 7, 7], [1, 7, 7, 7]),  # "no, no, no"
        ([at(0), 5, *[at(1), at(1), 6, 7, 8, 9] * 3, at(2)], [at(0), 5, at(1), at(1), 6, 7, 8, 9, at(1)]),
    ],
)
def test_a_loop_at_the_end_is_said_once(tokens: list[int], kept: list[int]) -> None:
    found, looped = without_loop(tokens, is_text)
    assert list(found) == kept
    assert looped == (kept != tokens)


# ---------------------------------------------------------------------- timestamps


def test_text_is_cut_at_its_timestamps() -> None:
    tokens = [at(0.4), 1, 2, at(2.0), at(2.5), 3, at(4.0), at(4.0), 4]
    assert stretches(tokens, TIMESTAMPS, 10.0) == [
        Stretch((1, 2), 0.4, 2.0),
        Stretch((3,), 2.5, 4.0),
        Stretch((4,), 4.0, None),
    ]


@given(st.lists(st.integers(TIMESTAMPS - 40, TIMESTAMPS + 1500)), st.floats(0.5, 30))
def test_times_never_go_back_whatever_the_model_writes(tokens: list[int], duration: float) -> None:
    found = stretches(tokens, TIMESTAMPS, duration)
    before = 0.0
    for stretch in found:
        end = duration if stretch.end is None else stretch.end
        assert before <= stretch.start <= end <= duration
        before = end
    assert [token for stretch in found for token in stretch.tokens] == [token for token in tokens if is_text(token)]


# ---------------------------------------------------------------------- segments

TIMELINE = Timeline(
    pieces=(Piece(16_000, 80_000, 0), Piece(320_000, 400_000, 64_000)),
    voiced=((20_000, 76_000), (324_000, 368_000)),
)
"""Seconds 1 to 5 and 20 to 25 of the recording; speech until 23."""


def settled(
    parts: list[Stretch], texts: list[str], words: list[AlignedWord] | None = None, timeline: Timeline = TIMELINE
) -> list[Segment]:
    return segments(decoded(), parts, texts, timeline, language="en", words=words)


def word(text: str, start: float, end: float) -> AlignedWord:
    return AlignedWord(text, (1,), start, end, 0.5)


def test_segments_are_on_the_recordings_clock() -> None:
    found = settled([Stretch((1,), 0.5, 2.0), Stretch((2,), 4.0, 6.0)], [" one", " two"])
    assert [(each.text, each.start, each.end) for each in found] == [("one", 1.5, 3.0), ("two", 20.0, 22.0)]
    assert found[0].scores is not None
    assert found[0].scores.seek == 100
    assert found[0].scores.tokens == (1,)


def test_without_timestamps_a_segment_reaches_over_the_speech() -> None:
    (found,) = settled([Stretch((1,), 0.0, None)], ["all of it"])
    assert (found.start, found.end) == (20_000 / 16_000, 23.0)


def test_what_begins_after_the_speech_was_not_said() -> None:
    late = Stretch((2,), 7.5, 8.5)  # at 23.5 s
    assert [each.text for each in settled([Stretch((1,), 4.5, 7.2), late], ["said", "Thank you."])] == ["said"]
    words = [word(" said", 4.5, 6.9), word(" Thank", 7.5, 7.8), word(" you.", 7.8, 8.0)]
    (found,) = settled([Stretch((1, 1, 1), 4.5, 8.5)], [" said Thank you."], words)
    assert found.text == "said"
    assert [each.text for each in found.words] == ["said"]


def test_text_that_takes_no_time_was_not_said_unless_its_words_were_heard() -> None:
    empty = Stretch((1,), 2.0, 2.0)
    assert settled([empty], ["ghost"]) == []
    (found,) = settled([empty], [" word"], [word(" word", 2.0, 2.0)])
    assert found.end - found.start == pytest.approx(0.02)


def test_a_long_pause_between_words_ends_a_segment() -> None:
    words = [word(" one", 0.5, 1.0), word(",", 1.0, 1.0), word(" two", 1.2, 1.5), word(" three", 4.5, 5.0)]
    found = settled([Stretch((1, 1, 1, 1), 0.0, 5.0)], [" one, two three"], words)
    assert [(each.text, each.start, each.end) for each in found] == [("one, two", 1.5, 2.5), ("three", 20.5, 21.0)]


def test_words_go_with_the_segment_their_tokens_are_in() -> None:
    words = [AlignedWord(" one", (1, 2), 0.5, 1.0, 0.5), word(" two", 1.0, 1.5), word(" three", 1.5, 1.9)]
    found = settled([Stretch((1, 2), 0.5, 1.0), Stretch((3, 4), 1.0, 2.0)], [" one", " two three"], words)
    assert [[each.text for each in segment.words] for segment in found] == [["one"], ["two", "three"]]


@given(
    st.lists(st.tuples(st.floats(-1, 12), st.floats(-1, 12)), min_size=1, max_size=12),
    st.booleans(),
)
def test_segments_are_in_order_and_within_the_span(times: list[tuple[float, float]], aligned: bool) -> None:
    parts = [Stretch((1,), *sorted(each)) for each in times]
    words = [word(f" w{index}", *each) for index, each in enumerate(times)] if aligned else None
    found = settled(parts, [f" w{index}" for index in range(len(times))], words)
    before = TIMELINE.start / 16_000
    for segment in found:
        assert before <= segment.start < segment.end <= TIMELINE.end / 16_000
        last = segment.start
        for each in segment.words:
            assert last <= each.start <= each.end <= segment.end
            last = each.end
        before = segment.end


def test_thresholds_can_be_switched_off() -> None:
    off = Thresholds(math.inf, -math.inf, math.inf, loops=False)
    assert off.accepts(decoded("ha " * 60, avg_logprob=-9.0, no_speech_prob=1.0))
    assert not off.silent(decoded(avg_logprob=-9.0, no_speech_prob=1.0))
