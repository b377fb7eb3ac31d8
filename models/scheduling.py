"""Batches across the requests of one worker: whoever is due next takes along what fits beside it.

Items wait in order of their deadlines. When a thread is free, it takes the item due first and, up to the batch's size,
those due next that have the same key; on a busy model batches fill by themselves, on an idle one nobody waits. Threads
that are free at the same time share what waits.

Live turns and recordings share a lane: `Urgency` puts their items in order, `Cadence` keeps live turns from asking for
more than the machine can do.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_log = logging.getLogger(__name__)


SHORTEST_PERIOD = 0.25
"""Seconds of speech between two looks at a turn; who reads along sees no difference below."""
ALONE, TOGETHER = 0.4, 0.6
"""The most of a worker's time that one live turn may ask for, and of all workers' that all turns may; finals and
recordings have the rest."""
SPARE_PERIOD = 0.5
"""Seconds up to which the period may be stretched by other turns while the model still has time to spare."""
FORGETTING = 0.3
"""Weight of the newest look in what looks are believed to cost."""


POLL = 0.05
"""Seconds within which somebody who waits for an item notices that nobody wants it any more."""


class Urgency(float, Enum):
    """Seconds by which an item is due earlier, or later, than it is submitted.

    What waits for seconds is overtaken no more, so nothing waits forever.
    """

    FINAL = -8.0
    FIRST_PARTIAL = -4.0
    PARTIAL = 0.0
    UPLOAD = 4.0


class Cadence:
    """How often live turns of one model may look at their speech. Any thread may call it.

    The fewer the machine can do, the longer the period: turns never ask for more, so no backlog can grow. `workers`
    run at once.
    """

    def __init__(self, workers: int = 1) -> None:
        self._workers = workers
        self._lock = threading.Lock()
        self._turns = 0
        self._cost = 0.0

    @property
    def turns(self) -> int:
        """Live turns now."""
        return self._turns

    @property
    def period(self) -> float:
        """Seconds of speech from one look to the next."""
        return max(SHORTEST_PERIOD, self._cost / ALONE, self._together)

    @property
    def spares(self) -> bool:
        """Whether the model has time for what may turn out to be useless."""
        return self._together <= SPARE_PERIOD

    @property
    def _together(self) -> float:
        return self._turns * self._cost / (TOGETHER * self._workers)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """A live turn, while it is under way."""
        with self._lock:
            self._turns += 1
        try:
            yield
        finally:
            with self._lock:
                self._turns -= 1

    def took(self, seconds: float) -> None:
        """A look has cost so much of the model's time."""
        with self._lock:
            self._cost += (seconds - self._cost) * (FORGETTING if self._cost else 1.0)


class LaneFull(RuntimeError):
    """As many items wait as the lane has places."""


class LaneClosed(RuntimeError):
    """The lane takes no more items."""


@dataclass(order=True, slots=True)
class _Entry(Generic[Item, Result]):
    deadline: float
    order: int
    item: Item = field(compare=False)
    key: Hashable = field(compare=False)
    future: Future[Result] = field(compare=False)


def awaited(future: Future[Result], check: Callable[[], None]) -> Result:
    """The result of an item, with `check` called every 50 ms until it is there; what that raises cancels the item."""
    try:
        while wait([future], timeout=POLL).not_done:
            check()
        return future.result()
    finally:
        future.cancel()


class BatchLane(Generic[Item, Result]):
    """Runs items in batches, on threads of its own.

    `run` gets items of one key and returns their results in the same order. When a batch of several fails, each of its
    items is tried alone, so that one bad item fails only itself. With `gather`, a thread waits that many seconds for a
    batch to fill, and leaves nothing of it to others; a GPU gains by that, a CPU does not. `most` may set a lower limit
    to the batch of an item.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Item]], Sequence[Result]],
        *,
        max_batch: int,
        capacity: int = 1024,
        threads: int = 1,
        gather: float = 0.0,
        most: Callable[[Item], int] | None = None,
        name: str = "lane",
    ) -> None:
        if min(max_batch, capacity, threads) < 1 or gather < 0:
            raise ValueError("max_batch, capacity and threads must be at least 1, gather at least 0")
        self._run = run
        self._max_batch = max_batch
        self._capacity = capacity
        self._gather = gather
        self._most = most or (lambda item: max_batch)
        self._changed = threading.Condition()
        self._waiting: list[_Entry[Item, Result]] = []
        self._order = itertools.count()
        self._closed = False
        self._idle = 0
        self.batches = 0
        """Batches run so far."""
        self.items = 0
        """Items in them."""
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{index}", daemon=True) for index in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, item: Item, *, key: Hashable = None, deadline: float | None = None) -> Future[Result]:
        """Queue an item, due at `deadline` on the monotonic clock (by default now).

        Cancelling the future takes a waiting item out; one that is running runs on, and nobody hears of it.
        Raises: LaneFull, LaneClosed.
        """
        future: Future[Result] = Future()
        due = time.monotonic() if deadline is None else deadline
        with self._changed:
            if self._closed:
                raise LaneClosed("the lane is closed")
            if len(self._waiting) >= self._capacity:
                self._forget_cancelled()
            if len(self._waiting) >= self._capacity:
                raise LaneFull(f"{self._capacity} items are waiting")
            self._waiting.append(_Entry(due, next(self._order), item, key, future))
            self._changed.notify_all()
        return future

    @property
    def waiting(self) -> int:
        """Items that wait."""
        with self._changed:
            return sum(not entry.future.cancelled() for entry in self._waiting)

    def close(self) -> None:
        """Cancel what waits, and return when what runs is done."""
        with self._changed:
            self._closed = True
            waiting, self._waiting = self._waiting, []
            self._changed.notify_all()
        for entry in waiting:
            entry.future.cancel()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while batch := self._take():
            self._execute(batch)

    def _take(self) -> list[_Entry[Item, Result]]:
        """The next batch, in order of its deadlines; empty when the lane is closed."""
        while True:
            with self._changed:
                self._idle += 1
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._gather and not self._closed:
                    self._changed.wait_for(lambda: self._closed or self._fills_a_batch(), timeout=self._gather)
                if self._closed:
                    return []
                taken = self._pick()
                self._idle -= 1
            # Outside the lock: whoever cancels an item at this moment gets a callback, and may submit another.
            running = [entry for entry in taken if entry.future.set_running_or_notify_cancel()]
            if running:
                return running

    def _pick(self) -> list[_Entry[Item, Result]]:
        self._forget_cancelled()
        if not self._waiting:
            return []
        ordered = sorted(self._waiting)
        key = ordered[0].key
        alike = [entry for entry in ordered if entry.key == key]
        share = len(alike) if self._gather else -(-len(alike) // self._idle)
        taken = alike[: min(self._max_batch, self._most(ordered[0].item), share)]
        gone = {entry.order for entry in taken}
        self._waiting = [entry for entry in ordered if entry.order not in gone]
        return taken

    def _fills_a_batch(self) -> bool:
        return len(self._waiting) >= self._max_batch

    def _forget_cancelled(self) -> None:
        if any(entry.future.cancelled() for entry in self._waiting):
            self._waiting = [entry for entry in self._waiting if not entry.future.cancelled()]

    def _execute(self, batch: list[_Entry[Item, Result]]) -> None:
        with self._changed:
            self.batches += 1
            self.items += len(batch)
        try:
            results = list(zip(batch, self._run([entry.item for entry in batch]), strict=True))
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to those who wait for the results
            if len(batch) == 1:
                batch[0].future.set_exception(error)
                return
            _log.warning("a batch of %d failed; its items are tried one by one", len(batch), exc_info=error)
            for entry in batch:
                self._execute([entry])
            return
        for entry, result in results:
            entry.future.set_result(result)
