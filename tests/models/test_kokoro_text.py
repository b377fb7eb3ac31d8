"""Pieces, passes and times without a model."""

from __future__ import annotations

import pytest

from models.errors import InvalidInput
from models.kokoro_phonemes import tagged
from models.kokoro_text import Piece, Span, align, passes, timings, words_of
from models.kokoro_voices import Part, parse_mix

SPACE = Piece(" ")
LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz .,;!")


def word(text: str, start: int = 0) -> Piece:
    return Piece(text, (Span(start, start + len(text)),))


def spoken(rows: list[list[Piece]]) -> list[str]:
    return ["".join(piece.phonemes for piece in row) for row in rows]


def test_words_are_told_from_the_marks_around_them() -> None:
    text = '"Well-known," -5 — 你好…'
    found = [(text[slice(*each.span)], each.before, each.after, each.spaced) for each in words_of(text)]
    assert found == [
        ("Well-known", '"', ',"', True),
        ("-5", "", "", True),
        ("", "—", "", True),
        ("你", "", "", False),
        ("好", "", "", False),
        ("", "…", "", False),
    ]


@pytest.mark.parametrize(
    ("alone", "groups", "expected"),
    [
        (["wan", "ov", "tha"], ["wan", "ovtha"], [("wan", 1), ("ovtha", 2)]),
        (["in", "twenti wan", "lots"], ["in", "twenti", "wan", "lots"], [("in", 1), ("twenti wan", 1), ("lots", 1)]),
        # As many groups as words, and yet not one for one.
        (["ov", "tha", "twenti wan"], ["ovtha", "twenti", "wan"], [("ovtha", 2), ("twenti wan", 1)]),
        (["wan", "", "tu"], ["wan", "tu"], [("wan", 1), ("", 1), ("tu", 1)]),
        (["wan", "tu"], [], [("", 1), ("", 1)]),
    ],
)
def test_groups_go_to_the_words_that_sound_like_them(
    alone: list[str], groups: list[str], expected: list[tuple[str, int]]
) -> None:
    spans = [Span(index, index + 1) for index in range(len(alone))]
    pieces = align(spans, alone, groups)
    assert [(piece.phonemes, len(piece.words)) for piece in pieces] == expected
    assert [span for piece in pieces for span in piece.words] == spans


@pytest.mark.parametrize(
    ("most", "expected"),
    [
        (100, ["one two. three, four five"]),
        (15, ["one two.", "three,", "four five"]),
        (9, ["one two.", "three,", "four five"]),
        (5, ["one", "two.", "three", "four", "five"]),
    ],
)
def test_a_long_text_is_cut_at_its_best_mark(most: int, expected: list[str]) -> None:
    pieces = [word("one"), SPACE, word("two"), Piece("."), SPACE, word("three"), Piece(","), SPACE, word("four"), SPACE]
    assert spoken(list(passes([*pieces, word("five")], LETTERS, most))) == expected


def test_what_the_model_has_no_symbol_for_is_left_out_and_silence_is_no_pass() -> None:
    assert spoken(list(passes([Piece(" "), word("a1b2"), Piece("?")], LETTERS))) == ["ab"]
    assert list(passes([Piece("."), SPACE, Piece("!")], LETTERS)) == []


def test_a_word_longer_than_a_pass_keeps_its_span() -> None:
    rows = list(passes([word("abcdefgh")], LETTERS, 3))
    assert spoken(rows) == ["abc", "def", "gh"]
    assert [piece.words for row in rows for piece in row] == [(), (), (Span(0, 8),)]


def test_a_space_is_halved_between_words_and_a_mark_belongs_to_none() -> None:
    row = [word("ab"), SPACE, word("c", 3), Piece("."), SPACE, word("d", 6)]
    frames = [5, 2, 2, 4, 3, 7, 2, 1, 9]
    times = [(timing.start / 0.025, timing.end / 0.025) for timing in timings(row, frames, 0.0)]
    # The first token is heard for 5 - 3 frames.
    assert times == [pytest.approx(pair) for pair in [(2, 8), (8, 13), (21, 23)]]
    late = timings(row, frames, 10.0)
    assert late[0].start == pytest.approx(10.05)


def test_words_that_share_a_piece_share_its_time_and_a_word_of_several_pieces_has_all_of_theirs() -> None:
    shared = Piece("xyz", (Span(0, 2), Span(3, 4)))
    one, two = timings([shared], [3, 2, 2, 2, 1], 0.0)
    assert [one.end, two.start, two.end] == pytest.approx([0.1, 0.1, 0.15])
    (whole,) = timings([word("x", 0), word("y", 0)._replace(words=(Span(0, 1),))], [3, 1, 1, 1], 0.0)
    assert [whole.start, whole.end] == pytest.approx([0.0, 0.05])


def test_english_words_carry_the_tags_that_change_them() -> None:
    text = "Mr. A used to pay $5. (I read: vitamin A.)"
    found = [(token, tag) for token, tag, _ in tagged(text, {"Mr."}.__contains__)]
    assert found == [
        ("Mr.", ""), ("A", "DT"), ("used", "VBD"), ("to", "TO"), ("pay", ""), ("$", "$"), ("5", "CD"), (".", "."),
        ("(", "-LRB-"), ("I", "PRP"), ("read", ""), (":", ":"), ("vitamin", ""), ("A", "NN"), (".", "."),
        (")", "-RRB-"),
    ]  # fmt: skip
    assert "".join(token + space for token, _, space in tagged(text, {"Mr."}.__contains__)) == text


def test_the_shares_of_a_mix_add_up_to_one() -> None:
    known = {"af_bella", "af_sky"}
    assert parse_mix("af_bella(3)+af_sky(1)", known) == (Part("af_bella", 0.75), Part("af_sky", 0.25))
    assert parse_mix(" AF_SKY ", known) == (Part("af_sky", 1.0),)
    assert parse_mix("af_sky(0)+af_bella(.5)", known) == (Part("af_bella", 1.0),)
    for wrong in (
        "",
        "af_sky(x)",
        "af_sky(1",
        "af_sky()",
        "af_sky(1)(2)",
        "af_sky(9" + "9" * 400 + ")",
        "af_sky+" * 99,
    ):
        with pytest.raises(InvalidInput) as refusal:
            parse_mix(wrong, known)
        assert refusal.value.field == "voice"
