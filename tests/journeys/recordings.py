"""Speech to send and ways to judge what came back: real recordings, the server's own voice, word error rates."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import httpx
import jiwer
import numpy as np

from streaming.audio import PcmEncoding, Samples, decode_pcm, encode_pcm
from streaming.decode import decode
from tests.journeys.server_process import ServerProcess

PAUSE = 1.0
"""Seconds of silence after which every dialect's voice activity has ended the turn."""


def speak(server: ServerProcess, text: str, **options: object) -> bytes:
    """The server's own voice, by default alloy in 16 kHz 16-bit PCM."""
    request = {"model": "auto", "voice": "alloy", "input": text, "response_format": "pcm", "sample_rate": 16_000}
    response = httpx.post(f"{server.url}/v1/audio/speech", json=request | options, timeout=30)
    response.raise_for_status()
    return response.content


def spoken_samples(server: ServerProcess, text: str) -> Samples:
    """The same as samples in -1..1 at 16 kHz."""
    return decode_pcm(speak(server, text), PcmEncoding.S16LE)


def read(path: Path, sample_rate: int = 16_000) -> Samples:
    """A recording as mono samples."""
    return np.concatenate([chunk.samples for chunk in decode(path, sample_rate=sample_rate)])


def seconds_of(audio: bytes) -> float:
    """The length of an encoded file, by decoding all of it."""
    return sum(chunk.duration for chunk in decode(io.BytesIO(audio)))


def with_pauses(samples: Samples, sample_rate: int = 16_000, before: float = 0.3, after: float = PAUSE) -> Samples:
    """The samples between two silences (seconds)."""
    lead, tail = (np.zeros(round(sample_rate * seconds), np.float32) for seconds in (before, after))
    return np.concatenate([lead, samples, tail])


def frames_of(
    samples: Samples, sample_rate: int = 16_000, encoding: PcmEncoding = PcmEncoding.S16LE, milliseconds: int = 100
) -> Iterator[bytes]:
    """The samples as a microphone would send them."""
    step = sample_rate * milliseconds // 1000
    for start in range(0, len(samples), step):
        yield encode_pcm(samples[start : start + step], encoding)


def plain(text: str) -> str:
    """Lower case without punctuation, as the references are."""
    return " ".join(re.findall(r"[a-z']+", text.lower()))


def word_error_rate(references: Sequence[str], hypotheses: Iterable[str]) -> float:
    """Over all the words of all the references."""
    return float(jiwer.wer([plain(text) for text in references], [plain(text) for text in hypotheses]))
