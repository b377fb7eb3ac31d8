"""The video encoder: what it writes is read back by libav."""

from __future__ import annotations

import os
from contextlib import closing, suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from streaming.film import NVENC, THREADS, Cut, Encoder, Film, FilmError, encoder_for, opens
from tests.films import Pixels, boxes, largest_file, plain, seen, smooth

CODECS: tuple[tuple[Any, Any], ...] = (("mp4", "h264"), ("webm", "vp9"), ("webm", "av1"))
every_codec = pytest.mark.parametrize(("container", "codec"), CODECS)
CUT = Cut(64, 48, Fraction(24))
BT709 = (1, 1, 1, 1)
"""Matrix, limited range, primaries and transfer."""


def filmed(path: Path, cut: Cut, frames: list[Pixels]) -> Path:
    with closing(Film(path, cut)) as film:
        for frame in frames:
            film.add(av.VideoFrame.from_ndarray(frame, format="rgb24"))
        film.finish()
    return path


@every_codec
@pytest.mark.parametrize(("count", "rate"), [(1, 24), (2, 60), (25, 16), (61, 1)])
def test_every_frame_comes_back_at_its_time(tmp_path: Path, container: Any, codec: Any, count: int, rate: int) -> None:
    cut = replace(CUT, container=container, codec=codec, rate=Fraction(rate))
    shades = [plain((4 * number, 4 * number, 4 * number)) for number in range(count)]
    about = seen(filmed(tmp_path / "clip", cut, shades))
    assert (about.codec, about.pixels, about.size) == (codec, "yuv420p", (64, 48))
    assert about.times == pytest.approx([number / rate for number in range(count)], abs=0.001)
    assert [frame.mean() for frame in about.frames] == pytest.approx([4 * number for number in range(count)], abs=4)
    if count > 1:
        assert about.rate == rate


@every_codec
def test_colours_are_those_meant_and_tagged(tmp_path: Path, container: Any, codec: Any) -> None:
    cut = replace(CUT, container=container, codec=codec, quality=10)
    frames = [smooth(0), smooth(0), plain((250, 20, 20)), plain((20, 250, 20)), plain((20, 20, 250))]
    about = seen(filmed(tmp_path / "clip", cut, frames))
    assert about.colours == BT709
    for frame, back in zip(frames, about.frames, strict=True):
        assert np.abs(frame.astype(int) - back).mean() < 3


def test_h264_plays_anywhere_and_begins_with_its_index(tmp_path: Path) -> None:
    path = filmed(tmp_path / "clip", CUT, [smooth(number) for number in range(30)])
    assert seen(path).profile == "High"
    names = boxes(path)
    assert names[0] == "ftyp"
    assert names.index("moov") < names.index("mdat")


@pytest.mark.parametrize("rate", [Fraction(24_000, 1_001), Fraction(30_000, 1_001), Fraction(25, 2)])
def test_rates_need_not_be_whole(tmp_path: Path, rate: Fraction) -> None:
    about = seen(filmed(tmp_path / "clip", replace(CUT, rate=rate), [smooth(number) for number in range(10)]))
    assert about.rate == rate
    assert about.times[-1] == pytest.approx(float(9 / rate), abs=0.001)


@every_codec
def test_tags_are_read_back(tmp_path: Path, container: Any, codec: Any) -> None:
    tags = {"title": "ein rotes Haus 🏠", "comment": '{"seed": 7}'}
    cut = replace(CUT, container=container, codec=codec, tags=tags)
    about = seen(filmed(tmp_path / "clip", cut, [smooth(0)]))
    assert tags.items() <= about.tags.items()


@every_codec
def test_a_better_quality_is_larger_and_nearer(tmp_path: Path, container: Any, codec: Any) -> None:
    generator = np.random.default_rng(0)
    frames = [np.repeat(np.repeat(generator.integers(0, 255, (12, 16, 3), np.uint8), 4, 0), 4, 1) for _ in range(8)]
    sizes, distances = [], []
    for quality in (1, 20, 40, 51):
        path = filmed(tmp_path / "clip", replace(CUT, container=container, codec=codec, quality=quality), frames)
        sizes.append(path.stat().st_size)
        distances.append(np.abs(np.stack(frames).astype(int) - np.stack(seen(path).frames)).mean())
    assert sizes == sorted(sizes, reverse=True)
    assert distances == sorted(distances)
    assert sizes[0] > 2 * sizes[-1]


def test_a_player_can_begin_every_two_seconds(tmp_path: Path) -> None:
    path = filmed(tmp_path / "clip", replace(CUT, rate=Fraction(10)), [smooth(0)] * 50)
    with av.open(str(path)) as file:
        packets = [packet for packet in file.demux(video=0) if packet.size]
    assert [number for number, packet in enumerate(packets) if packet.is_keyframe] == [0, 20, 40]


@pytest.mark.parametrize(("size", "side"), [((63, 48), "width"), ((64, 0), "height"), ((64, 47), "height")])
def test_odd_sizes_are_refused(tmp_path: Path, size: tuple[int, int], side: str) -> None:
    with pytest.raises(ValueError, match=f"{side} of a clip must be even"):
        Film(tmp_path / "clip", replace(CUT, width=size[0], height=size[1]))
    assert not list(tmp_path.iterdir())


@every_codec
@pytest.mark.parametrize("count", [0, 1, 40])
def test_a_film_may_be_closed_at_any_time(tmp_path: Path, container: Any, codec: Any, count: int) -> None:
    film = Film(tmp_path / "clip", replace(CUT, container=container, codec=codec))
    for number in range(count):
        film.add(av.VideoFrame.from_ndarray(smooth(number), format="rgb24"))
    assert str(tmp_path / "clip") in open_files()
    film.close()
    film.close()
    assert str(tmp_path / "clip") not in open_files()


def open_files() -> set[str]:
    """What this process holds open."""
    found = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the one that lists them
            found.add(str(descriptor.readlink()))
    return found


def test_a_place_that_cannot_be_written_to_is_an_error_of_our_own(tmp_path: Path) -> None:
    with pytest.raises(FilmError, match="could not be written: No such file"):
        Film(tmp_path / "gone" / "clip", CUT)


@every_codec
def test_a_disk_without_room_is_an_error_of_our_own(tmp_path: Path, container: Any, codec: Any) -> None:
    generator = np.random.default_rng(0)
    frames = [generator.integers(0, 255, (48, 64, 3), np.uint8) for _ in range(60)]
    cut = replace(CUT, container=container, codec=codec, quality=1)
    with largest_file(50_000), pytest.raises(FilmError, match="could not be written: File too large"):
        filmed(tmp_path / "clip", cut, frames)


def test_a_card_that_encodes_is_used_and_one_that_does_not_is_not() -> None:
    asked: list[str] = []

    def takes(encoder: Encoder, cut: Cut) -> bool:
        asked.append(encoder.name)
        return cut.width == 64

    assert encoder_for(CUT, takes) is NVENC
    assert encoder_for(replace(CUT, width=8), takes).name == "libx264"
    assert encoder_for(replace(CUT, codec="av1"), takes).name == "libsvtav1"
    assert asked == ["h264_nvenc", "h264_nvenc"]


def test_trying_an_encoder_out_tells_whether_it_opens() -> None:
    assert opens(encoder_for(CUT, lambda encoder, cut: False), CUT)
    assert not opens(replace(NVENC, name="h264_unheard_of"), CUT)
    assert not opens(encoder_for(replace(CUT, codec="av1"), opens), replace(CUT, width=2, height=2))


@every_codec
def test_no_thread_of_an_encoder_goes_before_the_others(tmp_path: Path, container: Any, codec: Any) -> None:
    """SVT-AV1 would take real-time priority, where it may, also for the thread that opened it."""
    with closing(Film(tmp_path / "clip", replace(CUT, container=container, codec=codec))) as film:
        film.add(av.VideoFrame.from_ndarray(smooth(0), format="rgb24"))
        policies = {os.sched_getscheduler(int(thread)) for thread in os.listdir("/proc/self/task")}
    assert policies == {os.SCHED_OTHER}


def test_an_encoder_has_few_threads_however_many_cores_there_are(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/task"))
    with closing(Film(tmp_path / "clip", replace(CUT, width=1280, height=720))):
        assert len(os.listdir("/proc/self/task")) - before <= 2 * THREADS
