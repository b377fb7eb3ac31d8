"""A piece of text as an engine gets it, and the way back from the words it speaks to those that were written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from streaming.boundaries import LOOK_AHEAD
from streaming.normalization import normalize, safe_end
from streaming.speech_output import TimedWord


class WordSpan(Protocol):
    """When characters `start_char:end_char` of a spoken text are heard, in seconds from its first sample."""

    @property
    def start_char(self) -> int: ...
    @property
    def end_char(self) -> int: ...
    @property
    def start(self) -> float: ...
    @property
    def end(self) -> float: ...


@dataclass(frozen=True, slots=True)
class VoiceTraits:
    """What a session has to know of a voice: the most characters its engine takes, and what they should look like."""

    max_characters: int = 4096
    normalizes: bool = True
    language: str = ""


class Rewritten(Protocol):
    """A text made of another, and where its characters come from."""

    @property
    def text(self) -> str: ...
    def source(self, start_char: int, end_char: int) -> tuple[int, int]: ...


@dataclass(slots=True)
class _Open:
    """Written characters whose spoken words have begun, and may go on."""

    start_char: int
    end_char: int
    start: float
    end: float


class PieceText:
    """One piece: `spoken` is for the engine, `words` tells of its word times which written words they are.

    Several spoken words may be one written word, as "five dollars" is "$5": such a word is told once the next has
    begun, or the piece has ended.
    """

    def __init__(self, written: str, rewritten: Rewritten | None = None) -> None:
        self._written = written
        self._rewritten = rewritten
        self._open: _Open | None = None

    @property
    def spoken(self) -> str:
        return self._written if self._rewritten is None else self._rewritten.text

    def words(self, spans: Iterable[WordSpan]) -> list[tuple[int, TimedWord]]:
        """Words that are complete: how far the piece is spoken with them, in characters, and their times in it."""
        told: list[tuple[int, TimedWord]] = []
        for span in spans:
            if self._rewritten is None:
                told.append(self._word(_Open(span.start_char, span.end_char, span.start, span.end)))
                continue
            start, end = self._rewritten.source(span.start_char, span.end_char)
            if self._open is not None and start < self._open.end_char:
                self._open.end_char = max(self._open.end_char, end)
                self._open.end = max(self._open.end, span.end)
                continue
            told += self.finish()
            self._open = _Open(start, end, span.start, span.end)
        return told

    def finish(self) -> list[tuple[int, TimedWord]]:
        """The word that is still open when the piece has ended."""
        last, self._open = self._open, None
        return [] if last is None else [self._word(last)]

    def _word(self, word: _Open) -> tuple[int, TimedWord]:
        return word.end_char, TimedWord(self._written[word.start_char : word.end_char], word.start, word.end)


def piece_text(written: str, traits: VoiceTraits, pronunciations: Mapping[str, str]) -> PieceText:
    """Write out for a voice what its engine would not read by itself, and what the client wants said otherwise."""
    if traits.normalizes and not pronunciations:
        return PieceText(written)
    # Of no language there are no rules, only the dictionary.
    language = "" if traits.normalizes else traits.language
    return PieceText(written, normalize(written, language, dictionary=pronunciations))


def safe_cut(text: str, cut: int, language: str) -> int:
    """The last place up to `cut` where both parts of a text are read as they are in one: not within "$5 million"."""
    known = text[: cut + LOOK_AHEAD]
    safe = min(cut, safe_end(known, language))
    for span in normalize(known, language).spans:
        if not span.verbatim and span.start < safe < span.end:
            safe = span.start
    return safe
