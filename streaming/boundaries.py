"""Where text that is still being written may be cut for speaking.

A cut is decided from the text before it and a bounded look ahead, never from how much more happens to be there: text
that arrives letter by letter is cut exactly as text that arrives at once. Where the look ahead is missing the answer
is "not yet".

Strong boundaries end a sentence (. ! ? … 。 and their kin, a newline), medium ones a clause (, ; : — ， 、), weak
ones a word. A full stop counts only when what follows begins a sentence and what precedes is no abbreviation, initial,
number, list marker, address or unfinished markup.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from streaming import abbreviations

STOPS = "。！？｡．؟۔।॥။።։‼⁇⁈⁉"
"""Ends of sentences that need no space after them."""
TERMINATORS = ".!?…" + STOPS
WIDE_PAUSES = "，、；：،؛"
PAUSES = ",;:)—" + WIDE_PAUSES
CLOSERS = "\"')]}”’»›」』）】》〉〗*_~"
OPENERS = "([{“‘«‹「『（【《〈〖¿¡"
CONTINUERS = ",;:)]}%/&+=-–—"
"""What can follow an abbreviation but not begin a sentence."""

FIRST_STRONG_WORDS = 2.0
FIRST_MEDIUM_WORDS, FIRST_MEDIUM_WIDTH = 3.0, 12
FIRST_WEAK_WORDS, FIRST_WEAK_WIDTH = 8.0, 48
"""What a first piece must have before it is cut at a boundary of each kind."""

LOOK_AHEAD = 64
"""At most so many blanks, marks or letters are looked at behind a boundary."""

_UNSPACED = re.compile("[\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_WIDE = re.compile("[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]")
_CANDIDATE = re.compile(rf"[{re.escape(TERMINATORS + PAUSES)}]|\s")
_OPEN_TAG = re.compile(r"<[A-Za-z/][^<>]*\Z")
_INITIALS = re.compile(r"[^\W\d_](?:\.[^\W\d_])*")
_LEANING_ABBREVIATIONS = abbreviations.CONTINUING | abbreviations.TITLES


class _NotYet(Exception):
    """The text that decides has not arrived."""


@dataclass(frozen=True, slots=True)
class _Text:
    """`text[begin:end]` is being cut; `final` says that nothing follows `end`."""

    text: str
    begin: int
    end: int
    final: bool

    def peek(self, index: int) -> str:
        """The character at `index`, "" behind the last one. Raises: _NotYet when it has not arrived."""
        if index < self.end:
            return self.text[index]
        if self.final:
            return ""
        raise _NotYet

    def run(self, index: int, characters: str) -> int:
        """The first index from `index` on whose character is none of these."""
        for ahead in range(index, index + LOOK_AHEAD):
            if (character := self.peek(ahead)) == "" or character not in characters:
                return ahead
        return index + LOOK_AHEAD

    def closed(self, index: int) -> int:
        """The end of the marks and closing quotes and brackets that begin at `index`."""
        index = self.run(index, TERMINATORS)
        for ahead in range(index, index + LOOK_AHEAD):
            character = self.peek(ahead)
            if character == "" or character not in CLOSERS:
                return ahead
            if character == '"' and self.text.count('"', self.begin, ahead) % 2 == 0:
                return ahead  # it opens
        return index + LOOK_AHEAD

    def after_blanks(self, index: int) -> str:
        """The first character that is not blank; a newline or more blanks than are looked at come back as newline."""
        for ahead in range(index, index + LOOK_AHEAD):
            character = self.peek(ahead)
            if character == "\n" or not character.isspace():
                return character
        return "\n"

    def word_after_blanks(self, index: int) -> tuple[str, str]:
        """The next word and the character behind it."""
        while self.peek(index).isspace():
            index += 1
        end = index
        while end < index + LOOK_AHEAD and self.peek(end).isalpha():
            end += 1
        return self.text[index:end], self.peek(end)

    def token_start(self, end: int) -> int:
        """Where the run of characters without a blank, an opening mark or an unspaced script before `end` begins."""
        index = end
        while index > max(self.begin, end - LOOK_AHEAD):
            character = self.text[index - 1]
            if character.isspace() or character in OPENERS or character in "\"'*_" or _WIDE.match(character):
                break
            index -= 1
        return index

    def in_markup(self, index: int) -> bool:
        """Whether a tag or a backtick is open on this line."""
        line = self.text[max(self.begin, self.text.rfind("\n", self.begin, index) + 1) : index]
        return line.count("`") % 2 == 1 or ("<" in line and _OPEN_TAG.search(line) is not None)


def next_cut(
    text: str, start: int, end: int, *, max_length: int, first: bool = False, final: bool = False
) -> int | None:
    """Where the piece of `text[start:end]` that begins at `start` ends, or None while that is open.

    A piece is a sentence; a `first` one may be less, so that speech begins early. Blanks before it belong to it and do
    not count against `max_length`, at which a longer piece is cut between words where there are any. `final` says that
    the text is complete; then the answer is None only when nothing but blanks is left.
    """
    begin = _skip_blanks(text, start, end)
    if begin == end:
        return None
    limit = begin + max(1, max_length)
    reader = _Text(text, begin, end, final)
    try:
        for match in _CANDIDATE.finditer(text, begin + 1, min(end, limit + 1)):
            cut = _cut_at(reader, match.start(), first)
            if cut is not None and cut <= limit:
                return cut
        if end > limit:
            return _hard_cut(reader, limit)
    except _NotYet:
        return None
    return _trim(text, begin, end) if final else None


def idle_cut(text: str, start: int, end: int) -> int:
    """How far `text[start:end]` can be spoken although more may come: never into a word, a number or markup.

    All of it when it ends a sentence, else up to the last gap between words; `start` when there is nothing to say.
    """
    begin = _skip_blanks(text, start, end)
    reader = _Text(text, begin, end, final=True)
    for cut in range(_trim(text, begin, end), begin, -1):
        if _ends_word(reader, cut) and not reader.in_markup(cut):
            return cut if _speakable(text, begin, cut) else start
    return start


def _ends_word(reader: _Text, cut: int) -> bool:
    """Whether a word, number or sentence is known to be complete at `cut`, which has no blank before it."""
    last, following = reader.text[cut - 1], reader.peek(cut)
    if last.isspace():
        return False
    if following.isspace():
        beyond = reader.text[_skip_blanks(reader.text, cut, reader.end) : reader.end][:1]
        return not (last.isdigit() and (beyond == "" or beyond.isdigit()))  # "1 000"
    marks = reader.text[max(reader.begin, cut - LOOK_AHEAD) : cut].rstrip(CLOSERS)
    if last in WIDE_PAUSES or marks.endswith(tuple(STOPS)):
        return following == "" or following not in CLOSERS + TERMINATORS
    if following:
        return False
    if last == ".":  # "3." may become "3.14", and an address goes on behind it
        token = reader.text[reader.token_start(cut) : cut - 1]
        return not (token[-1:].isdigit() or "@" in token or "/" in token or token.startswith("www"))
    return marks.endswith(tuple(TERMINATORS))


def _cut_at(reader: _Text, index: int, first: bool) -> int | None:
    """Where to cut because of the character at `index`, or None."""
    character = reader.text[index]
    if character in TERMINATORS or character in "\n\u2028\u2029":
        cut = _strong(reader, index)
        if cut is not None and _speakable(reader.text, reader.begin, cut) and not _too_short(reader, cut, first):
            return cut
    if not first or (character not in PAUSES and not character.isspace()):
        return None
    words, width = _measure(reader.text[reader.begin : index + 1])
    if character in PAUSES and words >= FIRST_MEDIUM_WORDS and width >= FIRST_MEDIUM_WIDTH:
        return _medium(reader, index)
    if character.isspace() and (words >= FIRST_WEAK_WORDS or width > FIRST_WEAK_WIDTH):
        return _weak(reader, index)
    return None


def _too_short(reader: _Text, cut: int, first: bool) -> bool:
    return first and _measure(reader.text[reader.begin : cut])[0] < FIRST_STRONG_WORDS


def _strong(reader: _Text, index: int) -> int | None:
    text, character = reader.text, reader.text[index]
    if character.isspace():
        return _trim(text, reader.begin, index)
    if text[index - 1] in TERMINATORS or reader.in_markup(index):
        return None  # a run of marks is decided at the first of them
    marks_end = reader.run(index, TERMINATORS)
    marks = text[index:marks_end]
    cut = reader.closed(index)
    following = reader.peek(cut)
    if any(mark in STOPS for mark in marks):
        return None if marks == "．" and text[index - 1].isdigit() and following.isdigit() else cut
    if following == "":
        return cut
    if not following.isspace():
        return cut if _joined_sentence(reader, index, marks, following) else None
    quoted = any(quote in text[marks_end:cut] for quote in "\"'”’»")
    if ("!" in marks or "?" in marks) and not quoted:
        return cut
    if not _begins_sentence(reader.after_blanks(cut)):
        return None
    return None if marks == "." and _abbreviated(reader, index, cut) else cut


def _joined_sentence(reader: _Text, index: int, marks: str, following: str) -> bool:
    """Whether a sentence begins right behind the marks, without a blank."""
    if _WIDE.match(following):
        if marks != ".":
            return "…" not in marks and ".." not in marks
        return not reader.text[reader.token_start(index) : index].isdigit()
    if ("!" not in marks and "?" not in marks) or not (following.isupper() and reader.text[index - 1].islower()):
        return False
    return reader.text[reader.token_start(index) : index].isalpha()


def _begins_sentence(character: str) -> bool:
    return not character.islower() and (character == "" or character not in CONTINUERS)


def _abbreviated(reader: _Text, index: int, cut: int) -> bool:
    """Whether the full stop at `index` belongs to the token before it rather than to the sentence."""
    start = reader.token_start(index)
    token, beyond = reader.text[start:index], reader.after_blanks(cut)
    if beyond == "\n" or beyond == "":
        return False
    folded = token.casefold()
    if folded in abbreviations.CONTINUING or (token[:1].isupper() and folded in abbreviations.TITLES):
        return True
    if folded in abbreviations.NUMBERED and beyond.isdigit():
        return True
    if token.isdigit():
        return _list_marker(reader, start, token) or (
            len(token) <= 2 and reader.word_after_blanks(cut)[0].casefold() in abbreviations.AFTER_ORDINALS
        )
    if folded in abbreviations.ENDING or _INITIALS.fullmatch(token):
        if _list_marker(reader, start, token):
            return True
        word, behind = reader.word_after_blanks(cut)
        return word.casefold() not in abbreviations.SENTENCE_OPENERS or behind == "."
    return False


def _list_marker(reader: _Text, start: int, token: str) -> bool:
    """Whether the token stands where a sentence or a line begins, as the number of a list item does."""
    if len(token) > (3 if token.isdigit() else 1):
        return False
    return start == reader.begin or "\n" in reader.text[_trim(reader.text, reader.begin, start) : start]


def _medium(reader: _Text, index: int) -> int | None:
    text, character = reader.text, reader.text[index]
    if reader.in_markup(index):
        return None
    if character == "—":
        return reader.run(index, "—")
    cut = reader.closed(index + 1)
    following = reader.peek(cut)
    if character in WIDE_PAUSES:
        return None if text[index - 1].isdigit() and following.isdigit() else cut
    return cut if following == "" or following.isspace() or _WIDE.match(following) else None


def _weak(reader: _Text, index: int) -> int | None:
    text, last = reader.text, reader.text[index - 1]
    if last.isspace() or last.isdigit() or last in OPENERS or reader.in_markup(index):
        return None  # a number leans on its unit
    token = text[reader.token_start(index) : index]
    word = token.strip(CLOSERS + ".").casefold()
    if token.endswith(".") and (_INITIALS.fullmatch(word) or word in _LEANING_ABBREVIATIONS):
        return None
    return None if word in abbreviations.FUNCTION_WORDS else index


def _hard_cut(reader: _Text, limit: int) -> int:
    """A piece grew too long: cut it behind its last clause, or its last word, or anywhere."""
    text, begin = reader.text, reader.begin
    middle = begin + (limit - begin) // 2
    for index in range(limit - 1, middle, -1):
        if text[index] in PAUSES and (cut := _medium(reader, index)) is not None and cut <= limit:
            return cut
    for index in range(limit, begin, -1):
        if text[index].isspace():
            return _trim(text, begin, index)
        if index <= middle and _UNSPACED.match(text[limit - 1]):
            break
    cut = limit
    while cut > begin + 1 and (text[cut] in "\u200d\ufe0f" or unicodedata.combining(text[cut])):
        cut -= 1
    return cut


def _measure(text: str) -> tuple[float, int]:
    """Words and width of a text; a character of a script without spaces is half a word and two wide."""
    unspaced = len(_UNSPACED.findall(text))
    spaced = _UNSPACED.sub(" ", text) if unspaced else text
    words = sum(any(map(str.isalnum, token)) for token in spaced.split())
    return words + unspaced / 2, len(text) + unspaced


def _speakable(text: str, begin: int, end: int) -> bool:
    return any(map(str.isalnum, text[begin:end]))


def _skip_blanks(text: str, start: int, end: int) -> int:
    while start < end and text[start].isspace():
        start += 1
    return start


def _trim(text: str, begin: int, end: int) -> int:
    while end > begin and text[end - 1].isspace():
        end -= 1
    return end
