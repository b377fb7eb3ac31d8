"""Markdown, HTML and emoji, taken away: what is left is what a person would read out.

- Marks of emphasis, code, headings, quotes, lists and links go; the words stay, those of code as well.
- Of a link its text stays, of a picture its description; a footnote's number goes.
- The cells of a table's row are read one after the other, with commas; rules and the lines around code are not read.
- HTML and SSML elements go, character references are what they stand for. Any other tag, as <laugh>, is for the
  engine, and stays.
- Emoji are not read.
A mark is judged by what is right beside it, not by whether it has a partner: no mark decides about text far away.
"""

from __future__ import annotations

import html
import re

from streaming.normalization_addresses import scheme_end
from streaming.normalization_languages import words
from streaming.normalization_reader import BLANKS
from streaming.normalization_spans import NormalizedText, Rewriting

LABEL_LIMIT, TARGET_LIMIT, TAG_LIMIT = 300, 2000, 500
"""The longest text of a link, its address, and tag, in characters."""

_LABEL = rf"[^\[\]\n]{{0,{LABEL_LIMIT}}}"
_TARGET = rf"[^()\s]{{0,{TARGET_LIMIT}}}(?:\([^()\s]{{0,200}}\)[^()\s]{{0,200}})?"
_TITLE = r"(?:[ \t]{1,4}\"[^\"\n]{0,200}\")?"
_LINK = re.compile(rf"!?\[({_LABEL})(\]\([ \t]?{_TARGET}{_TITLE}[ \t]?\)|\]\[[^\[\]\n]{{0,60}}\])")
_TAG = re.compile(rf"</?([A-Za-z][A-Za-z0-9-]{{0,30}})(?:[\s/][^<>\n]{{0,{TAG_LIMIT}}})?>")
_COMMENT = re.compile(rf"<!--(?:[^-<\n]|-(?!->)|<(?!!)){{0,{TAG_LIMIT}}}-->")
WHOLE = (_LINK, _TAG, _COMMENT)
"""Marks that have blanks inside of them."""
UNFINISHED = re.compile(
    rf"!?\[{_LABEL}(?:\](?:\([ \t]?{_TARGET}(?:\([^()\s]{{0,200}})?(?:[ \t]{{1,4}}(?:\"[^\"\n]{{0,200}}\"?)?)?[ \t]?"
    rf"|\[[^\[\]\n]{{0,60}})?)?\Z|</?[A-Za-z][^<>\n]{{0,{TAG_LIMIT + 40}}}\Z"
    rf"|<(?:!(?:-(?:-(?:[^-<\n]|-(?!->)|<(?!!)){{0,{TAG_LIMIT}}}-{{0,2}})?)?)?\Z"
)
"""The beginning of one of them, at the end of a text."""

WHOLE_LINE = re.compile(r"[|]|```|~~~")
"""A line that begins so is read at once."""
_RULE = re.compile(r"(?:([-*_=])[ \t]{0,8}(?:\1[ \t]{0,8}){2,200}|[|:\- \t]{3,400}|(?:```|~~~)[^`\n]{0,80})\Z")
_PREFIX = re.compile(r"(?:>[ \t]?){1,8}|#{1,6}(?=[ \t])[ \t]{1,4}|[-*+•][ \t]{1,8}(?:\[[ xX]\][ \t]{1,4})?")
_NUMBERED = re.compile(r"([0-9]{1,3})\)(?=[ \t])")
_PIPES = re.compile(r"[| \t]+")
_FOOTNOTE = re.compile(r"\[\^[^\[\]\s]{1,20}\]:?")
_AUTOLINK = re.compile(
    rf"<([A-Za-z][A-Za-z0-9+.-]{{1,20}}:[^\s<>]{{1,{TARGET_LIMIT}}}|[\w.+-]{{1,64}}@[\w.-]{{1,255}})>"
)
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_LEFT_OVER = re.compile(rf"\]\({_TARGET}\)")
_ESCAPED = frozenset("!\"#$%&'()*+,-./:;<=>?@[]^_`{|}~")
_INLINE = re.compile(
    r"[\\`\[\]<&|]|!(?=\[)|\*+|_+|~~+|(?P<word>(?<![^\W_])(?:https?|ftp|wss?)(?=://))"
    "|(?P<emoji>[\u2600-\u27bf\u2b05-\u2b55\U0001f1e6-\U0001f1ff\U0001f300-\U0001faff\ufe0f\u20e3\u200d"
    "\U000e0020-\U000e007f]+)",
    re.IGNORECASE,
)
_JOINERS = "\u200d\ufe0f\u20e3"
_NO_EMOJI = frozenset("✓")

_OPENERS = frozenset(" \t\n\u00a0\"'([{*~“‘-–—>|/")
_CLOSERS = frozenset(" \t\n\u00a0\"')]}*~”’.,;:!?-–—<|/…")
_SEPARATING = words("br p div li tr td th h1 h2 h3 h4 h5 h6 hr ul ol table blockquote pre")
_ELEMENTS = _SEPARATING | words("""
    a abbr b big body button caption center cite code col colgroup dd del details dl dt em figcaption figure font footer
    form head header html i img input ins kbd label link main mark meta nav option q s samp script section select small
    source span strike strong style sub summary sup svg tbody textarea tfoot thead time title tt u var video wbr
    speak break prosody say-as phoneme voice emphasis
""")


def strip_markup(text: str, *, first_of_line: bool, last_of_line: bool) -> NormalizedText:
    """The text without its marks. It is part of one line at most, with the blanks before it."""
    result = Rewriting()
    begin = 0
    if first_of_line:
        begin = len(text) - len(text.lstrip())
        result.keep(text[:begin], 0)
        if last_of_line and _RULE.match(text, begin):
            return result.done()
        begin = _line_prefix(text, begin, result)
    _Inline(text, begin, result, table=first_of_line and text[begin : begin + 1] == "|").read()
    return result.done()


def _line_prefix(text: str, at: int, result: Rewriting) -> int:
    while (found := _PREFIX.match(text, at)) is not None:
        at = found.end()
    if (found := _NUMBERED.match(text, at)) is not None:
        result.keep(found[1], at)
        result.say(".", found.end(1), found.end())
        at = found.end()
    return at


class _Inline:
    """Reads the marks within a line."""

    def __init__(self, text: str, begin: int, result: Rewriting, *, table: bool) -> None:
        self._text = text
        self._kept = begin
        self._result = result
        self._table = range(begin, len(text.rstrip())) if table else None
        self._ends: dict[int, int] = {}  # brackets that close the text of a link, and where the link ends

    def read(self) -> None:
        text, at = self._text, self._kept
        while (found := _INLINE.search(text, at)) is not None:
            at = max(self._mark(found), found.start() + 1)
        self._keep(len(text))

    def _keep(self, end: int) -> None:
        if end > self._kept:
            self._result.keep(self._text[self._kept : end], self._kept)
            self._kept = end

    def _drop(self, start: int, end: int, spoken: str = "") -> int:
        self._keep(start)
        self._result.say(spoken, start, end)
        self._kept = max(end, self._kept)
        return self._kept

    def _blanks_before(self, at: int) -> int:
        while at > self._kept and self._text[at - 1] in BLANKS:
            at -= 1
        return at

    def _mark(self, found: re.Match[str]) -> int:
        """Deal with one mark; where to go on."""
        text, at, end = self._text, found.start(), found.end()
        if found["emoji"] is not None:
            return self._emoji(at, end)
        if found["word"] is not None:
            return self._address(at)
        match text[at]:
            case "\\" if text[end : end + 1] in _ESCAPED and end < len(text):
                return self._drop(at, end)
            case "`":
                return self._drop(at, end)
            case "[" | "!":
                return self._bracket(at, end)
            case "]":
                return self._closing(at, end)
            case "<":
                return self._angle(at, end)
            case "&" if (entity := _ENTITY.match(text, at)) is not None:
                return self._reference(entity)
            case "|":
                return self._pipe(at)
            case "*" | "_" | "~" if self._emphasizes(at, end):
                return self._drop(at, end)
            case "_" if self._joins_words(at, end):
                return self._drop(at, end, " ")
        return end

    def _address(self, at: int) -> int:
        """Marks within an address belong to it."""
        begin = scheme_end(self._text, at)
        if begin is None:
            return at + 1
        while (
            begin < len(self._text) and self._text[begin] not in ' \t\n()[]<>"`*|\u00a0' and begin < at + TARGET_LIMIT
        ):
            begin += 1
        return begin

    def _bracket(self, at: int, end: int) -> int:
        if (note := _FOOTNOTE.match(self._text, at)) is not None:
            return self._drop(at, note.end())
        link = _LINK.match(self._text, at)
        if link is None:
            return end
        self._ends[link.end(1)] = link.end()
        return self._drop(at, link.start(1))

    def _closing(self, at: int, end: int) -> int:
        if (link_end := self._ends.pop(at, None)) is not None:
            return self._drop(at, link_end)
        left_over = _LEFT_OVER.match(self._text, at)
        return end if left_over is None else self._drop(at, left_over.end())

    def _angle(self, at: int, end: int) -> int:
        text = self._text
        if (comment := _COMMENT.match(text, at)) is not None:
            return self._drop(at, comment.end())
        if (link := _AUTOLINK.match(text, at)) is not None:
            self._drop(at, at + 1)
            self._keep(link.end(1))
            return self._drop(link.end(1), link.end())
        tag = _TAG.match(text, at)
        if tag is None:
            return end
        name = tag[1].lower()
        if name not in _ELEMENTS:
            return tag.end()
        return self._drop(at, tag.end(), " " if name in _SEPARATING else "")

    def _reference(self, entity: re.Match[str]) -> int:
        character = html.unescape(entity[0])
        if character == entity[0]:
            return entity.end()
        return self._drop(entity.start(), entity.end(), " " if character.isspace() else character)

    def _pipe(self, at: int) -> int:
        """Between two cells a comma, at either end of a row nothing; elsewhere a pipe needs a blank on both sides."""
        text = self._text
        run = _PIPES.match(text, at)
        end = at + 1 if run is None else run.end()
        start = self._blanks_before(at)
        if self._table is not None:
            first, last = at == self._table.start, end >= self._table.stop
            return self._drop(at if first else start, end) if first or last else self._comma(start, end)
        alone = start < at and text[at + 1 : at + 2] in ("", " ", "\t") and end < len(text)
        return self._comma(start, end) if alone else end

    def _comma(self, start: int, end: int) -> int:
        """The comma is a mark of the word before, which is written without it."""
        self._keep(start)
        self._result.say(",", start, start)
        return self._drop(start, end, " ")

    def _emoji(self, at: int, end: int) -> int:
        run = self._text[at:end]
        if set(run) <= {"\u200d"} or run in _NO_EMOJI:
            return end
        start = at
        if self._text[end : end + 1] in ("", *BLANKS, *".,!?;:)\n"):
            start = self._blanks_before(at)
        return self._drop(start, end)

    def _emphasizes(self, at: int, end: int) -> bool:
        """Whether a run of marks stands at the beginning or the end of words, or in the middle of one with another."""
        text = self._text
        before, after = text[at - 1 : at] if at else " ", text[end : end + 1] or " "
        if before.isspace() and after.isspace():
            return False
        mark = text[at]
        if mark == "*" and end - at > 3:
            return False
        if not (before.isalnum() and after.isalnum()):
            return mark != "_" or before in _OPENERS or after in _CLOSERS
        if mark == "_" or (before.isdigit() and after.isdigit()):
            return False
        around = text[max(0, at - 64) : at].split()[-1:] + text[end : end + 64].split()[:1]
        return any(mark * (end - at) in part for part in around)

    def _joins_words(self, at: int, end: int) -> bool:
        """Whether it stands between the words of a name, as in snake_case."""
        before, after = self._text[at - 1 : at], self._text[end : end + 1]
        token = self._text[max(0, at - 64) : at].split()[-1:]
        in_address = bool(token) and any(mark in token[0] for mark in "@#/") or self._rest_is_address(end)
        return before.isalnum() and after.isalnum() and not in_address

    def _rest_is_address(self, end: int) -> bool:
        rest = self._text[end : end + 64].split()[:1]
        return bool(rest) and ("@" in rest[0] or ".com" in rest[0])
