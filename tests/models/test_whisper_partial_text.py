from __future__ import annotations

from collections.abc import Sequence

import pytest

from models.whisper_decoding import AlignedWord, Decoded
from models.whisper_jobs import Glimpse
from models.whisper_partial_text import LONGEST_CONTEXT, PartialText, Trimming
from streaming.transcript import Word


def look(text: str, start: float = 0.0, pace: float = 0.5, cut_off: bool = False, probability: float = 0.5) -> Glimpse:
    """Words from `start` on in the window, one every `pace` seconds; a word's token is its length and first letter."""
    words = tuple(
        AlignedWord(f" {word}", token(word), start + index * pace, start + (index + 1) * pace, probability)
        for index, word in enumerate(text.split())
    )
    return Glimpse("en", Decoded((), text, 0.0, -0.3, 0.0), words, cut_off, 0.01)


def token(word: str) -> tuple[int, ...]:
    return (100 * len(word) + ord(word[0]),)


def tokens(text: str) -> tuple[int, ...]:
    return tuple(each for word in text.split() for each in token(word))


def shown(words: Sequence[Word] | None) -> str:
    return " ".join(word.text for word in words or ())


def test_what_two_looks_agree_on_begins_the_next_one() -> None:
    text = PartialText(Trimming())
    assert shown(text.take(look("turn on the"), 1.6, 1.6)) == "turn on the"
    assert text.prefix == ()
    assert shown(text.take(look("turn on the light"), 2.1, 2.1)) == "turn on the light"
    assert text.prefix == tokens("turn on")  # the last word they agree on may still change
    assert shown(text.take(look("a light", 1.0), 2.4, 2.4)) == "turn on a light"
    assert text.settled_until == 1.0


def test_the_same_again_is_news_only_while_it_settles_something() -> None:
    text = PartialText(Trimming())
    assert text.take(look("turn on"), 2.0, 2.0) is not None
    assert text.take(look("turn on"), 2.2, 2.2) is not None
    assert text.take(look("on", 0.5), 2.4, 2.4) is None


def test_words_at_the_edge_have_no_end_mark_and_no_probability() -> None:
    text = PartialText(Trimming())
    (turn, on) = text.take(look("turn on.", probability=0.99), 1.2, 1.2) or ()
    assert (turn.text, turn.probability) == ("turn", 0.99)
    assert (on.text, on.probability) == ("on", None)
    later = PartialText(Trimming()).take(look("turn on."), 1.8, 1.8) or ()
    assert [word.text for word in later] == ["turn", "on."]


def test_words_after_the_last_speech_were_not_said() -> None:
    text = PartialText(Trimming())
    assert shown(text.take(look("turn on the light thank you"), 3.0, 1.6)) == "turn on the light"


def test_a_word_that_found_no_room_is_left_out() -> None:
    text = PartialText(Trimming())
    assert shown(text.take(look("turn on the ligh", cut_off=True), 2.0, 2.0)) == "turn on the"


def test_settled_words_scroll_out_of_a_long_window() -> None:
    text = PartialText(Trimming(soft=3.0, keep=1.0))
    said = "one two three four five six seven eight"
    for _ in range(2):
        text.take(look(said), 4.0, 4.0)
    text.trim(4.0)
    assert text.start == 250
    assert text.context == tokens("one two three four five")
    assert text.prefix == tokens("six seven")
    words = text.take(look("eight nine", 1.0), 4.5, 4.5)
    assert shown(words) == f"{said} nine"
    assert [word.start for word in words or ()] == pytest.approx([index / 2 for index in range(9)])


def test_a_window_best_begins_with_a_clause() -> None:
    text = PartialText(Trimming(soft=3.0, keep=1.0))
    for _ in range(2):
        text.take(look("one two three, four five six seven eight"), 4.0, 4.0)
    text.trim(4.0)
    assert text.context == tokens("one two three,")
    assert text.start == 150


def test_a_window_that_is_not_long_stays() -> None:
    text = PartialText(Trimming(soft=5.0))
    for _ in range(2):
        text.take(look("one two three four five six"), 4.0, 4.0)
    text.trim(4.0)
    assert (text.start, text.context) == (0, ())


def test_what_nobody_agrees_on_is_taken_when_the_window_is_too_long() -> None:
    text = PartialText(Trimming(soft=2.0, keep=1.0, hard=4.0, open=2.0))
    first = text.take(look("one two three four five six seven eight"), 4.5, 4.5)
    text.trim(4.5)
    assert text.context == tokens("one two three")
    assert text.prefix == tokens("four five")
    assert shown(text.take(look("something else", 1.0), 5.0, 5.0)) == "one two three four five something else"
    assert shown(first) == "one two three four five six seven eight"


def test_a_window_without_any_words_begins_anew() -> None:
    text = PartialText(Trimming(hard=4.0, keep=1.0))
    text.trim(4.5)
    assert text.start == 350
    assert shown(text.take(look("at last"), 4.8, 4.8)) == "at last"


def test_settled_words_outlive_a_window_that_begins_anew() -> None:
    text = PartialText(Trimming(soft=20.0, hard=4.0, keep=1.0))
    for _ in range(2):
        text.take(look("one two three"), 2.0, 2.0)
    text.trim(9.0)
    assert text.context == tokens("one two three")
    assert text.prefix == ()
    assert shown(text.take(look("four"), 9.5, 9.5)).startswith("one two")


def test_the_context_begins_with_the_prompt_and_its_end_counts() -> None:
    text = PartialText(Trimming(soft=1.0, keep=0.5), prompt=range(LONGEST_CONTEXT - 1))
    assert text.context == tuple(range(LONGEST_CONTEXT - 1))
    for _ in range(2):
        text.take(look("one two three four five"), 3.0, 3.0)
    text.trim(3.0)
    assert len(text.context) == LONGEST_CONTEXT
    assert text.context[-3:] == tokens("one two three")


def test_limits_fit_a_model_that_hears_little() -> None:
    assert Trimming.within(30.0) == Trimming()
    small = Trimming.within(6.0)
    assert small.keep < small.soft < small.hard < 6.0
