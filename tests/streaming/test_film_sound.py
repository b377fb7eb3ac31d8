"""The sound of films: how much of a file is taken, and what a player hears."""

from __future__ import annotations

from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from streaming.decode import UndecodableAudio
from streaming.film import Cut, Film
from streaming.film_sound import FADE_SECONDS, SAMPLE_RATE, Block, Soundtrack
from tests.films import pitch, seen, smooth, sound_file

CONTAINERS: tuple[tuple[Any, Any, str], ...] = (("mp4", "h264", "aac"), ("webm", "vp9", "opus"))
FPS = 24


def with_sound(path: Path, sound: Path, frames: int, container: Any, codec: Any) -> Path:
    cut = Cut(64, 48, Fraction(FPS), container, codec)
    with closing(Soundtrack(sound)) as track, closing(Film(path, cut, track)) as film:
        track.cut(frames / cut.rate)
        for number in range(frames):
            film.add(av.VideoFrame.from_ndarray(smooth(number), format="rgb24"))
        film.finish()
    return path


def taken(sound: Path, seconds: Fraction | None) -> Block:
    with closing(Soundtrack(sound)) as track:
        if seconds is not None:
            track.cut(seconds)
        return np.concatenate(list(track.until(None)), axis=1)


@pytest.mark.parametrize(("container", "codec", "sound_codec"), CONTAINERS)
@pytest.mark.parametrize("channels", [1, 2])
def test_the_track_is_heard_along_with_the_pictures(
    tmp_path: Path, container: Any, codec: Any, sound_codec: str, channels: int
) -> None:
    sound = sound_file(tmp_path / "sound", 5, channels=channels)
    about = seen(with_sound(tmp_path / "clip", sound, 2 * FPS, container, codec))
    assert len(about.frames) == 2 * FPS
    assert about.sound_codec == sound_codec
    assert about.sound.shape[1] / SAMPLE_RATE == pytest.approx(2, abs=0.03)
    middle = about.sound[:, SAMPLE_RATE // 2 : SAMPLE_RATE]
    assert [pitch(channel) for channel in middle] == pytest.approx([440, 880][:channels], abs=3)
    assert 0.4 < np.abs(middle).max() < 0.6


@pytest.mark.parametrize(("container", "codec", "sound_codec"), CONTAINERS)
def test_a_short_track_ends_before_the_clip(tmp_path: Path, container: Any, codec: Any, sound_codec: str) -> None:
    sound = sound_file(tmp_path / "sound", 0.7)
    about = seen(with_sound(tmp_path / "clip", sound, 10 * FPS, container, codec))
    assert len(about.frames) == 10 * FPS
    assert about.times[-1] == pytest.approx(10 - 1 / FPS, abs=0.001)
    assert about.sound.shape[1] / SAMPLE_RATE == pytest.approx(0.7, abs=0.03)


def test_sound_and_pictures_lie_beside_each_other_in_the_file(tmp_path: Path) -> None:
    """Whoever plays it while it loads needs both at any time."""
    clip = with_sound(tmp_path / "clip", sound_file(tmp_path / "sound", 20), 12 * FPS, "mp4", "h264")
    with av.open(str(clip)) as file:
        packets = [
            (packet.pos or 0, packet.stream.type, float(packet.dts * packet.time_base))
            for packet in file.demux()
            if packet.dts is not None
        ]
    last = {"video": 0.0, "audio": 0.0}
    for _, kind, time in sorted(packets):
        last[kind] = time
        assert abs(last["video"] - last["audio"]) < 2.5


def test_a_cut_is_exact_and_fades_out(tmp_path: Path) -> None:
    sound = sound_file(tmp_path / "sound", 5)
    whole, cut = taken(sound, None), taken(sound, Fraction(3))
    assert cut.shape == (2, 3 * SAMPLE_RATE)
    fade = round(FADE_SECONDS * SAMPLE_RATE)
    assert np.array_equal(cut[:, :-fade], whole[:, : cut.shape[1] - fade])
    assert np.abs(cut[:, -fade // 10 :]).max() < 0.06
    assert np.abs(cut[:, -fade : -fade * 9 // 10]).max() > 0.4


@pytest.mark.parametrize("seconds", [0.3, 2.0])
def test_a_track_that_fits_does_not_fade(tmp_path: Path, seconds: float) -> None:
    sound = sound_file(tmp_path / "sound", seconds, rate=SAMPLE_RATE)
    assert np.array_equal(taken(sound, Fraction(2)), taken(sound, None))
    assert taken(sound, Fraction(2)).shape[1] == seconds * SAMPLE_RATE


@pytest.mark.parametrize("seconds", [Fraction(1, 24), Fraction(1, 1000), Fraction(1, 2), Fraction(49, 50)])
def test_a_clip_of_any_length_has_sound_of_its_length(tmp_path: Path, seconds: Fraction) -> None:
    sound = sound_file(tmp_path / "sound", 3, rate=SAMPLE_RATE)
    assert taken(sound, seconds).shape[1] == round(seconds * SAMPLE_RATE)


def test_a_track_is_taken_no_further_than_asked_for(tmp_path: Path) -> None:
    with closing(Soundtrack(sound_file(tmp_path / "sound", 30))) as track:
        track.cut(Fraction(20))
        first = sum(block.shape[1] for block in track.until(Fraction(1)))
        assert SAMPLE_RATE <= first <= 2 * SAMPLE_RATE
        assert not list(track.until(Fraction(1, 2)))
        rest = sum(block.shape[1] for block in track.until(None))
    assert first + rest == 20 * SAMPLE_RATE


def test_more_channels_than_two_become_one(tmp_path: Path) -> None:
    assert taken(sound_file(tmp_path / "sound", 1, channels=6), None).shape[0] == 1


def test_a_file_without_sound_is_refused_at_once(tmp_path: Path) -> None:
    silent = tmp_path / "silent"
    with closing(Film(silent, Cut(64, 48, Fraction(FPS)))) as film:
        film.add(av.VideoFrame.from_ndarray(smooth(0), format="rgb24"))
        film.finish()
    with pytest.raises(UndecodableAudio, match="no audio track"):
        Soundtrack(silent)
    (tmp_path / "text").write_text("no sound at all")
    with pytest.raises(UndecodableAudio, match="format"):
        Soundtrack(tmp_path / "text")
