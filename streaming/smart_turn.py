"""smart-turn v3 (Pipecat, BSD 2-Clause): an ONNX model that hears whether a turn is over, in 23 languages.

A Whisper encoder over the last 8 s with a head of one probability. What it hears are Whisper's features of audio that
is padded in front and scaled to unit variance (Radford et al., 2022; the model's own `inference.py`): log-mel energies
in 80 bands, 10 ms apart, no lower than 80 dB below the highest.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from streaming.endpointing import HEARD_SECONDS, Pause

SAMPLE_RATE = 16_000
SAMPLES = round(HEARD_SECONDS * SAMPLE_RATE)
BANDS, FFT, HOP = 80, 400, 160
INPUT = "input_features"


class SmartTurn:
    """Implements EndOfTurnJudge, on one onnxruntime thread: 10 to 60 ms each."""

    reads = False

    def __init__(self, model_path: Path) -> None:
        """Raises: ValueError when the file is not such a model."""
        import onnxruntime  # takes a while to load

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session: Any = onnxruntime.InferenceSession(
                str(model_path), sess_options=options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise ValueError(f"{model_path} is not a model that can be loaded: {error}") from error
        inputs = {each.name: list(each.shape[1:]) for each in self._session.get_inputs()}
        if inputs != {INPUT: [BANDS, SAMPLES // HOP]}:
            raise ValueError(f"{model_path} is not smart-turn v3: it takes {inputs}")

    def probability(self, pause: Pause) -> float:
        """How probable it is that the turn is over."""
        (output, *_) = self._session.run(None, {INPUT: features(pause.samples)[None]})
        return float(np.clip(np.ravel(output)[0], 0.0, 1.0))


def features(samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """What the model hears of the last 8 s of 16 kHz audio, shape (80, 800)."""
    heard = np.zeros(SAMPLES, np.float32)
    last = samples[-SAMPLES:]
    heard[SAMPLES - len(last) :] = last
    scaled = (heard - heard.mean()) / np.sqrt(heard.var() + np.float32(1e-7))
    padded = np.pad(scaled.astype(np.float64), FFT // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, FFT)[::HOP][: SAMPLES // HOP]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FFT) / FFT)
    power = np.square(np.abs(np.fft.rfft(frames * hann, axis=1)))
    levels = np.log10(np.maximum(power @ _mel_filters(), 1e-10)).T
    return np.asarray((np.maximum(levels, levels.max() - 8.0) + 4.0) / 4.0, np.float32)


@cache
def _mel_filters() -> npt.NDArray[np.float64]:
    """Slaney's mel filters, each of unit area, shape (frequencies, bands): linear up to 1 kHz, logarithmic above."""
    linear, knee, ratio = 200 / 3, 15.0, np.log(6.4) / 27
    mels = np.linspace(0.0, knee + np.log(SAMPLE_RATE / 2 / 1000) / ratio, BANDS + 2)
    edges = np.where(mels < knee, mels * linear, 1000 * np.exp(ratio * (mels - knee)))
    frequencies = np.linspace(0, SAMPLE_RATE / 2, FFT // 2 + 1)[:, None]
    rising = (frequencies - edges[:-2]) / np.diff(edges)[:-1]
    falling = (edges[2:] - frequencies) / np.diff(edges)[1:]
    filters = np.maximum(0, np.minimum(rising, falling)) * 2 / (edges[2:] - edges[:-2])
    return np.asarray(filters, np.float64)
