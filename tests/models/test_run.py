"""One request, with a real worker at the other end: results, audio, credits, errors, cancelling."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import anyio
import numpy as np
import pytest

from models.errors import EngineFailed, InvalidInput
from models.interfaces import HypothesisUpdate, ListenRequest, SegmentResult
from models.messages import FEED_AHEAD, RUN_AHEAD
from models.run import Run
from tests.models.scripted import fake, number, pool_of, say, spoken, until


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
