"""Speech of a closed vocabulary, made up as it is needed: windows of audio, and the times of all words in them.

Sentences are commands, numbers and random words in many of the embedded engine's voices, at many speeds, pitches and
levels, in some noise. Some voices, a band of speeds and one sequence of words in ten are kept for tests.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from models.catalog import Catalog
from models.engines import espeak
from models.interfaces import Samples, SpeechRequest
from streaming.audio import Resampler

RATE, WINDOW = 16_000, 30
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
COLOURS = ("red", "green", "blue", "yellow", "black", "white")
VERBS = ("stop", "start", "open", "close", "play", "pause")
THINGS = ("light", "door", "window", "music", "kitchen", "timer")
DIRECTIONS = ("turn", "go", "on", "off", "up", "down", "left", "right")
OTHERS = ("yes", "no", "please", "now", "hello", "minutes", "the", "and")
WORDS = (*DIGITS, *COLOURS, *VERBS, *THINGS, *DIRECTIONS, *OTHERS)
VARIANTS = (
    *("", "klatt", "klatt2", "klatt3", "klatt4", "klatt5", "klatt6", "f1", "f2", "f3", "f4", "f5"),
    *("m1", "m2", "m3", "m5", "m6", "m7", "m8", "Alex", "Annie", "Mike", "steph", "zac", "max", "belinda"),
)
VOICES = ("en-gb", "en-gb-x-rp", "en-gb-x-rp+f2", "en-gb+m2", *(f"en-us+{name}".rstrip("+") for name in VARIANTS))
UNSEEN_VOICES = ("en-us+m4", "en-us+linda", "en-gb+f4")
UNSEEN_SPEEDS = (1.15, 1.25)


class Said(NamedTuple):
    """A word and its time in seconds."""

    word: str
    start: float
    end: float


@dataclass(frozen=True)
class Audio:
    """Samples at 16 kHz and what is said in them; words may reach over the edges."""

    samples: Samples
    words: tuple[Said, ...]


def is_unseen(words: Sequence[str]) -> bool:
    """One sequence in ten is never trained on."""
    return len(words) > 2 and zlib.crc32(" ".join(words).encode()) % 10 == 0


class Speaker:
    """Says sentences of the vocabulary and mixes them into windows."""

    def __init__(self, seed: int, *, unseen: bool = False) -> None:
        self._unseen = unseen
        self.chance = random.Random(seed)  # noqa: S311 - data, not secrets
        self._synthesizer = espeak.load(Catalog.load().find("espeak-ng", "speech").card)
        self._noises = [self._noise(np.random.default_rng(seed), colour) for colour in np.linspace(0, 1.5, 16)]
        self._pool: dict[str, list[Audio]] = {}

    def sentence(self) -> list[str]:
        """Digits, a command, or any words at all."""
        draw, kind = self.chance, self.chance.random()
        if kind < 0.2:
            words = draw.choices(DIGITS, k=draw.randint(1, 6))
        elif kind < 0.4:
            verb = draw.choice((*([verb] for verb in VERBS), ["turn", "on"], ["turn", "off"]))
            thing = [*draw.choice(([], draw.sample(COLOURS, 1), ["kitchen"])), draw.choice(THINGS)]
            words = [*draw.choice(([], ["please"])), *verb, "the", *thing, *draw.choice(([], ["please"], ["now"]))]
        else:
            words = draw.choices(WORDS, k=draw.randint(1, 6))
        return words if is_unseen(words) == self._unseen else self.sentence()

    def say(self, words: Sequence[str], voice: str, speed: float, pitch: float = 1.0) -> Audio:
        """`pitch` shifts the voice as a tape that runs at another speed."""
        gaps = self.chance.choices((" ", ", "), (8, 1), k=len(words) - 1)
        text = "".join(word + gap for word, gap in zip(words, (*gaps, self.chance.choice(("", ".", "?"))), strict=True))
        chunks = list(self._synthesizer.synthesize(SpeechRequest(text, voice, speed=speed), lambda done, total: None))
        source = chunks[0].sample_rate * pitch
        resampler = Resampler(round(source), RATE)
        samples = np.concatenate([resampler.process(np.concatenate([c.samples for c in chunks])), resampler.finish()])
        timings = [timing for chunk in chunks for timing in chunk.words]
        said = [Said(text[t.start_char : t.end_char], t.start / pitch, t.end / pitch) for t in timings]
        first, last = said[0].start, min(said[-1].end + 0.02, len(samples) / RATE)
        moved = tuple(Said(word, start - first, end - first) for word, start, end in said)
        return Audio(samples[round(first * RATE) : round(last * RATE)], moved)

    def fill(self, count: int, *, most: int = 600) -> None:
        """Put utterances into the pool; a voice that has `most` loses old ones."""
        for _ in range(count):
            speed = self.chance.uniform(0.75, 1.5)
            if UNSEEN_SPEEDS[0] < speed < UNSEEN_SPEEDS[1]:
                continue
            voice = self.chance.choice(VOICES)
            pitch = self.chance.choice((1.0, self.chance.uniform(0.93, 1.08)))
            kept = self._pool.setdefault(voice, [])
            said = self.say(self.sentence(), voice, speed, pitch)
            if len(kept) < most:
                kept.append(said)
            else:
                kept[self.chance.randrange(most)] = said

    def window(self, seconds: int) -> Audio:
        """Utterances with pauses in between, in some noise: at most so long, and now and then cut at the edges."""
        draw = self.chance
        samples, said = np.zeros(seconds * RATE, np.float32), list[Said]()
        most = draw.choice((1, 2, 4, 99, 99)) if draw.random() > 0.05 else 0
        at = draw.uniform(-0.8, 0.0) if draw.random() < 0.15 else draw.uniform(0.0, 1.0 if draw.random() < 0.9 else 4.0)
        cut, level, voice = draw.random() < 0.3, 10 ** draw.uniform(-1.3, 0.0), draw.choice(list(self._pool))
        for _ in range(most):
            voice = draw.choice(list(self._pool)) if draw.random() < 0.4 else voice
            spoken = draw.choice(self._pool[voice])
            begin, stop = round(at * RATE), round(at * RATE) + len(spoken.samples)
            if begin >= len(samples) or (stop > len(samples) and not cut):
                break
            room = slice(max(begin, 0), max(min(stop, len(samples)), 0))
            samples[room] += spoken.samples[max(-begin, 0) :][: room.stop - room.start] * level * draw.uniform(0.5, 1.0)
            said += [Said(word, at + start, at + end) for word, start, end in spoken.words if at + end > 0]
            at = stop / RATE + draw.choice((draw.uniform(0.08, 0.25), draw.uniform(0.45, 1.3)))
        if draw.random() < 0.8:
            noise, offset = draw.choice(self._noises), draw.randrange(WINDOW * RATE)
            samples += noise[offset : offset + len(samples)] * 10 ** draw.uniform(-5.0, -1.8)
        whole = draw.random() < 0.4 or not said
        heard = seconds if whole else min(seconds, max(said[-1].end, 0.1) + draw.uniform(0.05, 0.6))
        return Audio(samples[: round(heard * RATE)], tuple(said))

    @staticmethod
    def _noise(generator: Any, colour: float) -> Samples:
        """Two windows of noise of level 1 whose amplitude falls by frequency to the power of `colour`."""
        spectrum = np.fft.rfft(generator.standard_normal(2 * WINDOW * RATE))
        noise = np.fft.irfft(spectrum / np.maximum(np.arange(len(spectrum)), 4000) ** colour).astype(np.float32)
        return noise / noise.std()  # type: ignore[no-any-return]
