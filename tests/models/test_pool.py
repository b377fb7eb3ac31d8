"""The pool's promises to everybody at once, with real worker processes that run scripted engines."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import pytest
from anyio.lowlevel import checkpoint

from models.catalog import Catalog
from models.errors import AtCapacity, EngineFailed
from tests.fake_clock import FakeClock
from tests.models.scripted import fails, fake, is_alive, pool_of, say, spoken, until

ROOT = Path(__file__).parents[2]


async def test_a_full_queue_refuses_with_a_time_to_come_back() -> None:
    card = fake(concurrency=1, queue=1)
    async with pool_of(card) as pool, pool.lease(card):
        async with anyio.create_task_group() as tasks:

            async def wait_for_it() -> None:
                async with pool.lease(card):
                    pass

            tasks.start_soon(wait_for_it)
            await until(lambda: pool.stats()["fake"].waiting == 1)
            with pytest.raises(AtCapacity) as caught:
                async with pool.lease(card):
                    pass
            assert 1 <= caught.value.retry_after <= 30
            tasks.cancel_scope.cancel()
        assert pool.stats()["fake"][1:3] == (1, 0)


async def test_an_idle_model_is_unloaded_after_its_time_and_comes_back(clock: FakeClock) -> None:
    card = fake(idle_ttl=60.0)
    async with pool_of(card, clock=clock, sleep=clock.sleep) as pool:
        async with pool.lease(card):
            (pid,) = pool.worker_pids(card)
            await clock.asleep_for(60)
            clock.advance(60)
            await clock.asleep_for(60)  # in use: it looks again later
            assert is_alive(pid)
            clock.advance(10)
        await clock.asleep_for(50)
        clock.advance(50)
        await clock.asleep_for(10)  # idle for 50 s of its 60
        assert is_alive(pid)
        clock.advance(10)
        await until(lambda: pool.worker_pids(card) == [])
        assert not is_alive(pid)
        async with pool.lease(card) as lease:
            assert await spoken(lease, "say 1") == [0]
        assert pool.stats()["fake"].restarts == 0
        await clock.asleep_for(60)


async def test_the_least_recently_used_idle_model_makes_way() -> None:
    first, second, third = (fake(name, memory_mb=40) for name in ("first", "second", "third"))
    async with pool_of(first, second, third, memory_budget_mb=100) as pool:
        await pool.warm(first)
        await pool.warm(second)
        async with pool.lease(first):
            pass
        (evicted,) = pool.worker_pids(second)
        async with pool.lease(third):
            assert not is_alive(evicted)
            assert [pool.stats()[card.id].workers for card in (first, second, third)] == [1, 0, 1]


async def test_models_in_use_do_not_make_way() -> None:
    busy, wanted = fake("busy", memory_mb=80), fake("wanted", memory_mb=80)
    async with pool_of(busy, wanted, memory_budget_mb=100) as pool:
        async with pool.lease(busy):
            assert isinstance(await fails(pool, wanted, say("say 1")), AtCapacity)
        async with pool.lease(wanted) as lease:
            assert await spoken(lease, "say 1") == [0]


async def test_stop_waits_for_leases_then_ends_what_is_left(clock: FakeClock) -> None:
    card = fake()
    async with pool_of(card, clock=clock, sleep=clock.sleep) as pool:
        async with anyio.create_task_group() as tasks, pool.lease(card) as lease, lease.run(say("step")) as run:
            await anext(run)
            tasks.start_soon(pool.stop, 25.0)
            await clock.asleep_for(25)
            with pytest.raises(AtCapacity, match="shutting down"):
                async with pool.lease(card):
                    pass
            assert await spoken(lease, "say 2") == [0, 1]  # who is in may finish
            clock.advance(25)
            with pytest.raises(EngineFailed, match="shutting down"):
                [item async for item in run]
            with pytest.raises(AtCapacity, match="shutting down"):
                await spoken(lease, "say 1")


async def test_stop_returns_as_soon_as_the_last_lease_ends(clock: FakeClock) -> None:
    card = fake()
    async with pool_of(card, clock=clock, sleep=clock.sleep) as pool:
        async with anyio.create_task_group() as tasks:
            async with pool.lease(card):
                tasks.start_soon(pool.stop, 25.0)
                await clock.asleep_for(25)
        assert pool.worker_pids(card) == []


async def test_leaving_the_pool_ends_workers_that_are_loading_stuck_or_stopped(gate: Path) -> None:
    loading, stuck, frozen = fake("loading", options={"load": str(gate)}), fake("stuck"), fake("frozen")
    async with anyio.create_task_group() as tasks:
        async with pool_of(loading, stuck, frozen) as pool:
            tasks.start_soon(fails, pool, loading, say("say 1"))
            async with pool.lease(stuck) as lease, lease.run(say("stubborn")) as run:
                await anext(run)
            await pool.warm(frozen)
            os.kill(pool.worker_pids(frozen)[0], signal.SIGSTOP)
            await until(lambda: bool(pool.worker_pids(loading)))


async def test_many_leases_leak_nothing() -> None:
    card = fake()

    def open_files() -> int:
        return len(os.listdir("/proc/self/fd"))

    async with pool_of(card) as pool:
        await pool.warm(card)
        before = open_files()
        for count in range(200):
            async with pool.lease(card) as lease, lease.run(say("say 3")) as run:
                async for _ in run:
                    if count % 2:
                        break
        await until(lambda: pool.stats()["fake"].running == 0)
        assert open_files() == before
        assert [len(worker.runs) for worker in pool._fleet(card).workers] == [0]
    await checkpoint()
    assert open_files() < before


SERVER = """
import sys, anyio
from models.catalog import Catalog
from models.pool import Pool
from tests.models.scripted import fake

async def main():
    async with Pool(Catalog([])) as pool:
        await pool.warm(fake())
        print(*pool.worker_pids(fake()), flush=True)
        await anyio.sleep_forever()

anyio.run(main, backend_options={"use_uvloop": sys.argv[1] == "uvloop"})
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_workers_do_not_outlive_a_killed_server(loop: str) -> None:
    command = [sys.executable, "-c", SERVER, loop]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as server:
        assert server.stdout is not None
        (pid,) = map(int, server.stdout.readline().split())
        watch = os.pidfd_open(pid)  # readable when the process has ended, whoever its parent is by then
        server.kill()
        with os.fdopen(watch, "rb"):
            assert select.select([watch], [], [], 5)[0]


async def test_the_embedded_voice_speaks_under_every_name_its_card_promises() -> None:
    card = await anyio.to_thread.run_sync(lambda: Catalog.load().find("espeak-ng", "speech").card)
    async with pool_of(card) as pool:
        offered = {voice.id for voice in await pool.voices(card)}
    assert {card.default_voice, *card.openai_voices.values()} <= offered
