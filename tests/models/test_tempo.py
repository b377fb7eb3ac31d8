from __future__ import annotations

import numpy as np
import pytest

from models.interfaces import Samples
from models.tempo import Tempo

RATE = 24_000
TONE = (0.5 * np.sin(2 * np.pi * 220 * np.arange(2 * RATE) / RATE)).astype(np.float32)


def changed(speed: float, samples: Samples, size: int = 2048) -> Samples:
    tempo = Tempo(speed, RATE)
    blocks = [block for start in range(0, len(samples), size) for block in tempo.push(samples[start : start + size])]
    return np.concatenate([*blocks, *tempo.finish(), np.zeros(0, np.float32)])


@pytest.mark.parametrize("speed", [0.25, 0.4, 0.5, 0.9, 1.5, 2.0, 4.0])
def test_the_length_changes_and_the_pitch_does_not(speed: float) -> None:
    audio = changed(speed, TONE)
    assert audio.dtype == np.float32
    assert len(audio) * speed == pytest.approx(len(TONE), rel=0.03)
    crossings = np.count_nonzero(np.diff(np.signbit(audio))) / 2
    assert crossings / (len(audio) / RATE) == pytest.approx(220, rel=0.01)


def test_at_its_own_speed_nothing_changes() -> None:
    assert np.array_equal(changed(1.0, TONE), TONE)


@pytest.mark.parametrize("speed", [0.5, 1.0, 2.0])
def test_nothing_is_made_of_nothing(speed: float) -> None:
    assert len(changed(speed, TONE[:0])) == 0


def test_sound_comes_before_all_of_it_is_there() -> None:
    tempo = Tempo(2.0, RATE)
    assert sum(len(block) for start in range(0, RATE, 2048) for block in tempo.push(TONE[start : start + 2048]))
