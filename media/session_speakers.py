"""Who speaks in one live session: stretches of speech go to a voice encoder, what it says of them to `LiveSpeakers`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import anyio
import numpy as np

from media.metrics import Metrics
from models.catalog import Card
from models.errors import EngineError, EngineFailed, InvalidInput
from models.interfaces import VoicesRequest, VoicesResult
from models.live_speakers import LiveSpeakers, Window
from models.pool import Pool
from streaming.listening_events import SpeakerRelabelled, WhoSpeaks
from streaming.transcript import SpeakerTurn

PATIENCE = 5.0
"""Seconds after which a transcript goes without speakers: a model that has to be loaded takes one or two."""

Answer: TypeAlias = tuple[tuple[SpeakerTurn, ...], tuple[SpeakerRelabelled, ...]]

logger = logging.getLogger("sonoreel.speakers")


class SessionSpeakers:
    """The voices of a session, told apart with the model `card`. One stretch at a time may be asked about."""

    def __init__(self, pool: Pool, card: Card, metrics: Metrics) -> None:
        self._pool = pool
        self._card = card
        self._metrics = metrics
        self._voices = LiveSpeakers()

    async def warm(self) -> None:
        """Load the model before anybody has spoken; that it cannot be loaded is told when it is needed."""
        try:
            await self._pool.warm(self._card)
        except EngineError as error:
            logger.warning("%s could not be loaded: %s", self._card.id, error.message)

    async def introduce(self, clips: Mapping[str, Path]) -> None:
        """From now on these people have their names; each clip holds one person's voice.

        Raises: EngineError, InvalidInput among them.
        """
        known = {}
        for name, path in clips.items():
            try:
                result = await self._encode(VoicesRequest(path=str(path)))
            except InvalidInput as error:
                message = error.message.replace("'this speaker'", repr(name))
                raise InvalidInput(message, field=error.field, code=error.code) from error
            known[name] = np.asarray(result.vectors, np.float32)
        self._voices.introduce(known)

    async def who_speaks(self, stretch: WhoSpeaks) -> Answer:
        """Who speaks in a stretch, and what was wrong about earlier ones; nothing when nobody can tell in time."""
        try:
            with anyio.move_on_after(PATIENCE):
                result = await self._encode(VoicesRequest(samples=stretch.samples))
                return await anyio.to_thread.run_sync(self._hear, stretch, result)
            logger.warning("who speaks was not known after %g seconds", PATIENCE)
        except EngineError as error:
            self._metrics.engine_error(self._card.id, error)
        return (), ()

    def _hear(self, stretch: WhoSpeaks, result: VoicesResult) -> Answer:
        vectors = np.asarray(result.vectors, np.float32).reshape(len(result.clear), -1)
        edges = [stretch.start + max(edge, stretch.lead) for edge in result.edges]
        windows = [
            Window(start, end, vector, clear)
            for start, end, vector, clear in zip(edges, edges[1:], vectors, result.clear, strict=False)
            if end > start
        ]
        turns, corrections = self._voices.hear(windows)
        return turns, tuple(SpeakerRelabelled(each.old, each.new, each.start, each.end) for each in corrections)

    async def _encode(self, request: VoicesRequest) -> VoicesResult:
        async with self._pool.lease(self._card) as lease, lease.run(request) as run:
            found = None
            async for result in run:
                found = result if isinstance(result, VoicesResult) else found
            if found is None:
                raise EngineFailed("The model did not say what the voices sound like.")
            return found
