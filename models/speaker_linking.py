"""Which voices are the same person: across parts of a long recording, and among people whose voice is known.

Voices are compared by the cosine of their embeddings. All of it is arithmetic on a few dozen vectors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from streaming.transcript import SpeakerTurn

Embeddings: TypeAlias = npt.NDArray[np.floating[Any]]
"""One voice per row, shape (voices, dimension)."""

SAME_TURN = 0.01
"""Seconds: turns of one speaker that are closer than this are one turn that was cut."""


class VoiceTurn(NamedTuple):
    """`voice`, an index, is heard from `start` to `end`, in seconds."""

    voice: int
    start: float
    end: float


def cosines(one: Embeddings, other: Embeddings) -> npt.NDArray[np.float64]:
    """Similarity of every row of `one` (n, d) to every row of `other` (m, d): (n, m).

    A vector that is zero or not finite is similar to nothing.
    """
    return np.asarray(_unit(one) @ _unit(other).T, np.float64)


def _unit(rows: Embeddings) -> npt.NDArray[np.float64]:
    rows = np.nan_to_num(np.asarray(rows, np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(lengths > 0, lengths, 1.0), np.float64)


def link(parts: Sequence[Embeddings], similarity: float, most: int = 0) -> list[list[int]]:
    """Who is who across the parts of a recording: for each part, the overall index of each of its voices.

    Average-linkage clustering in which voices of one part never meet: there they were told apart with more to go by.
    Clusters join from `similarity` on; to stay within `most` voices (0: any number) also below it.
    """
    voices = np.concatenate([np.asarray(part, np.float64) for part in parts])
    part_of = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    alike = cosines(voices, voices)
    clusters = [[index] for index in range(len(voices))]
    while pair := _closest(clusters, alike, part_of):
        closeness, first, second = pair
        if closeness < similarity and not 0 < most < len(clusters):
            break
        clusters[first] += clusters.pop(second)
    overall = {voice: number for number, cluster in enumerate(sorted(clusters, key=min)) for voice in cluster}
    starts = np.cumsum([0, *(len(part) for part in parts)])
    return [
        [overall[int(start) + voice] for voice in range(len(part))] for start, part in zip(starts, parts, strict=False)
    ]


def _closest(
    clusters: list[list[int]], alike: npt.NDArray[np.float64], part_of: npt.NDArray[np.intp]
) -> tuple[float, int, int] | None:
    """The two most similar clusters that may join."""
    parts = [set(part_of[cluster].tolist()) for cluster in clusters]
    return max(
        (
            (float(alike[np.ix_(clusters[first], clusters[second])].mean()), first, second)
            for first in range(len(clusters))
            for second in range(first + 1, len(clusters))
            if parts[first].isdisjoint(parts[second])
        ),
        default=None,
    )


def recognise(voices: Embeddings, known: Mapping[str, Embeddings], similarity: float) -> dict[int, str]:
    """Names of the voices (n, d) that are at least `similarity` close to a known one's embedding (d,).

    A name goes to one voice and a voice has one name; the best match is made first.
    """
    if not known or not len(voices):
        return {}
    names = list(known)
    closeness = cosines(voices, np.stack([known[name] for name in names]))
    found: dict[int, str] = {}
    for flat in np.argsort(-closeness, axis=None, kind="stable").tolist():
        voice, name = divmod(flat, len(names))
        if closeness[voice, name] < similarity:
            break
        if voice not in found and names[name] not in found.values():
            found[voice] = names[name]
    return found


def name_voices(turns: Iterable[VoiceTurn], known: Mapping[int, str]) -> dict[int, str]:
    """A label for every voice: its known name, else SPEAKER_00, SPEAKER_01, ... in order of appearance."""
    labels: dict[int, str] = {}
    strangers = 0
    for turn in sorted(turns, key=lambda turn: (turn.start, turn.end)):
        if turn.voice in labels:
            continue
        if turn.voice in known:
            labels[turn.voice] = known[turn.voice]
            continue
        while (label := f"SPEAKER_{strangers:02d}") in known.values():
            strangers += 1
        labels[turn.voice] = label
        strangers += 1
    return labels


def speaker_turns(turns: Iterable[VoiceTurn], labels: Mapping[int, str]) -> tuple[SpeakerTurn, ...]:
    """Turns with labels, in order of start; what was one turn before it was cut is one again."""
    joined: list[SpeakerTurn] = []
    latest: dict[str, int] = {}
    for turn in sorted(turns, key=lambda turn: (turn.start, turn.end)):
        label = labels[turn.voice]
        before = latest.get(label)
        if before is not None and turn.start - joined[before].end <= SAME_TURN:
            joined[before] = SpeakerTurn(label, joined[before].start, max(joined[before].end, turn.end))
        else:
            latest[label] = len(joined)
            joined.append(SpeakerTurn(label, turn.start, turn.end))
    return tuple(joined)
