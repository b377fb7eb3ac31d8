"""Which models fit on this machine together."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

import anyio

from models.catalog import Card
from models.errors import AtCapacity, OutOfMemory


class Evictable(Protocol):
    """A model that can give its memory back."""

    @property
    def idle_since(self) -> float | None:
        """When it became idle; None while it is in use or holds no memory."""
        ...

    async def unload(self, reason: str) -> None:
        """Give all memory back; returns when that has happened."""
        ...


class MemoryBudget:
    """Hands out the memory workers need; idle models, the longest unused first, make way for new ones."""

    def __init__(self, total_mb: int | None, models: Callable[[], Iterable[Evictable]]) -> None:
        """No limit when `total_mb` is None."""
        self._total_mb = total_mb
        self._models = models
        self._turn = anyio.Lock()
        self.used_mb = 0

    async def reserve(self, card: Card) -> None:
        """Set aside one worker's memory, evicting what is idle. `release` gives it back.

        Raises OutOfMemory when the budget could never hold it, AtCapacity when what is loaded is all in use.
        """
        if self._total_mb is not None and card.memory_mb > self._total_mb:
            raise OutOfMemory(f"Model {card.id!r} needs {card.memory_mb} MB; the memory budget is {self._total_mb} MB.")
        async with self._turn:  # or two models would each evict for the same free space
            while self._total_mb is not None and self.used_mb + card.memory_mb > self._total_mb:
                await self._evict_one(card)
            self.used_mb += card.memory_mb

    def release(self, card: Card) -> None:
        """One worker of the card is gone."""
        self.used_mb -= card.memory_mb

    async def _evict_one(self, card: Card) -> None:
        idle = [(since, model) for model in self._models() if (since := model.idle_since) is not None]
        if not idle:
            raise AtCapacity(f"There is no memory for model {card.id!r}: every loaded model is in use.")
        _, longest_unused = min(idle, key=lambda entry: entry[0])
        await longest_unused.unload(f"The model made way for {card.id!r}.")
