"""What holds of every text, whatever is in it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import FrameType

import pytest
from hypothesis import given, settings, strategies as st

from streaming import (
    normalization,
    normalization_dates as dates,
    normalization_quantities as quantities,
    normalization_words as words,
)
from streaming.normalization import NormalizedText, normalize, safe_end
from streaming.normalization_english import ENGLISH as ENGLISH_LANGUAGE
from tests.streaming.normalization_sentences import ENGLISH, OTHERS

LANGUAGES = st.sampled_from(("en", "en-GB", "de", "fr", "es", "es-MX", "it", "pt", "pt-BR", "zh", ""))
SIGNS = """
0 5 1990 $ € - – . , : / | ** * _ ` ``` ~~ # - > [ ] ( ) < > ]( & &amp; <!-- --> \\ ' " ² ½ 👍 ß İ 。 你好
"""
BREAKS = ("\n", "\n- ", "\n# ", "\n| ", " | ", "\n```", "\u00a0", "\u2028", "\r\n", "\x00", "\ud800", "\u200d")
SENTENCES = " ".join((*(entry[0] for entry in ENGLISH), *(entry[1] for entry in OTHERS)))
PARTS = st.sampled_from((*re.findall(r"\s+|\S+", SENTENCES), *SIGNS.split(), *BREAKS))
TEXTS = st.lists(PARTS | st.text(max_size=4) | st.just(" "), max_size=14).map("".join)
WORDS = st.text("abcdefghijklmnopqrstuvwxyzäöüéèçñßабвгδεζ", min_size=2, max_size=9)
DICTIONARIES = st.dictionaries(st.sampled_from(("it", "Dr.", "5", "SQL", "the", "km", "İ", "ß")), WORDS, max_size=4)


def check_spans(written: str, normalized: NormalizedText) -> None:
    spoken_end = start = end = 0
    for span in normalized.spans:
        assert span.spoken_start == spoken_end < span.spoken_end
        assert start <= span.start <= span.end <= len(written)
        assert end <= span.end
        if span.verbatim:
            assert written[span.start : span.end] == normalized.text[span.spoken_start : span.spoken_end]
        spoken_end, start, end = span.spoken_end, span.start, span.end
    assert spoken_end == len(normalized.text)


@given(TEXTS | st.text(), LANGUAGES, DICTIONARIES)
@settings(max_examples=400, deadline=None)
def test_spans_cover_what_is_spoken_and_lead_into_what_is_written(
    written: str, language: str, dictionary: dict[str, str]
) -> None:
    check_spans(written, normalize(written, language, dictionary=dictionary))


@given(TEXTS, LANGUAGES, st.integers(), st.integers())
@settings(max_examples=200, deadline=None)
def test_sources_follow_each_other(written: str, language: str, first: int, second: int) -> None:
    normalized = normalize(written, language)
    low, high = sorted(place % (len(normalized.text) + 1) for place in (first, second))
    start, end = normalized.source(low, high)
    assert 0 <= start <= end <= len(written)
    later_start, later_end = normalized.source(high, len(normalized.text))
    assert start <= later_start
    assert end <= later_end


@given(TEXTS, LANGUAGES, st.integers(0, 200))
@settings(max_examples=1500, deadline=None)
def test_what_is_safe_is_read_as_it_is_in_the_whole(written: str, language: str, arrived: int) -> None:
    safe = safe_end(written[:arrived], language)
    assert 0 <= safe <= min(arrived, len(written))
    parts = [normalize(part, language) for part in (written[:safe], written[safe:])]
    assert "".join(part.text for part in parts) == normalize(written, language).text


@given(TEXTS, LANGUAGES)
@settings(max_examples=100, deadline=None)
def test_a_text_read_as_it_arrives_is_read_as_at_once(written: str, language: str) -> None:
    spoken, taken = "", 0
    for arrived in range(len(written)):
        safe = taken + safe_end(written[taken:arrived], language)
        spoken += normalize(written[taken:safe], language).text
        taken = safe
    assert spoken + normalize(written[taken:], language).text == normalize(written, language).text


@given(st.lists(WORDS.filter(str.islower), min_size=1, max_size=12), LANGUAGES)
@settings(max_examples=100, deadline=None)
def test_words_stay_words(plain: list[str], language: str) -> None:
    written = " ".join(plain) + "!"
    assert normalize(written, language).text == written


def test_what_is_safe_keeps_up_with_the_text() -> None:
    prose = "The people of the town said that it would go on, as it had for days, and nobody had a better idea. "
    waits = [arrived - safe_end((prose * 3)[:arrived], "en") for arrived in range(40, 3 * len(prose))]
    assert max(waits) < 20


# ------------------------------------------------------------------ the work that a text is

UNITS = """
1 . * 1. a. - -1 -- $1 1/ 1: 1, [ [a ]( <a <!-- | |a _ _a ~~ ` \\ # ( a@ @a & &a http:// https://a ' '1 ² ½ 👍 A. 中 é
"""
SPACED_UNITS = (
    "\n- ",
    "\n|",
    "\n```",
    "a ",
    "1 ",
    "Dr. ",
    "I ",
    "5 h ",
    "* ",
    "> ",
    "the ",
    " ",
    "St. Louis ",
    "\u200d",
)


def work(written: str, language: str) -> int:
    """Calls of our functions and of the interpreter's while a text is read."""
    calls = 0

    def count(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        normalize(written, language)
        safe_end(written, language)
    finally:
        sys.setprofile(before)
    return calls


@pytest.mark.parametrize("unit", [*UNITS.split(), *SPACED_UNITS])
@pytest.mark.parametrize("language", ["en", "de", ""])
def test_twice_the_text_is_twice_the_work(unit: str, language: str) -> None:
    normalize(unit * 50, language)  # tables are built once
    once, twice = (work(unit * count, language) for count in (400, 800))
    assert twice <= 2.2 * once + 200


@pytest.mark.parametrize("run", ["1", "*", "a", " ", "\n", "中", "-", "#", "👍"])
def test_a_long_run_of_one_kind_is_passed_at_once(run: str) -> None:
    written = run * 200_000
    check_spans(written, normalize(written, "en"))
    assert work(written, "en") < 500


def patterns() -> Iterator[tuple[str, re.Pattern[str]]]:
    """Every pattern of the normaliser, those that are made of tables as well."""
    tables = (quantities._magnitude, quantities._money, quantities._measure, quantities._currency_first)
    for table in tables:
        yield table.__name__, table(ENGLISH_LANGUAGE)
    yield "dates", dates._patterns(ENGLISH_LANGUAGE)[0]
    yield "dates", dates._patterns(ENGLISH_LANGUAGE)[1]
    yield "abbreviations", words._abbreviations(ENGLISH_LANGUAGE)[1]
    for path in sorted(Path(str(normalization.__file__)).parent.glob("normalization*.py")):
        for name, value in vars(import_module(f"streaming.{path.stem}")).items():
            if isinstance(value, re.Pattern):
                yield f"{path.stem}.{name}", value


def test_no_pattern_looks_further_than_it_is_told_to() -> None:
    """A repetition without a bound where nothing is passed by it would be walked again from every place within it."""
    found = dict(patterns())
    assert len(found) > 60
    assert {name for name, pattern in found.items() if ENDLESS.search(_signs(pattern.pattern))} == PASSING


def _signs(pattern: str) -> str:
    """A pattern whose sets and quoted characters are letters."""
    return re.sub(r"\[(?:\\.|[^\]\\])+\]", "x", re.sub(r"\\[^\[\]]", "y", pattern))


ENDLESS = re.compile(r"[*+]|,\}")
PASSING = {
    "normalization._PART",
    "normalization_cuts._GAP",
    "normalization_dictionary._WORD",
    "normalization_markup._INLINE",
    "normalization_markup._PIPES",
    "normalization_signs._DOTS",
    "normalization_spanish._HUNDREDS",  # reads the words of a number
}
"""Patterns whose matches are passed at once, whatever they are."""
