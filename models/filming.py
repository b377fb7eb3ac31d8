"""Frames to files, in the worker, while they come."""

from __future__ import annotations

from collections.abc import Iterator

from models.interfaces import ImagePreview, OnStep
from models.video_interfaces import VideoGenerator, VideoRequest, VideoResult


def film(engine: VideoGenerator, request: VideoRequest, on_step: OnStep) -> Iterator[ImagePreview | VideoResult]:
    """Yield an engine's previews as they come, and at the end what was filmed of its frames."""
    raise NotImplementedError
