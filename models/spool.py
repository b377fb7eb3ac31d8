"""A file that one process writes while others already read it: an upload still arriving, audio still being decoded.

While the writer is at work, a marker `<path>.growing` stands beside the file; when it is gone, the end of the file is
the end. A writer that gives up takes the file away too. A writer that was killed leaves both, and its marker holds no
lock any more: readers notice that and give up as well.
"""

from __future__ import annotations

import fcntl
import io
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

POLL_SECONDS = 0.02


class SpoolAbandoned(OSError):
    """The writer gave up or died before the end."""


def _marker(path: Path) -> Path:
    return path.with_name(path.name + ".growing")


class SpoolWriter:
    """Writes a spool. As a context manager it ends the spool, or abandons it when an exception comes through.

    Raises: FileExistsError when the path is taken; FileNotFoundError when its directory is gone, and with it whoever
    wanted the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # The marker goes first and is locked for as long as this process lives.
        self._lock = os.open(_marker(path), os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            self._file = open(path, "xb", buffering=0)  # noqa: SIM115 - closed by finish or abandon
        except FileExistsError:
            self._unmark()
            raise
        self.size = 0

    def write(self, data: bytes | memoryview) -> None:
        """Append; readers may see it at once."""
        view = memoryview(data)
        while view:
            written = self._file.write(view) or 0
            self.size += written
            view = view[written:]

    def finish(self) -> None:
        """This was all."""
        if not self._file.closed:
            self._file.close()
            self._unmark()

    def abandon(self) -> None:
        """Take the file away; readers raise SpoolAbandoned."""
        if not self._file.closed:
            self._file.close()
            self.path.unlink(missing_ok=True)
            self._unmark()

    def _unmark(self) -> None:
        _marker(self.path).unlink(missing_ok=True)
        os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish()
        else:
            self.abandon()


class SpoolReader(io.RawIOBase):
    """Reads a spool, waiting for what has not arrived yet; a complete file reads like any other.

    `check` is called while waiting and may raise to stop it. Seeking relative to the end waits for the end.
    Raises: SpoolAbandoned from `read` and `seek`; FileNotFoundError when there is no such file.
    """

    def __init__(self, path: Path, check: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self._path = path
        self._check = check
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - closed by close

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        while not (count := self._file.readinto(buffer) or 0):
            if not is_growing(self._path):
                if not self._path.exists():
                    raise SpoolAbandoned(f"{self._path.name}: the writer gave up")
                return self._file.readinto(buffer) or 0  # what came between the read and the end
            self._wait()
        return count

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_END:
            while is_growing(self._path):
                self._wait()
            if not self._path.exists():
                raise SpoolAbandoned(f"{self._path.name}: the writer gave up")
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()
        super().close()

    def _wait(self) -> None:
        self._check()
        time.sleep(POLL_SECONDS)  # the writer is another process: nothing tells of what it wrote


def is_growing(path: Path) -> bool:
    """Whether a writer is still at work. Raises: SpoolAbandoned when it died."""
    try:
        descriptor = os.open(_marker(path), os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    if not _marker(path).exists():  # it ended between the two looks
        return False
    raise SpoolAbandoned(f"{path.name}: the writer died")


def remove_spool(path: Path) -> None:
    """Take a spool away, finished or not."""
    path.unlink(missing_ok=True)
    _marker(path).unlink(missing_ok=True)
