"""Previews of an image or a frame on its way, for next to nothing: no decoder runs.

The denoised image is guessed from the last step, and its colours from a linear map of latents to RGB. The map is not a
table: it is fitted, by least squares, to what the model's own decoder makes of the latents of random colours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from models.image_rules import Size
from models.torch_runtime import import_torch
from models.video_latents import compression, scaled, unscaled

INTERVAL = 0.5
"""Seconds between two previews of a request."""
CELLS = 16
"""Latents of a side of the picture that the map is fitted to."""
IMAGES = "AutoencoderKL"
VIDEOS = tuple(
    f"AutoencoderKL{family}" for family in ("QwenImage", "Wan", "LTXVideo", "HunyuanVideo", "CogVideoX", "Mochi")
)
"""Autoencoders whose latents are smaller pictures, without a time axis and with one: to these a picture is a frame."""
LAST_STEP = 0.05
"""Time of the step of denoising that some of LTX-Video's autoencoders do."""
SMALLEST = 1e-4
RIDGE = 1e-4
NOISE = 0.5
"""Of latents, whose usual spread is 1."""


class PreviewPace:
    """Who gets a preview, and when: each image at even distances on its way, the request at most two a second."""

    def __init__(self, most: int, clock: Callable[[], float]) -> None:
        self._most = most
        self._clock = clock
        self._sent: dict[int, int] = {}
        self._last = -math.inf

    def next(self, images: Sequence[int], step: int, total: int) -> int | None:
        """The image of those in work that is to be shown after `step` of `total`; None when none is."""
        if not self._most or step >= total or self._clock() < self._last + INTERVAL:
            return None
        waiting = [(self._sent.get(image, 0), image) for image in images]
        due = [(sent, image) for sent, image in waiting if step * (self._most + 1) >= total * (sent + 1)]
        due = [(sent, image) for sent, image in due if sent < self._most]
        if not due:
            return None
        sent, image = min(due)
        self._sent[image] = sent + 1
        self._last = self._clock()
        return image


class LatentPainter:
    """Latents of one model, at any step, to pixels."""

    def __init__(self) -> None:
        self._map: Any = None
        self._useless = False

    def paint(
        self, pipe: Any, timestep: Any, before: Any, after: Any, index: int, size: Size
    ) -> npt.NDArray[np.uint8] | None:
        """Image `index` of a batch as it looks after a step, shape (height, width, 3) in latents; None: cannot tell.

        `before` are the latents that the step began with (None: not known), `after` those that it made.
        """
        if self._map is None and not self._useless:
            self._map = fit_map(pipe)
            self._useless = self._map is None
        if self._useless:
            return None
        row = slice(index, index + 1)
        latents = denoised(
            pipe.scheduler, timestep, None if before is None else before[row].float(), after[row].float()
        )
        if latents.ndim == 3:  # in patches
            latents = pipe._unpack_latents(latents, size[1], size[0], pipe.vae_scale_factor)
        latents = latents.reshape(latents.shape[1], *latents.shape[-2:])  # of Qwen-Image, which has a time axis, too
        colours = latents.permute(1, 2, 0) @ self._map[:-1] + self._map[-1]
        pixels: npt.NDArray[np.uint8] = (colours.clamp(0, 1) * 255).round().byte().cpu().numpy()
        return pixels


def fit_map(pipe: Any) -> Any:
    """Latent channels and a constant to RGB in 0..1, shape (channels + 1, 3); None for an unknown autoencoder."""
    torch = import_torch()
    vae = pipe.vae
    if type(vae).__name__ not in (IMAGES, *VIDEOS):
        return None
    generator = torch.Generator().manual_seed(0)
    side = CELLS * compression(pipe)[1]
    colours = torch.rand(1, 3, CELLS // 2, CELLS // 2, generator=generator)
    picture = torch.nn.functional.interpolate(colours, size=(side, side), mode="bilinear").to(vae.device, vae.dtype)
    with torch.no_grad():
        latents = _encoded(vae, picture * 2 - 1)
        # As latents are on their way: with noise, too.
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        latents = torch.cat([latents, latents + NOISE * noise])
        decoded = _decoded(vae, latents).float().cpu() / 2 + 0.5
    rows = latents.float().cpu().movedim(1, -1).flatten(0, -2)
    shown = torch.nn.functional.adaptive_avg_pool2d(decoded, latents.shape[-2:]).movedim(1, -1).flatten(0, -2)
    if not rows.isfinite().all() or not shown.isfinite().all():
        return None
    known = torch.cat([rows, torch.ones(len(rows), 1)], dim=1)
    # A little ridge: channels may depend on each other.
    square = known.T @ known + RIDGE * torch.eye(known.shape[1])
    return torch.linalg.solve(square, known.T @ shown).to(vae.device)


def _encoded(vae: Any, pixels: Any) -> Any:
    """Pictures in -1..1 as latents on the scale that pipelines hold them, without a time axis."""
    if type(vae).__name__ == IMAGES:
        shift = vae.config.shift_factor or 0.0
        return (vae.encode(pixels).latent_dist.mode() - shift) * vae.config.scaling_factor
    return scaled(vae, vae.encode(pixels[:, :, None]).latent_dist.mode())[:, :, 0]


def _decoded(vae: Any, latents: Any) -> Any:
    if type(vae).__name__ == IMAGES:
        return vae.decode(latents / vae.config.scaling_factor + (vae.config.shift_factor or 0.0)).sample
    more: tuple[Any, ...] = ()
    if getattr(vae.config, "timestep_conditioning", False):
        more = (latents.new_full((len(latents),), LAST_STEP),)
    return vae.decode(unscaled(vae, latents[:, :, None]), *more).sample[:, :, 0]


def denoised(scheduler: Any, timestep: Any, before: Any, after: Any) -> Any:
    """The image that a step was heading for.

    Latents are a mixture a * image + b * noise, with weights that the scheduler knows. A step changes the weights and
    keeps both parts, so two mixtures tell the parts. Steps that add noise of their own do not keep it, and the first
    step has nothing before it: there the latents count as they are, at their usual spread.
    """
    image_before, noise_before, image_after, noise_after = mixture(scheduler, timestep)
    determinant = image_after * noise_before - image_before * noise_after
    if before is None or abs(determinant) < SMALLEST or _adds_noise(scheduler):
        return after / max(math.hypot(image_after, noise_after), SMALLEST)
    return (noise_before * after - noise_after * before) / determinant


def mixture(scheduler: Any, timestep: Any) -> tuple[float, float, float, float]:
    """(a, b) of the latents before a step that has just been made, and after it."""
    if getattr(scheduler, "step_index", None) is not None and hasattr(scheduler, "sigmas"):
        last = len(scheduler.sigmas) - 1
        here = min(int(scheduler.step_index), last)
        return *_of_sigma(scheduler, here - 1), *_of_sigma(scheduler, here)
    place = int((scheduler.timesteps == timestep).nonzero()[0])
    known = scheduler.alphas_cumprod
    end = float(getattr(scheduler, "final_alpha_cumprod", 1.0))
    more = place + 1 < len(scheduler.timesteps)
    kept = float(known[int(timestep)]), float(known[int(scheduler.timesteps[place + 1])]) if more else end
    (one, two), (three, four) = ((math.sqrt(share), math.sqrt(1 - share)) for share in kept)
    return one, two, three, four


def _of_sigma(scheduler: Any, place: int) -> tuple[float, float]:
    sigma = float(scheduler.sigmas[max(place, 0)])
    if type(scheduler).__name__.startswith("FlowMatch"):
        if scheduler.config.get("invert_sigmas"):  # Mochi counts what is left of the image, not of the noise
            sigma = 1 - sigma
        return 1 - sigma, sigma
    if hasattr(scheduler, "_sigma_to_alpha_sigma_t"):
        image, noise = scheduler._sigma_to_alpha_sigma_t(scheduler.sigmas[max(place, 0)])
        return float(image), float(noise)
    return 1.0, sigma


def _adds_noise(scheduler: Any) -> bool:
    name = type(scheduler).__name__
    known = any(part in name for part in ("Ancestral", "LCM", "SDE", "CogVideoXDPM"))
    return known or bool(scheduler.config.get("stochastic_sampling"))
