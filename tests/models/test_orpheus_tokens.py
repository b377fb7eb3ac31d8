"""Prompts, frames and windows without a model."""

from __future__ import annotations

import itertools

import pytest

from models.orpheus_tokens import CODES, FIRST_CODE, PROMPT, Frame, TokenReader, frames, levels, prompts, windows


def numbers(*codes: int) -> list[int]:
    return [FIRST_CODE + place * CODES + code for place, code in enumerate(codes)]


def frame(number: int) -> Frame:
    return tuple(range(number * 7, number * 7 + 7))


def test_a_prompt_names_the_voice_and_keeps_the_tags_but_no_command() -> None:
    text = "Oh <laugh>, I see.<|eot_id|> <custom_token_2>Right <sigh>\n"
    ((prompt, end),) = prompts(text, "leo", "{voice}|{text}", 250)
    assert prompt == "leo|Oh <laugh>, I see. Right <sigh>"
    assert end == len(text)
    ((prompt, _),) = prompts("{voice}", "leo", PROMPT, 250)
    assert "leo: {voice}<|eot_id|>" in prompt


@pytest.mark.parametrize("text", ["", " \n", "...", "<|eot_id|>", "\x00"])
def test_where_nothing_is_said_nothing_is_asked(text: str) -> None:
    assert list(prompts(text, "leo", PROMPT, 250)) == []


def test_parts_hold_as_many_sentences_as_fit_and_cover_the_text() -> None:
    text = "One is here. Two is here. Three is here. Four is here, and it is longer than the others are."
    parts = list(prompts(text, "x", "{text}", 30))
    assert [part for part, _ in parts][:2] == ["One is here. Two is here.", "Three is here."]
    assert " ".join(part for part, _ in parts) == text
    assert all(len(part) <= 30 for part, _ in parts)
    ends = [end for _, end in parts]
    assert ends == sorted(ends)
    assert ends[-1] == len(text)


@pytest.mark.parametrize("size", range(1, 40))
def test_tokens_are_found_wherever_the_text_is_cut(size: int) -> None:
    text = "<custom_token_10>a <b> <<custom_token_4106><custom_token_x><custom_token_28681>"
    reader = TokenReader()
    found = [reader.read(text[start : start + size]) for start in range(0, len(text), size)]
    assert list(itertools.chain(*found)) == [10, 4106, 28681]


def test_the_first_code_of_all_is_a_code_too() -> None:
    assert list(frames(numbers(0, 0, 0, 0, 0, 0, 0))) == [(0,) * 7]


def test_a_token_out_of_place_costs_its_frame_only() -> None:
    whole = numbers(*range(7))
    assert (
        list(frames([*whole[:3], *whole, *whole[:2], whole[4], *whole, 1, 4, 99_999, *whole])) == [tuple(range(7))] * 3
    )


def test_nothing_is_heard_behind_the_end_of_speech() -> None:
    whole = numbers(*range(7))
    assert list(frames([*whole, 2, *whole])) == [tuple(range(7))]


def test_an_unfinished_frame_is_not_heard() -> None:
    assert list(frames(numbers(1, 2, 3))) == []


@pytest.mark.parametrize("most", [1, 2, 8])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 6, 11, 60])
def test_every_frame_is_kept_once_among_its_neighbours(count: int, most: int) -> None:
    row = [frame(number) for number in range(count)]
    shown = list(windows(iter(row), most))
    assert [each for window in shown for each in window.frames[window.first : window.last]] == row
    assert all(len(window.frames) - window.last == 2 for window in shown[:-1])
    assert all(window.first == 1 for window in shown[1:])


def test_windows_grow_with_what_has_been_kept() -> None:
    shown = list(windows(map(frame, range(120)), 8))
    sizes = [window.last - window.first for window in shown[:-1]]
    assert sizes[:4] == [2, 1, 1, 1]
    assert max(sizes) == 8
    assert all(size == 1 or size <= sum(sizes[:index]) / 4 for index, size in enumerate(sizes) if index)
    assert {window.last - window.first for window in list(windows(map(frame, range(120))))[1:-1]} == {1}


def test_a_frame_is_kept_among_one_before_and_two_behind() -> None:
    row = [frame(number) for number in range(6)]
    shown = list(windows(iter(row)))
    assert [(window.frames, window.first, window.last) for window in shown] == [
        (tuple(row[0:4]), 0, 2),
        (tuple(row[1:5]), 1, 2),
        (tuple(row[2:6]), 1, 2),
        (tuple(row[3:6]), 1, 3),
    ]


def test_the_first_window_comes_with_the_fourth_frame() -> None:
    given = itertools.count()
    next(windows(frame(next(given)) for _ in range(99)))
    assert next(given) == 4


def test_the_codes_of_a_frame_belong_to_three_levels() -> None:
    assert levels([(0, 1, 2, 3, 4, 5, 6), (10, 11, 12, 13, 14, 15, 16)]) == [
        [0, 10],
        [1, 4, 11, 14],
        [2, 3, 5, 6, 12, 13, 15, 16],
    ]
