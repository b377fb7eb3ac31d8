"""Journeys through videos: a server whose only video model is scripted, and clips read back."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, NamedTuple

import av
import httpx
import numpy as np
import numpy.typing as npt

CARD = """
[[card]]
id = "filmer"
task = "video"
engine = "tests.fakes"
name = "Filmer"
size_multiple = 16
default_size = [64, 48]
max_pixels = 1000000
frame_multiple = 4
frame_remainder = 1
min_frames = 5
default_frames = 9
max_frames = 81
default_fps = 8
default_steps = 4
frame_images = ["first", "last"]
max_reference_images = 1
max_input_chars = 500
price_per_video_second = 0.1
concurrency = 2
cancel_grace = 1.0
options = {{ trace = "{trace}" }}
"""


class Clip(NamedTuple):
    """A video file, decoded: RGB frames of shape (frames, height, width, 3)."""

    frames: npt.NDArray[np.uint8]
    fps: float
    codec: str
    audio: str


def filmer(folder: Path) -> dict[str, str]:
    """Settings of a server with the filmer; attempts leave a line each in FOLDER/trace."""
    cards = folder / "cards"
    cards.mkdir(exist_ok=True)
    (cards / "filmer.toml").write_text(CARD.format(trace=folder / "trace"))
    return {"SONOREEL_MODELS_DIR": str(cards), "SONOREEL_WARM": "", "SONOREEL_DRAIN_SECONDS": "5"}


def film(client: httpx.Client, url: str, prompt: str, **body: Any) -> dict[str, Any]:
    """Queue a clip; the video."""
    key = body.pop("key", None)
    headers = {"idempotency-key": key} if key else {}
    answer = client.post(f"{url}/v1/videos", json={"model": "filmer", "prompt": prompt, **body}, headers=headers)
    assert answer.status_code == 200, answer.text
    video: dict[str, Any] = answer.json()
    return video


def decoded(data: bytes) -> Clip:
    """Everything in a video file."""
    with av.open(io.BytesIO(data), "r") as container:
        stream = container.streams.video[0]
        audio = container.streams.audio[0].codec_context.name if container.streams.audio else ""
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        return Clip(np.stack(frames), float(stream.average_rate or 0), stream.codec_context.name, audio)
