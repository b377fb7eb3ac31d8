"""What Kokoro speaks in one pass, and when each word of it is heard.

A text is a row of pieces: phonemes, and the words of the text that they are. The model takes at most 510 phonemes at
once, each one token, and tells for how many frames of 25 ms it held each of them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

from models.interfaces import WordTiming

MOST_PHONEMES = 510
FRAME_SECONDS = 0.025
_LEAD_FRAMES = 3
"""The first token, which is no phoneme, is heard for so much less than it is held. After kokoro's KPipeline."""
_BREAKS = ("!.?…", ":;", ",—")
"""Marks to cut a text at that is too long for one pass, the best first."""
_CLOSERS = ")”"
_MOST_JOINED = 5
"""Words that are spoken as one at most."""
_SILENT, _JOINED = 4, 0.5
"""What it costs, in phonemes, to take a word for one that is not spoken, and words for ones that are spoken as one."""

# As of eSpeak NG's engine: scripts written without spaces give one word per character.
_IDEOGRAPH = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_IDEOGRAPH}]|[^\s{_IDEOGRAPH}]+")
MARKS = "\"'.,;:!?…‥·„“”‘’«»‹›()[]{}¿¡。、，．；：！？「」『』（）【】《》〈〉،؛؟।॥–—-*_"
"""What around a word is not a part of it."""
_NEGATIVE = re.compile(r"-\d")


class Span(NamedTuple):
    """`text[start:end]`."""

    start: int
    end: int


class Piece(NamedTuple):
    """Phonemes, and the words that they are; none for a space or a mark. Words that run into one another share one."""

    phonemes: str
    words: tuple[Span, ...] = ()


class Word(NamedTuple):
    """A word of the text without the marks around it; `before` and `after` are those marks."""

    span: Span
    before: str
    after: str
    spaced: bool
    """Whether white space follows."""


def words_of(text: str) -> Iterator[Word]:
    """The words of a text, in order. Marks that stand alone are a word that is empty."""
    for found in _WORD.finditer(text):
        start, end = found.span()
        first, last = start, end
        while first < last and text[first] in MARKS and not _NEGATIVE.match(text, first):
            first += 1
        while last > first and text[last - 1] in MARKS:
            last -= 1
        spaced = end < len(text) and text[end].isspace()
        yield Word(Span(first, last), text[start:first], text[last:end], spaced)


def align(words: Sequence[Span], alone: Sequence[str], groups: Sequence[str]) -> list[Piece]:
    """Which of the groups of phonemes that a run of words is spoken as belongs to which words.

    `alone` is what each word is spoken as by itself. A number is many groups and "of the" is one: the row of beads
    (words : groups) is chosen that changes the words' phonemes least, as sentences of two languages are aligned
    (Gale and Church 1993).
    """
    counts = [len(each.split()) for each in alone]
    best: dict[tuple[int, int], tuple[float, tuple[int, int]]] = {(0, 0): (0.0, (0, 0))}
    for done in range(len(words)):
        for said in range(len(groups) + 1):
            if (done, said) not in best:
                continue
            for step, taken in _beads(counts[done:], len(groups) - said):
                change = _unlike("".join(alone[done : done + step]), "".join(groups[said : said + taken]))
                dear = _JOINED if step > 1 else _SILENT if counts[done] and not taken else 0
                place, price = (done + step, said + taken), best[done, said][0] + change + dear
                if place not in best or price < best[place][0]:
                    best[place] = price, (done, said)
    pieces: list[Piece] = []
    place = (len(words), len(groups))
    while place != (0, 0):
        before = best[place][1]
        pieces.append(Piece(" ".join(groups[before[1] : place[1]]), tuple(words[before[0] : place[0]])))
        place = before
    return pieces[::-1]


def _beads(counts: Sequence[int], left: int) -> Iterator[tuple[int, int]]:
    """How many words, of so many groups each by themselves, may stand for how many groups; the last takes all."""
    if len(counts) == 1:
        yield 1, left
        return
    near = {0, 1, counts[0] - 1, counts[0], counts[0] + 1}
    yield from ((1, taken) for taken in near if 0 <= taken <= left)
    if left:
        yield from ((step, 1) for step in range(2, min(len(counts), _MOST_JOINED) + 1))


def _unlike(one: str, other: str) -> int:
    """How many phonemes are in one and not in the other."""
    return sum((Counter(one) - Counter(other)).values()) + sum((Counter(other) - Counter(one)).values())


def passes(pieces: Sequence[Piece], symbols: Collection[str], most: int = MOST_PHONEMES) -> Iterator[list[Piece]]:
    """Cut a text into passes, without the phonemes that the model has no symbol for.

    A text that is too long is cut behind the last sentence that fits, else behind the last clause, else at a space.
    """
    waiting: list[Piece] = []
    length = 0
    for piece in _known(pieces, symbols, most):
        while waiting and length + len(piece.phonemes) > most:
            cut = _cut(waiting)
            yield from _trimmed(waiting[:cut])
            waiting = waiting[cut:]
            while waiting and waiting[0].phonemes == " ":
                del waiting[0]
            length = sum(len(each.phonemes) for each in waiting)
        waiting.append(piece)
        length += len(piece.phonemes)
    yield from _trimmed(waiting)


def _known(pieces: Sequence[Piece], symbols: Collection[str], most: int) -> Iterator[Piece]:
    for piece in pieces:
        phonemes = "".join(symbol for symbol in piece.phonemes if symbol in symbols)
        # A word longer than a pass has its time from its last part.
        for start in range(0, len(phonemes), most):
            rest = phonemes[start : start + most]
            yield Piece(rest, piece.words if start + most >= len(phonemes) else ())


def _cut(pieces: Sequence[Piece]) -> int:
    """How many of the pieces make a pass."""
    for marks in _BREAKS:
        for index in range(len(pieces) - 1, -1, -1):
            if pieces[index].phonemes[-1:] in marks and not pieces[index].words:
                closed = index + 1 < len(pieces) and pieces[index + 1].phonemes in _CLOSERS
                return index + 1 + closed
    for index in range(len(pieces) - 1, 0, -1):
        if pieces[index].phonemes == " ":
            return index
    return len(pieces)


def _trimmed(pieces: Sequence[Piece]) -> Iterator[list[Piece]]:
    """The pieces without spaces around them; nothing if there is nothing to say."""
    first, last = 0, len(pieces)
    while first < last and pieces[first].phonemes.isspace():
        first += 1
    while last > first and pieces[last - 1].phonemes.isspace():
        last -= 1
    if any(symbol.isalpha() for piece in pieces[first:last] for symbol in piece.phonemes):
        yield list(pieces[first:last])


def timings(pieces: Sequence[Piece], frames: Sequence[int], offset: float) -> list[WordTiming]:
    """The times of a pass's words; `frames` are those of its first token, of every phoneme and of its last token.

    A space is halved between the words on its sides. `offset` is where the pass begins, in seconds.
    """
    edges = list(accumulate(frames[1:-1], initial=max(frames[0] - _LEAD_FRAMES, 0)))
    heard: list[tuple[Span, float, float]] = []
    at = 0
    for index, piece in enumerate(pieces):
        begin, end = float(edges[at]), float(edges[at + len(piece.phonemes)])
        if piece.words:
            begin -= _half(pieces, index - 1, edges, at - 1)
            end += _half(pieces, index + 1, edges, at + len(piece.phonemes))
            heard += _shared(piece.words, begin, end)
        at += len(piece.phonemes)
    words: list[WordTiming] = []
    for span, begin, end in heard:
        start, stop = offset + begin * FRAME_SECONDS, offset + end * FRAME_SECONDS
        if words and (words[-1].start_char, words[-1].end_char) == span:
            start = words.pop().start
        words.append(WordTiming(span.start, span.end, start, stop))
    return words


def _half(pieces: Sequence[Piece], index: int, edges: Sequence[int], at: int) -> float:
    """Half of the frames of piece `index`, whose phoneme is number `at`, if it is a space."""
    if 0 <= index < len(pieces) and pieces[index].phonemes == " ":
        return (edges[at + 1] - edges[at]) / 2
    return 0.0


def _shared(words: Sequence[Span], begin: float, end: float) -> Iterator[tuple[Span, float, float]]:
    """The time of a piece, dealt out to its words by their lengths."""
    total = sum(word.end - word.start for word in words)
    parts = list(accumulate((word.end - word.start for word in words), initial=0))
    for index, word in enumerate(words):
        since, until = (begin + (end - begin) * parts[edge] / total for edge in (index, index + 1))
        yield word, since, until
