"""Files appear whole or not at all, and a WAV's header is set right once its length is known."""

from __future__ import annotations

import io
import os
import wave
from pathlib import Path

import numpy as np
import pytest

from media.destination import complete_wav, destination
from streaming.encode import AudioFormat, open_encoder


def test_what_was_there_stays_until_the_end(tmp_path: Path) -> None:
    file = tmp_path / "text"
    file.write_text("old")
    with destination(file) as target:
        target.write(b"new")
        target.flush()
        assert file.read_text() == "old"
    assert file.read_text() == "new"
    assert os.listdir(tmp_path) == ["text"]


def test_a_failure_leaves_nothing_new(tmp_path: Path) -> None:
    def fail() -> None:
        with destination(tmp_path / "text") as target:
            target.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert os.listdir(tmp_path) == []


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "folder" / "text")
    with destination(link) as target:
        target.write(b"new")
    assert link.is_symlink()
    assert (tmp_path / "folder" / "text").read_bytes() == b"new"


def test_a_device_is_written_to_and_not_replaced() -> None:
    device = Path(os.devnull)
    with destination(device) as target:
        target.write(b"gone")
    assert device.is_char_device()


def streamed_wav(samples: int) -> bytes:
    encoder = open_encoder(AudioFormat.WAV, 24_000)
    return encoder.encode(np.zeros(samples, np.float32)) + encoder.finish()


def test_true_sizes_take_the_place_of_unknown_ones() -> None:
    file = io.BytesIO(streamed_wav(1234))
    file.seek(0, os.SEEK_END)
    complete_wav(file, 24_000)
    assert file.tell() == len(file.getvalue()) == 44 + 2 * 1234
    file.seek(0)
    with wave.open(file) as audio:
        assert audio.getnframes() == 1234


def test_a_stream_keeps_its_header() -> None:
    class Stream(io.BytesIO):
        def seekable(self) -> bool:
            return False

    file = Stream(streamed_wav(10))
    complete_wav(file, 24_000)
    assert file.getvalue() == streamed_wav(10)
