"""Latents between a pipeline and its autoencoder: the shape that they have on the way, and their scale.

Each formula is the one at the end of the family's pipeline in diffusers, in the same order: the last bits agree, too.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from models.image_rules import Size
from models.torch_runtime import import_torch

LEADING_FRAMES = 4
"""Frames of the picture itself that one kind of HunyuanVideo makes before the clip."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Latents of a clip: how many frames of them, and how high and wide these are."""

    frames: int
    height: int
    width: int


def grid_of(pipe: Any, frames: int, size: Size) -> Grid:
    """The latents that a pipeline makes for a clip."""
    in_time, in_space = compression(pipe)
    return Grid((frames - 1) // in_time + 1, size[1] // in_space, size[0] // in_space)


def compression(pipe: Any) -> tuple[int, int]:
    """Frames that a latent stands for in time, and pixels of a side in space."""
    for names in _COMPRESSION:
        if hasattr(pipe, names[1]):
            return getattr(pipe, names[0], 1), getattr(pipe, names[1])
    raise ValueError(f"{type(pipe).__name__} is no pipeline of videos that is known here")


def leading_frames(pipe: Any) -> int:
    """Frames that a pipeline makes before the first that is asked for."""
    config = pipe.transformer.config if hasattr(pipe, "transformer") else {}
    return LEADING_FRAMES if config.get("image_condition_type") == "latent_concat" else 0


def unpacked(pipe: Any, latents: Any, grid: Grid) -> Any:
    """Latents as the pipeline holds them -> shape (1, channels, frames, height, width)."""
    name = type(pipe).__name__
    if name.startswith("LTX") and latents.ndim == 3:  # tokens; those of frames given in between come first
        latents = latents[:, -grid.frames * grid.height * grid.width :]
        patches = pipe.transformer_spatial_patch_size, pipe.transformer_temporal_patch_size
        return pipe._unpack_latents(latents, grid.frames, grid.height, grid.width, *patches)
    if name.startswith("CogVideoX"):  # version 1.5 puts latents that only fill up its patches before the first
        return latents.permute(0, 2, 1, 3, 4)[:, :, -grid.frames :]
    return latents


def for_decoder(pipe: Any, latents: Any, generator: Any, call: Mapping[str, Any]) -> tuple[Any, Any]:
    """Unpacked latents at the end -> those that the autoencoder decodes, and the timestep that it decodes them at.

    `generator` is the one that the pipeline was given; `call` its fixed arguments.
    """
    vae = pipe.vae
    latents = unscaled(vae, latents)
    if type(vae).__name__ != "AutoencoderKLLTXVideo":
        return latents, None
    latents = latents.to(pipe.transformer.dtype)
    if not vae.config.timestep_conditioning:
        return latents.to(vae.dtype), None
    torch = import_torch()
    defaults = inspect.signature(type(pipe).__call__).parameters
    at, noise = (call.get(name, defaults[name].default) for name in ("decode_timestep", "decode_noise_scale"))
    share = torch.tensor([at if noise is None else noise], dtype=latents.dtype, device=latents.device)
    drawn = torch.randn(latents.shape, generator=generator, dtype=latents.dtype).to(latents.device)
    share = share[:, None, None, None, None]
    timestep = torch.tensor([at], dtype=latents.dtype, device=latents.device)
    return ((1 - share) * latents + share * drawn).to(vae.dtype), timestep


def unscaled(vae: Any, latents: Any) -> Any:
    """Latents as a network denoises them -> as the autoencoder knows them; (1, channels, frames, height, width)."""
    return _SCALES[type(vae).__name__][0](vae, latents)


def scaled(vae: Any, latents: Any) -> Any:
    """The other way."""
    return _SCALES[type(vae).__name__][1](vae, latents)


_COMPRESSION = (
    ("vae_scale_factor_temporal", "vae_scale_factor_spatial"),
    ("vae_temporal_compression_ratio", "vae_spatial_compression_ratio"),
    ("vae_temporal_scale_factor", "vae_spatial_scale_factor"),
    ("", "vae_scale_factor"),
)
"""Names of a pipeline's attributes: Wan, HunyuanVideo and CogVideoX; LTX-Video; Mochi; AnimateDiff."""

Scale: TypeAlias = Callable[[Any, Any], Any]


def _by_channel(values: Any, latents: Any) -> Any:
    return import_torch().as_tensor(values).view(1, -1, 1, 1, 1).to(latents.device, latents.dtype)


def _wan(vae: Any, latents: Any) -> Any:
    latents = latents.to(vae.dtype)
    mean = _by_channel(vae.config.latents_mean, latents)
    inverse = 1.0 / _by_channel(vae.config.latents_std, latents)
    return latents / inverse + mean


def _to_wan(vae: Any, latents: Any) -> Any:
    mean, spread = (_by_channel(each, latents) for each in (vae.config.latents_mean, vae.config.latents_std))
    return (latents - mean) / spread


def _ltx(vae: Any, latents: Any) -> Any:
    mean, spread = _by_channel(vae.latents_mean, latents), _by_channel(vae.latents_std, latents)
    return latents * spread / vae.config.scaling_factor + mean


def _to_ltx(vae: Any, latents: Any) -> Any:
    mean, spread = _by_channel(vae.latents_mean, latents), _by_channel(vae.latents_std, latents)
    return (latents - mean) * vae.config.scaling_factor / spread


def _mochi(vae: Any, latents: Any) -> Any:
    if vae.config.latents_mean is None or vae.config.latents_std is None:
        return latents / vae.config.scaling_factor
    mean, spread = (_by_channel(each, latents) for each in (vae.config.latents_mean, vae.config.latents_std))
    return latents * spread / vae.config.scaling_factor + mean


def _to_mochi(vae: Any, latents: Any) -> Any:
    if vae.config.latents_mean is None or vae.config.latents_std is None:
        return latents * vae.config.scaling_factor
    mean, spread = (_by_channel(each, latents) for each in (vae.config.latents_mean, vae.config.latents_std))
    return (latents - mean) * vae.config.scaling_factor / spread


def _by_factor(vae: Any, latents: Any) -> Any:
    return 1 / vae.config.scaling_factor * latents


def _hunyuan(vae: Any, latents: Any) -> Any:
    return latents.to(vae.dtype) / vae.config.scaling_factor


def _to_factor(vae: Any, latents: Any) -> Any:
    return latents * vae.config.scaling_factor


_SCALES: dict[str, tuple[Scale, Scale]] = {
    "AutoencoderKL": (_by_factor, _to_factor),
    "AutoencoderKLWan": (_wan, _to_wan),
    "AutoencoderKLQwenImage": (_wan, _to_wan),
    "AutoencoderKLLTXVideo": (_ltx, _to_ltx),
    "AutoencoderKLHunyuanVideo": (_hunyuan, _to_factor),
    "AutoencoderKLCogVideoX": (_by_factor, _to_factor),
    "AutoencoderKLMochi": (_mochi, _to_mochi),
}
"""Class of the autoencoder -> from the network's scale to its own, and back."""
