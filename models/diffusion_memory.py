"""When a device runs out of memory: what to try, one rung after the other, and where to begin the next time."""

from __future__ import annotations

import math
from collections.abc import Sequence


class MemoryLadder:
    """Rungs, cheapest first, that need less and less memory. Remembers what each was too small for."""

    def __init__(self, rungs: Sequence[str]) -> None:
        self.rungs = tuple(rungs)
        self._needed_from = [math.inf] * len(rungs)

    def start(self, cost: float) -> str:
        """The rung for work of a cost, in whatever unit: the highest that no such work has been too much for."""
        needed = [rung for rung, least in zip(self.rungs, self._needed_from, strict=True) if cost >= least]
        return needed[-1] if needed else self.rungs[0]

    def next(self, rung: str, cost: float) -> str | None:
        """The rung after the one on which work of this cost ran out of memory; None when there is none."""
        place = self.rungs.index(rung) + 1
        if place == len(self.rungs):
            return None
        self._needed_from[place] = min(self._needed_from[place], cost)
        return self.rungs[place]
