"""Which blob store a setting means."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from media.blobs import BlobError, BlobStore
from media.database import Database
from media.local_blobs import LocalBlobs
from media.settings import Settings
from media.signed_urls import shared_signer

S3 = "s3://"
DIRECTORY = "blobs"


@asynccontextmanager
async def open_blobs(settings: Settings, database: Database, spools: Path) -> AsyncIterator[BlobStore]:
    """The store while the context lasts; copies of blobs from elsewhere lie in `spools`.

    All processes that share the database sign and accept the same URLs.

    Raises: BlobError when it cannot be used. What a bucket allows is only known once a small blob was put there and
    taken away.
    """
    if not settings.blob_url:
        yield await LocalBlobs.open(settings.data_dir / DIRECTORY, await shared_signer(database))
        return
    bucket, _, prefix = settings.blob_url.removeprefix(S3).partition("/")
    if not settings.blob_url.startswith(S3) or not bucket:
        raise BlobError(f"{settings.blob_url!r} is no blob store here: use s3://BUCKET/PREFIX, or leave it empty")
    try:
        from media.s3_blobs import S3Blobs
    except ImportError as error:
        raise BlobError("S3 needs obstore: pip install 'sonoreel[s3]'") from error
    yield await S3Blobs.connect(bucket, prefix.strip("/"), settings.blob_endpoint, spools)
