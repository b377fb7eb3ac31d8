from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given, strategies as st

from streaming.text import SegmentMode, SpeechTextBuffer, TextPiece, split_sentences


def texts(pieces: list[TextPiece]) -> list[str]:
    return [piece.text for piece in pieces]


def speak(buffer: SpeechTextBuffer, text: str, now: float = 0.0) -> list[str]:
    buffer.append(text, now)
    return texts(buffer.take(now))


def tokens(text: str) -> list[str]:
    """As a language model writes: a blank comes with the word behind it."""
    words = text.split(" ")
    return [words[0], *(" " + word for word in words[1:])]


def test_speech_begins_early_and_goes_on_by_sentence() -> None:
    buffer = SpeechTextBuffer()
    reply = "Well, the short answer is that it rains, so take an umbrella with you. Shoes, too, would help. Bye now."
    spoken: list[tuple[str, str]] = []
    for token in tokens(reply):
        spoken += [(piece, token) for piece in speak(buffer, token)]
    assert spoken == [
        ("Well, the short answer is that it rains,", " so"),
        (" so take an umbrella with you.", " Shoes,"),
        (" Shoes, too, would help.", " Bye"),
    ]
    assert buffer.pending == " Bye now."
    buffer.flush()
    assert texts(buffer.take(0.0)) == [" Bye now."]


def test_without_small_pieces_the_first_is_a_sentence_too() -> None:
    buffer = SpeechTextBuffer(small_first_chunk=False)
    assert speak(buffer, "Well, the short answer is that it rains, so take care. And ") == [
        "Well, the short answer is that it rains, so take care."
    ]


def test_every_utterance_begins_with_a_small_piece() -> None:
    buffer = SpeechTextBuffer()
    line = "I came, I saw, and I did what had to be done."
    for _ in range(2):
        assert speak(buffer, line) == ["I came, I saw,"]
        buffer.flush()
        assert texts(buffer.take(0.0)) == [" and I did what had to be done."]
    assert speak(buffer, line) == ["I came, I saw,"]
    buffer.clear()
    assert speak(buffer, line) == ["I came, I saw,"]


def test_offsets_count_everything_ever_appended() -> None:
    buffer = SpeechTextBuffer()
    buffer.append("One two. Three four.  ", 0.0)
    buffer.flush()
    assert buffer.take(0.0) == [TextPiece("One two.", 0, 8), TextPiece(" Three four.", 8, 20)]
    assert len(buffer) == 0
    buffer.append("Lost.", 0.0)
    assert buffer.clear() == "Lost."
    buffer.append(" Five.", 0.0)
    buffer.flush()
    assert buffer.take(0.0) == [TextPiece(" Five.", 27, 33)]


def test_flush_hands_out_everything_once() -> None:
    buffer = SpeechTextBuffer()
    assert speak(buffer, "Hel") == []
    buffer.flush()
    assert texts(buffer.take(0.0)) == ["Hel"]
    buffer.flush()
    assert buffer.take(0.0) == []
    assert speak(buffer, "lo") == []
    buffer.flush()
    assert texts(buffer.take(0.0)) == ["lo"]


def test_no_piece_reaches_across_a_flush() -> None:
    buffer = SpeechTextBuffer()
    for word in ("yes", " ", "and no"):
        buffer.append(word, 0.0)
        buffer.flush()
    assert texts(buffer.take(0.0)) == ["yes", "and no"]


def test_blanks_alone_are_nothing_to_speak() -> None:
    for mode in ("sentence", "immediate", "never"):
        buffer = SpeechTextBuffer(mode)
        assert not buffer
        assert speak(buffer, " \n ") == []
        assert not buffer
        assert buffer.deadline(0.0) is None
        assert len(buffer) == 3
        buffer.flush()
        assert buffer.take(9.0) == []
        assert len(buffer) == 0


def test_immediate_speaks_what_has_arrived() -> None:
    buffer = SpeechTextBuffer("immediate", max_partial_length=8)
    assert [speak(buffer, token) for token in ("Hel", "lo", " ", "you there", ". Yes.")] == [
        ["Hel"],
        ["lo"],
        [],
        [" you", " there"],
        [". Yes."],
    ]
    assert buffer.deadline(0.0) is None


def test_never_waits_for_flush() -> None:
    buffer = SpeechTextBuffer("never", max_partial_length=9)
    assert speak(buffer, "One two three. Four five. Six. ") == []
    assert buffer.deadline(0.0) is None
    assert buffer.take(99.0) == []
    buffer.flush()
    assert texts(buffer.take(99.0)) == ["One two", " three.", " Four", " five.", " Six."]


def test_a_change_of_mode_counts_for_what_waits() -> None:
    buffer = SpeechTextBuffer("never")
    assert speak(buffer, "One two three. Four") == []
    buffer.mode = "sentence"
    assert texts(buffer.take(0.0)) == ["One two three."]
    buffer.mode = "immediate"
    assert texts(buffer.take(0.0)) == [" Four"]
    buffer.mode = "sentence"
    buffer.append(" five six seven", 0.0)
    assert buffer.take(0.0) == []
    buffer.max_partial_length = 10
    assert texts(buffer.take(0.0)) == [" five six"]


def test_a_long_sentence_is_cut_at_max_partial_length() -> None:
    buffer = SpeechTextBuffer(small_first_chunk=False)
    words = "word " * 120
    pieces = [piece for token in tokens(words) for piece in speak(buffer, token)]
    assert [len(piece.lstrip()) for piece in pieces] == [249, 249]
    assert texts(split_sentences(words)) == [*pieces, buffer.pending.rstrip()]


def test_silence_on_the_wire_frees_complete_words() -> None:
    buffer = SpeechTextBuffer(idle_flush=0.3)
    assert speak(buffer, "I think tha", 1.0) == []
    assert buffer.deadline(1.0) == pytest.approx(1.3)
    assert buffer.take(1.29) == []
    assert texts(buffer.take(buffer.deadline(1.0) or 0.0)) == ["I think"]
    assert buffer.deadline(1.3) is None
    assert buffer.take(99.0) == []
    assert speak(buffer, "t it is", 2.0) == []
    assert texts(buffer.take(2.3)) == [" that it"]
    assert speak(buffer, " over.", 3.0) == []
    assert texts(buffer.take(3.3)) == [" is over."]
    assert not buffer


def test_every_token_puts_the_idle_flush_off() -> None:
    buffer = SpeechTextBuffer(idle_flush=0.3)
    for now in (0.0, 0.2, 0.4, 0.6):
        assert speak(buffer, "some ", now) == []
    buffer.append("", 0.8)
    assert buffer.deadline(0.8) == pytest.approx(0.9)


def test_after_silence_speech_begins_early_again() -> None:
    buffer = SpeechTextBuffer()
    line = " I came, I saw, and I did what had to be done. All "
    assert speak(buffer, "Let me look. ") == []
    assert texts(buffer.take(0.3)) == ["Let me look."]
    assert speak(buffer, line, 1.0) == ["  I came, I saw,", " and I did what had to be done."]


def test_cleared_text_comes_back_flushed_or_not() -> None:
    buffer = SpeechTextBuffer()
    buffer.append("Yes and. No ", 0.0)
    buffer.flush()
    buffer.append(" more", 0.0)
    assert buffer.pending == "Yes and. No  more"
    assert buffer.clear() == "Yes and. No  more"
    assert buffer.take(99.0) == []
    assert (len(buffer), buffer.pending, buffer.clear()) == (0, "", "")


def test_split_sentences() -> None:
    text = "Dr. Who came, saw, and left. Then what? Nothing"
    assert split_sentences(text) == [
        TextPiece("Dr. Who came, saw, and left.", 0, 28),
        TextPiece(" Then what?", 28, 39),
        TextPiece(" Nothing", 39, 47),
    ]
    assert texts(split_sentences(text, small_first_chunk=True))[:2] == ["Dr. Who came,", " saw, and left."]
    assert texts(split_sentences("one two three", 8)) == ["one two", " three"]
    assert split_sentences(" \n") == []


# ------------------------------------------------------------------ properties

FRAGMENTS = st.sampled_from([
    "Hello", "world", "the", "a", "I", "Dr", "etc", "e.g", "U.S", "3", "14", "1,000", ".", ".", ".", ",", ",", ":", "!",
    "?", "...", "…", "—", "(", ")", '"', "`", "<", ">", "你好", "。", "，", " ", " ", " ", " ", " ", "\n", "  ",
])  # fmt: skip
TEXTS = st.lists(FRAGMENTS, max_size=30).map("".join)


@st.composite
def utterances_in_tokens(draw: st.DrawFn) -> list[list[str]]:
    """Texts, each to be flushed at its end, each split into tokens anywhere."""
    utterances = []
    for text in draw(st.lists(TEXTS, min_size=1, max_size=3)):
        cuts = sorted({0, len(text), *draw(st.lists(st.integers(0, len(text)), max_size=10))})
        utterances.append([text[start:end] for start, end in pairwise(cuts)])
    return utterances


@given(utterances_in_tokens(), st.sampled_from([1, 12, 250]), st.booleans(), st.sampled_from(["sentence", "never"]))
def test_cuts_do_not_depend_on_the_tokens(
    utterances: list[list[str]], max_length: int, small: bool, mode: SegmentMode
) -> None:
    by_token = SpeechTextBuffer(mode, max_length, small_first_chunk=small)
    at_once = SpeechTextBuffer(mode, max_length, small_first_chunk=small)
    spoken: list[TextPiece] = []
    expected: list[TextPiece] = []
    for utterance in utterances:
        for token in utterance:
            by_token.append(token, 0.0)
            spoken += by_token.take(0.0)
        by_token.flush()
        spoken += by_token.take(0.0)
        at_once.append("".join(utterance), 0.0)
        at_once.flush()
        expected += at_once.take(0.0)
    assert spoken == expected
    assert all(0 < len(piece.text.lstrip()) <= max_length for piece in spoken)


OPERATIONS = st.one_of(
    TEXTS,
    st.text(max_size=8),
    st.sampled_from([0.05, 0.3, 1.0]),
    st.sampled_from(["flush!", "clear!", "sentence!", "immediate!", "never!", "short!", "long!"]),
)


@given(st.lists(OPERATIONS, max_size=30))
def test_every_character_is_spoken_once_or_returned(operations: list[str | float]) -> None:
    buffer = SpeechTextBuffer()
    appended, now, reached = "", 0.0, 0
    for operation in [*operations, "flush!"]:
        if isinstance(operation, float):
            now += operation
        elif operation == "flush!":
            buffer.flush()
        elif operation == "clear!":
            dropped = buffer.clear()
            assert dropped == appended[len(appended) - len(dropped) :]
            assert not appended[reached : len(appended) - len(dropped)].strip()
            reached = len(appended)
        elif operation in ("short!", "long!"):
            buffer.max_partial_length = 3 if operation == "short!" else 100
        elif operation.endswith("!") and operation[:-1] in ("sentence", "immediate", "never"):
            buffer.mode = operation[:-1]  # type: ignore[assignment]
        else:
            buffer.append(operation, now)
            appended += operation
        due = buffer.deadline(now)
        pieces = buffer.take(now)
        assert pieces or due is None or due > now or buffer.deadline(now) != due
        for piece in pieces:
            assert not appended[reached : piece.start].strip()
            assert piece.text == appended[piece.start : piece.end]
            assert piece.text.strip()
            reached = piece.end
        assert buffer.pending == appended[len(appended) - len(buffer) :]
        assert not appended[reached : len(appended) - len(buffer)].strip()
    assert not appended[reached:].strip()
    assert len(buffer) == 0


@given(st.lists(st.tuples(TEXTS, st.sampled_from([0.0, 0.1, 0.5])), max_size=8), TEXTS)
def test_silence_never_splits_a_word_or_a_number(tokens: list[tuple[str, float]], rest: str) -> None:
    buffer = SpeechTextBuffer(max_partial_length=10_000, idle_flush=0.3)
    now, pieces = 0.0, []
    for token, pause in tokens:
        buffer.append(token, now)
        pieces += buffer.take(now)
        now += pause
        pieces += buffer.take(now)
    text = "".join(token for token, _ in tokens) + rest + " "
    for piece in pieces:
        before, behind = text[piece.end - 1], text[piece.end]
        if before.isascii() and behind.isascii():
            assert not (before.isalnum() and behind.isalnum())
            assert not (before in ".," and behind.isdigit() and text[piece.end - 2].isdigit())


def whole_sums(text: str, cut: int) -> int:
    """Not within "$5 million dollars"."""
    for found in re.finditer(r"\$\d+ \w*( \w*)?", text):
        if found.start() < cut < found.end():
            return found.start()
    return cut


def test_a_first_piece_does_not_end_within_what_is_read_as_one() -> None:
    buffer = SpeechTextBuffer()
    reply = "We were given a prize of about $5 million dollars"
    assert speak(buffer, reply) == ["We were given a prize of about $5 million"]
    buffer = SpeechTextBuffer()
    buffer.safe_cut = whole_sums
    assert speak(buffer, reply) == ["We were given a prize of about"]


def test_nor_does_a_piece_that_is_flushed_because_nothing_comes() -> None:
    buffer = SpeechTextBuffer()
    buffer.safe_cut = whole_sums
    assert speak(buffer, "It costs $5 mill") == []
    deadline = buffer.deadline(0.0)
    assert deadline is not None
    assert texts(buffer.take(deadline)) == ["It costs"]
    buffer.append("ion dollars and", 1.0)
    assert texts(buffer.take(2.0)) == [" $5 million dollars"]


def test_a_flush_that_would_be_within_it_waits_for_more() -> None:
    buffer = SpeechTextBuffer()
    buffer.safe_cut = lambda text, cut: 0
    buffer.append("five million and", 0.0)
    assert buffer.take(1.0) == []
    assert buffer.deadline(1.0) is None
    buffer.flush()
    assert texts(buffer.take(1.0)) == ["five million and"]


def test_words_of_a_sentence_that_cannot_be_waited_for() -> None:
    buffer = SpeechTextBuffer()
    assert buffer.take_early(30) is None
    assert speak(buffer, "One two. The boats lay still, and nobody said any") == ["One two."]
    assert buffer.take_early(30) == TextPiece(" The boats lay still,", 8, 29)
    assert buffer.take_early(16) == TextPiece(" and nobody said", 29, 45)
    assert buffer.pending == " any"


def test_no_word_is_cut_because_nobody_can_wait() -> None:
    buffer = SpeechTextBuffer()
    speak(buffer, "One two. Antidisestablishmentarianism")
    assert buffer.take_early(10) is None
    assert SpeechTextBuffer("never").take_early(10) is None
