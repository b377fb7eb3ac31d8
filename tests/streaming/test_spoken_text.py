"""From the words an engine speaks back to the words that were written."""

from __future__ import annotations

from models.interfaces import WordTiming
from streaming.spoken_text import PieceText, VoiceTraits, piece_text

OURS = VoiceTraits(normalizes=False, language="en")
ITS_OWN = VoiceTraits(normalizes=True, language="en")


def timings(text: str) -> list[WordTiming]:
    """A tenth of a second a character."""
    found: list[WordTiming] = []
    end = 0
    for word in text.split():
        start = text.index(word, end)
        end = start + len(word)
        found.append(WordTiming(start, end, start / 10, end / 10))
    return found


def told(piece: PieceText, at_once: int = 100) -> list[tuple[int, str, float, float]]:
    spans = timings(piece.spoken)
    words = [word for first in range(0, len(spans), at_once) for word in piece.words(spans[first : first + at_once])]
    return [(end, word.text, word.start, word.end) for end, word in [*words, *piece.finish()]]


def test_a_voice_that_normalizes_by_itself_gets_what_was_written() -> None:
    piece = piece_text(" It costs $5.", ITS_OWN, {})
    assert piece.spoken == " It costs $5."
    assert told(piece) == [(3, "It", 0.1, 0.3), (9, "costs", 0.4, 0.9), (13, "$5.", 1.0, 1.3)]
    assert piece.words(timings(piece.spoken))[-1][0] == 13, "nothing waits when nothing was rewritten"


def test_words_that_are_said_otherwise_are_told_as_they_were_written() -> None:
    for traits in (OURS, ITS_OWN):
        piece = piece_text("The SQL server", traits, {"SQL": "see quell"})
        assert piece.spoken == "The see quell server"
        for at_once in (1, 2, 100):
            assert told(piece, at_once) == [(3, "The", 0.0, 0.3), (7, "SQL", 0.4, 1.3), (14, "server", 1.4, 2.0)]


def test_a_word_that_is_not_said_has_no_time() -> None:
    piece = piece_text("one hm two", OURS, {"hm": ""})
    assert [text for _, text, _, _ in told(piece)] == ["one", "two"]
