"""Small models of every family, of diffusers' real classes, from a request to a file that PyAV decodes."""

from __future__ import annotations

import base64
import importlib.util
import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from tests.journeys.filming import Clip, decoded
from tests.journeys.painting import until
from tests.journeys.server_process import ServerProcess, running_server
from tests.models.tiny_diffusion import diffusion_modules
from tests.models.tiny_video import build_video

if not all(map(importlib.util.find_spec, ("diffusers", "torch", "transformers"))):
    pytest.skip("diffusers, torch and transformers are not installed", allow_module_level=True)

pytestmark = [pytest.mark.journey, pytest.mark.timeout(120)]

CARD = """
[[card]]
id = "{id}"
task = "video"
engine = "diffusion_video"
name = "{id}"
weights = "{weights}"
size_multiple = 32
default_size = [64, 64]
frame_multiple = {multiple}
frame_remainder = {remainder}
default_frames = {frames}
max_frames = 49
default_fps = 8
default_steps = 2
default_guidance = 2.0
negative_prompts = true
frame_images = {pictures}
generates = {generates}
options = {{ threads = 1 }}
"""
FAMILIES = {
    "wan": (4, 1, 9),
    "ltx": (8, 1, 17),
    "hunyuan": (4, 1, 9),
    "cogvideox": (4, 1, 9),
    "animatediff": (1, 0, 10),
}
"""Family -> its rule of frames, and how many are asked for."""
FROM_PICTURES = {"ltx-condition": (8, 1, 9)}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the weights of each family in one that has its name."""
    folder = tmp_path_factory.mktemp("video-models")
    for family in FAMILIES | FROM_PICTURES:
        build_video(family, folder / family)
    return folder


@pytest.fixture(scope="module")
def server(weights: Path) -> Iterator[ServerProcess]:
    cards = weights / "cards"
    cards.mkdir()
    for id, (multiple, remainder, frames) in (FAMILIES | FROM_PICTURES).items():
        pictures = '["first"]' if id in FROM_PICTURES else "[]"
        facts = {"multiple": multiple, "remainder": remainder, "frames": frames, "pictures": pictures}
        generates = "false" if id in FROM_PICTURES else "true"
        (cards / f"{id}.toml").write_text(
            CARD.format(id=f"tiny-{id}", weights=weights / id, generates=generates, **facts)
        )
    settings = {"SONOREEL_MODELS_DIR": str(cards), "SONOREEL_WARM": ""}
    with running_server(weights / "data", **settings) as server:
        yield server


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=60) as client:
        yield client


def clip(client: httpx.Client, server: ServerProcess, **body: Any) -> Clip:
    """The clip of a request, from its file."""
    answer = client.post(f"{server.url}/v1/videos", json={"prompt": "a red cube", "seed": 7, **body})
    assert answer.status_code == 200, answer.text
    ended = until(client, server.url, answer.json()["id"], "succeeded", "failed")
    assert ended["status"] == "succeeded", ended["error"]
    return decoded(client.get(f"{server.url}/v1/videos/{ended['id']}/content").content)


def psnr(one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio of the brightness, in decibels; codecs halve the resolution of colour."""
    weights = np.array([0.2126, 0.7152, 0.0722])
    error = float(np.mean((one @ weights - other @ weights) ** 2))
    return 10 * math.log10(255**2 / max(error, 1e-9))


def apart(one: Clip, other: Clip) -> float:
    """How far colours differ on average, of 255."""
    return float(np.abs(one.frames.astype(np.int16) - other.frames).mean())


@pytest.mark.parametrize("family", FAMILIES)
def test_frames_rate_and_size_are_those_asked_for(server: ServerProcess, client: httpx.Client, family: str) -> None:
    frames = FAMILIES[family][2]
    made = clip(client, server, model=f"tiny-{family}", num_frames=frames, fps=12, size="96x64", output_quality=1)
    assert made.frames.shape == (frames, 64, 96, 3)
    assert made.fps == 12
    again = clip(client, server, model=f"tiny-{family}", num_frames=frames, fps=12, size="96x64", output_quality=1)
    assert apart(again, made) < 0.5  # the last bit of a sum depends on where in memory it is made
    other = clip(
        client, server, model=f"tiny-{family}", num_frames=frames, fps=12, size="96x64", output_quality=1, seed=8
    )
    assert apart(other, made) > 2


def test_a_clip_begins_with_the_picture_that_was_given(
    server: ServerProcess, client: httpx.Client, weights: Path
) -> None:
    ramp = np.linspace(40, 200, 64)
    picture = np.stack([np.tile(ramp, (64, 1)), np.tile(ramp[:, None], (1, 64)), np.full((64, 64), 90)], axis=-1)
    file = io.BytesIO()
    Image.fromarray(picture.astype(np.uint8)).save(file, "PNG")
    url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    made = clip(client, server, model="tiny-ltx-condition", input_reference={"image_url": url}, output_quality=1)
    assert made.frames.shape == (9, 64, 64, 3)
    # With random weights an autoencoder keeps little of a picture: what it keeps is what the clip has to begin with.
    kept = through_autoencoder(weights / "ltx-condition", picture.astype(np.uint8))
    assert psnr(made.frames[0], kept) > 25
    assert psnr(made.frames[-1], kept) < psnr(made.frames[0], kept)


def through_autoencoder(weights: Path, picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """A picture as LTX-Video's autoencoder gives it back."""
    torch, diffusers, _ = diffusion_modules()
    autoencoder = diffusers.AutoencoderKLLTXVideo.from_pretrained(weights / "vae")
    pixels = torch.from_numpy(picture).permute(2, 0, 1)[None, :, None].float() / 127.5 - 1
    with torch.no_grad():
        latents = autoencoder.encode(pixels).latent_dist.mode()
        frame = autoencoder.decode(latents).sample[0, :, 0]
    shown: npt.NDArray[np.uint8] = ((frame.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    return shown
