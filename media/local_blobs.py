"""Blobs in a directory of this machine: the store of one host, or of several that share a file system.

A blob is written under `.incoming`, flushed to the disk, and then renamed to its key (rename is atomic, POSIX), so it
is there whole or not at all, also when the process is killed in between or the power goes.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import anyio

from media.blob_names import checked_key, checked_prefix
from media.blobs import BlobError, BlobInfo, BlobMissing
from media.database.sqlite import wall_clock
from media.signed_urls import UrlSigner

INCOMING = ".incoming"
ABANDONED_SECONDS = 86_400.0
"""After so long nobody is still writing what lies in INCOMING: its writer was killed."""
CHUNK_BYTES = 1 << 18
ATTEMPTS = 5
"""At renaming into a folder that somebody else finds empty, and removes, at the same moment."""


class LocalBlobs:
    """Implements BlobStore. Open it with `open`."""

    def __init__(self, directory: Path, signer: UrlSigner) -> None:
        self.signer = signer
        self._directory = directory

    @classmethod
    async def open(cls, directory: Path, signer: UrlSigner, clock: Callable[[], float] = wall_clock) -> LocalBlobs:
        """Make the directory and clear away what killed writers left. `clock` says Unix seconds. Raises: BlobError."""
        store = cls(directory, signer)
        await anyio.to_thread.run_sync(store._prepare, clock() - ABANDONED_SECONDS)
        return store

    async def put(
        self, key: str, source: bytes | Path, *, content_type: str = "", filename: str = "", durable: bool = True
    ) -> int:
        """See BlobStore. Type and name are not kept: a URL carries them."""
        return await anyio.to_thread.run_sync(self._put, checked_key(key), source, durable)

    async def read(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        file = await anyio.to_thread.run_sync(self._open, checked_key(key))
        try:
            while end is None or start < end:
                size = CHUNK_BYTES if end is None else min(CHUNK_BYTES, end - start)
                chunk = await anyio.to_thread.run_sync(os.pread, file.fileno(), size, start)
                if not chunk:
                    return
                start += len(chunk)
                yield chunk
        finally:
            file.close()

    @asynccontextmanager
    async def local(self, key: str) -> AsyncIterator[Path]:
        if await self.head(key) is None:
            raise BlobMissing(f"there is no blob {key!r}")
        yield self._directory / key

    async def head(self, key: str) -> BlobInfo | None:
        return await anyio.to_thread.run_sync(self._head, checked_key(key))

    async def delete(self, keys: Iterable[str]) -> None:
        """See BlobStore. Folders that become empty go too."""
        await anyio.to_thread.run_sync(self._delete, [checked_key(key) for key in keys])

    async def list(self, prefix: str) -> AsyncIterator[BlobInfo]:
        pending = [self._directory / checked_prefix(prefix)]
        while pending:
            folders, found = await anyio.to_thread.run_sync(self._scan, pending.pop())
            pending.extend(folders)
            for info in found:
                yield info

    async def url(self, key: str, seconds: float, *, content_type: str = "", filename: str = "") -> str:
        return self.signer.url("GET", checked_key(key), seconds, content_type=content_type, filename=filename)

    # ------------------------------------------------------------------ in a thread

    def _prepare(self, abandoned_before: float) -> None:
        try:
            incoming = self._directory / INCOMING
            incoming.mkdir(parents=True, exist_ok=True)
            for path in incoming.iterdir():
                with suppress(FileNotFoundError):  # another process clears away as well
                    if path.stat().st_mtime < abandoned_before:
                        path.unlink()
        except OSError as error:
            raise self._unusable(error) from error
        if not os.access(incoming, os.W_OK | os.X_OK):
            raise BlobError(f"blobs cannot be kept in {self._directory}: this user may not write there")

    def _put(self, key: str, source: bytes | Path, durable: bool) -> int:
        temporary = self._directory / INCOMING / secrets.token_hex(12)
        try:
            size = _write(temporary, source, durable=durable)
            _publish(temporary, self._directory / key, durable=durable)
        except OSError as error:
            raise self._unusable(error) from error
        finally:
            temporary.unlink(missing_ok=True)
        return size

    def _open(self, key: str) -> BinaryIO:
        try:
            return open(self._directory / key, "rb")
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise BlobMissing(f"there is no blob {key!r}") from error
        except OSError as error:
            raise self._unusable(error) from error

    def _head(self, key: str) -> BlobInfo | None:
        path = self._directory / key
        try:
            status = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return BlobInfo(key, status.st_size, status.st_mtime) if path.is_file() else None

    def _delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            path = self._directory / key
            with suppress(FileNotFoundError, NotADirectoryError):
                path.unlink()
            with suppress(OSError):  # not empty
                for folder in path.parents[: key.count("/")]:
                    folder.rmdir()

    def _scan(self, folder: Path) -> tuple[Sequence[Path], Sequence[BlobInfo]]:
        """Folders and blobs in a folder, by name; the folders backwards, so that the first is popped first."""
        try:
            entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
        except (FileNotFoundError, NotADirectoryError):
            return (), ()
        folders = [path for path in reversed(entries) if path.is_dir()]
        infos = (self._head(path.relative_to(self._directory).as_posix()) for path in entries)
        return folders, [info for info in infos if info]

    def _unusable(self, error: OSError) -> BlobError:
        return BlobError(f"blobs cannot be kept in {self._directory}: {error.strerror or error}")


def _write(path: Path, source: bytes | Path, *, durable: bool) -> int:
    with open(path, "xb") as target:
        if isinstance(source, Path):
            with open(source, "rb") as original:
                shutil.copyfileobj(original, target, 1 << 20)
        else:
            target.write(source)
        if durable:
            target.flush()
            os.fsync(target.fileno())
        return target.tell()


def _publish(temporary: Path, path: Path, *, durable: bool) -> None:
    """Rename, and make names as durable as what they stand for: that of the file, and those of new folders."""
    changed: list[Path] = []
    for attempt in range(ATTEMPTS):
        if not path.parent.exists():
            changed += [folder.parent for folder in path.parents if not folder.exists()]
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.replace(temporary, path)
            break
        except FileNotFoundError:
            if attempt == ATTEMPTS - 1:
                raise
    if durable:
        for folder in dict.fromkeys([path.parent, *changed]):
            _sync(folder)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
