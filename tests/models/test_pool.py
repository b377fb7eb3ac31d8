"""The pool's promises, with real worker processes that run scripted engines."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import msgspec
import numpy as np
import pytest
from anyio.lowlevel import checkpoint

from models.catalog import Card, Catalog
from models.errors import AtCapacity, Cancelled, EngineError, EngineFailed, InvalidInput, OutOfMemory, PoisonedRequest
from models.interfaces import EngineRequest, HypothesisUpdate, ListenRequest, SegmentResult, SpeechChunk, SpeechRequest
from models.messages import FEED_AHEAD, RUN_AHEAD
from models.pool import Lease, Pool
from models.run import Run
from tests.fake_clock import FakeClock

ROOT = Path(__file__).parents[2]


def fake(id: str = "fake", **fields: Any) -> Card:
    own = {"id": id, "task": "speech", "engine": "tests.fakes", "name": id, "concurrency": 4}
    return msgspec.convert(own | fields, Card)


def say(text: str) -> SpeechRequest:
    return SpeechRequest(text, "one")


@asynccontextmanager
async def pool_of(*cards: Card, **settings: Any) -> AsyncIterator[Pool]:
    """A pool that must leave no process of these cards behind."""
    started: set[int] = set()
    async with Pool(Catalog(cards), **settings) as pool:
        yield pool
        started.update(pid for card in cards for pid in pool.worker_pids(card))
    assert not any(is_alive(pid) for pid in started)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    path = tmp_path / "gate"
    os.mkfifo(path)
    return path


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def until(condition: Callable[[], bool]) -> None:
    """For what another process does and nobody announces."""
    with anyio.fail_after(10):
        while not condition():  # noqa: ASYNC110 - there is no event to wait for
            await anyio.sleep(0.005)


async def open_gate(gate: Path) -> None:
    await anyio.to_thread.run_sync(lambda: gate.open("wb").close())


async def spoken(lease: Lease, text: str) -> list[float]:
    async with lease.run(say(text)) as run:
        return [number(item) async for item in run]


def number(item: object) -> float:
    assert isinstance(item, SpeechChunk)
    return float(item.samples[0])


async def fails(pool: Pool, card: Card, request: EngineRequest) -> EngineError:
    """Run a request that must fail, to see how."""
    try:
        async with pool.lease(card) as lease, lease.run(request) as run:
            async for _ in run:
                pass
    except EngineError as error:
        return error
    raise AssertionError("it did not fail")


# Results


async def test_a_run_gives_every_result_in_order_and_its_progress() -> None:
    card = fake()
    async with pool_of(card) as pool, pool.lease(card) as lease, lease.run(say("say 100")) as run:
        assert [number(item) async for item in run] == list(range(100))
        assert run.progress is not None
        assert run.progress.total == 100


async def test_results_are_at_most_the_credits_ahead_of_their_consumer(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    card = fake(options={"trace": str(trace)})

    def made() -> int:
        return len(trace.read_text())

    async with pool_of(card) as pool, pool.lease(card) as lease, lease.run(say("say 500")) as run:
        await until(lambda: trace.exists() and made() == RUN_AHEAD)
        taken = 0
        async for _ in run:
            taken += 1
            assert made() <= taken + RUN_AHEAD
        assert taken == made() == 500


async def test_fed_audio_comes_back_as_hypotheses_and_one_segment() -> None:
    card = fake()
    async with pool_of(card) as pool, pool.lease(card) as lease, lease.run(ListenRequest(prompt="echo")) as run:
        await run.feed(np.zeros(160, np.float32))
        first = await anext(run)
        assert isinstance(first, HypothesisUpdate)
        assert first.hypothesis.text == "160"
        await run.feed(np.zeros(40, np.float32))
        await run.finish_feeding()
        *_, last = [item async for item in run]
        assert isinstance(last, SegmentResult)
        assert last.segment.text == "200"
        with pytest.raises(RuntimeError, match="no more audio"):
            await run.feed(np.zeros(1, np.float32))


async def test_feeding_waits_for_an_engine_that_does_not_listen_and_wakes_when_it_dies() -> None:
    card = fake()
    async with pool_of(card) as pool, pool.lease(card) as lease, lease.run(ListenRequest(prompt="deaf")) as run:
        for _ in range(FEED_AHEAD):
            await run.feed(np.zeros(1, np.float32))
        blocked = anyio.Event()

        async def feed_one_more() -> None:
            blocked.set()
            with pytest.raises(EngineFailed, match="SIGKILL"):
                await run.feed(np.zeros(1, np.float32))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(feed_one_more)
            await blocked.wait()
            os.kill(pool.worker_pids(card)[0], signal.SIGKILL)


async def test_engine_errors_come_out_of_the_iteration_after_the_results() -> None:
    card = fake()
    async with pool_of(card) as pool, pool.lease(card) as lease:
        async with lease.run(say("raise")) as run:
            assert number(await anext(run)) == 0
            with pytest.raises(EngineFailed, match="The engine failed"):
                await anext(run)
        async with lease.run(say("invalid")) as run:
            with pytest.raises(InvalidInput) as caught:
                await anext(run)
        assert caught.value.field == "voice"
        assert await spoken(lease, "say 1") == [0]
        assert pool.stats()["fake"].restarts == 0


# Starting and scaling


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


# Death


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


# Cancelling


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


# Admission, memory, idleness


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


# The end


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
from tests.models.test_pool import fake

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


async def test_one_task_may_iterate_while_another_feeds() -> None:
    card = fake()
    async with pool_of(card) as pool, pool.lease(card) as lease, lease.run(ListenRequest(prompt="echo")) as run:

        async def feed(run: Run) -> None:
            for _ in range(3 * FEED_AHEAD):
                await run.feed(np.zeros(10, np.float32))
            await run.finish_feeding()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(feed, run)
            *_, last = [item async for item in run]
        assert isinstance(last, SegmentResult)
        assert last.segment.text == str(30 * FEED_AHEAD)


async def test_the_embedded_voice_speaks_under_every_name_its_card_promises() -> None:
    card = Catalog.load().find("espeak-ng", "speech").card
    async with pool_of(card) as pool:
        offered = {voice.id for voice in await pool.voices(card)}
    assert {card.default_voice, *card.openai_voices.values()} <= offered
