"""What a listener has heard: bounded memory, no rounding traps, never backwards."""

from __future__ import annotations

import itertools

from hypothesis import given, settings, strategies as st

from streaming.playout import REMEMBERED_TEXT, Playout


def test_audio_plays_from_when_it_was_sent_or_after_what_was_sent_before() -> None:
    playout = Playout()
    assert playout.ahead(0.0) == 0.0
    playout.sent("i", 2.0, 1.0)
    playout.sent("i", 1.0, 1.5)
    assert playout.ahead(1.5) == 2.5
    assert playout.ahead(4.0) == 0.0
    playout.sent("i", 1.0, 10.0)
    assert playout.ahead(10.25) == 0.75


def test_the_word_that_sounds_is_spoken_and_the_next_one_is_not() -> None:
    playout = Playout()
    playout.appended("one two")
    playout.word(3, "i", 0.0)
    playout.word(7, "i", 0.4)
    playout.piece_end(7, "i", 0.8)
    assert playout.split(0.0) == ("", "one two")
    playout.sent("i", 0.8, 5.0)
    assert playout.split(5.0) == ("", "one two"), "it was sent, not heard"
    assert playout.split(5.3) == ("one", " two")
    assert playout.split(5.4) == ("one two", "")


def test_a_silent_piece_does_not_hide_what_was_heard_after_it() -> None:
    playout = Playout()
    playout.appended("... one")
    playout.piece_end(3, "silent", 0.0)
    playout.piece_end(7, "i", 1.0)
    playout.sent("i", 1.0, 0.0)
    assert playout.split(1.0) == ("... one", "")


def test_a_gap_in_the_audio_does_not_unsay_anything() -> None:
    playout = Playout()
    playout.appended("one two")
    playout.word(3, "i", 0.0)
    playout.word(7, "i", 1.0)
    playout.sent("i", 0.5, 0.0)
    assert playout.split(3.0) == ("one", " two")
    playout.sent("i", 1.0, 3.0)
    assert playout.split(3.0) == ("one", " two")
    assert playout.split(3.5) == ("one two", "")


def test_many_small_deltas_add_up_to_the_whole_piece() -> None:
    playout = Playout()
    playout.appended("All of it.")
    playout.piece_end(10, "i", 0.1 * 1000)
    for _ in range(1000):
        playout.sent("i", 0.1, 0.0)
    assert playout.split(1000.0) == ("All of it.", "")


def test_dropped_text_is_in_neither_part() -> None:
    playout = Playout()
    for text in ("abc", "def", "ghi"):
        playout.appended(text)
    playout.drop(2, 4)
    assert playout.split(0.0) == ("", "abefghi")
    playout.drop(7)
    assert playout.split(0.0) == ("", "abefg")
    playout.appended("jkl")
    assert playout.appended_characters == 12
    playout.word(9, "i", 0.0)
    playout.sent("i", 1.0, 0.0)
    assert playout.split(0.5) == ("abefg", "jkl")


def test_a_new_answer_begins_when_the_last_one_was_heard() -> None:
    playout = Playout()
    playout.appended("old")
    playout.piece_end(3, "i", 1.0)
    playout.sent("i", 1.0, 0.0)
    playout.forget_heard(0.5)
    assert playout.split(0.5) == ("", "old")
    playout.forget_heard(1.0)
    playout.appended("new")
    assert playout.split(1.0) == ("", "new")


def test_an_endless_answer_is_remembered_within_limits_and_nothing_unheard_is_forgotten() -> None:
    playout = Playout()
    sentence = "x" * 99 + "."
    now = 0.0
    for number in range(1, 3001):
        playout.appended(sentence)
        playout.word(number * 100 - 1, f"i{number}", 0.0)
        playout.piece_end(number * 100, f"i{number}", 1.0)
        playout.sent(f"i{number}", 1.0, now)
        now += 0.9  # the listener falls behind: 300 s wait in the end
    spoken, remaining = playout.split(now)
    assert len(remaining) >= 29_000
    assert REMEMBERED_TEXT - 200 <= len(spoken) + len(remaining) <= REMEMBERED_TEXT + 200
    assert len(playout._marks) < 2000
    assert len(playout._items) < 2000


@settings(max_examples=100, deadline=None)
@given(
    pieces=st.lists(st.tuples(st.text("ab ", min_size=1, max_size=8), st.floats(0, 3)), max_size=12),
    gaps=st.lists(st.floats(0, 4), min_size=12, max_size=12),
    moments=st.lists(st.floats(0, 60), min_size=2, max_size=10),
)
def test_spoken_and_remaining_are_the_text_and_spoken_only_grows(
    pieces: list[tuple[str, float]], gaps: list[float], moments: list[float]
) -> None:
    playout = Playout()
    now, end = 0.0, 0
    whole = "".join(text for text, _ in pieces)
    for (text, seconds), gap in zip(pieces, gaps, strict=False):
        playout.appended(text)
        end += len(text)
        playout.word(end, f"i{end}", 0.0)
        playout.piece_end(end, f"i{end}", seconds)
        playout.sent(f"i{end}", seconds, now)
        now += gap
    splits = [playout.split(now + moment) for moment in sorted(moments)]
    assert all(spoken + remaining == whole for spoken, remaining in splits)
    assert all(later[0].startswith(earlier[0]) for earlier, later in itertools.pairwise(splits))
