"""Workers of one model come, multiply, die, stand still and come back."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import anyio
import numpy as np
import pytest

from models.errors import AtCapacity, Cancelled, EngineError, EngineFailed, OutOfMemory, PoisonedRequest
from models.interfaces import ListenRequest
from models.messages import FEED_AHEAD
from models.pool import Pool
from tests.fake_clock import FakeClock
from tests.models.scripted import fails, fake, is_alive, number, open_gate, pool_of, say, spoken, until


async def test_warm_and_voices_load_once() -> None:
    card = fake()
    async with pool_of(card) as pool:
        assert pool.stats()["fake"] == (0, 0, 0, 0)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pool.warm, card)
            tasks.start_soon(pool.warm, card)
        pids = pool.worker_pids(card)
        assert [voice.id for voice in await pool.voices(card)] == ["one", "two"]
        assert pool.worker_pids(card) == pids
        assert pool.stats()["fake"] == (1, 0, 0, 0)


async def test_a_caller_that_gives_up_does_not_stop_the_loading(gate: Path) -> None:
    card = fake(options={"load": str(gate)})
    async with pool_of(card) as pool:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pool.warm, card)
            await until(lambda: bool(pool.worker_pids(card)))
            tasks.cancel_scope.cancel()
        pids = pool.worker_pids(card)
        await open_gate(gate)
        await pool.warm(card)
        assert pool.worker_pids(card) == pids


async def test_another_replica_starts_when_the_first_is_busy_and_takes_the_next_run(gate: Path) -> None:
    card = fake(replicas=2)
    async with pool_of(card) as pool, pool.lease(card) as lease:
        async with lease.run(say(f"wait {gate}")) as held:
            await anext(held)
            assert await spoken(lease, "say 1") == [0]  # shares the busy one instead of waiting for the new one
            await until(lambda: pool.stats()["fake"].workers == 2)
            async with lease.run(say("kill")) as doomed:
                with pytest.raises(EngineFailed):
                    [item async for item in doomed]
            await open_gate(gate)
            assert number(await anext(held)) == 1  # the other worker's death is not its business


async def test_leases_beyond_one_workers_concurrency_wait_for_the_replica() -> None:
    card = fake(replicas=2, concurrency=1)
    async with pool_of(card) as pool, pool.lease(card):
        assert pool.stats()["fake"].workers == 1
        async with pool.lease(card):
            assert pool.stats()["fake"].workers == 2


@pytest.mark.parametrize(("load", "error"), [("raise", EngineFailed), ("memory", OutOfMemory), ("die", EngineFailed)])
async def test_a_load_failure_reaches_every_waiter(load: str, error: type[Exception]) -> None:
    card = fake(options={"load": load})
    failures: list[EngineError] = []
    async with pool_of(card) as pool:

        async def try_it() -> None:
            failures.append(await fails(pool, card, say("say 1")))

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(try_it)
    assert [type(failure) for failure in failures] == [error] * 3
    assert len({id(failure) for failure in failures}) == 3


async def test_a_process_that_cannot_be_started_is_an_answer_too(monkeypatch: pytest.MonkeyPatch) -> None:
    card = fake()
    async with pool_of(card) as pool:
        with monkeypatch.context() as broken:
            broken.setattr("sys.executable", "/nowhere/python")
            assert "could not be started" in (await fails(pool, card, say("say 1"))).message
        async with pool.lease(card) as lease:
            assert await spoken(lease, "say 1") == [0]


async def test_a_worker_that_talks_garbage_is_replaced() -> None:
    card = fake()
    async with pool_of(card) as pool, pool.lease(card) as lease:
        async with lease.run(say("garbage")) as run:
            with pytest.raises(EngineFailed, match="exited"):
                [item async for item in run]
        assert await spoken(lease, "say 1") == [0]


async def test_a_killed_worker_is_an_answer_to_everybody_in_it_and_the_next_lease_works() -> None:
    card = fake()
    async with pool_of(card) as pool:
        async with pool.lease(card) as lease, lease.run(say("step")) as one, lease.run(say("step")) as other:
            await anext(one)
            await anext(other)
            (victim,) = pool.worker_pids(card)
            os.kill(victim, signal.SIGKILL)
            for run in (one, other):
                with pytest.raises(EngineFailed, match="killed by SIGKILL") as caught:
                    await anext(run)
                assert caught.value.retryable
        async with pool.lease(card) as lease:
            assert await spoken(lease, "say 2") == [0, 1]
        assert victim not in pool.worker_pids(card)
        assert pool.stats()["fake"].restarts == 1


async def test_a_held_lease_gets_a_new_worker_for_its_next_run() -> None:
    card = fake()
    async with pool_of(card) as pool, pool.lease(card) as lease:
        async with lease.run(say("exit")) as run:
            with pytest.raises(EngineFailed, match="exited with status 3"):
                [item async for item in run]
        assert await spoken(lease, "say 1") == [0]


async def test_quick_failures_in_a_row_are_restarted_ever_later(clock: FakeClock) -> None:
    card = fake(options={"load": "raise"})
    async with pool_of(card, clock=clock, sleep=clock.sleep) as pool:
        await fails(pool, card, say("say 1"))
        await fails(pool, card, say("say 1"))  # the first restart is immediate
        for delay in (0.5, 1.0, 2.0, 4.0):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(fails, pool, card, say("say 1"))
                await clock.asleep_for(delay)
                clock.advance(delay)
        assert isinstance(await fails(pool, card, say("say 1")), EngineFailed)  # 8 s: nobody waits so long
        assert pool.worker_pids(card) == []


async def test_a_request_that_killed_two_workers_is_not_tried_again(clock: FakeClock) -> None:
    card = fake()
    async with pool_of(card, clock=clock, sleep=clock.sleep) as pool, pool.lease(card) as lease:
        for _ in range(2):
            with pytest.raises(EngineFailed, match="SIGKILL"):
                await spoken(lease, "kill")
        with pytest.raises(PoisonedRequest) as caught:
            await spoken(lease, "kill")
        assert not caught.value.retryable
        assert pool.worker_pids(card) == []  # not even a worker was started for it
        clock.advance(601)
        with pytest.raises(EngineFailed, match="SIGKILL"):
            await spoken(lease, "kill")


async def test_success_clears_a_request_of_suspicion(clock: FakeClock) -> None:
    card = fake()

    async def bystander(pool: Pool) -> None:
        async with pool.lease(card) as lease, lease.run(say("say 40")) as run:
            await anext(run)
            os.kill(pool.worker_pids(card)[0], signal.SIGKILL)
            await run.finished.wait()

    async with pool_of(card, clock=clock, sleep=clock.sleep) as pool:
        for _ in range(3):
            await bystander(pool)
            async with pool.lease(card) as lease:
                assert len(await spoken(lease, "say 40")) == 40
            clock.advance(60)


async def test_leaving_a_run_cancels_it_within_a_step_and_frees_the_worker() -> None:
    card = fake(concurrency=1)
    async with pool_of(card) as pool:
        for _ in range(3):
            async with pool.lease(card) as lease, lease.run(say("step")) as run:
                await anext(run)
            await run.finished.wait()
            assert isinstance(run.error, Cancelled)
        await until(lambda: pool.stats()["fake"].running == 0)
        assert pool.stats()["fake"].restarts == 0


async def test_the_slot_is_free_only_when_the_worker_has_confirmed(clock: FakeClock) -> None:
    card = fake(concurrency=1, queue=0)
    async with pool_of(card, clock=clock, sleep=clock.sleep) as pool:
        async with pool.lease(card) as lease, lease.run(say("stubborn")) as run:
            await anext(run)
        assert pool.stats()["fake"].running == 1
        with pytest.raises(AtCapacity):
            async with pool.lease(card):
                pass
        (victim,) = pool.worker_pids(card)
        await clock.asleep_for(card.cancel_grace)
        clock.advance(card.cancel_grace)
        await until(lambda: pool.stats()["fake"].running == 0)
        assert not is_alive(victim)
        async with pool.lease(card) as lease:
            assert await spoken(lease, "say 1") == [0]


async def test_a_worker_killed_for_a_stubborn_request_answers_the_others(clock: FakeClock) -> None:
    card = fake()
    async with pool_of(card, clock=clock, sleep=clock.sleep) as pool, pool.lease(card) as lease:
        async with lease.run(say("step")) as other:
            async with lease.run(say("stubborn")) as stubborn:
                await anext(stubborn)
            await clock.asleep_for(card.cancel_grace)
            clock.advance(card.cancel_grace)
            with pytest.raises(EngineFailed, match="would not end"):
                [item async for item in other]


async def test_a_worker_that_stands_still_does_not_hold_up_the_loop(clock: FakeClock) -> None:
    card = fake()
    async with pool_of(card, clock=clock, sleep=clock.sleep) as pool, pool.lease(card) as lease:
        async with lease.run(ListenRequest(prompt="echo")) as run:
            os.kill(pool.worker_pids(card)[0], signal.SIGSTOP)
            with anyio.fail_after(5):
                for _ in range(FEED_AHEAD):  # 6.4 MB, far more than a socket holds
                    await run.feed(np.zeros(16_000, np.float32))
        await clock.asleep_for(card.cancel_grace)
        clock.advance(card.cancel_grace)
        await run.finished.wait()


async def test_an_error_in_the_callers_code_comes_out_as_it_is() -> None:
    card = fake()

    async def stumble() -> None:
        async with pool_of(card) as pool, pool.lease(card) as lease, lease.run(say("step")) as run:
            await anext(run)
            raise KeyError

    with pytest.raises(KeyError):
        await stumble()
