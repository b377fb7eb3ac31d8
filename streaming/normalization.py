"""Text as it is written, made into text as it is spoken, with the way back.

What is written "$5.20" is spoken "five dollars and twenty cents": voices that were taught on words need them. Every
stretch of the result knows which characters it was made of.

A text is read in stretches (`normalization_cuts`) that know nothing of each other: reading the parts of a text that was
cut where `safe_end` allows it is reading the whole. In each, marks are taken away first (`normalization_markup`), then
rules read what is left from left to right; where none has anything to say the text stays as it is. Languages without a
table here keep their numbers: only marks are taken away, and the schemes of addresses.

The work is linear in the length of the text: every rule looks at a bounded stretch from where it is asked, and a run of
letters or digits in which no rule has found anything is passed at once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from streaming.normalization_addresses import scheme_end
from streaming.normalization_cuts import last_cut, stretches
from streaming.normalization_dictionary import Pronunciations, pronunciations
from streaming.normalization_languages import Language
from streaming.normalization_markup import strip_markup
from streaming.normalization_reader import Reader
from streaming.normalization_registry import language_of
from streaming.normalization_rules import find, find_address
from streaming.normalization_spans import NormalizedText, Rewriting, Span, joined

__all__ = ["NormalizedText", "Span", "normalize", "safe_end"]

_PART = re.compile(r"[^\W\d_²³½⅓⅔¼¾]+|[0-9]+|\s+|([*=_~#^+/|<>!?-])\1{3,}|.", re.DOTALL)

_SCHEME = re.compile(r"(?:https?|ftp|wss?)\Z", re.IGNORECASE)


def normalize(text: str, language: str, *, dictionary: Mapping[str, str] | None = None) -> NormalizedText:
    """The text as it is spoken in a language (BCP 47). `dictionary` says how words are spoken, whatever the rules.

    A key stands for whole words, of which it may have several; of two that fit, the longer counts. A key without a
    capital fits however the text is written, any other only as it is.
    """
    spoken_in, said = language_of(language), pronunciations(dictionary)
    result = Rewriting()
    for stretch in stretches(text, spoken_in, said.phrases(text)):
        stripped = strip_markup(
            text[stretch.start : stretch.end],
            first_of_line=stretch.first_of_line,
            last_of_line=stretch.last_of_line,
        )
        result.extend(joined(stripped, _read(stripped.text, spoken_in, said)), stretch.start)
    return result.done()


def safe_end(text: str, language: str) -> int:
    """How many characters from the beginning stay as they are spoken, whatever follows the text.

    What follows a cut there begins with blanks, and they have to be part of it. Keys of a dictionary that are several
    words are not looked at.
    """
    return last_cut(text, language_of(language))


def _in_address(reader: Reader, at: int, end: int) -> bool:
    """Whether a word of the dictionary is the beginning of an address, which reads its words by the dictionary, too."""
    address = find_address(reader, at) if reader.at(end) in (".", "@", "-", "_") else None
    return address is not None and address.end > end


def _scheme(text: str, at: int, end: int) -> tuple[int, int] | None:
    """Where the scheme that ends a run of letters begins, and where the address behind it does."""
    found = _SCHEME.search(text, max(at, end - 5), end)
    host = None if found is None else scheme_end(text, found.start())
    return None if found is None or host is None else (found.start(), host)


def _read(text: str, language: Language | None, said: Pronunciations) -> NormalizedText:
    """Read a stretch without marks by the rules of its language."""
    result = Rewriting()
    reader = None if language is None else Reader(text, language, said)
    at = kept = 0
    while (part := _PART.match(text, at)) is not None:
        start, end, spoken = at, part.end(), ""
        own = said.find(text, at)
        if own is not None and not (reader is not None and _in_address(reader, at, own[0])):
            end, spoken = own
        elif reader is not None and (found := find(reader, at, end)) is not None:
            end, spoken = found.end, found.spoken
        elif reader is None and text.startswith("://", end) and (address := _scheme(text, at, end)) is not None:
            start, end = address
        else:
            at = end
            continue
        result.keep(text[kept:start], kept)
        result.say(spoken, start, end)
        at = kept = end
    result.keep(text[kept:], kept)
    return result.done()
