"""How words are spoken because somebody said so."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

_WORD = re.compile(r"\w+|[^\w\s]")


class Pronunciations:
    """A dictionary, ready to be looked up at any place of a text.

    A key stands for whole words, of which it may have several; of two that fit, the longer counts. A key without a
    capital fits however the text is written, any other only as it is.
    """

    def __init__(self, entries: Mapping[str, str]) -> None:
        self._keys: dict[str, list[tuple[str, str]]] = {}
        self._has_phrases = any(map(str.isspace, "".join(entries)))
        for key, spoken in sorted(entries.items(), key=lambda entry: -len(entry[0])):
            if key.strip():
                self._keys.setdefault(_head(key, 0), []).append((key, spoken))

    def phrases(self, text: str) -> list[tuple[int, int]]:
        """Where keys of several words stand in a text."""
        if not self._has_phrases:
            return []
        found = ((at, self.find(text, at)) for at in (word.start() for word in _WORD.finditer(text)))
        spans = ((at, key[0]) for at, key in found if key is not None)
        return [(at, end) for at, end in spans if any(map(str.isspace, text[at:end]))]

    def __bool__(self) -> bool:
        return bool(self._keys)

    def find(self, text: str, at: int) -> tuple[int, str] | None:
        """The end of the key that fits at a place, and what is spoken for it."""
        if not self._keys or (candidates := self._keys.get(_head(text, at))) is None or not _edge(text, at):
            return None
        for key, spoken in candidates:
            end = at + len(key)
            written = text[at:end]
            if (written == key or (key == key.lower() and written.lower() == key)) and _edge(text, end):
                return end, spoken
        return None

    def say(self, word: str) -> str:
        """How a single word is spoken: as it is written, if nobody said otherwise."""
        found = self.find(word, 0)
        return found[1] if found is not None and found[0] == len(word) else word


HEAD = 64
"""Characters of a word that keys are sorted by."""


def _head(text: str, at: int) -> str:
    """The letters and digits that begin at a place, or the one mark that does."""
    end = at
    while end < min(len(text), at + HEAD) and (text[end].isalnum() or text[end] == "_"):
        end += 1
    return text[at : max(end, at + 1)].lower()


def _edge(text: str, at: int) -> bool:
    """Whether no word and no number goes on at a place."""
    if at == 0 or at >= len(text):
        return True
    before, after = text[at - 1], text[at]
    if _in_word(before) and _in_word(after):
        return False
    number_goes_on = before in ".," and at > 1 and text[at - 2].isdigit() and after.isdigit()
    number_began = after in ".," and before.isdigit() and text[at + 1 : at + 2].isdigit()
    return not (number_goes_on or number_began)


def _in_word(character: str) -> bool:
    return character.isalnum() or character == "_"


@lru_cache(maxsize=256)
def _prepared(entries: tuple[tuple[str, str], ...]) -> Pronunciations:
    return Pronunciations(dict(entries))


def pronunciations(entries: Mapping[str, str] | None) -> Pronunciations:
    return _prepared(tuple(entries.items()) if entries else ())
