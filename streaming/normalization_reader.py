"""What the rules of the normaliser read from, and what they answer.

A rule is asked at a place where something of its kind may begin. It looks at the text around that place, never further
than a fixed number of characters, and answers with what it has read, or with None.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from streaming.normalization_dictionary import Pronunciations
from streaming.normalization_languages import Language

LOOK_AROUND = 48
"""How many characters of a neighbouring word are looked at."""
BLANKS = " \t\u00a0\u202f"
"""Characters that may stand inside of what is read as one: not the end of a line."""
_MARKS = "\"'([{“‘„«*_,;:"


@dataclass(frozen=True, slots=True)
class Found:
    """Everything up to `end` is spoken so."""

    end: int
    spoken: str


@dataclass(frozen=True, slots=True)
class Reader:
    """A stretch of text that is read by itself."""

    text: str
    language: Language
    pronunciations: Pronunciations

    def at(self, place: int) -> str:
        """The character at a place; none outside."""
        return self.text[place] if 0 <= place < len(self.text) else ""

    def begins_word(self, at: int) -> bool:
        """Whether no letter or digit is right before a place."""
        before = self.at(at - 1)
        return not (before.isalnum() or before == "_")

    def ends_word(self, at: int) -> bool:
        """Whether no letter or digit is at a place."""
        after = self.at(at)
        return not (after.isalnum() or after == "_")

    def word_before(self, at: int) -> str:
        """The word before the one that begins at a place, with the marks behind it."""
        head = self.text[max(0, at - LOOK_AROUND) : at]
        words = head.split()
        if words and not head[-1].isspace():
            words.pop()
        return words[-1].lstrip(_MARKS) if words else ""

    def after_blanks(self, at: int) -> str:
        """What follows a place and at least one blank; nothing if there is none."""
        end = at
        while end < at + LOOK_AROUND and self.at(end) in BLANKS and end < len(self.text):
            end += 1
        return self.text[end : end + LOOK_AROUND] if end > at else ""

    def ends_sentence(self, at: int) -> bool:
        """Whether a full stop right before a place may end a sentence: a capital follows, or nothing."""
        if self.at(at) in ("", "\n"):
            return True
        following = self.after_blanks(at)
        return bool(following) and (following[0].isupper() or following[0] == "\n") or self._only_blanks(at)

    def _only_blanks(self, at: int) -> bool:
        return at + LOOK_AROUND >= len(self.text) and not self.text[at:].strip()


Rule: TypeAlias = Callable[[Reader, int], Found | None]
