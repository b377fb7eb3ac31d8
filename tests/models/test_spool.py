"""Files read while they grow: the reader sees every byte, and notices when the writer is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from models.errors import Cancelled
from models.spool import SpoolAbandoned, SpoolReader, SpoolWriter, is_growing, remove_spool


@settings(max_examples=20, deadline=None)
@given(parts=st.lists(st.binary(max_size=200), max_size=8))
def test_a_reader_beside_the_writer_sees_every_byte(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("spool") / "recording"
    writer = SpoolWriter(path)
    found: list[bytes] = []
    with SpoolReader(path) as reader:
        thread = threading.Thread(target=lambda: found.append(reader.read()))
        thread.start()
        for part in parts:
            writer.write(part)
        writer.finish()
        thread.join()
    assert found == [b"".join(parts)]
    assert writer.size == len(found[0])
    assert sorted(path.parent.iterdir()) == [path]


def test_the_end_is_known_only_when_the_writer_says_so(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path / "a")
    writer.write(b"abc")
    waited: list[int] = []

    def check() -> None:
        waited.append(1)
        writer.finish()

    with SpoolReader(tmp_path / "a", check) as reader:
        assert reader.seek(0, os.SEEK_END) == 3
    assert waited == [1]


def test_whoever_waits_for_the_end_hears_of_an_abandoned_spool(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path / "a")
    with SpoolReader(tmp_path / "a", check=writer.abandon) as reader, pytest.raises(SpoolAbandoned):
        reader.seek(0, os.SEEK_END)


def test_an_abandoned_spool_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path / "a")
    writer.write(b"abc")
    with SpoolReader(tmp_path / "a") as reader:
        assert reader.read(3) == b"abc"
        writer.abandon()
        with pytest.raises(SpoolAbandoned):
            reader.read(1)
    assert list(tmp_path.iterdir()) == []


def test_a_waiting_reader_can_be_told_to_stop(tmp_path: Path) -> None:
    def cancel() -> None:
        raise Cancelled("enough")

    with SpoolWriter(tmp_path / "a"), SpoolReader(tmp_path / "a", cancel) as reader, pytest.raises(Cancelled):
        reader.read(1)


def test_a_killed_writer_is_noticed(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib, models.spool as s; w = s.SpoolWriter(pathlib.Path(sys.argv[1])); w.write(b'abc');"
        "print('ready', flush=True); sys.stdin.read()"
    )
    path = tmp_path / "a"
    command = [sys.executable, "-c", program, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert is_growing(path)
        process.send_signal(signal.SIGKILL)
        process.wait()
    with SpoolReader(path) as reader:
        assert reader.read(3) == b"abc"
        with pytest.raises(SpoolAbandoned):
            reader.read(1)
    remove_spool(path)
    assert list(tmp_path.iterdir()) == []


def test_a_path_in_use_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        SpoolWriter(tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"mine"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
