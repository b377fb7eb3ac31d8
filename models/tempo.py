"""Faster and slower without another pitch, for engines that have one speed only: libav's `atempo`, block by block."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import av
import av.filter
import numpy as np

from models.interfaces import Samples

_SLOWEST = 0.5
"""What one filter can do; two of them do four times as much."""


class Tempo:
    """Takes mono blocks of one sound at `sample_rate` and gives them back `speed` times as fast."""

    def __init__(self, speed: float, sample_rate: int) -> None:
        self._rate = sample_rate
        self._graph: av.filter.Graph | None = None
        self._sent = 0
        if speed != 1.0:
            self._graph = av.filter.Graph()
            nodes = [
                self._graph.add_abuffer(
                    format="flt", sample_rate=sample_rate, layout="mono", time_base=Fraction(1, sample_rate)
                )
            ]
            while speed < _SLOWEST:
                nodes.append(self._graph.add("atempo", str(_SLOWEST)))
                speed /= _SLOWEST
            nodes += [self._graph.add("atempo", f"{speed:.6f}"), self._graph.add("abuffersink")]
            self._graph.link_nodes(*nodes).configure()

    def push(self, samples: Samples) -> Iterator[Samples]:
        """Give a block, get those that are ready."""
        if self._graph is None:
            yield samples
            return
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples[None, :], np.float32), format="flt", layout="mono"
        )
        frame.sample_rate = self._rate
        frame.time_base = Fraction(1, self._rate)
        frame.pts = self._sent
        self._sent += len(samples)
        self._graph.push(frame)
        yield from self._ready(self._graph)

    def finish(self) -> Iterator[Samples]:
        """What is still inside; nothing can be given after it."""
        if self._graph is not None and self._sent:
            self._graph.push(None)
            yield from self._ready(self._graph)

    def _ready(self, graph: av.filter.Graph) -> Iterator[Samples]:
        while True:
            try:
                frame = graph.pull()
            except (BlockingIOError, EOFError):
                return
            yield np.clip(frame.to_ndarray().reshape(-1), -1.0, 1.0)
