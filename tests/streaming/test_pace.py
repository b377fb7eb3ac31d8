"""How large a piece may be: never so large that a listener runs dry, and as large as can be otherwise."""

from __future__ import annotations

from collections import deque
from itertools import pairwise

import pytest
from hypothesis import given, settings, strategies as st

from streaming.chunking import SHORT, take_piece
from streaming.pace import LONGEST_PIECE, LONGEST_WORK, MARGIN_SECONDS, SHORTEST_LIMIT, Pace
from streaming.text import TextPiece, split_sentences

CHAPTER = (
    "It was a quiet morning, and the boats lay still. Nobody spoke; the gulls did. By noon, however, the wind had come "
    "round to the north, the sky had darkened over the headland, and the oldest of the men went down to look.\n"
    "He said nothing. They pulled the boats up. That was all."
)


def pace_of(work_per_second: float, seconds_per_character: float = 0.065) -> Pace:
    pace = Pace()
    pace.learn(100, 100 * seconds_per_character, 100 * seconds_per_character * work_per_second)
    return pace


def waiting(text: str = CHAPTER) -> deque[TextPiece]:
    return deque(split_sentences(text))


def test_what_is_made_in_time_depends_on_the_engine_and_on_what_is_in_hand() -> None:
    pace = pace_of(0.6)
    assert pace.fitting(3.0) * 0.065 * 0.6 == pytest.approx(3.0 - MARGIN_SECONDS, abs=0.05)
    assert pace.fitting(6.0) > pace.fitting(3.0) > pace.fitting(1.0)
    assert pace_of(0.05).fitting(1.0) > pace.fitting(1.0)
    assert pace.work(pace.fitting(3.0)) <= 3.0


def test_a_fast_voice_says_more_characters_in_the_same_time() -> None:
    assert pace_of(0.5).fitting(3.0, speed=2.0) == pytest.approx(2 * pace_of(0.5).fitting(3.0), abs=1)


def test_a_piece_is_bounded_by_its_work_so_that_a_barge_in_wastes_little() -> None:
    assert pace_of(0.01).longest == LONGEST_PIECE
    assert pace_of(0.25).longest * 0.25 == pytest.approx(LONGEST_WORK)
    assert pace_of(2.0).longest == SHORTEST_LIMIT


def test_one_slow_piece_counts_at_once_and_is_forgotten_slowly() -> None:
    pace = pace_of(0.1)
    pace.learn(100, 6.5, 6.5)
    assert pace.work_per_second == pytest.approx(1.0)
    pace.learn(100, 6.5, 0.65)
    assert 0.1 < pace.work_per_second < 0.5


def test_waiting_for_a_place_is_reckoned_with() -> None:
    pace, idle = pace_of(0.5), pace_of(0.5)
    pace.waited(0.8)
    assert pace.fitting(2.0) < idle.fitting(2.0)
    assert pace.work(50) > idle.work(50)


def test_pieces_that_fit_are_spoken_together_up_to_the_end_of_a_paragraph() -> None:
    queue = waiting()
    piece = take_piece(queue, fitting=1000, most=1000, alone=False)
    assert piece.text == CHAPTER.partition("\n")[0]
    assert (piece.start, piece.end) == (0, len(piece.text))
    assert take_piece(queue, fitting=17, most=1000, alone=False).text == "\nHe said nothing."


def test_the_first_piece_of_an_answer_stays_alone() -> None:
    assert take_piece(waiting(), fitting=1000, most=1000, alone=True).text == CHAPTER[:48]


def test_a_sentence_that_does_not_fit_is_cut_at_a_clause_or_a_word() -> None:
    queue = waiting("By noon, however, the wind had come round to the north and the sky had darkened.")
    first = take_piece(queue, fitting=45, most=200, alone=False)
    assert first.text == "By noon, however, the wind had come round to"
    assert take_piece(queue, fitting=200, most=200, alone=False).text == " the north and the sky had darkened."
    cut = take_piece(waiting("In the summer of that year, nobody went."), fitting=30, most=200, alone=False)
    assert cut.text == "In the summer of that year,"


def test_no_single_word_is_left_over() -> None:
    text = "The boats lay still and nobody spoke all of the morning long."
    parts: list[str] = []
    queue = waiting(text)
    while queue:
        parts.append(take_piece(queue, fitting=len(text) - 3, most=200, alone=False).text)
    assert "".join(parts) == text
    assert min(map(len, parts)) > SHORT - 3


@settings(max_examples=100, deadline=None)
@given(
    work_per_second=st.floats(0.01, 0.9),
    hands=st.lists(st.floats(0.0, 12.0), min_size=3, max_size=40),
    most=st.integers(3, 300),
)
def test_whatever_is_in_hand_every_character_is_taken_once_in_order(
    work_per_second: float, hands: list[float], most: int
) -> None:
    pace, queue, pieces = pace_of(work_per_second), waiting(CHAPTER), list[TextPiece]()
    for hand in hands * 200:
        if not queue:
            break
        fitting = pace.fitting(hand)
        pieces.append(take_piece(queue, fitting=fitting, most=most, alone=hand < 0.1))
        assert len(pieces[-1].text.strip()) <= max(most, 1)
        assert pieces[-1].text.strip()
    assert not queue
    assert all(piece.text == CHAPTER[piece.start : piece.end] for piece in pieces)
    assert all(before.end == after.start for before, after in pairwise(pieces))


def test_a_piece_is_not_cut_within_what_is_read_as_one() -> None:
    text = "The new bridge will cost about five million pounds by the end."
    cut = take_piece(waiting(text), fitting=38, most=200, alone=False)
    assert cut.text == "The new bridge will cost about five"
    million = text.index("five"), text.index(" pounds")
    queue = waiting(text)
    safe = take_piece(
        queue, fitting=38, most=200, alone=False, safe=lambda _, at: million[0] if million[0] < at < million[1] else at
    )
    assert safe.text == "The new bridge will cost about"
    assert queue[0].text == " five million pounds by the end."
