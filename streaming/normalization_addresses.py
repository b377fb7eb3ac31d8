"""Addresses of the net, as they are read out: URLs, e-mail, @handles, #hashtags and names of files.

What follows "?" or "#" in a URL is not read, nor is the scheme or a leading "www". Where the words for the signs of a
language are not known, an address loses its scheme and stays as it is otherwise.
"""

from __future__ import annotations

import re

from streaming.normalization_languages import Language, words
from streaming.normalization_numbers import cardinal, digit_words
from streaming.normalization_reader import Found, Reader

_LABEL = r"[A-Za-z0-9\u00c0-\u024f](?:[A-Za-z0-9\u00c0-\u024f_-]{0,62})"
_HOST = rf"{_LABEL}(?:\.{_LABEL}){{0,8}}"
_PATH = r"(?:/[A-Za-z0-9\u00c0-\u024f%._~+@:,;=!$&'()*/-]{0,1000})?"
_REST = r"(?:\?[^\s<>\"]{0,1000})?(?:#[^\s<>\"]{0,300})?"
_SCHEMED = re.compile(rf"(?:https?|ftp|wss?)://({_HOST})(:[0-9]{{1,5}})?({_PATH}){_REST}", re.I)
_BARE = re.compile(
    rf"((?:www\.)?{_LABEL}(?:\.{_LABEL}){{0,6}}\.([A-Za-z]{{2,10}}))(?![\w@-])(:[0-9]{{1,5}})?({_PATH}){_REST}"
)
_LOCAL = re.compile(rf"(localhost)(:[0-9]{{1,5}})({_PATH}){_REST}")
_EMAIL = re.compile(rf"(?:mailto:)?([A-Za-z0-9][A-Za-z0-9._%+-]{{0,63}})@({_LABEL}(?:\.{_LABEL}){{1,5}})(?!\w)")
_HANDLE = re.compile(r"@([A-Za-z_][A-Za-z0-9_]{0,49})(?!\w)")
_HASHTAG = re.compile(r"#([^\W\d_][\w]{0,79})")
_FILE = re.compile(
    r"([A-Za-z0-9_][A-Za-z0-9_-]{0,62}(?:\.[A-Za-z0-9_-]{1,30}){0,3})"
    r"\.(py|js|ts|tsx|jsx|md|txt|json|ya?ml|toml|csv|pdf|png|jpe?g|gif|svg|html?|css|zip|gz|exe|mp3|mp4|wav|cpp|rs|sh|xml|ini|docx?|xlsx?|pptx?)"
    r"(?!\w|\.\w)"
)
_TRAILING = ".,;:!?'\")]}*_"
_SURE = words("com org net edu gov mil io ai dev app co eu info uk de fr us ca biz tv xyz online cloud tech")
"""Top-level names that make a domain of what has no scheme and no path; others are words too ("done.it")."""
_TOP = _SURE | words("es it pt nl be at ch se no fi dk pl ru jp cn in br au nz me site shop blog ly gl sh")
_SPOKEN_TOPS = words("com org net gov mil dev app co info biz online cloud tech site shop blog")
_SPOKEN_ENDINGS = words("zip gif ini toml yaml yml json jpeg wav")
_TOKEN = re.compile(r"[0-9]{1,64}|[^\W\d_]{1,200}|.", re.S)
_CAMEL = re.compile(r"[A-Z]?[a-z\u00df-\u024f]{1,80}|[A-Z]{1,80}(?![a-z])|[0-9]{1,64}|_{1,80}|.", re.S)


def scheme_end(text: str, at: int) -> int | None:
    """Where the scheme that begins at a place ends, if an address follows."""
    found = _SCHEMED.match(text, at)
    return None if found is None else found.start(1)


def url(reader: Reader, at: int) -> Found | None:
    """ "example.com/path", with or without its scheme."""
    if not reader.begins_word(at) or reader.at(at - 1) in ("@", "."):
        return None
    text = reader.text
    found = _SCHEMED.match(text, at) or _LOCAL.match(text, at)
    if found is not None:
        host, port, path = found.groups()
    elif (bare := _BARE.match(text, at)) is not None:
        found = bare
        host, top, port, path = bare.groups()
        allowed = _TOP if path or port or host.startswith("www.") else _SURE
        if top.lower() not in allowed or not (top.islower() or host.isupper()):
            return None
    else:
        return None
    end = found.end()
    while end > found.end(1) and text[end - 1] in _TRAILING and not _closes(text, at, end):
        end -= 1
    path = path[: max(0, end - found.start(len(found.groups())))]
    return Found(end, _address(reader, host, port or "", path.rstrip("/")))


def _closes(text: str, start: int, end: int) -> bool:
    """Whether the bracket right before `end` belongs to the address."""
    return text[end - 1] == ")" and text.count("(", start, end) >= text.count(")", start, end)


def _address(reader: Reader, host: str, port: str, path: str) -> str:
    labels = host.removeprefix("www.").split(".")
    if len(labels) > 1 and len(labels[-1]) < 5 and labels[-1].lower() not in _SPOKEN_TOPS:
        labels[-1] = labels[-1].upper()
    words = [_spell(reader, ".".join(labels))]
    if port:
        words.append(f"{reader.language.address_signs[':']} {digit_words(port, reader.language)}")
    if path:
        words.append(_spell(reader, path))
    return " ".join(words)


def _spell(reader: Reader, written: str) -> str:
    """Words, numbers and the names of signs."""
    words: list[str] = []
    for token in _TOKEN.findall(written):
        if token.isascii() and token.isdigit():
            words.append(_number(token, reader.language))
        elif token[0].isalpha():
            words.append(reader.pronunciations.say(token))
        else:
            words += filter(None, (reader.language.address_signs.get(token) or reader.language.signs.get(token),))
    return " ".join(words)


def _number(digits: str, language: Language) -> str:
    """Short ones and years as numbers, others digit by digit."""
    if digits[0] == "0" or len(digits) > 4 or len(digits) == 3:
        return digit_words(digits, language)
    return language.grammar.year(int(digits)) if len(digits) == 4 else cardinal(int(digits), language)


def email(reader: Reader, at: int) -> Found | None:
    """ "me@example.com", with or without "mailto:"."""
    found = _EMAIL.match(reader.text, at) if reader.begins_word(at) else None
    if found is None:
        return None
    at_sign = reader.language.address_signs["@"]
    return Found(found.end(), f"{_spell(reader, found[1])} {at_sign} {_address(reader, found[2], '', '')}")


def handle(reader: Reader, at: int) -> Found | None:
    """ "@somebody"."""
    found = _HANDLE.match(reader.text, at) if reader.begins_word(at) else None
    if found is None:
        return None
    return Found(found.end(), f"{reader.language.address_signs['@']} {_spell(reader, found[1])}")


def hashtag(reader: Reader, at: int) -> Found | None:
    """ "#OpenSource", word by word."""
    found = _HASHTAG.match(reader.text, at) if reader.begins_word(at) else None
    if found is None:
        return None
    words = [
        _number(word, reader.language) if word.isascii() and word.isdigit() else reader.pronunciations.say(word)
        for word in _CAMEL.findall(found[1])
        if not word.startswith("_")
    ]
    return Found(found.end(), " ".join((reader.language.hashtag, *words)))


def file_name(reader: Reader, at: int) -> Found | None:
    """ "main.py": the name and its ending."""
    found = _FILE.match(reader.text, at) if reader.begins_word(at) else None
    if found is None or not any(character.isalpha() for character in found[1]):
        return None
    ending = found[2] if found[2] in _SPOKEN_ENDINGS else found[2].upper()
    words = " ".join(_spell(reader, found[1]).split())
    return Found(found.end(), f"{words} {reader.language.address_signs['.']} {ending}")
