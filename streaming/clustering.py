"""Voices told apart: embeddings of short, overlapping windows of speech in, what each voice sounds like out.

How many voices there are is proposed by the eigengap of a nearest-neighbour graph (NME-SC: Park, Han, Kumar and
Narayanan, 2019), which looks at how windows group and not at how far groups are apart: two people on one telephone line
are closer to each other (cosine 0.87) than two sentences of one orator are (0.83). `VoiceEvidence` then takes back what
too little speech speaks for, and adds voices too rare for the graph. Spherical k-means says who is who.

What is heard a second time to the last detail is left out, and graph and k-means see a bounded number of windows,
spread over the whole recording.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Vectors: TypeAlias = npt.NDArray[np.float32]
"""Unit vectors, shape (windows, dimensions)."""
Labels: TypeAlias = npt.NDArray[np.int64]

MOST_SPEAKERS = 20
MOST_POINTS = 18_000
"""Windows that are looked at to find voices: an hour of speech; of longer recordings every second, every third, ..."""
SHARED = 6
"""Windows from one to the first that shares no audio with it."""
REPEAT = 0.95
"""Cosine above which two windows that share no audio are one sound, played twice."""
REPEAT_BLOCK = 512
MOST_NODES = 500
"""Windows in the graph, unless fewer are asked for."""
NEIGHBOURS = (0.1, 0.15, 0.2)
"""Shares of all windows that one is connected to; the one with the clearest gap counts."""
FEWEST_NEIGHBOURS = 12
"""More than the windows that share audio with one, which would tie every recording into a chain."""
RARE = 2
"""Voices in a row that may fail before no more are looked for."""
RESTARTS = 8
ROUNDS = 30
SEED = 20
BLOCK = 8192

no_check: Callable[[], None] = lambda: None  # noqa: E731


@dataclass(frozen=True, slots=True)
class VoiceEvidence:
    """What it takes for two clusters to be two voices. Cosines are between centroids, lengths are in windows.

    Below `sudden` they are, if each has `least` windows. Below `settled` they are, when each has `long` windows or
    `visits` turns. Below `alternating` they are, when the graph tells them apart and each has `enough` windows and
    `visits` turns. A turn counts as a visit from `visit` windows on.
    """

    sudden: float = 0.75
    settled: float = 0.85
    alternating: float = 0.9
    least: int = 8
    enough: int = 30
    long: int = 50
    visits: int = 2
    visit: int = 6


def find_voices(
    vectors: npt.NDArray[np.floating],
    *,
    fewest: int = 1,
    most: int = MOST_SPEAKERS,
    evidence: VoiceEvidence | None = None,
    nodes: int = 0,
    check: Callable[[], None] = no_check,
) -> Vectors:
    """Centroids of the voices in windows that follow one another, in order of appearance, shape (voices, dimensions):
    at least `fewest` and at most `most`, as far as there are windows that differ.

    `vectors` may be of lower precision. The time it takes grows with the third power of the graph's `nodes`, 0 for
    `MOST_NODES`. `check` is called between steps and may raise.
    """
    if not len(vectors):
        return np.zeros((0, vectors.shape[1]), np.float32)
    evidence = evidence or VoiceEvidence()
    points = heard_once(vectors, check)
    if len(points) < fewest:
        points = _spread(vectors, MOST_POINTS)[1]
    most = min(most, len(points))
    fewest = min(fewest, most)
    if fewest == most:
        return centroids_of(points, partition(points, most, check))
    proposed = min(max(propose_count(points, check, nodes), fewest), most)
    for count in range(proposed, fewest - 1, -1):
        found = partition(points, count, check)
        if _all_distinct(points, found, evidence, grouped=True):
            break
    return centroids_of(points, _with_rare_voices(points, found, most, evidence, check))


def heard_once(vectors: npt.NDArray[np.floating], check: Callable[[], None] = no_check) -> Vectors:
    """Windows spread over the recording, less those that sound like an earlier one to the last detail.

    A jingle, a loop or an announcement that comes again is no evidence of a voice; counted each time, it would be a
    tight group of its own. Two windows of natural speech that share no audio are hardly ever closer than 0.9.
    """
    places, points = _spread(vectors, MOST_POINTS)
    kept = np.ones(len(points), np.bool_)
    for at in range(0, len(points), REPEAT_BLOCK):
        check()
        block = slice(at, at + REPEAT_BLOCK)
        earlier = np.flatnonzero(kept[: at + REPEAT_BLOCK])
        apart = places[block, None] - places[earlier] > SHARED
        again = (points[block] @ points[earlier].T > REPEAT) & apart
        for row in np.flatnonzero(again.any(axis=1)):
            kept[at + row] = not kept[earlier[again[row]]].any()
    return points[kept]


def propose_count(vectors: npt.NDArray[np.floating], check: Callable[[], None] = no_check, most_nodes: int = 0) -> int:
    """How many groups the windows' nearest-neighbour graph falls into; 1 for few windows."""
    nodes = _spread(vectors, most_nodes or MOST_NODES)[1]
    count = len(nodes)
    if count <= FEWEST_NEIGHBOURS:
        return 1
    closeness = nodes @ nodes.T
    best, lowest = 1, np.inf
    for share in NEIGHBOURS:
        check()
        neighbours = min(count, max(FEWEST_NEIGHBOURS, int(share * count)))
        nearest_ones = np.argpartition(-closeness, neighbours - 1, axis=1)[:, :neighbours]
        graph = np.zeros_like(closeness)
        np.put_along_axis(graph, nearest_ones, 0.5, axis=1)
        graph += graph.T
        scale = 1 / np.sqrt(graph.sum(axis=1))
        eigenvalues = np.linalg.eigvalsh(np.eye(count, dtype=np.float32) - graph * scale[:, None] * scale)
        gaps = np.diff(eigenvalues[: MOST_SPEAKERS + 1])
        ratio = share * eigenvalues[-1] / max(float(gaps.max()), 1e-9)
        if ratio < lowest:
            best, lowest = int(gaps.argmax()) + 1, ratio
    return best


def partition(points: Vectors, count: int, check: Callable[[], None] = no_check) -> Labels:
    """Exactly `count` clusters, if the points allow, by k-means; numbered in order of appearance."""
    if count < 2:
        return np.zeros(len(points), np.int64)
    return in_order(np.argmax(points @ _k_means(points, count, check).T, axis=1))


def centroids_of(vectors: npt.NDArray[np.floating], labels: Labels) -> Vectors:
    """Unit mean of the windows of each label, shape (labels, dimensions)."""
    sums = np.zeros((int(labels.max()) + 1, vectors.shape[1]), np.float32)
    for at, block in zip(range(0, len(vectors), BLOCK), _blocks(vectors), strict=False):
        np.add.at(sums, labels[at : at + BLOCK], block)
    return _unit(sums)


def likeness(vectors: npt.NDArray[np.floating], centroids: Vectors) -> Vectors:
    """Cosine of each window to each voice, shape (windows, voices)."""
    found = [block @ centroids.T for block in _blocks(vectors)]
    return np.concatenate(found) if found else np.zeros((0, len(centroids)), np.float32)


def in_order(labels: Labels) -> Labels:
    """The same partition, numbered 0, 1, ... in order of appearance."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]


def steady(similarities: Vectors, switch_cost: float) -> Labels:
    """The best path through `similarities`, shape (windows, speakers), where a change of speaker costs `switch_cost`
    (Viterbi)."""
    count, speakers = similarities.shape
    score = similarities[0].astype(np.float64)
    came_from = np.tile(np.arange(speakers), (count, 1))
    for index in range(1, count):
        best = int(score.argmax())
        moved = score[best] - switch_cost
        came_from[index, score < moved] = best
        score = np.maximum(score, moved) + similarities[index]
    path = np.empty(count, np.int64)
    path[-1] = score.argmax()
    for index in range(count - 1, 0, -1):
        path[index - 1] = came_from[index, path[index]]
    return path


def distinct(
    closeness: float, windows: tuple[int, int], visits: tuple[int, int], evidence: VoiceEvidence, *, grouped: bool
) -> bool:
    """Whether two clusters are two voices, by the cosine between them, their windows and their visits. `grouped` says
    that the graph tells them apart."""
    if min(windows) < evidence.least:
        return False
    if closeness < evidence.sudden:
        return True
    alternate = min(visits) >= evidence.visits
    if closeness < evidence.settled and (alternate or min(windows) >= evidence.long):
        return True
    return grouped and alternate and min(windows) >= evidence.enough and closeness < evidence.alternating


# ---------------------------------------------------------------------- inside


def _with_rare_voices(
    points: Vectors, found: Labels, most: int, evidence: VoiceEvidence, check: Callable[[], None]
) -> Labels:
    misses = 0
    for count in range(int(found.max()) + 2, most + 1):
        labels = partition(points, count, check)
        if _all_distinct(points, labels, evidence, grouped=False):
            found, misses = labels, 0
        else:
            misses += 1
        if misses == RARE:
            break
    return found


def _all_distinct(points: Vectors, labels: Labels, evidence: VoiceEvidence, *, grouped: bool) -> bool:
    centroids = centroids_of(points, labels)
    closeness = centroids @ centroids.T
    windows = np.bincount(labels)
    visits = _visits(labels, evidence.visit)
    return all(
        distinct(
            float(closeness[one, other]),
            (int(windows[one]), int(windows[other])),
            (int(visits[one]), int(visits[other])),
            evidence,
            grouped=grouped,
        )
        for one, other in combinations(range(len(centroids)), 2)
    )


def _visits(labels: Labels, shortest: int) -> Labels:
    """Turns of each label of at least `shortest` windows; shorter ones in between do not count."""
    starts = np.flatnonzero(np.diff(labels, prepend=-1))
    lengths = np.diff(starts, append=len(labels))
    turns = labels[starts][lengths >= shortest]
    turns = turns[np.diff(turns, prepend=-1) != 0]
    return np.bincount(turns, minlength=int(labels.max()) + 1)


def _k_means(points: Vectors, count: int, check: Callable[[], None]) -> Vectors:
    """Centroids of the best of `RESTARTS` runs of spherical k-means (Dhillon and Modha, 2001)."""
    generator = np.random.default_rng(SEED)
    best, most = points[:count], -np.inf
    for _ in range(RESTARTS):
        check()
        centroids = _settled(points, _seeds(points, count, generator))
        score = float((points @ centroids.T).max(axis=1).sum())
        if score > most:
            best, most = centroids, score
    return best


def _seeds(points: Vectors, count: int, generator: np.random.Generator) -> Vectors:
    """k-means++ (Arthur and Vassilvitskii, 2007)."""
    chosen = [int(generator.integers(len(points)))]
    distance = np.full(len(points), np.inf)
    for _ in range(count - 1):
        distance = np.minimum(distance, np.maximum(1 - points @ points[chosen[-1]], 0))
        total = float(distance.sum())
        chosen.append(int(generator.choice(len(points), p=distance / total if total > 0 else None)))
    return points[chosen].copy()


def _settled(points: Vectors, centroids: Vectors) -> Vectors:
    """Centroids after as many rounds as it takes; one that nobody is near stays where it was."""
    labels = np.full(len(points), -1)
    for _ in range(ROUNDS):
        before, labels = labels, np.argmax(points @ centroids.T, axis=1)
        if np.array_equal(before, labels):
            break
        members = labels[None, :] == np.arange(len(centroids))[:, None]
        sums = members.astype(np.float32) @ points
        filled = members.any(axis=1)
        centroids[filled] = _unit(sums[filled])
    return centroids


def _spread(vectors: npt.NDArray[np.floating], most: int) -> tuple[npt.NDArray[np.int64], Vectors]:
    """At most that many windows, evenly over the recording, and their places."""
    places = np.unique(np.linspace(0, len(vectors) - 1, min(most, len(vectors))).round().astype(np.int64))
    return places, vectors[places].astype(np.float32)


def _blocks(vectors: npt.NDArray[np.floating]) -> Iterator[Vectors]:
    return (vectors[at : at + BLOCK].astype(np.float32) for at in range(0, len(vectors), BLOCK))


def _unit(vectors: Vectors) -> Vectors:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9), np.float32)
