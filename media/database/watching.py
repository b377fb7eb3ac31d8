"""Who waits for which topic, inside one process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import anyio


class TopicWatch:
    """Implements Watch."""

    def __init__(self) -> None:
        self._event = anyio.Event()
        self._event.set()  # what there was before the watch counts as a change

    def wake(self) -> None:
        self._event.set()

    async def changed(self, seconds: float | None = None) -> bool:
        with anyio.move_on_after(seconds):
            await self._event.wait()
        changed = self._event.is_set()
        # Fresh before the caller looks: a change while it looks is not lost.
        self._event = anyio.Event()
        return changed


class Watches:
    """Every watch of this process, by topic. Used on the event loop only."""

    def __init__(self) -> None:
        self._by_topic: dict[str, set[TopicWatch]] = {}

    @property
    def topics(self) -> list[str]:
        return list(self._by_topic)

    def __bool__(self) -> bool:
        return bool(self._by_topic)

    @contextmanager
    def watch(self, *topics: str) -> Iterator[TopicWatch]:
        watch = TopicWatch()
        for topic in topics:
            self._by_topic.setdefault(topic, set()).add(watch)
        try:
            yield watch
        finally:
            for topic in topics:
                watches = self._by_topic[topic]
                watches.discard(watch)
                if not watches:
                    del self._by_topic[topic]

    def notify(self, topics: Iterable[str]) -> None:
        for topic in topics:
            for watch in self._by_topic.get(topic, ()):
                watch.wake()

    def notify_all(self) -> None:
        self.notify(self._by_topic)
