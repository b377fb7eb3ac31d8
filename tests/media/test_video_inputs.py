"""Pictures and sound of a clip, kept as inputs of its job, or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from media.blobs import BlobError
from media.database import Database
from media.image_inputs import ImageInputs
from media.local_blobs import LocalBlobs
from media.services import Services
from media.settings import Settings
from media.signed_urls import UrlSigner
from media.video_inputs import VideoInputs
from models.catalog import Catalog
from models.pool import Pool
from tests.fakes import square

PUTS = 2


class FullDisk(LocalBlobs):
    """Has room for one blob."""

    puts = 0

    async def put(
        self, key: str, source: bytes | Path, *, content_type: str = "", filename: str = "", durable: bool = True
    ) -> int:
        self.puts += 1
        if self.puts == PUTS:
            raise BlobError("no space left")
        return await super().put(key, source, content_type=content_type, filename=filename, durable=durable)


async def test_inputs_that_find_no_room_leave_none_behind(tmp_path: Path) -> None:
    blobs = await FullDisk.open(tmp_path / "blobs", UrlSigner("key"))
    services = Services(Settings(), Catalog(()))
    services.start(cast(Pool, None), cast(Database, None), blobs)
    inputs = VideoInputs(ImageInputs(services, "tenant", tmp_path))
    for name in ("first", "last"):
        (tmp_path / name).write_bytes(square("png", 8, 8))
        await inputs.add_frame(tmp_path / name, None, "input_reference")
    with pytest.raises(BlobError):
        await inputs.keep("job_1")
    assert [blob.key async for blob in blobs.list("jobs/")] == []
    frames, references, sound = await inputs.keep("job_1")  # as a request that is sent again
    assert (list(references), sound) == ([], "")
    assert [blob.key async for blob in blobs.list("jobs/")] == list(frames)
