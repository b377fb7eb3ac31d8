"""Who may use a model now, who waits, and who is sent away."""

from __future__ import annotations

import bisect
from collections.abc import Callable

import anyio

from models.errors import AtCapacity

SHORTEST_RETRY = 1.0
LONGEST_RETRY = 30.0
_NEWEST_SHARE = 0.2
"""Weight of the newest holding time in the running mean that `retry_after` is estimated from."""


class Slot:
    """The right to one place at work, from `acquire` to `release`."""

    def __init__(self, since: float) -> None:
        self.since = since


class _Waiter:
    def __init__(self, rank: tuple[int, int]) -> None:
        self.rank = rank
        self.answered = anyio.Event()
        self.slot: Slot | None = None


class Admission:
    """`slots` places at work and `queue` to wait in: larger priorities first, then first come, first served."""

    def __init__(self, model: str, slots: int, queue: int, clock: Callable[[], float]) -> None:
        self._model = model
        self._slots = slots
        self._queue = queue
        self._clock = clock
        self._waiters: list[_Waiter] = []
        self._arrivals = 0
        self._mean_hold = 0.0
        self._closed = False
        self.running = 0

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._waiters)

    async def acquire(self, priority: int = 0, *, begun: bool = False) -> Slot:
        """Take a slot, waiting for one if there is room. A caller cancelled meanwhile leaves the queue.

        Whoever goes on with what is `begun` waits even when the queue is full: newcomers must not break off others.
        Raises AtCapacity at once when the queue is full, and to everybody waiting when admission closes.
        """
        if self._closed:
            raise self._shutting_down()
        if self.running < self._slots:
            self.running += 1
            return Slot(self._clock())
        if self.waiting >= self._queue and not begun:
            raise AtCapacity(
                f"Model {self._model!r} is at capacity: {self.running} running, {self.waiting} waiting.",
                retry_after=self.retry_after(),
            )
        self._arrivals += 1
        waiter = _Waiter((-priority, self._arrivals))
        bisect.insort(self._waiters, waiter, key=lambda other: other.rank)
        try:
            await waiter.answered.wait()
        except BaseException:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            elif waiter.slot is not None:  # given a slot and cancelled in the same turn of the event loop
                self.release(waiter.slot)
            raise
        if waiter.slot is None:
            raise self._shutting_down()
        return waiter.slot

    def release(self, slot: Slot) -> None:
        """Give a slot back; it goes straight to the first in the queue, so that no newcomer slips in."""
        now = self._clock()
        held = now - slot.since
        self._mean_hold += (held - self._mean_hold) * (_NEWEST_SHARE if self._mean_hold else 1.0)
        if self._waiters:
            first = self._waiters.pop(0)
            first.slot = Slot(now)
            first.answered.set()
        else:
            self.running -= 1

    def close(self) -> None:
        """Refuse everybody from now on, those already waiting included. Slots taken stay taken."""
        self._closed = True
        for waiter in self._waiters:
            waiter.answered.set()
        self._waiters.clear()

    def retry_after(self) -> float:
        """Seconds until a newcomer would probably find a place: the work queued now, shared by the slots."""
        estimate = self._mean_hold * (self.waiting + 1) / self._slots
        return min(max(estimate, SHORTEST_RETRY), LONGEST_RETRY)

    def _shutting_down(self) -> AtCapacity:
        return AtCapacity("The server is shutting down.", retry_after=SHORTEST_RETRY)
