"""Voices among embeddings that are made up: directions with noise around them, in turns as people take them."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from streaming import clustering
from streaming.clustering import (
    MOST_NODES,
    SHARED,
    Vectors,
    VoiceEvidence,
    centroids_of,
    distinct,
    find_voices,
    heard_once,
    in_order,
    likeness,
    partition,
    propose_count,
    steady,
)

DIMENSIONS = 64
SPREAD = 0.5
"""Length of the noise on a voice of length 1: windows of one voice have a cosine of 0.8, as real ones."""


class Stop(Exception):
    """Raised by a check."""


def voices(count: int, *, closeness: float = 0.5, seed: int = 0) -> Vectors:
    """Unit vectors with that cosine between every two."""
    generator = np.random.default_rng(seed)
    basis = np.linalg.qr(generator.standard_normal((DIMENSIONS, count + 1)))[0].T
    return np.asarray(np.sqrt(closeness) * basis[0] + np.sqrt(1 - closeness) * basis[1:], np.float32)


def spoken(people: Vectors, turns: Sequence[tuple[int, int]], seed: int = 1) -> tuple[Vectors, list[int]]:
    """Windows of (voice, windows) turns, and whose each is."""
    whose = [voice for voice, windows in turns for _ in range(windows)]
    noise = np.random.default_rng(seed).standard_normal((len(whose), DIMENSIONS)) * SPREAD / np.sqrt(DIMENSIONS)
    heard = people[whose] + noise
    return np.asarray(heard / np.linalg.norm(heard, axis=1, keepdims=True), np.float32), whose


def rounds(count: int, times: int, windows: int = 12) -> list[tuple[int, int]]:
    """Everybody has a turn, and again."""
    return [(voice, windows) for _ in range(times) for voice in range(count)]


def who(vectors: Vectors, found: Vectors) -> list[int]:
    return [int(voice) for voice in np.argmax(likeness(vectors, found), axis=1)]


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_as_many_voices_are_found_as_take_turns(count: int) -> None:
    vectors, whose = spoken(voices(count), rounds(count, 4))
    assert who(vectors, find_voices(vectors)) == whose


def test_two_voices_much_alike_are_told_apart_when_they_take_turns() -> None:
    vectors, whose = spoken(voices(2, closeness=0.87), rounds(2, 6))
    assert who(vectors, find_voices(vectors)) == whose


def test_two_clusters_closer_than_any_two_voices_are_one() -> None:
    vectors, _ = spoken(voices(2, closeness=0.95), rounds(2, 6))
    assert len(find_voices(vectors)) == 1


def test_two_long_speeches_after_each_other_are_two_voices() -> None:
    vectors, whose = spoken(voices(2, closeness=0.8), [(0, 100), (1, 100)])
    assert who(vectors, find_voices(vectors)) == whose


def test_a_voice_that_is_rare_is_found_and_one_heard_for_a_moment_is_not() -> None:
    people = voices(3)
    vectors, whose = spoken(people, [(0, 150), (1, 12), (0, 50), (2, 150)])
    assert who(vectors, find_voices(vectors)) == whose
    vectors, _ = spoken(people[:2], [(0, 150), (1, 3), (0, 50)])
    assert len(find_voices(vectors)) == 1


@pytest.mark.parametrize(("fewest", "most", "found"), [(3, 3, 3), (1, 2, 2), (4, 20, 4), (1, 1, 1), (2, 8, 3)])
def test_bounds_are_kept(fewest: int, most: int, found: int) -> None:
    vectors, _ = spoken(voices(3), rounds(3, 4))
    assert len(find_voices(vectors, fewest=fewest, most=most)) == found


@settings(max_examples=20, deadline=None)
@given(
    windows=st.integers(0, 40),
    fewest=st.integers(1, 6),
    more=st.integers(0, 6),
    seed=st.integers(0, 99),
    alike=st.booleans(),
)
def test_whatever_is_heard_the_voices_are_unit_vectors_within_bounds(
    windows: int, fewest: int, more: int, seed: int, alike: bool
) -> None:
    vectors, _ = spoken(voices(3, seed=seed), [(0, windows // 2), (2, windows - windows // 2)], seed)
    if alike and windows:
        vectors[:] = vectors[0]
    found = find_voices(vectors, fewest=fewest, most=fewest + more)
    assert len(found) <= min(fewest + more, windows)
    assert len(found) >= (min(fewest, windows) if not alike else min(1, windows))
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


@settings(max_examples=8, deadline=None)
@given(count=st.integers(2, 4), seed=st.integers(0, 99), order=st.randoms(use_true_random=False))
def test_the_order_of_turns_changes_nobody(count: int, seed: int, order: Random) -> None:
    turns = rounds(count, 4)
    order.shuffle(turns)
    vectors, whose = spoken(voices(count, seed=seed), turns, seed)
    assert who(vectors, find_voices(vectors)) == in_order(np.array(whose)).tolist()


def test_half_precision_is_enough() -> None:
    vectors, whose = spoken(voices(3), rounds(3, 4))
    assert who(vectors, find_voices(vectors.astype(np.float16))) == whose


def test_voices_are_found_again_the_same() -> None:
    vectors, _ = spoken(voices(4), rounds(4, 4))
    np.testing.assert_array_equal(find_voices(vectors), find_voices(vectors))


def test_what_is_played_in_a_loop_is_one_voice() -> None:
    once, _ = spoken(voices(1), [(0, 40)])
    noise = np.random.default_rng(5).standard_normal((2000, DIMENSIONS)) * 0.01
    vectors = np.asarray(np.tile(once, (50, 1)) + noise, np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert len(heard_once(vectors)) == len(once)
    assert len(find_voices(vectors)) == 1


def test_neighbours_share_audio_and_are_no_repetition() -> None:
    once, _ = spoken(voices(1), [(0, 40)])
    assert len(heard_once(np.repeat(once, SHARED, axis=0))) == SHARED * len(once)


def test_a_repetition_counts_whatever_block_it_is_in(monkeypatch: pytest.MonkeyPatch) -> None:
    once, _ = spoken(voices(1), [(0, 40)])
    for size in (1, 7, 40, 512):
        monkeypatch.setattr(clustering, "REPEAT_BLOCK", size)
        np.testing.assert_array_equal(heard_once(np.tile(once, (3, 1))), once)


def test_a_long_recording_is_looked_at_in_part_and_told_apart_in_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clustering, "MOST_POINTS", 300)
    vectors, whose = spoken(voices(3), rounds(3, 100))
    assert len(heard_once(vectors)) == 300
    assert who(vectors, find_voices(vectors)) == whose


def test_the_graph_is_no_larger_for_a_long_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    solve = np.linalg.eigvalsh

    def eigenvalues(matrix: Vectors) -> Vectors:
        sizes.append(len(matrix))
        return np.asarray(solve(matrix), np.float32)

    monkeypatch.setattr(np.linalg, "eigvalsh", eigenvalues)
    monkeypatch.setattr(clustering, "MOST_NODES", MOST_NODES // 5)
    vectors, _ = spoken(voices(2), rounds(2, 100))
    assert propose_count(vectors) == 2
    assert set(sizes) == {MOST_NODES // 5}


def test_a_check_that_raises_ends_the_search() -> None:
    vectors, _ = spoken(voices(3), rounds(3, 4))
    calls = []

    def check() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise Stop

    with pytest.raises(Stop):
        find_voices(vectors, check=check)
    assert len(calls) == 3


def test_a_partition_is_numbered_as_it_is_heard() -> None:
    vectors, whose = spoken(voices(3), rounds(3, 2))
    assert partition(vectors, 3).tolist() == whose
    assert partition(vectors, 1).tolist() == [0] * len(whose)
    assert in_order(np.array([7, 7, 2, 9, 2])).tolist() == [0, 0, 1, 2, 1]


def test_a_centroid_is_the_direction_of_its_windows() -> None:
    people = voices(2)
    vectors, whose = spoken(people, rounds(2, 40))
    np.testing.assert_array_less(0.99, np.sum(centroids_of(vectors, np.array(whose)) * people, axis=1))


@pytest.mark.parametrize(
    ("closeness", "windows", "visits", "grouped", "two"),
    [
        (0.70, 8, 1, False, True),
        (0.70, 7, 1, False, False),
        (0.80, 20, 1, False, False),
        (0.80, 20, 2, False, True),
        (0.80, 50, 1, False, True),
        (0.87, 30, 2, False, False),
        (0.87, 30, 2, True, True),
        (0.87, 29, 2, True, False),
        (0.87, 99, 1, True, False),
        (0.91, 999, 9, True, False),
    ],
)
def test_the_closer_two_clusters_are_the_more_it_takes_to_be_two_voices(
    closeness: float, windows: int, visits: int, grouped: bool, two: bool
) -> None:
    smaller = distinct(closeness, (windows, 999), (visits, 99), VoiceEvidence(), grouped=grouped)
    assert smaller is distinct(closeness, (999, windows), (99, visits), VoiceEvidence(), grouped=grouped) is two


def test_a_window_that_is_a_little_more_like_somebody_else_changes_nothing() -> None:
    similarities = np.array([[0.9, 0.5]] * 5 + [[0.7, 0.8]] + [[0.9, 0.5]] * 5 + [[0.4, 0.9]] * 4, np.float32)
    assert steady(similarities, 0.1).tolist() == [0] * 11 + [1] * 4
    assert steady(similarities, 0.0).tolist() == np.argmax(similarities, axis=1).tolist()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=1, max_size=6), st.floats(0, 1))
def test_no_other_path_is_better(rows: list[list[float]], cost: float) -> None:
    similarities = np.array(rows, np.float32)

    def value(path: Sequence[int]) -> float:
        gained = sum(float(similarities[index, speaker]) for index, speaker in enumerate(path))
        return gained - cost * sum(one != other for one, other in zip(path, path[1:], strict=False))

    paths = np.stack(np.meshgrid(*[range(3)] * len(rows)), axis=-1).reshape(-1, len(rows)).tolist()
    assert value(steady(similarities, cost).tolist()) == pytest.approx(max(map(value, paths)), abs=1e-5)
