"""Leaving in order: open work ends well, or is told to end at the deadline."""

from __future__ import annotations

import anyio

from media.drain import Drain


async def test_nothing_open_is_over_at_once() -> None:
    drain = Drain()
    assert not drain.started
    assert await drain.finish(10.0)
    assert drain.started
    assert not drain.expired


async def test_work_that_ends_by_itself_is_waited_for() -> None:
    drain, told = Drain(), anyio.Event()
    ended: list[str] = []

    async def session() -> None:
        with drain.work():
            told.set()
            await drain.begun()
            ended.append("said goodbye")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(session)
        tasks.start_soon(session)
        await told.wait()
        assert await drain.finish(10.0)
        assert ended == ["said goodbye"] * 2
    assert not drain.expired


async def test_work_that_does_not_end_is_told_at_the_deadline() -> None:
    drain, told = Drain(), anyio.Event()
    ended: list[str] = []

    async def session() -> None:
        with drain.work():
            told.set()
            await drain.past_deadline()
            ended.append("cut off")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(session)
        await told.wait()
        assert not await drain.finish(0.0)
        assert ended == ["cut off"]
    assert drain.expired


async def test_work_that_never_ends_does_not_keep_the_server() -> None:
    drain = Drain()
    with drain.work():
        assert not await drain.finish(0.0, grace=0.0)
    assert drain.expired


async def test_requests_are_cancelled_at_the_deadline_and_sessions_are_not() -> None:
    drain, ready = Drain(), anyio.Event()
    caught: list[bool] = []

    async def request() -> None:
        with drain.request() as scope:
            ready.set()
            await anyio.sleep_forever()
        caught.append(scope.cancelled_caught)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(request)
        await ready.wait()
        assert not await drain.finish(0.0)
    assert caught == [True]
    with drain.request() as late:
        pass
    assert not late.cancelled_caught


async def test_work_that_fails_is_over_too() -> None:
    drain = Drain()
    failing = drain.work()
    failing.__enter__()
    async with anyio.create_task_group() as tasks:

        async def fail() -> None:
            await drain.begun()
            failing.__exit__(ValueError, ValueError(), None)

        tasks.start_soon(_swallow, fail)
        assert await drain.finish(10.0)


async def _swallow(work: object) -> None:
    try:
        await work()  # type: ignore[operator]
    except ValueError:
        return


async def test_two_drains_are_one() -> None:
    drain, ready = Drain(), anyio.Event()
    results: list[bool] = []

    async def finish() -> None:
        results.append(await drain.finish(10.0))

    async def session() -> None:
        with drain.work():
            ready.set()
            await drain.begun()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(session)
        await ready.wait()
        tasks.start_soon(finish)
        tasks.start_soon(finish)
    assert results == [True, True]
