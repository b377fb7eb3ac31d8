"""Who speaks in a conversation that is still going on: voices found again and again as windows of speech come in.

Every few windows `streaming.clustering` looks at all that is remembered, as it would at a recording; what it finds is
then matched with the voices known by then, so that a label never means somebody else. Voices that turn out to be one,
or one that turns out to be two, are told as relabellings of what was said before.

What is remembered are some minutes of windows, thinned out where one voice has said most: a long session takes no more
memory than a short one, and somebody who spoke once an hour ago is still known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from models.speaker_linking import recognise
from streaming.clustering import (
    MOST_SPEAKERS,
    Labels,
    Vectors,
    VoiceEvidence,
    centroids_of,
    find_voices,
    likeness,
    no_check,
    steady,
)
from streaming.transcript import SpeakerTurn

REMEMBERED = 300
"""Windows: a minute of speech."""
RECENT = 50
"""The last windows are never thinned out."""
NODES = 200
"""Windows in the graph that groups them: a search takes a tenth of a second, and runs beside every other session."""
EARLY, EARLY_GROWTH, GROWTH = 150, 0.1, 0.3
"""Voices are looked for again when so much more has been said than the last time; sooner within the first windows."""
DOUBT, DOUBTED = 0.8, 5
"""And when so many windows that follow one another are, in the mean, no more like the voice they were given to."""
SWITCH_COST = 0.1
PAUSE = 0.3
"""Seconds within which somebody who goes on speaking never stopped."""
KNOWN_SIMILARITY = 0.84
"""Cosine from which on a voice is one that was introduced."""
ONE_VOICE = 0.93
"""Cosine from which on two voices that were told apart are one."""
NEW_VOICE = VoiceEvidence(settled=0.83, alternating=0.83, visit=4)
"""Told apart on as little as a recording's voices, one would come and go: nobody can look at all that will be said."""
SHORTEST_CORRECTION = 3
"""Windows in a row that are given to somebody else afterwards; fewer are not worth an event."""


@dataclass(frozen=True, slots=True)
class Window:
    """A step of speech, in seconds of the session, and what the voice around it sounds like, shape (d,).

    `clear`: it is long enough to find voices by.
    """

    start: float
    end: float
    vector: Vectors
    clear: bool = True


@dataclass(frozen=True, slots=True)
class Relabelling:
    """What `old` was said to have said between `start` and `end` was said by `new`."""

    old: str
    new: str
    start: float
    end: float


class LiveSpeakers:
    """The voices of one session. One thread at a time may use it."""

    def __init__(self, known: Mapping[str, Vectors] | None = None) -> None:
        """`known` are the voices of people who were introduced by a clip, by name."""
        self._known = dict(known or {})
        self._windows: list[Window] = []
        self._voices: Labels = np.zeros(0, np.int64)  # of each remembered window
        self._centroids: dict[int, Vectors] = {}
        self._names: dict[int, str] = {}
        self._strangers = 0
        self._next_voice = 0
        self._heard = self._heard_when_searched = 0

    def introduce(self, known: Mapping[str, Vectors]) -> None:
        """Replace the known voices; names already given stay."""
        self._known = dict(known)

    def hear(
        self, windows: Sequence[Window], check: Callable[[], None] = no_check
    ) -> tuple[tuple[SpeakerTurn, ...], tuple[Relabelling, ...]]:
        """Take the next windows, in order of time: who speaks in them, and what is known better about earlier ones."""
        if not windows:
            return (), ()
        before = len(self._windows)
        self._windows += windows
        self._voices = np.concatenate((self._voices, np.full(len(windows), -1, np.int64)))
        self._heard += len(windows)
        corrections: list[Relabelling] = []
        if self._search_is_due() or self._assign(before) < DOUBT:
            self._heard_when_searched = self._heard
            corrections = self._search(before, check)
        turns = tuple(self._turns(range(before, len(self._windows))))
        self._thin_out()
        return turns, tuple(corrections)

    # ------------------------------------------------------------------ inside

    def _search_is_due(self) -> bool:
        growth = EARLY_GROWTH if self._heard < EARLY else GROWTH
        return not self._centroids or self._heard >= (1 + growth) * self._heard_when_searched

    def _search(self, before: int, check: Callable[[], None]) -> list[Relabelling]:
        """Find the voices anew in everything remembered, and match them with those known by now."""
        vectors = np.stack([window.vector for window in self._windows])
        clear = np.array([window.clear for window in self._windows])
        fewest = max(1, len(self._centroids) - self._doubles())
        usable = vectors[clear] if clear.any() else vectors
        centroids = find_voices(usable, fewest=fewest, most=MOST_SPEAKERS, evidence=NEW_VOICE, nodes=NODES, check=check)
        found = steady(likeness(vectors, centroids), SWITCH_COST)
        voices, merged = self._matched(found, before)
        self._centroids = {voice: _centroid(vectors[voices == voice]) for voice in np.unique(voices).tolist()}
        # Names first: nobody has to be told of a label that nobody was told.
        corrections = self._name_known_voices() + self._merge(merged) + self._corrections(voices, before)
        self._voices = voices
        return corrections

    def _doubles(self) -> int:
        """How many voices are so close to another that they need not stay apart."""
        pairs = combinations(self._centroids.values(), 2)
        return sum(float(one @ other) >= ONE_VOICE for one, other in pairs)

    def _assign(self, before: int) -> float:
        """Give the newest windows to the voices that are there. How like them the least like are: 1 for very few."""
        ids = list(self._centroids)
        newest = self._windows[before:]
        similarities = likeness(
            np.stack([window.vector for window in newest]), np.stack([self._centroids[voice] for voice in ids])
        )
        path = steady(similarities, SWITCH_COST)
        self._voices[before:] = np.array(ids)[path]
        own = similarities[np.arange(len(path)), path]
        means = [
            float(own[run.start : run.stop].mean())
            for run in _runs(path.tolist())
            if sum(newest[index].clear for index in run) >= DOUBTED
        ]
        return min(means, default=1.0)

    def _matched(self, found: Labels, before: int) -> tuple[Labels, dict[int, int]]:
        """The voice of each window, and the voices that have become part of another one.

        A voice goes where most of its windows have gone; of voices that are one now, the one heard first remains.
        Clusters that no voice has gone to are new voices.
        """
        clusters = int(found.max()) + 1
        voice_of: dict[int, int] = {}
        merged: dict[int, int] = {}
        for old in sorted(self._centroids):
            own = found[:before][self._voices[:before] == old]
            if not len(own):
                continue
            cluster = int(np.bincount(own, minlength=clusters).argmax())
            if cluster in voice_of:
                merged[old] = voice_of[cluster]
            else:
                voice_of[cluster] = old
        for cluster in dict.fromkeys(found.tolist()):  # in order of appearance
            if cluster not in voice_of:
                voice_of[cluster] = self._next_voice
                self._next_voice += 1
        return np.array([voice_of[cluster] for cluster in found.tolist()], np.int64), merged

    def _merge(self, merged: Mapping[int, int]) -> list[Relabelling]:
        corrections = []
        for old, new in merged.items():
            self._voices[self._voices == old] = new
            if (name := self._names.pop(old, None)) is not None:
                corrections.append(Relabelling(name, self._name(new), 0.0, self._windows[-1].end))
        return corrections

    def _corrections(self, voices: Labels, before: int) -> list[Relabelling]:
        """What was told about earlier windows and is not so."""
        corrections = []
        for run in _runs(list(zip(self._voices[:before].tolist(), voices[:before].tolist(), strict=True))):
            old, new = int(self._voices[run.start]), int(voices[run.start])
            if old == new:
                continue
            if len(run) < SHORTEST_CORRECTION:
                voices[run.start : run.stop] = old
                continue
            span = self._windows[run.start].start, self._windows[run.stop - 1].end
            corrections.append(Relabelling(self._name(old), self._name(new), *span))
        return corrections

    def _name(self, voice: int) -> str:
        if voice not in self._names:
            while (name := f"SPEAKER_{self._strangers:02d}") in self._known:
                self._strangers += 1
            self._names[voice] = name
            self._strangers += 1
        return self._names[voice]

    def _name_known_voices(self) -> list[Relabelling]:
        """Voices that are those of people who were introduced have their names from now on."""
        free = {name: vector for name, vector in self._known.items() if name not in self._names.values()}
        strangers = [voice for voice in self._centroids if self._names.get(voice) not in self._known]
        if not free or not strangers:
            return []
        centroids = np.stack([self._centroids[voice] for voice in strangers])
        corrections = []
        for index, name in recognise(centroids, free, KNOWN_SIMILARITY).items():
            before = self._names.get(strangers[index])
            self._names[strangers[index]] = name
            if before is not None:
                corrections.append(Relabelling(before, name, 0.0, self._windows[-1].end))
        return corrections

    def _turns(self, span: range) -> Iterator[SpeakerTurn]:
        """Steps of one voice after another as one turn, over short pauses too."""
        turn: SpeakerTurn | None = None
        for index in span:
            window, speaker = self._windows[index], self._name(int(self._voices[index]))
            if turn and turn.speaker == speaker and window.start - turn.end <= PAUSE:
                turn = SpeakerTurn(speaker, turn.start, window.end)
                continue
            if turn:
                yield turn
            turn = SpeakerTurn(speaker, window.start, window.end)
        if turn:
            yield turn

    def _thin_out(self) -> None:
        """Forget every other earlier window of whoever has said most, until no more than `REMEMBERED` are left."""
        while len(self._windows) > REMEMBERED:
            earlier = self._voices[: len(self._windows) - RECENT]
            most = int(np.bincount(earlier).argmax())
            forgotten = set(np.flatnonzero(earlier == most)[::2].tolist())
            kept = [index for index in range(len(self._windows)) if index not in forgotten]
            self._windows = [self._windows[index] for index in kept]
            self._voices = self._voices[kept]


def _centroid(vectors: Vectors) -> Vectors:
    return np.asarray(centroids_of(vectors, np.zeros(len(vectors), np.int64))[0], np.float32)


def _runs(values: Sequence[object]) -> Iterator[range]:
    """Stretches of equal values."""
    start = 0
    for index in range(1, len(values) + 1):
        if index == len(values) or values[index] != values[start]:
            yield range(start, index)
            start = index
