"""Guards that every test runs under, and what all tests share.

Whatever a test starts ends with it: a task or a child process that is still there afterwards fails the test.
A call that would block the event loop, made below a frame of our three packages, raises `BlockingError`.
"""

from __future__ import annotations

import asyncio
import inspect
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio.lowlevel
import pytest
from blockbuster import BlockBuster, blockbuster_ctx

# A shell that runs the tests in the background has SIGINT ignored, and so would every process that they interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED_AUDIO = Path(__file__).parents[2] / "shared" / "audio"


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Asynchronous tests and fixtures run on asyncio alone, as the server does."""
    return "asyncio"


@pytest.fixture(scope="session")
def shared_audio() -> Path:
    """The folder of real recordings with references that lies beside the checkout."""
    if not SHARED_AUDIO.is_dir():
        pytest.skip("the real recordings are not beside this checkout (../shared/audio)")
    return SHARED_AUDIO


@pytest.fixture(scope="session", autouse=True)
def blocking_guard() -> Iterator[BlockBuster]:
    """Blocking calls raise, in any thread that has a running loop; threads without one may block."""
    with blockbuster_ctx(["media", "models", "streaming"]) as guard:
        for function in guard.functions.values():  # whoever connects looks for a password file first
            function.can_block_in("asyncpg/connect_utils.py", "_parse_connect_dsn_and_args")
        yield guard


@pytest.fixture
async def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


@pytest.fixture(autouse=True)
def _leak_guard(request: pytest.FixtureRequest) -> Iterator[None]:
    """First among the fixtures of a test, so it looks last: when every other fixture has cleaned up."""
    is_async = inspect.iscoroutinefunction(request.node.obj)
    loop: asyncio.AbstractEventLoop | None = request.getfixturevalue("_loop") if is_async else None
    tasks = asyncio.all_tasks(loop) if loop else set()
    children = _children()
    yield
    leaks = _end(asyncio.all_tasks(loop) - tasks, loop) if loop else []
    leaks += [f"process {pid} ({command})" for pid, command in sorted(_children() - children)]
    if leaks:
        pytest.fail("left running: " + "; ".join(leaks), pytrace=False)


def _end(tasks: set[asyncio.Task[Any]], loop: asyncio.AbstractEventLoop) -> list[str]:
    """Stop the tasks, and describe those that were not about to finish by themselves."""

    async def end() -> list[str]:
        for _ in range(3):  # turns of the loop for a task that has been told to stop
            await anyio.lowlevel.checkpoint()
        leaked = [task for task in tasks if not task.done()]
        described = sorted(f"task {task.get_name()} ({task.get_coro()!r})" for task in leaked)
        for task in leaked:
            task.cancel()
        await asyncio.gather(*leaked, return_exceptions=True)
        return described

    return loop.run_until_complete(end()) if tasks else []


def _children() -> set[tuple[int, str]]:
    """Our child processes, zombies too, as (pid, command line); empty where there is no /proc."""
    found: set[tuple[int, str]] = set()
    for listing in Path("/proc/self/task").glob("*/children"):
        try:
            for pid in listing.read_text().split():
                command = Path("/proc", pid, "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found.add((int(pid), command.strip()))
        except OSError:  # the thread or the process has just gone
            continue
    # multiprocessing starts this one once for the life of the interpreter
    return {(pid, command) for pid, command in found if "resource_tracker" not in command}
