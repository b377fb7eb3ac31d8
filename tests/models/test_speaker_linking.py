"""Who is who, on embeddings written down by hand."""

from __future__ import annotations

import numpy as np
from hypothesis import given, strategies as st

from models.speaker_linking import VoiceTurn, cosines, link, name_voices, recognise, speaker_turns
from streaming.transcript import SpeakerTurn

ANN, BOB, CAT = np.eye(3)


def near(voice: np.ndarray, by: float = 0.1) -> np.ndarray:
    return voice + by


def test_voices_are_linked_across_parts_in_whatever_order_they_come() -> None:
    parts = [np.stack((ANN, BOB)), np.stack((near(BOB), near(ANN))), np.stack((CAT, near(ANN)))]
    assert link(parts, 0.7) == [[0, 1], [1, 0], [2, 0]]


def test_voices_of_one_part_stay_apart_however_alike() -> None:
    assert link([np.stack((ANN, near(ANN, 0.01)))], 0.7, most=1) == [[0, 1]]


def test_a_limit_joins_what_is_nearest_even_if_it_is_not_near() -> None:
    parts = [np.stack((ANN, BOB)), np.stack((CAT + 0.3 * BOB,))]
    assert link(parts, 0.7) == [[0, 1], [2]]
    assert link(parts, 0.7, most=2) == [[0, 1], [1]]


def test_a_part_without_voices_has_none() -> None:
    assert link([np.zeros((0, 3)), np.stack((ANN,)), np.zeros((0, 3))], 0.7) == [[], [0], []]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.floats(0.0, 1.0), st.integers(0, 4), st.integers(0, 99))
def test_linking_numbers_every_voice_and_never_joins_one_part(
    sizes: list[int], similarity: float, most: int, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    linked = link([generator.standard_normal((size, 4)) for size in sizes], similarity, most)
    assert [len(part) for part in linked] == sizes
    assert all(len(set(part)) == len(part) for part in linked)
    numbers = [number for part in linked for number in part]
    assert set(numbers) == set(range(len(set(numbers))))
    firsts = [number for index, number in enumerate(numbers) if number not in numbers[:index]]
    assert firsts == sorted(firsts)


def test_a_name_goes_to_the_nearest_voice_and_to_no_stranger() -> None:
    voices = np.stack((near(ANN, 0.4), ANN, CAT))
    assert recognise(voices, {"Ann": ANN, "Bob": BOB}, 0.6) == {1: "Ann"}
    assert recognise(voices, {"Ann": ANN, "Also Ann": near(ANN, 0.2)}, 0.6) == {1: "Ann", 0: "Also Ann"}
    assert recognise(voices, {}, 0.6) == {}
    assert recognise(np.zeros((0, 3)), {"Ann": ANN}, 0.6) == {}


def test_a_voice_that_could_not_be_embedded_is_like_nothing() -> None:
    nothing = np.stack((np.zeros(3), np.full(3, np.nan), np.array([np.inf, 0, 0])))
    assert not cosines(nothing, np.stack((ANN, BOB))).any()


def test_strangers_are_numbered_as_they_appear_around_names_that_are_taken() -> None:
    turns = [VoiceTurn(2, 5, 6), VoiceTurn(0, 1, 2), VoiceTurn(1, 3, 4), VoiceTurn(0, 7, 8)]
    assert name_voices(turns, {}) == {0: "SPEAKER_00", 1: "SPEAKER_01", 2: "SPEAKER_02"}
    assert name_voices(turns, {1: "SPEAKER_00"}) == {0: "SPEAKER_01", 1: "SPEAKER_00", 2: "SPEAKER_02"}


def test_a_turn_that_was_cut_is_one_again_also_under_somebody_else() -> None:
    turns = [VoiceTurn(0, 5, 9), VoiceTurn(0, 1, 5), VoiceTurn(1, 4, 6), VoiceTurn(0, 9.5, 10)]
    assert speaker_turns(turns, {0: "A", 1: "B"}) == (
        SpeakerTurn("A", 1, 9),
        SpeakerTurn("B", 4, 6),
        SpeakerTurn("A", 9.5, 10),
    )
