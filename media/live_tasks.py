"""What live sessions of either direction stand on: tasks that end with their scope, and something to wait for."""

from __future__ import annotations

from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

import anyio
from anyio.abc import TaskGroup


class LiveTasks:
    """A task group and an alarm clock, shared by both directions."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        self._tasks: TaskGroup
        self._changed = anyio.Event()

    async def __aenter__(self) -> Self:
        self._tasks = await self._stack.enter_async_context(anyio.create_task_group())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        self._tasks.cancel_scope.cancel()
        return await self._stack.__aexit__(kind, error, traceback)

    def wake(self) -> None:
        """Something changed: whoever waits in `sleep` looks again."""
        self._changed.set()

    async def sleep(self, seconds: float | None) -> None:
        """Wait for the next `wake`, at most so long. The caller must not have awaited since it last looked."""
        self._changed = anyio.Event()
        with anyio.move_on_after(seconds):
            await self._changed.wait()
