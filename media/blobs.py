"""Where results, uploads and inputs of jobs are kept: one protocol, a directory or an S3-compatible store behind it.

A key is a path of plain names, such as `jobs/job_1/2/image-0.png`. What is put there is there whole or not at all, and
stays what it is: nothing is put under the same key twice, but for previews.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

import msgspec


class BlobInfo(msgspec.Struct, frozen=True):
    """One blob: its key, its size in bytes, and when it was put there, in Unix seconds."""

    key: str
    bytes: int
    modified: float


class BlobStore(Protocol):
    """Keeps blobs."""

    async def put(
        self, key: str, source: bytes | Path, *, content_type: str = "", filename: str = "", durable: bool = True
    ) -> int:
        """Keep bytes or a copy of a file under a key; returns how many bytes. `durable` outlives a power cut.

        Raises: BlobError.
        """
        ...

    def read(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """The bytes from `start` to before `end`, in chunks. Raises: BlobMissing."""
        ...

    def local(self, key: str) -> AbstractAsyncContextManager[Path]:
        """The blob as a file of this machine while the context lasts, for reading only. Raises: BlobMissing."""
        ...

    async def head(self, key: str) -> BlobInfo | None:
        """What is known of a blob, or None."""
        ...

    async def delete(self, keys: Iterable[str]) -> None:
        """Forget blobs; one that is not there is no error."""
        ...

    def list(self, prefix: str) -> AsyncIterator[BlobInfo]:
        """Every blob whose key begins with `prefix`, which ends with a slash."""
        ...

    async def url(self, key: str, seconds: float, *, content_type: str = "", filename: str = "") -> str:
        """Where anybody can get the blob for so long: absolute for S3, a path of this server for a directory."""
        ...


class BlobError(Exception):
    """The store cannot be used; the message says what to look at."""


class BlobMissing(BlobError):
    """There is nothing under that key."""
