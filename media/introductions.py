"""People whose voices a live session knows by name: clips as data URLs, or files that were uploaded before."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

import anyio

from media.dialects.realtime import KnownSpeakers
from media.files import file_blob
from media.live import LiveListening
from media.recordings import reference_clips
from media.services import Services


async def introduce(services: Services, tenant: str, live: LiveListening, known: KnownSpeakers) -> None:
    """From now on the session calls these people by their names, and nobody else.

    Raises: ApiError 400, 404 or 413 naming the field; EngineError, InvalidInput among them.
    """
    directory = await anyio.to_thread.run_sync(_directory, services.spools)
    try:
        async with AsyncExitStack() as stack:
            clips: dict[str, Path] = {}
            for name, reference in known:
                if reference.startswith("data:"):
                    (clips[name],) = await reference_clips([reference], directory)
                else:
                    blob = await file_blob(services.database, tenant, reference, "known_speaker_references")
                    clips[name] = await stack.enter_async_context(services.blobs.local(blob.key))
            await live.introduce(clips)
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(shutil.rmtree, directory, True)


def _directory(parent: Path) -> Path:
    return Path(tempfile.mkdtemp(prefix="speakers-", dir=parent))
