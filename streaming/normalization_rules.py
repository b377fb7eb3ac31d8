"""Which rules are asked at a place, and in what order."""

from __future__ import annotations

from streaming.normalization_addresses import email, file_name, handle, hashtag, url
from streaming.normalization_codes import (
    card_number,
    chain,
    dimensions,
    dotted_number,
    idiom,
    ratio,
    scientific,
    telephone,
    version,
)
from streaming.normalization_dates import day_of_month, month_and_day, numeric_date, time_of_day
from streaming.normalization_english import pairs
from streaming.normalization_numbers import LISTED_DIGITS, cardinal, digit_words
from streaming.normalization_ordinals import decade, english_fraction, height, ordinal_number, short_year
from streaming.normalization_quantities import fraction, money, negative, quantity, vulgar_fraction
from streaming.normalization_reader import Found, Reader, Rule
from streaming.normalization_signs import (
    comma,
    dash,
    dots,
    fraction_alone,
    lone_sign,
    number_sign,
    operator,
    power,
    sign_of_number,
    single_sign,
    slash,
)
from streaming.normalization_words import abbreviation, roman_number, sharp

_ADDRESSES: tuple[Rule, ...] = (email, url, file_name)


def glued_digits(reader: Reader, at: int) -> Found | None:
    """Digits next to a letter: short ones are read as a number, longer ones digit by digit."""
    text, end = reader.text, at
    while end < len(text) and "0" <= text[end] <= "9" and end <= at + LISTED_DIGITS:
        end += 1
    digits = text[at:end]
    if len(digits) > LISTED_DIGITS:
        return None
    if (len(digits) > 1 and digits[0] == "0") or len(digits) > 4:
        words = digit_words(digits, reader.language)
    elif len(digits) == 4:
        words = pairs(int(digits)) if reader.language.english else cardinal(int(digits), reader.language)
    else:
        words = cardinal(int(digits), reader.language)
    before = " " if reader.at(at - 1).isalnum() else ""
    return Found(end, before + words + (" " if reader.at(end).isalpha() else ""))


def amount(reader: Reader, at: int) -> Found | None:
    """A number with what it counts, unless it is part of a name as "3D"."""
    found = quantity(reader, at)
    if found is None or not reader.at(found.end).isalpha():
        return found
    glued = glued_digits(reader, at)
    return glued if glued is not None and glued.end == found.end else Found(found.end, f"{found.spoken} ")


_DIGITS: tuple[Rule, ...] = (
    idiom, card_number, telephone, numeric_date, dotted_number, day_of_month, time_of_day, chain, ratio, scientific,
    height, ordinal_number, decade, dimensions, english_fraction, fraction, amount, glued_digits,
)  # fmt: skip
_WORDS: tuple[Rule, ...] = (month_and_day, money, abbreviation, roman_number, version, sharp)
_SIGNS: dict[str, tuple[Rule, ...]] = {
    **dict.fromkeys("$€£¥₹₩₽₺₿", (money,)),
    **dict.fromkeys("½⅓⅔¼¾", (vulgar_fraction,)),
    **dict.fromkeys("=×÷≤≥≠", (operator, sign_of_number)),
    **dict.fromkeys("<>±≈", (operator, sign_of_number)),
    **dict.fromkeys("'’", (short_year,)),
    **dict.fromkeys("&√∞π", (single_sign,)),
    **dict.fromkeys("²³^", (power,)),
    **dict.fromkeys("–−", (negative, operator, dash)),
    "-": (negative, operator, dash),
    "+": (telephone, sign_of_number, operator),
    "~": (sign_of_number,),
    "*": (operator,),
    "/": (operator, slash),
    "%": (lone_sign,),
    "§": (single_sign,),
    "@": (handle, lone_sign),
    "#": (number_sign, hashtag),
    "(": (telephone,),
    ".": (dots, fraction_alone),
    ",": (comma,),
}


def find_address(reader: Reader, at: int) -> Found | None:
    """An address, or the name of a file, that begins at a place."""
    return next((found for rule in _ADDRESSES if (found := rule(reader, at)) is not None), None)


def find(reader: Reader, at: int, end: int) -> Found | None:
    """What the first rule that fits has read from a place on; its run of letters or digits ends at `end`."""
    character = reader.text[at]
    if character.isalpha():
        rules = _WORDS
    elif character.isascii() and character.isdigit():
        rules = _DIGITS if reader.begins_word(at) else (glued_digits,)
    else:
        rules = _SIGNS.get(character, ())
    if character.isalnum() and _may_be_address(reader, end) and (address := find_address(reader, at)) is not None:
        return address
    for rule in rules:
        if (found := rule(reader, at)) is not None:
            return found
    return None


def _may_be_address(reader: Reader, end: int) -> bool:
    character = reader.at(end)
    return character in (".", ":", "@", "-", "_", "+", "%") or character.isalnum()
