"""Blobs in a bucket of Amazon S3 or of a store that speaks its protocol, through obstore (the `s3` extra).

A large file goes there in parts and appears when the last one is in; what an interrupted upload leaves behind is for
the bucket's own lifecycle rule (AbortIncompleteMultipartUpload). Credentials and region come from the AWS_* variables
or from what the machine has.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from media.blob_names import checked_key, checked_prefix, content_disposition, media_type
from media.blobs import BlobError, BlobInfo, BlobMissing

if TYPE_CHECKING:
    from obstore import GetResult, ObjectMeta
    from obstore.store import ClientConfig, RetryConfig, S3Config

PART_BYTES = 16 << 20
"""With S3's limit of 10,000 parts, files of up to 160 GB."""
PARTS_AT_ONCE = 4
CHUNK_BYTES = 1 << 20
PAGE = 500
LONGEST_URL_SECONDS = 7 * 86_400.0
"""Of a presigned URL (Signature Version 4)."""
# A body may take as long as its reader likes; only silence of the store ends it.
CLIENT: ClientConfig = {"timeout": "1day", "read_timeout": "60s", "connect_timeout": "5s"}
RETRY: RetryConfig = {"max_retries": 3, "retry_timeout": timedelta(seconds=30)}
MACHINE_ROLE = "/latest/api/token"
"""Path of the service that an Amazon machine asks for credentials; the last resort of a client that was given none."""
XML_MESSAGE = re.compile(r"<Code>([^<]*)</Code>(?:<Message>([^<]*)</Message>)?")


class S3Blobs:
    """Implements BlobStore. Open it with `connect`. `scratch` is where blobs lie while they are needed as files."""

    def __init__(self, store: S3Store, scratch: Path, name: str) -> None:
        self._store = store
        self._scratch = scratch
        self._name = name

    @classmethod
    async def connect(cls, bucket: str, prefix: str, endpoint: str, scratch: Path) -> S3Blobs:
        """The store behind a bucket, once it has taken a blob and forgotten it. Raises: BlobError."""
        name = f"s3://{bucket}/{prefix}" if prefix else f"s3://{bucket}"
        client: ClientConfig = {**CLIENT, "allow_http": endpoint.startswith("http://")}
        where: S3Config = {"endpoint": endpoint} if endpoint else {}
        try:
            store = S3Store(
                bucket,
                prefix=prefix or None,
                config=where,
                virtual_hosted_style_request=False,
                client_options=client,
                retry_config=RETRY,
            )
        except (BaseError, ValueError) as error:
            raise BlobError(f"blobs cannot be kept in {name}: {_reason(error)}") from error
        blobs = cls(store, scratch, name)
        probe = f"probe/{secrets.token_hex(8)}"
        await blobs.put(probe, b"")
        await blobs.delete([probe])
        return blobs

    async def put(
        self, key: str, source: bytes | Path, *, content_type: str = "", filename: str = "", durable: bool = True
    ) -> int:
        """See BlobStore. Type and name are kept with the blob, for whoever opens its URL."""
        kind = media_type(content_type, filename or checked_key(key))
        attributes = {"Content-Type": kind, "Content-Disposition": content_disposition(kind, filename)}
        size = len(source) if isinstance(source, bytes) else await _size(source)
        with self._translated():
            try:
                await obstore.put_async(
                    self._store,
                    checked_key(key),
                    source,
                    attributes=attributes,
                    use_multipart=size > PART_BYTES,
                    chunk_size=PART_BYTES,
                    max_concurrency=PARTS_AT_ONCE,
                )
            except FileNotFoundError as error:  # of the bucket
                raise BlobError(f"blobs cannot be kept in {self._name}: {_reason(error)}") from error
        return size

    async def read(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        if (result := await self._get(checked_key(key), start, end)) is None:
            return
        with self._translated():
            async for chunk in result.stream(min_chunk_size=CHUNK_BYTES):
                yield bytes(chunk)

    @asynccontextmanager
    async def local(self, key: str) -> AsyncIterator[Path]:
        path = self._scratch / f"blob-{secrets.token_hex(12)}"
        try:
            await anyio.to_thread.run_sync(lambda: self._scratch.mkdir(parents=True, exist_ok=True))
            async with await anyio.open_file(path, "xb") as file:
                async for chunk in self.read(key):
                    await file.write(chunk)
            yield path
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(lambda: path.unlink(missing_ok=True))

    async def head(self, key: str) -> BlobInfo | None:
        with self._translated():
            try:
                return _info(await obstore.head_async(self._store, checked_key(key)))
            except FileNotFoundError:
                return None

    async def delete(self, keys: Iterable[str]) -> None:
        if paths := [checked_key(key) for key in keys]:
            with self._translated():
                await obstore.delete_async(self._store, paths)

    async def list(self, prefix: str) -> AsyncIterator[BlobInfo]:
        with self._translated():
            async for page in obstore.list(self._store, prefix=checked_prefix(prefix) or None, chunk_size=PAGE):
                for found in page:
                    yield _info(found)

    async def url(self, key: str, seconds: float, *, content_type: str = "", filename: str = "") -> str:
        """See BlobStore. Type and name are those that were put; S3 allows a URL seven days at most."""
        lifetime = timedelta(seconds=min(seconds, LONGEST_URL_SECONDS))
        with self._translated():
            return await obstore.sign_async(self._store, "GET", checked_key(key), lifetime)

    async def _get(self, key: str, start: int, end: int | None) -> GetResult | None:
        """What the store answers; None for a range with nothing in it, which S3 refuses."""
        with self._translated():
            try:
                if start == 0 and end is None:
                    return await obstore.get_async(self._store, key)
                if end is None:
                    return await obstore.get_async(self._store, key, options={"range": {"offset": start}})
                return await obstore.get_async(self._store, key, options={"range": (start, end)})
            except BaseError:
                info = await self.head(key)
                if info is None:
                    raise BlobMissing(f"there is no blob {key!r}") from None
                if start < info.bytes and (end is None or start < end):
                    raise
                return None

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise BlobMissing(f"there is no such blob: {_reason(error)}") from error
        except (BaseError, ValueError) as error:
            raise BlobError(f"blobs cannot be kept in {self._name}: {_reason(error)}") from error


def _info(found: ObjectMeta) -> BlobInfo:
    return BlobInfo(found["path"], found["size"], found["last_modified"].timestamp())


def _reason(error: Exception) -> str:
    """What the store said, without the client's account of how it asked."""
    text = str(error)
    if MACHINE_ROLE in text:
        return "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give this machine a role"
    if said := XML_MESSAGE.search(text):
        return ": ".join(filter(None, said.groups()))
    return text.partition("\n\nDebug source")[0].strip()


async def _size(path: Path) -> int:
    try:
        return (await anyio.Path(path).stat()).st_size
    except OSError as error:
        raise BlobError(f"{path.name} cannot be read: {error.strerror}") from error
