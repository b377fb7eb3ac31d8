"""Frames decoded in pieces against the real autoencoders' own decoding of whole clips."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest

from models.video_decoding import decoded, pixels
from tests.models.tiny_diffusion import _autoencoder, diffusion_modules

pytestmark = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("diffusers", "transformers", "torch"))),
    reason="diffusers, transformers and torch are not installed",
)


def wan(diffusers: Any) -> Any:
    return diffusers.AutoencoderKLWan(base_dim=4, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1)


def wan_in_patches(diffusers: Any) -> Any:
    return diffusers.AutoencoderKLWan(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        is_residual=True,
        in_channels=12,
        out_channels=12,
        patch_size=2,
        scale_factor_spatial=16,
    )


def cogvideox(diffusers: Any) -> Any:
    return diffusers.AutoencoderKLCogVideoX(
        block_out_channels=(4, 4, 4, 4), latent_channels=4, layers_per_block=1, norm_num_groups=2
    )


def hunyuan(diffusers: Any) -> Any:
    return diffusers.AutoencoderKLHunyuanVideo(
        latent_channels=4, block_out_channels=(4, 4, 4, 4), layers_per_block=1, norm_num_groups=2
    )


def ltx(diffusers: Any) -> Any:
    return diffusers.AutoencoderKLLTXVideo(
        latent_channels=4,
        block_out_channels=(4, 4, 4, 4),
        decoder_block_out_channels=(4, 4, 4, 4),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
        timestep_conditioning=True,
    )


def ltx_in_stretches(diffusers: Any) -> Any:
    vae = ltx(diffusers)
    vae.use_framewise_decoding = True
    return vae


def mochi(diffusers: Any) -> Any:
    return diffusers.AutoencoderKLMochi(
        latent_channels=4,
        encoder_block_out_channels=(32, 32, 32, 32),
        decoder_block_out_channels=(32, 32, 32, 32),
        layers_per_block=(1, 1, 1, 1, 1),
    )


LONGEST_PIECE = {wan: 4, wan_in_patches: 4, cogvideox: 9, hunyuan: 13, ltx_in_stretches: 9, ltx: 1, mochi: 1}
"""Autoencoder -> frames of its longest piece: it must not grow with the clip."""


PIECES = [(1, False), (2, False), (7, False), (6, True)]
CASES = [(build, *each) for build in LONGEST_PIECE for each in (PIECES[:2] if build is mochi else PIECES)]
"""Mochi's latents are decoded at once anyway."""


@pytest.mark.parametrize(("build", "count", "tiled"), CASES)
def test_pieces_are_together_what_is_decoded_at_once(build: Any, count: int, tiled: bool) -> None:
    torch, diffusers, _ = diffusion_modules()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    vae = build(diffusers)
    if tiled:
        pixels_of_a_tile = 2 * (32 if "LTX" in type(vae).__name__ else vae.config.get("scale_factor_spatial", 8))
        vae.enable_tiling(pixels_of_a_tile, pixels_of_a_tile)
        for name in ("tile_sample_stride_height", "tile_sample_stride_width"):
            if hasattr(vae, name):
                setattr(vae, name, pixels_of_a_tile)
    latents = torch.randn(1, 4, count, 2, 4 if tiled else 2)
    timestep = torch.tensor([0.05]) if "LTX" in type(vae).__name__ else None
    with torch.no_grad():
        whole = vae.decode(latents, *([] if timestep is None else [timestep]), return_dict=False)[0]
        found = list(decoded(vae, latents, timestep))
    together = torch.cat(found, dim=2)
    assert together.shape == whole.shape
    assert torch.equal(together, whole)
    assert np.concatenate([pixels(piece) for piece in found]).tobytes() == pixels(whole).tobytes()
    if not tiled:
        assert max(piece.shape[2] for piece in found) <= LONGEST_PIECE[build]


def test_images_are_decoded_a_few_at_a_time() -> None:
    torch, diffusers, _ = diffusion_modules()
    torch.manual_seed(0)
    vae = _autoencoder(diffusers)
    latents = torch.randn(1, 4, 10, 4, 4)
    with torch.no_grad():
        found = list(decoded(vae, latents))
        each = [vae.decode(latents[:, :, place]).sample for place in range(10)]
    assert [piece.shape[2] for piece in found] == [4, 4, 2]
    torch.testing.assert_close(torch.cat(found, dim=2), torch.stack(each, dim=2), rtol=0, atol=1e-5)


def test_what_is_not_read_is_not_decoded() -> None:
    torch, diffusers, _ = diffusion_modules()
    vae = wan(diffusers)
    calls = []
    vae.decoder.register_forward_pre_hook(lambda module, inputs: calls.append(inputs[0].shape[2]))
    with torch.no_grad():
        frames = decoded(vae, torch.randn(1, 4, 9, 2, 2))
        next(frames)
        next(frames)
    frames.close()
    assert calls == [1, 1]
    assert all(kept is None for kept in vae._feat_map)  # what was remembered of the clip is gone


@pytest.mark.parametrize(("value", "level"), [(-2.0, 0), (-1.0, 0), (0.0, 128), (1.0, 255), (3.0, 255)])
def test_values_are_levels_of_colours(value: float, level: int) -> None:
    torch = diffusion_modules()[0]
    shown = pixels(torch.full((1, 3, 2, 4, 5), value))
    assert shown.shape == (2, 4, 5, 3)
    assert shown.dtype == np.uint8
    assert (shown == level).all()
