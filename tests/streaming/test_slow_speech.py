"""Listeners of slow engines: nobody runs dry, pieces grow, and what is needed at once is asked for first."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings, strategies as st

from streaming.pace import LONGEST_PIECE, MARGIN_SECONDS, SHORTEST_LIMIT
from tests.streaming.slow_speech import REPLY, SECONDS_PER_CHARACTER, Heard, Reply
from tests.streaming.speaking import PER_CHARACTER, PLAIN, Conversation

STARVED = 0.02
"""Seconds without sound that count."""


def starved(heard: Heard) -> list[float]:
    return [gap for gap in heard.gaps if gap > STARVED]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("work", [0.01, 0.1, 0.3, 0.6, 0.9])
def test_nobody_runs_dry_while_text_comes_token_by_token(work: float, stream: bool) -> None:
    heard = Reply(REPLY * 3, [work], stream=stream).play()
    assert starved(heard) == []
    assert "".join(piece.text for piece in heard.pieces) == (REPLY * 3).rstrip()


def test_nor_when_the_work_is_uneven() -> None:
    assert starved(Reply(REPLY * 3, [0.6, 0.8, 0.4, 0.7, 0.5, 0.8]).play()) == []


def test_nor_when_the_text_comes_hardly_faster_than_it_is_spoken() -> None:
    assert starved(Reply(REPLY, [0.5], tokens_per_second=5.0).play()) == []


def test_a_fast_engine_speaks_whole_sentences_together() -> None:
    pieces = [piece.text for piece in Reply(REPLY * 3, [0.02]).play().pieces]
    assert len(pieces) <= 15
    assert all(piece.rstrip()[-1] in ".!,:" for piece in pieces)
    assert max(map(len, pieces)) * SECONDS_PER_CHARACTER > LONGEST_PIECE / 2
    assert max(map(len, pieces)) * SECONDS_PER_CHARACTER <= LONGEST_PIECE + 0.1


def test_a_slow_engine_is_given_no_piece_that_a_barge_in_would_waste_for_long() -> None:
    pieces = [piece.text for piece in Reply(REPLY * 2, [0.6]).play().pieces]
    assert max(map(len, pieces)) * SECONDS_PER_CHARACTER <= SHORTEST_LIMIT + 0.1


def test_the_first_piece_is_small_and_comes_as_soon_as_its_engine_can_make_it() -> None:
    work = 0.6
    heard = Reply(REPLY, [work]).play()
    first, second = heard.pieces[:2]
    assert (first.first, first.in_hand) == (True, 0.0)
    assert not second.first
    assert second.in_hand > 0
    assert len(first.text) <= 48
    written = 10 / 20  # the clause and the token after it
    assert heard.first_audio <= written + len(first.text) * SECONDS_PER_CHARACTER * work + 0.3


def test_a_writer_who_pauses_is_waited_for_while_there_is_something_to_hear() -> None:
    """Half a sentence is not spoken as long as the listener has the sentence before."""
    talk = Conversation()
    talk.append("One two three four. And then there")
    talk.finish(1)
    talk.read()
    in_hand = len("One two three four.") * PER_CHARACTER
    deadline = talk.session.deadline(talk.now)
    assert deadline is not None
    assert deadline == pytest.approx(in_hand - MARGIN_SECONDS, abs=0.05)
    talk.now = 0.7  # long after a listener who has nothing would have been given the half
    talk.read()
    assert talk.jobs == {}
    talk.now = deadline
    talk.read()
    (job,) = talk.jobs.values()
    assert job.speak.text == " And then"


def test_nobody_waits_for_a_writer_who_pauses_if_nothing_is_played_at_its_own_pace() -> None:
    talk = Conversation(PLAIN.changed({"paced": False}))
    talk.append("One two three four. And then there")
    talk.finish(1)
    talk.read()
    talk.now = 0.31
    talk.read()
    assert [job.speak.text for job in talk.jobs.values()] == [" And then"]


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    work=st.lists(st.floats(0.05, 0.6), min_size=1, max_size=6),
    words=st.lists(
        st.sampled_from(["one", "the", "harbour", "extraordinary", "No.", "well,", "so:", "Go!"]), min_size=30
    ),
    stream=st.booleans(),
)
def test_any_text_at_any_pace_below_the_bar_is_heard_without_a_gap(
    work: Sequence[float], words: list[str], stream: bool
) -> None:
    text = " ".join(words)
    heard = Reply(text, [max(work)], stream=stream).play()
    assert starved(heard) == []
    assert "".join(piece.text for piece in heard.pieces) == text


def test_words_of_one_letter_are_misjudged_by_little() -> None:
    """They last longer than their characters say: a gap may be heard, a short one."""
    text = " ".join(["a", "a", "a", "Go!", *["a"] * 26])
    assert sum(starved(Reply(text, [0.5], stream=False).play())) < 0.1
