"""The recent past of a stream: any slice of it, at the cost of its samples and no more."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings, strategies as st

from streaming.audio_window import BLOCK, AudioWindow


@settings(max_examples=100, deadline=None)
@given(
    sizes=st.lists(st.one_of(st.integers(0, 40), st.integers(0, 3 * BLOCK)), max_size=10),
    forgotten=st.lists(st.integers(-5, 4 * BLOCK), max_size=10),
    data=st.data(),
)
def test_every_slice_is_what_was_appended(sizes: list[int], forgotten: list[int], data: st.DataObject) -> None:
    window = AudioWindow()
    whole = np.arange(sum(sizes), dtype=np.float32)
    position = forgot = 0
    for index, size in enumerate(sizes):
        window.append(whole[position : position + size])
        position += size
        if index < len(forgotten):
            forgot = max(forgot, forgotten[index])
            window.forget(forgotten[index])
        assert window.end == position
        assert window.start <= max(forgot, 0)
        start = data.draw(st.integers(-10, position + 10))
        end = data.draw(st.integers(start, position + 10))
        expected = whole[max(start, window.start) : max(0, min(end, position))]
        np.testing.assert_array_equal(window.slice(start, end), expected)


def test_what_is_handed_out_does_not_change_later() -> None:
    window = AudioWindow()
    window.append(np.ones(100, np.float32))
    piece = window.slice(0, 100)
    window.append(np.zeros(BLOCK, np.float32))
    window.forget(BLOCK)
    window.append(np.zeros(BLOCK, np.float32))
    assert piece.sum() == 100


def test_single_samples_do_not_cost_more_than_their_storage() -> None:
    window = AudioWindow()
    for _ in range(2 * BLOCK):
        window.append(np.ones(1, np.float32))
    assert len(window._blocks) == 2
    window.forget(BLOCK - 1)
    assert window.start == 0
    window.forget(BLOCK)
    assert (window.start, len(window._blocks)) == (BLOCK, 1)
