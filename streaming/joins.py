"""How the pieces of one spoken item are put together: the silence around them cut, pauses in its place, no clicks.

Engines put anything from nothing to half a second of silence around what they say. Where two pieces meet that is cut
off, and the pause that the punctuation between them asks for is put there, so that a text sounds the same however it
was cut. The end of the item keeps the silence its engine gave it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from streaming.boundaries import CLOSERS, TERMINATORS

Samples: TypeAlias = npt.NDArray[np.float32]

AUDIBLE = 0.0032
"""-50 dBFS: what is less counts as silence. The softest sounds that begin words are above it."""
LEAD_SECONDS, TAIL_SECONDS = 0.02, 0.04
"""Silence that stays before and behind the sound of a piece, where it is followed by a pause."""
START_SECONDS = 0.06
"""Silence that stays before the first sound of an item: the closed lips of a P are heard when something was before."""
CLOSE_SECONDS = 0.008
"""What stays on either side where no pause is wanted."""
FADE_SECONDS = 0.004
LONGEST_SILENCE = 1.0
"""Silence longer than this was meant; the rest of it is heard."""

PARAGRAPH_PAUSE, SENTENCE_PAUSE, CLAUSE_PAUSE, COMMA_PAUSE = 0.6, 0.3, 0.18, 0.12
"""Seconds from the sound before to the sound behind, at normal speed."""
COMMAS = ",，、،"
CLAUSES = ";:—；：؛"


def pause_between(before: str, after: str) -> float:
    """Seconds of silence where a piece that ends `before` meets one that begins `after`, at normal speed."""
    end = before.rstrip()
    blanks = before[len(end) :] + after[: len(after) - len(after.lstrip())]
    if blanks.count("\n") > 1:
        return PARAGRAPH_PAUSE
    mark = end.rstrip(CLOSERS)[-1:]
    if "\n" in blanks or (mark and mark in TERMINATORS):
        return SENTENCE_PAUSE
    if mark and mark in COMMAS:
        return COMMA_PAUSE
    return CLAUSE_PAUSE if mark and mark in CLAUSES else 0.0


@dataclass(frozen=True, slots=True)
class Block:
    """The next samples of an item, at the rate of whoever made them."""

    samples: Samples
    sample_rate: int

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.sample_rate


class Joiner:
    """The pieces of one item, one after another: `begin`, samples with `add`, `end`; in the end `finish`.

    Between sounds of a piece nothing changes. At most `LONGEST_SILENCE` of audio is held back, and only silence but
    for the last milliseconds, which have to be faded out when nothing follows them.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        """Audio handed out so far."""
        self.origin: float | None = None
        """When the first sample of the current piece is, or would have been, in seconds of the item."""
        self.trimmed = 0.0
        """Seconds of silence at the beginning of the piece that were cut away."""
        self.sounds_until = 0.0
        """When the sound of the current piece ends, as far as it has come."""
        self._rate = 0
        self._held = np.zeros(0, np.float32)  # of this piece, or while it has no sound yet, of those before
        self._lead = np.zeros(0, np.float32)  # of this piece, before its first sound
        self._pause = 0.0
        self._began = False  # there was sound: before it, silence is not that of a join

    @property
    def arrived(self) -> float:
        """Until when, in seconds of the item, the samples of the current piece have come."""
        return self.seconds + len(self._held) / self._rate if self._rate else 0.0

    def begin(self, pause: float = 0.0) -> None:
        """Another piece follows, after so much silence if it is not the first."""
        self._pause = max(self._pause, pause)
        self.origin = None

    def add(self, samples: Samples, sample_rate: int) -> list[Block]:
        """The next samples of the piece; returns what can be handed out."""
        if self.origin is not None:
            return self._settle(samples)
        blocks: list[Block] = []
        if sample_rate != self._rate and not len(self._lead):
            blocks = self._change_rate(sample_rate)
        self._lead = np.concatenate((self._lead, samples))
        loud = np.flatnonzero(np.abs(self._lead) > AUDIBLE)
        if not len(loud) and len(self._lead) <= LONGEST_SILENCE * self._rate:
            return blocks
        return blocks + self._sound_begins(int(loud[0]) if len(loud) else 0)

    def end(self) -> None:
        """The piece is over. One without any sound counts as silence behind those before."""
        if self.origin is None:
            self.origin, self.trimmed = self.arrived, 0.0
            self._held = np.concatenate((self._held, self._lead))
            self._lead = np.zeros(0, np.float32)

    def finish(self) -> list[Block]:
        """The item is over: what was held back, with the silence its engine gave it."""
        held, self._held = np.concatenate((self._held, self._lead)), np.zeros(0, np.float32)
        self._lead = np.zeros(0, np.float32)
        return self._hand_out(_faded_out(held, self._rate))

    def discard(self) -> None:
        """Nobody wants the rest."""
        self._held = self._lead = np.zeros(0, np.float32)

    # ------------------------------------------------------------------ inside

    def _change_rate(self, sample_rate: int) -> list[Block]:
        """Another model speaks on: what the last one said ends here, since one block has one rate."""
        tail = self._cut_tail() if self._began else self._held
        blocks = self._hand_out(tail)
        self._held = np.zeros(0, np.float32)
        self._rate = sample_rate
        return blocks

    def _sound_begins(self, first: int) -> list[Block]:
        """The piece is heard from `_lead[first]` on: put it behind the one before."""
        keep = LEAD_SECONDS if self._pause else CLOSE_SECONDS
        start = max(0, first - round((keep if self._began else START_SECONDS) * self._rate))
        tail = self._cut_tail() if self._began else self._held
        quiet = self._quiet_behind(tail) + first - start
        gap = max(0, round(self._pause * self._rate) - quiet) if self._began else 0
        before = np.concatenate((tail, np.zeros(gap, np.float32)))
        piece, self._lead = self._lead[start:], np.zeros(0, np.float32)
        self._held = np.zeros(0, np.float32)
        blocks = self._hand_out(before)
        self.sounds_until = self.seconds
        self.trimmed = start / self._rate
        self.origin = self.seconds - self.trimmed
        self._began, self._pause = True, 0.0
        return blocks + self._settle(_faded_in(piece, self._rate))

    def _settle(self, samples: Samples) -> list[Block]:
        """Hand out everything up to the last sound, but for its last milliseconds."""
        samples = np.concatenate((self._held, samples))
        loud = np.flatnonzero(np.abs(samples) > AUDIBLE)
        if len(loud):
            self.sounds_until = self.seconds + (int(loud[-1]) + 1) / self._rate
        sure = int(loud[-1]) + 1 if len(loud) else 0
        ready = max(min(sure, len(samples) - round(FADE_SECONDS * self._rate)), 0)
        ready = max(ready, len(samples) - round(LONGEST_SILENCE * self._rate))
        blocks = self._hand_out(samples[:ready])
        self._held = samples[ready:]
        return blocks

    def _cut_tail(self) -> Samples:
        """What is heard of the samples held back when another piece follows."""
        keep = TAIL_SECONDS if self._pause else CLOSE_SECONDS
        quiet = self._quiet_behind(self._held)
        cut = len(self._held) - max(0, quiet - round(keep * self._rate))
        return _faded_out(self._held[:cut], self._rate)

    def _quiet_behind(self, samples: Samples) -> int:
        """How many samples at the end are silence."""
        loud = np.flatnonzero(np.abs(samples) > AUDIBLE)
        return len(samples) - (int(loud[-1]) + 1 if len(loud) else 0)

    def _hand_out(self, samples: Samples) -> list[Block]:
        if not len(samples):
            return []
        self.seconds += len(samples) / self._rate
        return [Block(samples, self._rate)]


def _faded_in(samples: Samples, sample_rate: int) -> Samples:
    """A copy that begins at zero, over a quarter of a cosine squared."""
    ramp = _ramp(min(len(samples), round(FADE_SECONDS * sample_rate)))
    return np.concatenate((samples[: len(ramp)] * ramp, samples[len(ramp) :]))


def _faded_out(samples: Samples, sample_rate: int) -> Samples:
    return _faded_in(samples[::-1], sample_rate)[::-1]


def _ramp(length: int) -> Samples:
    steps = (np.arange(length, dtype=np.float32) + 0.5) / max(length, 1)
    return np.asarray(np.sin(steps * (np.pi / 2)) ** 2, np.float32)
