"""How the voice moves at the end of what was said: pitch and loudness, from the samples alone.

Pitch is the highest peak of the normalised autocorrelation (Boersma, 1993, without its path finding): enough to tell
a voice that falls at the end of a sentence from one that stays up because more is to come.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SAMPLE_RATE = 16_000
FRAME, HOP = 640, 160
"""Samples: 40 ms, every 10 ms."""
LOWEST, HIGHEST = 70.0, 400.0
"""Hertz of a speaking voice."""
VOICED = 0.5
"""Normalised autocorrelation from which on a frame is voiced."""
QUIET = 30.0
"""Decibels below the loudest frame from which on nobody speaks."""
LOOK_BACK = 3.0
"""Seconds of speech that the end is compared with."""
END = 12
"""Voiced frames that are the end."""
FEWEST = 24
"""Voiced frames it takes to say anything."""


@dataclass(frozen=True, slots=True)
class Cadence:
    """The end of speech against the speech before it.

    `pitch` is semitones above the median, `slope` semitones a second within the end, `level` decibels above the median.
    """

    pitch: float
    slope: float
    level: float


def cadence(samples: npt.NDArray[np.float32]) -> Cadence | None:
    """Of 16 kHz samples, shape (n,), that end in a pause; None when too little of them is voiced."""
    spoken = samples[: _last_loud(samples)][-round(LOOK_BACK * SAMPLE_RATE) :]
    if len(spoken) < FRAME:
        return None
    frames = np.lib.stride_tricks.sliding_window_view(spoken, FRAME)[::HOP].astype(np.float64)
    frames = frames - frames.mean(axis=1, keepdims=True)
    power = np.square(frames).mean(axis=1)
    levels = 10 * np.log10(power + 1e-10)
    pitches, strengths = _pitches(frames)
    voiced = (strengths >= VOICED) & (levels >= levels.max() - QUIET)
    if voiced.sum() < FEWEST:
        return None
    semitones = 12 * np.log2(pitches[voiced])
    end = semitones[-END:]
    slope = float(np.polyfit(np.arange(END) * HOP / SAMPLE_RATE, end, 1)[0])
    pitch = float(np.median(end[-END // 2 :]) - np.median(semitones))
    level = float(levels[voiced][-END:].mean() - np.median(levels[voiced]))
    return Cadence(float(np.clip(pitch, -12, 12)), float(np.clip(slope, -60, 60)), float(np.clip(level, -20, 20)))


def _last_loud(samples: npt.NDArray[np.float32]) -> int:
    """The sample behind the last 10 ms that are not silent."""
    blocks = samples[: len(samples) // HOP * HOP].reshape(-1, HOP)
    if not len(blocks):
        return 0
    levels = 10 * np.log10(np.square(blocks, dtype=np.float64).mean(axis=1) + 1e-10)
    loud = np.flatnonzero(levels >= levels.max() - QUIET)
    return (int(loud[-1]) + 1) * HOP


def _pitches(frames: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Hertz of each frame, and the normalised autocorrelation there."""
    window = np.hanning(FRAME)
    size = 2 * FRAME
    spectra = np.abs(np.fft.rfft(frames * window, size, axis=1)) ** 2
    own = np.fft.irfft(spectra, size, axis=1)[:, :FRAME]
    of_window = np.fft.irfft(np.abs(np.fft.rfft(window, size)) ** 2, size)[:FRAME]
    normal = own / np.maximum(own[:, :1], 1e-12) * of_window[0] / np.maximum(of_window, 1e-9)
    shortest, longest = round(SAMPLE_RATE / HIGHEST), round(SAMPLE_RATE / LOWEST)
    lags = np.arange(shortest, longest + 1)
    # A tenth less for an octave: of two periods that fit as well, the shorter one is the pitch.
    favoured = normal[:, lags] - 0.1 * np.log2(lags / shortest)
    best = favoured.argmax(axis=1)
    return SAMPLE_RATE / lags[best].astype(np.float64), normal[np.arange(len(frames)), lags[best]]
