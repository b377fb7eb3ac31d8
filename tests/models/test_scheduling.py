from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from models.errors import Cancelled
from models.scheduling import (
    ALONE,
    SHORTEST_PERIOD,
    TOGETHER,
    BatchLane,
    Cadence,
    LaneClosed,
    LaneFull,
    Urgency,
    awaited,
)


class Gate:
    """A `run` that records its batches and holds each until it is let through."""

    def __init__(self, open: bool = False) -> None:
        self.batches: list[list[str]] = []
        self.entered = threading.Semaphore(0)
        self._open = threading.Event()
        if open:
            self._open.set()

    def __call__(self, items: Sequence[str]) -> list[str]:
        self.batches.append(list(items))
        self.entered.release()
        assert self._open.wait(10)
        return [item.upper() for item in items]

    def hold(self, lane: BatchLane[str, str]) -> None:
        """Occupy the lane's thread, so that what is submitted next waits."""
        lane.submit("first")
        assert self.entered.acquire(timeout=10)

    def open(self) -> None:
        self._open.set()


def test_what_waits_goes_in_batches_in_order_of_deadlines() -> None:
    gate = Gate()
    lane = BatchLane[str, str](gate, max_batch=2)
    gate.hold(lane)
    futures = [lane.submit(item, deadline=due) for item, due in (("d", 4), ("b", 2), ("a", 1), ("c", 3))]
    gate.open()
    assert [future.result(10) for future in futures] == ["D", "B", "A", "C"]
    assert gate.batches == [["first"], ["a", "b"], ["c", "d"]]
    assert (lane.batches, lane.items) == (3, 5)
    lane.close()


def test_equal_deadlines_keep_their_order() -> None:
    gate = Gate()
    lane = BatchLane[str, str](gate, max_batch=1)
    gate.hold(lane)
    futures = [lane.submit(item, deadline=1.0) for item in "abc"]
    gate.open()
    futures[-1].result(10)
    assert gate.batches[1:] == [["a"], ["b"], ["c"]]
    lane.close()


def test_a_batch_has_one_key_that_of_the_item_due_first() -> None:
    gate = Gate()
    lane = BatchLane[str, str](gate, max_batch=4)
    gate.hold(lane)
    futures = [lane.submit(item, key=item[0], deadline=due) for due, item in enumerate(("x1", "y1", "x2", "y2"))]
    gate.open()
    for future in futures:
        future.result(10)
    assert gate.batches[1:] == [["x1", "x2"], ["y1", "y2"]]
    lane.close()


def test_a_cancelled_item_never_runs_and_gives_its_place_back() -> None:
    gate = Gate()
    lane = BatchLane[str, str](gate, max_batch=4, capacity=2)
    gate.hold(lane)
    gone, kept = lane.submit("gone"), lane.submit("kept")
    with pytest.raises(LaneFull):
        lane.submit("one too many")
    assert gone.cancel()
    assert lane.waiting == 1
    last = lane.submit("last")
    gate.open()
    assert (kept.result(10), last.result(10)) == ("KEPT", "LAST")
    assert gate.batches[1:] == [["kept", "last"]]
    lane.close()


def test_one_bad_item_fails_alone() -> None:
    tried: list[list[str]] = []
    held = threading.Event()

    def run(items: Sequence[str]) -> list[str]:
        tried.append(list(items))
        assert held.wait(10)
        if "bad" in items:
            raise ArithmeticError("bad")
        return list(items)

    lane = BatchLane[str, str](run, max_batch=3)
    futures = [lane.submit(item, deadline=due) for due, item in enumerate(("first", "good", "bad", "fine"))]
    held.set()
    assert futures[1].result(10) == "good"
    with pytest.raises(ArithmeticError, match="bad"):
        futures[2].result(10)
    assert futures[3].result(10) == "fine"
    lane.close()


def test_too_few_results_are_an_error_not_a_hang() -> None:
    lane = BatchLane[str, str](lambda items: [], max_batch=1)
    with pytest.raises(ValueError, match="argument"):
        lane.submit("a").result(10)
    lane.close()


def test_closing_cancels_what_waits_and_finishes_what_runs() -> None:
    gate = Gate()
    lane = BatchLane[str, str](gate, max_batch=1)
    running = lane.submit("running")
    assert gate.entered.acquire(timeout=10)
    waiting = lane.submit("waiting")
    closing = threading.Thread(target=lane.close)
    closing.start()
    with pytest.raises(CancelledError):
        waiting.result(10)
    gate.open()
    closing.join(10)
    assert running.result(0) == "RUNNING"
    with pytest.raises(LaneClosed):
        lane.submit("late")


def test_a_gathering_lane_waits_for_a_full_batch() -> None:
    gate = Gate(open=True)
    lane = BatchLane[str, str](gate, max_batch=3, gather=10.0)
    futures = [lane.submit(item, deadline=due) for due, item in enumerate("abc")]
    assert [future.result(5) for future in futures] == ["A", "B", "C"]
    assert gate.batches == [["a", "b", "c"]]
    lane.close()


def test_several_threads_run_batches_side_by_side() -> None:
    both = threading.Barrier(2)

    def run(items: Sequence[str]) -> Sequence[str]:
        both.wait(10)
        return items

    lane = BatchLane[str, str](run, max_batch=1, threads=2)
    futures = [lane.submit(item) for item in "ab"]
    assert [future.result(10) for future in futures] == ["a", "b"]
    lane.close()


@pytest.mark.parametrize("setting", [{"max_batch": 0}, {"capacity": 0}, {"threads": 0}, {"gather": -1.0}])
def test_impossible_settings_are_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        BatchLane[str, str](lambda items: items, **({"max_batch": 1} | setting))


def test_an_item_may_want_a_smaller_batch() -> None:
    gate = Gate()
    lane = BatchLane[str, str](gate, max_batch=4, most=lambda item: 2 if item == "small" else 9)
    gate.hold(lane)
    futures = [lane.submit(item, deadline=float(due)) for due, item in enumerate(("small", "a", "b", "c"))]
    gate.open()
    for future in futures:
        future.result(10)
    assert gate.batches[1:] == [["small", "a"], ["b", "c"]]
    lane.close()


def test_threads_that_are_free_at_once_share_what_waits() -> None:
    gate = Gate()
    lane = BatchLane[str, str](gate, max_batch=4, threads=2)
    futures: list[Future[str]] = []
    while not futures:
        with lane._changed:
            if lane._idle == 2:  # neither can take anything before all of it is there
                futures = [lane.submit(item, deadline=float(due)) for due, item in enumerate("abcd")]
    assert all(gate.entered.acquire(timeout=10) for _ in range(2))
    gate.open()
    for future in futures:
        future.result(10)
    assert sorted(gate.batches) == [["a", "b"], ["c", "d"]]
    lane.close()


def test_who_waits_for_an_item_may_be_called_off() -> None:
    gate = threading.Event()
    lane = BatchLane[int, int](lambda items: [gate.wait(10) and item for item in items], max_batch=1)
    first, second = lane.submit(1), lane.submit(2)

    def stop() -> None:
        raise Cancelled("stop")

    with pytest.raises(Cancelled):
        awaited(second, stop)
    gate.set()
    assert awaited(first, lambda: None) == 1
    assert second.cancelled()
    lane.close()


def test_an_item_that_fails_for_want_of_time_is_not_waited_for_again() -> None:
    future: Future[int] = Future()
    future.set_exception(TimeoutError("the disk"))
    with pytest.raises(TimeoutError, match="the disk"):
        awaited(future, lambda: None)


def test_urgency_decides_among_items_of_one_moment_and_patience_ends() -> None:
    gate = Gate()
    lane = BatchLane[str, str](gate, max_batch=1)
    gate.hold(lane)
    items = {urgency.name: urgency for urgency in (Urgency.UPLOAD, Urgency.PARTIAL, Urgency.FINAL)}
    lane.submit("long ago", deadline=80 + Urgency.UPLOAD)
    futures = [lane.submit(name, deadline=100 + urgency) for name, urgency in items.items()]
    futures.append(lane.submit("FIRST_PARTIAL", deadline=100 + Urgency.FIRST_PARTIAL))
    gate.open()
    for future in futures:
        future.result(10)
    assert gate.batches[1:] == [["long ago"], ["FINAL"], ["FIRST_PARTIAL"], ["PARTIAL"], ["UPLOAD"]]
    lane.close()


def test_the_cadence_follows_what_looks_cost_and_how_many_want_them() -> None:
    cadence = Cadence()
    with cadence.turn():
        assert cadence.period == SHORTEST_PERIOD
        cadence.took(0.4)
        assert cadence.period == pytest.approx(0.4 / ALONE)
        with cadence.turn(), cadence.turn():
            assert cadence.turns == 3
            assert cadence.period == pytest.approx(3 * 0.4 / TOGETHER)
        for _ in range(40):
            cadence.took(0.01)
        assert cadence.period == SHORTEST_PERIOD
    assert cadence.turns == 0


@settings(max_examples=50, deadline=None)
@given(turns=st.integers(1, 40), cost=st.floats(0.001, 2.0), workers=st.integers(1, 4))
def test_turns_never_ask_for_more_than_their_share(turns: int, cost: float, workers: int) -> None:
    cadence = Cadence(workers)
    cadence.took(cost)
    with ExitStack() as stack:
        for _ in range(turns):
            stack.enter_context(cadence.turn())
        assert turns * cost / cadence.period <= workers * TOGETHER + 1e-9
        assert cost / cadence.period <= ALONE + 1e-9
