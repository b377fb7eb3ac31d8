"""Engines that have another server make images and videos, and a server that does as it is told."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from models.catalog import Card
from models.engines import remote
from models.errors import (
    Cancelled,
    EngineError,
    EngineFailed,
)
from models.interfaces import ImageRequest, ImageResult
from models.video_interfaces import VideoRequest
from tests.models.engines.conformance import Steps
from tests.models.upstream import Reply, ScriptedUpstream, scripted_upstream

CLIP = bytes(range(256)) * 400
KEY = "sk-secret-of-the-upstream"


def job(status: str = "queued", **more: Any) -> Reply:
    return Reply({"id": "video_1", "object": "video", "status": status} | more)


SOON = {"openai-poll-after-ms": "50"}
AT_WORK = Reply(job("in_progress").body, headers=SOON)
MADE: dict[str, Any] = {
    "create": Reply(job().body, headers=SOON),
    "look": [AT_WORK, job("completed")],
    "content": Reply(CLIP, headers={"content-type": "video/mp4"}),
    "cancel": job("cancelled"),
    "delete": Reply({"id": "video_1", "deleted": True}),
}


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    """One that makes a clip."""
    with scripted_upstream(**MADE) as upstream:
        yield upstream


def card_of(task: Any, url: str, rules: dict[str, Any] | None = None, **options: Any) -> Card:
    usual: dict[str, Any] = {"base_url": url, "model": "theirs", "patience": 0.0, "poll_seconds": 0.05}
    card: dict[str, Any] = {
        "id": "ours",
        "task": task,
        "engine": "remote",
        "name": "Ours",
        "size_multiple": 8,
        "default_size": (64, 48),
        "default_steps": 4,
        "max_frames": 100,
        "default_frames": 17,
        "default_fps": 8,
        "frame_images": ("first", "last", "any"),
        "max_reference_images": 1,
        "edits": True,
        "inpaints": True,
        "max_input_images": 2,
    }
    return Card(**card | {"options": usual | options} | (rules or {}))


def make(
    upstream: ScriptedUpstream,
    folder: Path,
    on_step: Callable[[float, float | None], None] | None = None,
    **options: Any,
) -> bytes:
    """The clip that comes back."""
    (made,) = films(upstream, folder, on_step, **options)
    return made


def films(
    upstream: ScriptedUpstream, folder: Path, on_step: Callable[[float, float | None], None] | None, **options: Any
) -> list[bytes]:
    engine = remote.load(card_of("video", upstream.url, **options))
    assert isinstance(engine, remote.RemoteVideoGenerator)
    request = VideoRequest(prompt="a red square moves", seed=7, directory=str(folder))
    return [each.path.read_bytes() for each in engine.generate(request, on_step or Steps())]


def fails(upstream: ScriptedUpstream, folder: Path, **options: Any) -> EngineError:
    with pytest.raises(EngineError) as failure:
        make(upstream, folder, **options)
    assert list(folder.iterdir()) == []
    return failure.value


class Until:
    """An `on_step` that says nobody wants it any more, once it is told so."""

    def __init__(self) -> None:
        self.told = threading.Event()

    def __call__(self, done: float, total: float | None) -> None:
        if self.told.is_set():
            raise Cancelled("stop")


def cancelled_when(upstream: ScriptedUpstream, kind: str, work: Callable[[Until], object], times: int = 1) -> None:
    """Cancel `work` when a request of a kind has arrived; it must end as cancelled."""
    until = Until()

    def tell() -> None:
        upstream.wait_for(kind, times)
        until.told.set()

    teller = threading.Thread(target=tell)
    teller.start()
    try:
        with pytest.raises(Cancelled):
            work(until)
    finally:
        teller.join()


@pytest.fixture
def never() -> threading.Event:
    """What does not happen while a test runs."""
    return threading.Event()


ERROR = {"message": "bad frames: /srv/models", "type": "invalid_request_error", "param": "num_frames", "code": "bad"}


def kind_of(error: EngineError) -> type[EngineError]:
    """Its class, as the server process will know it."""
    return type(error) if type(error).__module__ == "models.errors" else EngineFailed


def painted(data: bytes) -> Reply:
    return Reply({"created": 1, "data": [{"b64_json": base64.b64encode(data).decode(), "url": None}]})


def paint(
    upstream: ScriptedUpstream, on_step: Callable[[float, float | None], None] | None = None, **fields: Any
) -> list[ImageResult]:
    options = fields.pop("options", {})
    engine = remote.load(card_of("image", upstream.url, **options))
    assert isinstance(engine, remote.RemoteImageGenerator)
    usual: dict[str, Any] = {"prompt": "a red square", "seed": 7}
    return list(engine.generate(ImageRequest(**usual | fields), on_step or Steps()))
