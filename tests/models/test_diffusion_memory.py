from __future__ import annotations

from hypothesis import given, strategies as st

from models.diffusion_memory import MemoryLadder

RUNGS = ("whole", "single", "tiled", "offloaded")


def test_it_begins_with_the_fastest() -> None:
    assert MemoryLadder(RUNGS).start(1e12) == "whole"


def test_what_was_too_much_once_is_not_tried_again() -> None:
    ladder = MemoryLadder(RUNGS)
    assert ladder.next("whole", 400) == "single"
    assert ladder.next("single", 200) == "tiled"
    assert [ladder.start(cost) for cost in (100, 199, 200, 400)] == ["whole", "whole", "tiled", "tiled"]


def test_the_last_rung_has_none_after_it() -> None:
    ladder = MemoryLadder(RUNGS)
    assert ladder.next("offloaded", 1) is None
    assert ladder.start(1) == "whole"


@given(st.lists(st.tuples(st.sampled_from(RUNGS), st.integers(1, 100))), st.integers(1, 100), st.integers(1, 100))
def test_more_work_never_begins_on_a_faster_rung(failures: list[tuple[str, int]], one: int, other: int) -> None:
    ladder = MemoryLadder(RUNGS)
    for rung, cost in failures:
        ladder.next(rung, cost)
    begun = [RUNGS.index(ladder.start(cost)) for cost in sorted((one, other))]
    assert begun == sorted(begun)
