"""Text to the phonemes that Kokoro was trained on, by misaki, word by word. Importing this imports none of it.

English is looked up in misaki's dictionaries. Its own way to do so tells a verb from a noun by a spaCy model, which is
no Python package to be had from an index; without that model, words are told apart by a few rules here, and only the
likes of "to record" and "a record" lose by it. Japanese, which eSpeak NG cannot read, is misaki's where its package for
that is installed, and so is Chinese. Everything else, and every word the dictionaries lack, is eSpeak NG's.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from models.errors import InvalidInput
from models.kokoro_text import Piece, Span, align, words_of
from models.torch_runtime import without_warnings

ENGLISH = {"en-us": False, "en-gb": True}
"""Tags of English, and whether it is British."""
ESPEAK = {"zh": "cmn", "fr": "fr-fr", "pt": "pt-br"}
"""Tags that eSpeak NG has under another name, or with a region."""
TAGGER = "en_core_web_sm"
_RUN = 24
"""Words that are spoken as one run at most, where no mark ends it before."""
_MARKS = {
    "«": "“", "»": "”", "„": "“", "‹": "“", "›": "”", "「": "“", "」": "”", "『": "“", "』": "”", "《": "“", "》": "”",
    "（": "(", "）": ")", "[": "(", "]": ")", "【": "(", "】": ")", "。": ".", "、": ",", "，": ",", "．": ".",
    "；": ";", "：": ":", "！": "!", "？": "?", "،": ",", "؛": ";", "؟": "?", "।": ".", "॥": ".", "–": "—", "‥": "…",
}  # fmt: skip
"""Marks of other scripts as the model knows them."""
_LETTERS = re.compile(r"[^\W\d_](?:\.[^\W\d_])+")


class Phonemizer(Protocol):
    """Turns a text of one language into pieces. One thread at a time."""

    def __call__(self, text: str) -> list[Piece]: ...


class Phonemizers:
    """The phonemizers of a process, made when their language is first asked for."""

    def __init__(self) -> None:
        self._made: dict[str, Phonemizer] = {}
        self._lock = threading.Lock()

    def pieces(self, text: str, language: str) -> list[Piece]:
        """A text in a language given by a BCP 47 tag. Raises: InvalidInput for a language that nobody here speaks."""
        tag = language.strip().lower().replace("_", "-")
        # eSpeak NG is one per process, and no two threads may use it.
        with self._lock:
            for broader in _broader(tag):
                if (phonemizer := self._phonemizer(broader)) is not None:
                    return phonemizer(_speakable(text))
        raise InvalidInput(f"This model cannot speak the language {language!r}.", field="language")

    def _phonemizer(self, tag: str) -> Phonemizer | None:
        if tag not in self._made:
            with without_warnings():
                phonemizer = _make(tag)
            if phonemizer is None:
                return None
            self._made[tag] = phonemizer
        return self._made[tag]


def _broader(tag: str) -> Iterator[str]:
    """A tag and ever broader ones: `zh-hant-tw`, `zh-hant`, `zh`. English that is no other is American."""
    while tag:
        yield "en-us" if tag == "en" else tag
        tag = tag.rpartition("-")[0]


def _make(tag: str) -> Phonemizer | None:
    name = ESPEAK.get(tag, tag)
    if tag in ENGLISH:
        return _English(ENGLISH[tag])
    if tag == "ja":
        if not _installed("fugashi", "jaconv", "unidic"):
            raise InvalidInput("Japanese needs a package more: pip install 'misaki[ja]'", field="language")
        return _ByRuns(importlib.import_module("misaki.ja").JAG2P())
    if tag == "zh" and _installed("jieba", "pypinyin", "cn2an"):
        return _ByRuns(importlib.import_module("misaki.zh").ZHG2P())
    if name in _espeak_backend().supported_languages():
        rewrite = importlib.import_module("misaki.espeak").EspeakG2P(language=name)
        rewrite.backend = _backend(name)
        return _ByRuns(rewrite)
    return None


def _installed(*packages: str) -> bool:
    return all(importlib.util.find_spec(package) is not None for package in packages)


def _espeak_backend() -> Any:
    logging.getLogger("phonemizer").setLevel(logging.ERROR)  # it warns of every word in another script
    importlib.import_module("misaki.espeak")  # tells phonemizer where the library is
    return importlib.import_module("phonemizer.backend").EspeakBackend


def _backend(language: str) -> Any:
    """What misaki makes itself, but without marks in the middle of words, such as 1,234, taken for pauses."""
    return _espeak_backend()(
        language=language,
        punctuation_marks="\x00",
        preserve_punctuation=True,
        with_stress=True,
        tie="^",
        language_switch="remove-flags",
    )


class _ByRuns:
    """A language whose phonemes come for a run of words at once; `rewrite` is misaki's way to them."""

    def __init__(self, rewrite: Callable[[str], tuple[str, object]]) -> None:
        self._rewrite = rewrite

    def __call__(self, text: str) -> list[Piece]:
        """The text in pieces; a run of words between marks is spoken as one."""
        pieces: list[Piece] = []
        run: list[Span] = []
        for word in words_of(text):
            if run and (word.before or len(run) == _RUN):
                pieces += self._spoken(text, run)
                run = []
            pieces += _marks(word.before)
            if word.span.end > word.span.start:
                run.append(word.span)
            if word.after:
                pieces += self._spoken(text, run)
                run = []
                pieces += _marks(word.after)
            if word.spaced and not run:
                pieces.append(Piece(" "))
        return pieces + self._spoken(text, run)

    def _spoken(self, text: str, run: Sequence[Span]) -> list[Piece]:
        """A run of words, and a space behind it if there is one in the text."""
        if not run:
            return []
        groups = self._phonemes(text[run[0].start : run[-1].end]).split()
        alone = [self._phonemes(text[slice(*word)]) for word in run]
        pieces: list[Piece] = []
        for piece in align(run, alone, groups):
            pieces += [Piece(" "), piece]
        spaced = run[-1].end < len(text) and text[run[-1].end].isspace()
        return pieces[1:] + [Piece(" ")] * spaced

    def _phonemes(self, text: str) -> str:
        return str(self._rewrite(text)[0])


class _English:
    """American or British English by misaki's dictionaries."""

    def __init__(self, british: bool) -> None:
        module = importlib.import_module("misaki.en")
        fallback = importlib.import_module("misaki.espeak").EspeakFallback(british=british)
        fallback.backend = _backend("en-gb" if british else "en-us")
        if _installed(TAGGER):
            self._speak = module.G2P(british=british, fallback=fallback, unk="")
        else:
            self._speak = _by_rules(module, british, fallback)

    def __call__(self, text: str) -> list[Piece]:
        """The text in pieces, one for each of misaki's tokens and one for each space."""
        _, tokens = self._speak(text, preprocess=False)
        words = [word.span for word in words_of(text)]
        pieces: list[Piece] = []
        at = 0
        for token in tokens:
            at = max(text.find(token.text, at), at)
            end = at + len(token.text)
            spoken = token.phonemes or ""
            if any(map(str.isalpha, spoken)):
                inside = tuple(word for word in words if word.start < end and word.end > at)
                pieces.append(Piece(spoken, inside))
            else:
                pieces += _marks(spoken)
            if token.whitespace:
                pieces.append(Piece(" "))
            at = end
            while words and words[0].end <= at:
                words.pop(0)
        return pieces


def _by_rules(module: Any, british: bool, fallback: Any) -> Any:
    """misaki's G2P, its tokens made by rules in place of spaCy."""

    class English(module.G2P):  # type: ignore[misc]
        def __init__(self) -> None:
            self.version, self.british, self.unk = None, british, ""
            self.lexicon, self.fallback = module.Lexicon(british), fallback

        def tokenize(self, text: str, tokens: object, features: object) -> list[Any]:
            kept = self.lexicon.golds.__contains__
            return [_token(module, *fields) for fields in tagged(text, kept)]

    return English()


def _token(module: Any, text: str, tag: str, whitespace: str) -> Any:
    more = module.MToken.Underscore(is_head=True, num_flags="", prespace=False)
    return module.MToken(text=text, tag=tag, whitespace=whitespace, _=more)


def tagged(text: str, known: Callable[[str], bool]) -> Iterator[tuple[str, str, str]]:
    """English tokens as (text, tag of the Penn Treebank, white space behind), as far as misaki asks for tags.

    `known` tells of a word with a full stop whether it is an abbreviation.
    """
    words = list(words_of(text))
    for index, word in enumerate(words):
        start, end = word.span
        before, after = word.before, word.after
        following = text[slice(*words[index + 1].span)] if index + 1 < len(words) else ""
        if after.startswith(".") and (known(text[start : end + 1]) or _abbreviated(text[start:end], following)):
            end, after = end + 1, after[1:]
        tokens = [(mark, _tag_of_mark(mark, opens=True)) for mark in before]
        core = text[start:end]
        if core[:1] in "$£€" and core[1:2].isdigit():
            tokens.append((core[0], "$"))
            core = core[1:]
        if core:
            tokens.append((core, _tag_of_word(core, "" if after else following)))
        tokens += [(mark, _tag_of_mark(mark, opens=False)) for mark in after]
        spaces = len(tokens) - 1
        for position, (token, tag) in enumerate(tokens):
            yield token, tag, " " if word.spaced and position == spaces else ""


def _abbreviated(word: str, following: str) -> bool:
    """Whether the full stop behind a word may be its own: as in "the U.S. Navy", and in "J. Smith"."""
    return _LETTERS.fullmatch(word) is not None or (len(word) == 1 and word.isupper() and following[:1].isupper())


def _tag_of_mark(mark: str, *, opens: bool) -> str:
    mark = _MARKS.get(mark, mark)
    if mark in ".!?":
        return "."
    if mark == ",":
        return ","
    if mark in "([{":
        return "-LRB-"
    if mark in ")]}":
        return "-RRB-"
    if mark == "“" or (mark == '"' and opens):
        return "``"
    return "''" if mark in '”"' else ":"


def _tag_of_word(word: str, following: str) -> str:
    """The tags that change how a word is spoken; "" is what the dictionaries call the default."""
    lower = word.lower()
    if word[0].isdigit() or (word[0] == "-" and word[1:2].isdigit()):
        return "CD"
    if lower in ("a", "an", "the"):
        return "DT" if following else "NN"
    if lower == "used":
        return "VBD" if following.lower() == "to" else ""
    return {"i": "PRP", "to": "TO", "in": "IN"}.get(lower, "")


def _marks(marks: str) -> list[Piece]:
    return [Piece(_MARKS.get(mark, mark)) for mark in marks]


def _speakable(text: str) -> str:
    """The text with as many characters, all of which eSpeak NG can be given: its line ends are ends of texts."""
    return "".join(" " if not character.isprintable() else character for character in text)
