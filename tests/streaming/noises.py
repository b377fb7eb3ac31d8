"""Sounds that are no speech, made in code: 16 kHz mono, as long as asked for, the same for the same seed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]
SAMPLE_RATE = 16_000
KEYS = {key: (row, column) for row, keys in zip((697, 770, 852, 941), ("123A", "456B", "789C", "*0#D"), strict=True)
        for key, column in zip(keys, (1209, 1336, 1477, 1633), strict=True)}  # fmt: skip
CHORDS = ((0, 4, 7), (9, 12, 16), (5, 9, 12), (7, 11, 14))
"""Semitones above C: C, A minor, F, G."""


def silence(seconds: float) -> Samples:
    """What a good line sends when nobody speaks: 1 bit of dither."""
    return (np.random.default_rng(1).integers(-1, 2, _count(seconds)) / 32768).astype(np.float32)


def fan(seconds: float) -> Samples:
    """Brown and pink noise with the tone of the blades and its harmonics, swelling a little, at -32 dBFS."""
    generator = np.random.default_rng(2)
    times = _times(seconds)
    noise = 0.7 * _coloured(generator, len(times), 2.0) + 0.5 * _coloured(generator, len(times), 1.0)
    blades = sum(np.sin(2 * np.pi * 112.0 * order * times) / order for order in range(1, 6))
    return _at(-32.0, (noise + 0.4 * blades) * (1 + 0.15 * np.sin(2 * np.pi * 0.4 * times)))


def dialling(seconds: float) -> Samples:
    """DTMF: every key for a tenth of a second, with a pause as long."""
    generator = np.random.default_rng(3)
    tone, pause = _times(0.1), np.zeros(_count(0.1))
    parts = []
    for key in generator.choice(list(KEYS), _count(seconds) // (2 * len(tone)) + 1):
        row, column = KEYS[str(key)]
        parts += [np.sin(2 * np.pi * row * tone) + np.sin(2 * np.pi * column * tone), pause]
    return _at(-15.0, np.concatenate(parts)[: _count(seconds)])


def ringing(seconds: float) -> Samples:
    """Call progress: 440 and 480 Hz for two seconds, four of silence."""
    times = _times(seconds)
    return _at(-18.0, (np.sin(2 * np.pi * 440 * times) + np.sin(2 * np.pi * 480 * times)) * (times % 6 < 2))


def music(seconds: float) -> Samples:
    """A band: chords with overtones that fade, a bass, a drum on every beat and a hi-hat in between."""
    generator = np.random.default_rng(4)
    times = _times(seconds)
    beat = 0.5
    phase = times % beat
    bar = (times // (4 * beat)).astype(int) % len(CHORDS)
    chord = np.zeros_like(times)
    for voice in range(3):
        pitch = 261.63 * 2 ** (np.array(CHORDS)[bar, voice] / 12)
        turns = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
        chord += sum(np.sin(order * turns) / order**1.5 for order in range(1, 7)) * np.exp(-3 * phase)
    bass = np.sin(2 * np.pi * np.cumsum(65.4 * 2 ** (np.array(CHORDS)[bar, 0] / 12)) / SAMPLE_RATE)
    drum = np.sin(2 * np.pi * 55 * phase * np.exp(-8 * phase)) * np.exp(-18 * phase)
    hat = generator.standard_normal(len(times)) * np.exp(-60 * ((times + beat / 2) % beat))
    return _at(-20.0, 0.5 * chord + 0.6 * bass + 1.2 * drum + 0.3 * hat)


def hold_music(seconds: float) -> Samples:
    """A melody on one line: a chime that wanders over a scale, in telephone quality."""
    generator = np.random.default_rng(5)
    times = _times(seconds)
    note = 0.4
    steps = np.cumsum(generator.integers(-2, 3, int(seconds / note) + 2)) % 10
    pitch = 392.0 * 2 ** (np.array((0, 2, 4, 5, 7, 9, 11, 12, 14, 16))[steps] / 12)
    turns = 2 * np.pi * np.cumsum(pitch[(times / note).astype(int)]) / SAMPLE_RATE
    chime = (np.sin(turns) + 0.4 * np.sin(2.76 * turns) + 0.2 * np.sin(5.4 * turns)) * np.exp(-4 * (times % note))
    return _at(-20.0, _band(chime, 300.0, 3400.0))


NOISES: dict[str, Callable[[float], Samples]] = {
    "silence": silence,
    "fan": fan,
    "dialling": dialling,
    "ringing": ringing,
    "music": music,
    "hold music": hold_music,
}


def _count(seconds: float) -> int:
    return round(seconds * SAMPLE_RATE)


def _times(seconds: float) -> npt.NDArray[np.float64]:
    return np.arange(_count(seconds)) / SAMPLE_RATE


def _coloured(generator: np.random.Generator, count: int, slope: float) -> npt.NDArray[np.float64]:
    """Noise whose power falls with the frequency to the power of `slope`, of unit power."""
    spectrum = np.fft.rfft(generator.standard_normal(count))
    frequencies = np.maximum(np.fft.rfftfreq(count, 1 / SAMPLE_RATE), 20.0)
    noise = np.fft.irfft(spectrum * frequencies ** (-slope / 2), count)
    return np.asarray(noise / np.sqrt(np.square(noise).mean()))


def _band(samples: npt.NDArray[np.float64], low: float, high: float) -> npt.NDArray[np.float64]:
    spectrum = np.fft.rfft(samples)
    frequencies = np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE)
    kept = np.where((frequencies >= low) & (frequencies <= high), spectrum, 0)
    return np.asarray(np.fft.irfft(kept, len(samples)))


def _at(level: float, samples: npt.NDArray[np.float64]) -> Samples:
    """The samples at so many dBFS."""
    scaled = samples * 10 ** (level / 20) / np.sqrt(np.square(samples).mean())
    return np.asarray(scaled.clip(-1, 1), np.float32)
