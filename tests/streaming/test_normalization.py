"""What is written and what is spoken, and the way from one to the other."""

from __future__ import annotations

import pytest

from streaming.normalization import normalize, safe_end
from tests.streaming.normalization_sentences import ENGLISH, OTHERS, UNCHANGED


@pytest.mark.parametrize(("written", "spoken"), ENGLISH)
def test_english_is_spoken(written: str, spoken: str) -> None:
    assert normalize(written, "en").text == spoken


@pytest.mark.parametrize("written", UNCHANGED)
def test_what_is_plain_stays(written: str) -> None:
    normalized = normalize(written, "en")
    assert normalized.text == written
    assert all(span.verbatim for span in normalized.spans)


@pytest.mark.parametrize(("language", "written", "spoken"), OTHERS)
def test_other_languages_are_spoken(language: str, written: str, spoken: str) -> None:
    assert normalize(written, language).text == spoken


def test_the_table_is_long_and_says_nothing_twice() -> None:
    written = [*(entry[0] for entry in ENGLISH), *UNCHANGED, *(entry[0:2] for entry in OTHERS)]
    assert len(written) == len(set(written)) > 200


def written_words(text: str, language: str = "en", **pronunciations: str) -> list[str]:
    """For every spoken word the written one."""
    normalized = normalize(text, language, dictionary=pronunciations)
    words: list[str] = []
    end = 0
    for word in normalized.text.split():
        begin = normalized.text.index(word, end)
        end = begin + len(word)
        start, stop = normalized.source(begin, end)
        words.append(text[start:stop])
    return words


def test_every_spoken_word_is_a_written_one() -> None:
    assert written_words("Pay $5.20 now.") == ["Pay", *["$5.20"] * 5, "now."]
    assert written_words("At 3:05pm, then.") == ["At", *["3:05pm"] * 3, "3:05pm,", "then."]


def test_words_keep_their_marks_of_punctuation() -> None:
    assert written_words("He (Dr. No) left.") == ["He", "(Dr.", "No)", "left."]
    assert written_words("(5 km), yes") == ["(5 km", "5 km),", "yes"]


def test_marks_belong_to_no_word() -> None:
    assert written_words("A **bold** [big link](http://a.b) `x`") == ["A", "bold", "big", "link", "x"]
    assert written_words("un**bold**ed") == ["un**bold**ed"]
    assert written_words("It is **$5** million, ok") == ["It", "is", *(["$5** million"] * 2), "$5** million,", "ok"]
    assert written_words("# Title\n- item 5\n| a | b |") == ["Title", "item", "5", "a", "b"]


def test_parts_of_a_name_are_apart() -> None:
    assert written_words("H2O in R&D") == ["H", "2", "O", "in", "R", "&", "D"]


def test_the_dictionary_comes_before_the_rules() -> None:
    def spoken(text: str, **entries: str) -> str:
        return normalize(text, "en", dictionary=entries).text

    assert spoken("SQL, sql and SQLite", SQL="see quell") == "see quell, sql and SQLite"
    assert spoken("Nginx, NGINX's nginx", nginx="engine x") == "engine x, engine x's engine x"
    assert normalize("New York is new", "en", dictionary={"new": "nu", "new york": "noo yawk"}).text == "noo yawk is nu"
    assert normalize("Dr. No at 5G, not 5", "en", dictionary={"Dr.": "Dee Are", "5g": "fifth gen"}).text == (
        "Dee Are No at fifth gen, not five"
    )
    assert normalize("3 and 3.5", "en", dictionary={"3": "drei"}).text == "drei and three point five"
    assert normalize("**SQL** at sql.com", "en", dictionary={"sql": "sequel"}).text == "sequel at sequel dot com"
    assert normalize("hm yes", "zz", dictionary={"hm": ""}).text == " yes"
    assert normalize("**yes** hm", "en", dictionary={"hm": ""}).text == "yes "
    assert normalize("C++ or .NET", "zz", dictionary={"C++": "see", ".net": "dotnet"}).text == "see or dotnet"


def test_dictionary_words_lead_back_to_what_was_written() -> None:
    assert written_words("My SQL, ok", SQL="see quell") == ["My", "SQL", "SQL,", "ok"]


@pytest.mark.parametrize(
    ("arrived", "safe"),
    [
        ("It costs $5", "It costs"),
        ("It costs $5 ", "It costs"),
        ("It costs $5 million, and", "It costs"),
        ("It costs $5 million, and more", "It costs $5 million, and"),
        ("He was 3", "He was"),
        ("see https://exa", "see"),
        ("so **bo", "so"),
        ("read [the docs", "read"),
        ("read [the docs](http://a", "read"),
        ("read [the docs](http://a.b) now or", "read [the docs](http://a.b) now"),
        ("hi <a href=x", "hi"),
        ("meet Dr. ", "meet"),
        ("meet Dr. Smith here or", "meet Dr. Smith here"),
        ("in the 90s we", "in"),
        ("on Nov. 24, 2026 we met", "on Nov. 24, 2026 we"),
        ("of Louis ", "of"),
        ("| a | b", ""),
        ("one\n| a | b", "one"),
        ("word", ""),
        ("", ""),
    ],
)
def test_only_what_cannot_change_is_safe(arrived: str, safe: str) -> None:
    assert arrived[: safe_end(arrived, "en")] == safe
