from __future__ import annotations

import asyncio

import anyio
import pytest
from anyio.lowlevel import checkpoint

from models.admission import LONGEST_RETRY, SHORTEST_RETRY, Admission, Slot
from models.errors import AtCapacity
from tests.fake_clock import FakeClock


def admission(slots: int = 1, queue: int = 8) -> tuple[Admission, FakeClock]:
    clock = FakeClock()
    return Admission("m", slots, queue, clock), clock


async def waiting(gate: Admission, count: int) -> None:
    while gate.waiting != count:
        await checkpoint()


async def test_slots_then_queue_then_refusal() -> None:
    gate, _ = admission(slots=2, queue=1)
    first = await gate.acquire()
    await gate.acquire()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(gate.acquire)
        await waiting(gate, 1)
        with pytest.raises(AtCapacity, match="2 running, 1 waiting"):
            await gate.acquire()
        gate.release(first)
    assert (gate.running, gate.waiting) == (2, 0)


async def test_what_is_begun_waits_although_the_queue_is_full() -> None:
    gate, _ = admission(queue=1)
    held = await gate.acquire()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(gate.acquire)
        await waiting(gate, 1)
        with pytest.raises(AtCapacity):
            await gate.acquire()

        async def go_on() -> None:
            gate.release(await gate.acquire(-5, begun=True))

        tasks.start_soon(go_on)
        await waiting(gate, 2)
        gate.release(held)
        await waiting(gate, 1)
        gate.release(held)
    assert gate.running == 0


async def test_priority_first_then_first_come() -> None:
    gate, _ = admission()
    held = await gate.acquire()
    order: list[str] = []

    async def use(name: str, priority: int) -> None:
        slot = await gate.acquire(priority)
        order.append(name)
        gate.release(slot)

    async with anyio.create_task_group() as tasks:
        for count, (name, priority) in enumerate([("a", 0), ("b", 0), ("urgent", 5), ("later", -1)], 1):
            tasks.start_soon(use, name, priority)
            await waiting(gate, count)
        gate.release(held)
    assert order == ["urgent", "a", "b", "later"]
    assert gate.running == 0


async def test_a_freed_slot_belongs_to_the_first_in_the_queue_at_once() -> None:
    gate, _ = admission(queue=1)
    held = await gate.acquire()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(gate.acquire)
        await waiting(gate, 1)
        gate.release(held)
        assert (gate.running, gate.waiting) == (1, 0)  # before the waiter has had a turn


async def test_a_cancelled_waiter_leaves_the_queue() -> None:
    gate, _ = admission()
    await gate.acquire()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(gate.acquire)
        await waiting(gate, 1)
        tasks.cancel_scope.cancel()
    assert (gate.running, gate.waiting) == (1, 0)


async def test_a_waiter_cancelled_with_the_slot_in_hand_passes_it_on() -> None:
    gate, _ = admission()
    held = await gate.acquire()
    got: list[Slot] = []

    async def use() -> None:
        got.append(await gate.acquire())

    async with asyncio.TaskGroup() as tasks:
        unlucky = tasks.create_task(use())
        await waiting(gate, 1)
        tasks.create_task(use())
        await waiting(gate, 2)
        gate.release(held)
        unlucky.cancel()
    assert len(got) == 1
    assert (gate.running, gate.waiting) == (1, 0)


async def test_retry_after_follows_holding_times_within_bounds() -> None:
    gate, clock = admission(slots=2, queue=0)
    assert gate.retry_after() == SHORTEST_RETRY
    slot = await gate.acquire()
    clock.advance(10)
    gate.release(slot)
    assert gate.retry_after() == pytest.approx(5)
    slot = await gate.acquire()
    clock.advance(10_000)
    gate.release(slot)
    assert gate.retry_after() == LONGEST_RETRY


async def test_closing_refuses_newcomers_and_those_waiting() -> None:
    gate, _ = admission()
    held = await gate.acquire()
    refused: list[AtCapacity] = []

    async def use() -> None:
        try:
            await gate.acquire()
        except AtCapacity as error:
            refused.append(error)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(use)
        await waiting(gate, 1)
        gate.close()
    await use()
    assert len(refused) == 2
    assert gate.running == 1
    gate.release(held)
    assert gate.running == 0
