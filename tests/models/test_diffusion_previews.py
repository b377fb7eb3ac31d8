"""Previews against what they stand for: schedulers' own steps, and what a decoder makes of the latents."""

from __future__ import annotations

import importlib.util
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from models.diffusion_previews import LatentPainter, PreviewPace, _encoded, denoised
from models.torch_runtime import import_torch, without_warnings
from tests.fake_clock import FakeClock
from tests.models.tiny_diffusion import diffusion_modules

needs_diffusers = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("diffusers", "transformers", "torch"))),
    reason="diffusers, transformers and torch are not installed",
)
VARIANCES = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def test_every_image_of_a_batch_has_its_turn(clock: FakeClock) -> None:
    pace = PreviewPace(2, clock)
    shown = []
    for step in range(1, 13):
        shown.append(pace.next((0, 1), step, 12))
        clock.advance(0.3)
    assert [image for image in shown if image is not None] == [0, 1, 0, 1]
    assert [step for step, image in enumerate(shown, 1) if image is not None] == [4, 6, 8, 10]


def test_two_a_second_are_the_most_for_all_images_together(clock: FakeClock) -> None:
    pace = PreviewPace(100, clock)
    shown = 0
    for step in range(1, 101):
        shown += pace.next(range(8), step, 1000) is not None
        clock.advance(0.1)
    assert shown <= 21


def test_no_preview_of_a_finished_image_and_none_when_none_is_wanted(clock: FakeClock) -> None:
    assert PreviewPace(3, clock).next((0,), 4, 4) is None
    assert PreviewPace(0, clock).next((0,), 2, 4) is None


@needs_diffusers
@pytest.mark.parametrize(
    ("name", "fields", "flows"),
    [
        ("DDIMScheduler", VARIANCES | {"clip_sample": False}, False),
        ("EulerDiscreteScheduler", VARIANCES, False),
        ("DPMSolverMultistepScheduler", VARIANCES, False),
        ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}, True),
        ("FlowMatchEulerDiscreteScheduler", {"invert_sigmas": True}, True),
        ("UniPCMultistepScheduler", {"prediction_type": "flow_prediction", "use_flow_sigmas": True}, True),
        ("CogVideoXDDIMScheduler", VARIANCES | {"prediction_type": "epsilon"}, False),
    ],
)
def test_the_image_a_step_is_heading_for(name: str, fields: dict[str, Any], flows: bool) -> None:
    torch, diffusers, _ = diffusion_modules()
    scheduler = getattr(diffusers, name)(**fields)
    with without_warnings():
        scheduler.set_timesteps(8)
    generator = torch.Generator().manual_seed(0)
    image, noise = (torch.randn(1, 4, 8, 8, generator=generator) for _ in range(2))
    latents = noise * getattr(scheduler, "init_noise_sigma", 1.0)
    if not flows:
        latents = scheduler.add_noise(image, noise, scheduler.timesteps[:1])
    errors = []
    before = None
    for step, timestep in enumerate(scheduler.timesteps):
        predicted = noise - image if flows else noise
        if scheduler.config.get("invert_sigmas"):
            predicted = -predicted
        after = scheduler.step(predicted, timestep, latents, return_dict=False)[0]
        guess = denoised(scheduler, timestep, latents if step else None, after)
        errors.append(float((guess - image).abs().max()))
        before, latents = latents, after
    assert before is not None
    assert max(errors[1:]) < 0.02
    assert errors[0] > 0.1  # of one mixture alone nobody can tell


@needs_diffusers
@pytest.mark.parametrize("name", ["EulerAncestralDiscreteScheduler", "LCMScheduler"])
def test_steps_that_add_noise_of_their_own_are_shown_as_they_are(name: str) -> None:
    torch, diffusers, _ = diffusion_modules()
    generator = torch.Generator().manual_seed(0)
    image, noise = (torch.randn(1, 4, 8, 8, generator=generator) for _ in range(2))
    with without_warnings():
        scheduler = getattr(diffusers, name)(**VARIANCES)
        scheduler.set_timesteps(4)
        latents = scheduler.add_noise(image, noise, scheduler.timesteps[:1])
        errors = []
        for step, timestep in enumerate(scheduler.timesteps):
            kept = scheduler.alphas_cumprod[int(timestep)]
            by_sigma = hasattr(scheduler, "sigmas")
            a, b = (1.0, scheduler.sigmas[step]) if by_sigma else (kept**0.5, (1 - kept) ** 0.5)
            predicted = (latents - a * image) / b
            after = scheduler.step(predicted, timestep, latents, generator=generator, return_dict=False)[0]
            errors.append(float((denoised(scheduler, timestep, latents, after) - image).abs().mean()))
            latents = after
    assert errors[0] > errors[-1]
    assert errors[-1] < 0.1


class AutoencoderKL:
    """Decodes in a straight line: cells of 8 pixels, whose colours are a mixture of four channels."""

    device = "cpu"
    config = SimpleNamespace(shift_factor=0.25, scaling_factor=0.5)

    def __init__(self) -> None:
        torch = import_torch()
        self.dtype = torch.float32
        self.mixture = torch.randn(4, 3, generator=torch.Generator().manual_seed(3)) / 4

    def encode(self, pixels: Any) -> Any:
        torch = import_torch()
        cells = torch.nn.functional.avg_pool2d(pixels, 8)
        latents = torch.einsum("bchw,cl->blhw", cells, torch.linalg.pinv(self.mixture))
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: latents))

    def decode(self, latents: Any) -> Any:
        torch = import_torch()
        cells = torch.einsum("blhw,lc->bchw", latents, self.mixture)
        return SimpleNamespace(sample=torch.nn.functional.interpolate(cells, scale_factor=8))


class AutoencoderKLQwenImage(AutoencoderKL):
    """The same of videos, with a scale for each channel."""

    config = SimpleNamespace(latents_mean=[0.1, 0.2, 0.3, 0.4], latents_std=[2.0, 1.0, 2.0, 1.0])

    def encode(self, pixels: Any) -> Any:
        latents = super().encode(pixels[:, :, 0]).latent_dist.mode()[:, :, None]
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: latents))

    def decode(self, latents: Any) -> Any:
        return SimpleNamespace(sample=super().decode(latents[:, :, 0]).sample[:, :, None])


class AutoencoderKLWan(AutoencoderKLQwenImage):
    pass


class AutoencoderKLHunyuanVideo(AutoencoderKLQwenImage):
    config = SimpleNamespace(scaling_factor=0.5)


class AutoencoderKLLTXVideo(AutoencoderKLQwenImage):
    """One that decodes at a time of its own."""

    config = SimpleNamespace(scaling_factor=2.0, timestep_conditioning=True)

    def __init__(self) -> None:
        super().__init__()
        torch = import_torch()
        self.latents_mean, self.latents_std = torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.tensor([2.0, 1.0, 2.0, 1.0])

    def decode(self, latents: Any, timestep: Any = None) -> Any:
        assert timestep.shape == (len(latents),)
        return super().decode(latents)


class UnheardOfAutoencoder(AutoencoderKL):
    pass


@needs_diffusers
@pytest.mark.parametrize(
    ("kind", "packing"),
    [
        (AutoencoderKL, ""),
        (AutoencoderKL, "FluxPipeline"),
        (AutoencoderKLQwenImage, "QwenImagePipeline"),
        (AutoencoderKLWan, ""),
        (AutoencoderKLHunyuanVideo, ""),
        (AutoencoderKLLTXVideo, ""),
    ],
)
def test_colours_are_those_of_a_decoder_that_is_linear(kind: type[AutoencoderKL], packing: str) -> None:
    torch, diffusers, _ = diffusion_modules()
    vae = kind()
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(2)
    pipe = SimpleNamespace(vae=vae, vae_scale_factor=8, scheduler=scheduler)
    wanted = torch.rand(2, 3, 4, 6, generator=torch.Generator().manual_seed(1))
    latents = _encoded(vae, torch.nn.functional.interpolate(wanted * 2 - 1, scale_factor=8))
    if packing:
        pipeline = getattr(diffusers, packing)
        pipe._unpack_latents = pipeline._unpack_latents
        latents = pipeline._pack_latents(latents, 2, 4, 4, 6)
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(2))
    at_start, (before, after) = scheduler.sigmas[0], scheduler.sigmas[:2]
    assert at_start == 1
    scheduler.step(noise - latents, scheduler.timesteps[0], noise, return_dict=False)
    start, end = ((1 - sigma) * latents + sigma * noise for sigma in (before, after))
    painted = LatentPainter().paint(pipe, scheduler.timesteps[0], start, end, 1, (48, 32))
    assert painted is not None
    np.testing.assert_allclose(painted, wanted[1].permute(1, 2, 0).numpy() * 255, atol=2)


@needs_diffusers
def test_an_autoencoder_nobody_knows_has_no_previews() -> None:
    pipe = SimpleNamespace(vae=UnheardOfAutoencoder(), vae_scale_factor=8)
    assert LatentPainter().paint(pipe, None, None, None, 0, (8, 8)) is None
