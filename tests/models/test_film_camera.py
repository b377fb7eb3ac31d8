"""The encoder's thread: how far behind it may be, and how it ends."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import av
import numpy as np
import pytest

from models.errors import Cancelled
from models.film_camera import AHEAD, Camera, Pixels


def piece(frames: int) -> Pixels:
    return np.zeros((frames, 2, 2, 3), np.uint8)


def still_wanted() -> None:
    pass


class Slow:
    """Takes a picture each time it is told to."""

    def __init__(self) -> None:
        self.go = threading.Semaphore(0)
        self.took = threading.Semaphore(0)
        self.pictures = 0

    def record(self, pictures: Iterator[av.VideoFrame]) -> int:
        for _ in pictures:
            self.pictures += 1
            self.took.release()
            self.go.acquire()
        return self.pictures


def test_all_frames_are_recorded_in_order() -> None:
    shades: list[int] = []

    def record(pictures: Iterator[av.VideoFrame]) -> int:
        shades.extend(int(picture.to_ndarray(format="rgb24")[0, 0, 0]) for picture in pictures)
        return len(shades)

    with closing(Camera(record, still_wanted)) as camera:
        for start in range(0, 60, 6):
            camera.put(piece(6) + np.arange(start, start + 6, dtype=np.uint8)[:, None, None, None])
        assert camera.finish() == 60
    assert shades == list(range(60))


def test_frames_need_not_lie_in_a_row() -> None:
    planes = np.moveaxis(np.arange(3 * 4 * 6, dtype=np.uint8).reshape(1, 3, 4, 6), 1, 3)
    seen: list[Pixels] = []

    def record(pictures: Iterator[av.VideoFrame]) -> int:
        seen.extend(picture.to_ndarray(format="rgb24").astype(np.uint8) for picture in pictures)
        return len(seen)

    with closing(Camera(record, still_wanted)) as camera:
        camera.put(planes)
        camera.finish()
    assert np.array_equal(seen[0], planes[0])


def test_whoever_is_too_far_ahead_waits_and_may_give_up() -> None:
    slow = Slow()
    asked = 0

    def ask() -> None:
        nonlocal asked
        asked += 1
        if asked == 2:
            raise Cancelled("The request was cancelled.")

    camera = Camera(slow.record, ask)
    for _ in range(AHEAD):
        camera.put(piece(1))
    with pytest.raises(Cancelled):
        camera.put(piece(1))
    assert slow.pictures == 1
    slow.go.release()
    camera.close()
    assert slow.pictures == 1, "what waited is not encoded any more"


def test_a_piece_larger_than_what_may_wait_is_taken() -> None:
    slow = Slow()
    for _ in range(3 * AHEAD):
        slow.go.release()
    with closing(Camera(slow.record, still_wanted)) as camera:
        camera.put(piece(3 * AHEAD))
        assert camera.finish() == 3 * AHEAD


def test_a_clip_may_be_given_up_while_the_last_of_it_is_encoded() -> None:
    slow = Slow()

    def ask() -> None:
        raise Cancelled("The request was cancelled.")

    camera = Camera(slow.record, ask)
    camera.put(piece(1))
    slow.took.acquire()
    with pytest.raises(Cancelled):
        camera.finish()
    slow.go.release()
    camera.close()


@pytest.mark.parametrize("after", [0, 3])
def test_what_the_encoder_raises_comes_out_where_frames_go_in(after: int) -> None:
    def record(pictures: Iterator[av.VideoFrame]) -> int:
        for _ in range(after):
            next(pictures)
        raise OSError("no room")

    def put(camera: Camera) -> None:
        for _ in range(after + AHEAD + 1):
            camera.put(piece(1))

    with closing(Camera(record, still_wanted)) as camera, pytest.raises(OSError, match="no room"):
        put(camera)


def test_what_the_encoder_raises_at_the_end_comes_out_there() -> None:
    def record(pictures: Iterator[av.VideoFrame]) -> int:
        for _ in pictures:
            pass
        raise OSError("no room for the index")

    with closing(Camera(record, still_wanted)) as camera:
        camera.put(piece(1))
        with pytest.raises(OSError, match="index"):
            camera.finish()


@pytest.mark.parametrize("frames", [0, 1, AHEAD])
def test_its_thread_ends_with_it(frames: int) -> None:
    before = threading.active_count()
    slow = Slow()
    camera = Camera(slow.record, still_wanted)
    if frames:
        camera.put(piece(frames))
        slow.took.acquire()
    assert threading.active_count() == before + 1
    slow.go.release()
    camera.close()
    camera.close()
    assert threading.active_count() == before
    assert slow.pictures <= 1
