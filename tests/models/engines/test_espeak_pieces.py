"""Long texts by the embedded voice: its own audio and its own word times, in pieces that cannot be told from one."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from models.catalog import Card, Catalog
from streaming.joins import AUDIBLE, CLAUSE_PAUSE, COMMA_PAUSE, SENTENCE_PAUSE
from tests.models.engines.joined_speech import TEXT, spoken, steps_at_joins


@pytest.fixture(scope="module")
def card() -> Card:
    return Catalog.load().find("espeak-ng", "speech").card


@pytest.mark.parametrize(("slowness", "fewest", "most"), [(0.0, 3, 6), (0.6, 6, 20)])
def test_a_word_sounds_when_it_is_said_to(card: Card, slowness: float, fewest: int, most: int) -> None:
    """The engine's own samples of every word are where the item's clock says that the word is."""
    item = spoken(card, TEXT, slowness=slowness)
    assert fewest <= len(item.pieces) <= most
    own = [(samples, word) for _, samples, words in item.pieces for word in words]
    earliest = -round(0.03 * card.sample_rate)  # silence that was cut from the beginning of a piece
    assert [word.text for word in item.words] == [
        piece.text[word.start_char : word.end_char] for piece, _, words in item.pieces for word in words
    ]
    for told, (samples, word) in zip(item.words, own, strict=True):
        first, last = round(word.start * card.sample_rate), round(word.end * card.sample_rate)
        middle = samples[first + (last - first) // 4 : last - (last - first) // 4]
        at = round(told.start * card.sample_rate) + (last - first) // 4
        shifts = range(earliest, 2) if word.start == 0.0 else range(-1, 2)
        off = [np.abs(item.samples[at + shift :][: len(middle)] - middle).max() for shift in shifts if at + shift >= 0]
        assert min(off) < 1e-4, told
        assert told.end == pytest.approx(told.start + word.end - word.start, abs=0.03)
    assert all(before.end <= after.start + 1e-6 for before, after in pairwise(item.words))


def test_joins_do_not_click(card: Card) -> None:
    steps, limit = steps_at_joins(spoken(card, TEXT * 2, slowness=0.6), card.sample_rate)
    assert len(steps) >= 12
    assert max(steps) <= limit


def test_pauses_are_those_of_the_punctuation_and_not_doubled(card: Card) -> None:
    item = spoken(card, TEXT, slowness=0.6)
    wanted = {".": SENTENCE_PAUSE, "?": SENTENCE_PAUSE, ",": COMMA_PAUSE, ":": CLAUSE_PAUSE}
    at = 0
    for piece, _, words in item.pieces[:-1]:
        at += len(words)
        begin, end = item.words[at - 1].end, item.words[at].start
        middle = round((begin + end) / 2 * card.sample_rate)
        loud = np.flatnonzero(np.abs(item.samples) > AUDIBLE)
        silence = (loud[np.searchsorted(loud, middle)] - loud[np.searchsorted(loud, middle) - 1]) / card.sample_rate
        assert silence == pytest.approx(wanted.get(piece.text[-1], 0.0), abs=0.02), piece.text
