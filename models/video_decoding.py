"""Latents of video models to frames, piece by piece, the same that the autoencoder makes of all of them at once.

How far that goes, each autoencoder decides. Wan's remembers what its convolutions have seen and gives one latent after
the other; CogVideoX's two at a time; HunyuanVideo's works on overlapping stretches of time, as LTX-Video's does when it
is to save memory; AnimateDiff has an autoencoder of images. For these, memory does not grow with the length of a clip.
Mochi's, and LTX-Video's otherwise, look at the whole clip before the first frame is known.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Generator, Iterator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

IMAGES_TOGETHER = 4
"""Latents that an autoencoder of images decodes at a time."""

Pieces: TypeAlias = Generator[Any, None, None]
Decode: TypeAlias = Callable[[Any, Any, Any], Iterator[Any]]


def decoded(vae: Any, latents: Any, timestep: Any = None) -> Pieces:
    """Yield frames, shape (1, 3, frames, height, width) in -1..1, of latents (1, channels, frames, height, width).

    The latents are as the autoencoder makes them (see `video_latents`), the timestep is for those that want one.
    """
    decode = _DECODERS.get(type(vae).__name__, _at_once)
    for piece in decode(vae, latents, timestep):
        if piece.shape[2]:
            yield piece


def pixels(piece: Any) -> npt.NDArray[np.uint8]:
    """Frames in -1..1 as RGB, shape (frames, height, width, 3)."""
    levels = ((piece[0] * 0.5 + 0.5).clamp(0, 1).float() * 255).round().byte()
    shown: npt.NDArray[np.uint8] = levels.permute(1, 2, 3, 0).contiguous().cpu().numpy()
    return shown


def in_tiles(vae: Any, latents: Any) -> bool:
    """Whether the autoencoder cuts pictures of this size into tiles."""
    ratio = vae.spatial_compression_ratio
    height, width = latents.shape[-2:]
    return bool(
        vae.use_tiling and (width > vae.tile_sample_min_width // ratio or height > vae.tile_sample_min_height // ratio)
    )


def _at_once(vae: Any, latents: Any, timestep: Any) -> Iterator[Any]:
    more = () if timestep is None else (timestep,)
    whole = vae.decode(latents, *more, return_dict=False)[0]
    yield from whole.split(1, dim=2)


def _wan(vae: Any, latents: Any, timestep: Any) -> Iterator[Any]:
    """As `AutoencoderKLWan._decode` goes through time: each latent with what the convolutions kept of those before."""
    if in_tiles(vae, latents):
        yield from _at_once(vae, latents, None)
        return
    unpatchify = importlib.import_module(type(vae).__module__).unpatchify
    vae.clear_cache()
    try:
        for place, latent in enumerate(vae.post_quant_conv(latents).split(1, dim=2)):
            vae._conv_idx = [0]
            piece = vae.decoder(latent, feat_cache=vae._feat_map, feat_idx=vae._conv_idx, first_chunk=place == 0)
            if vae.config.patch_size is not None:
                piece = unpatchify(piece, patch_size=vae.config.patch_size)
            yield piece.clamp(-1.0, 1.0)
    finally:
        vae.clear_cache()


def _cogvideox(vae: Any, latents: Any, timestep: Any) -> Iterator[Any]:
    """As `AutoencoderKLCogVideoX._decode`: two latents at a time, three at first if their number is odd."""
    height, width = latents.shape[-2:]
    if vae.use_tiling and (width > vae.tile_latent_min_width or height > vae.tile_latent_min_height):
        yield from _at_once(vae, latents, None)
        return
    count, together = latents.shape[2], vae.num_latent_frames_batch_size
    cache = None
    end = 0
    while end < count:
        start, end = end, end + together + (count % together if end == 0 else 0)
        batch = latents[:, :, start:end]
        if vae.post_quant_conv is not None:
            batch = vae.post_quant_conv(batch)
        piece, cache = vae.decoder(batch, conv_cache=cache)
        yield piece


def _hunyuan(vae: Any, latents: Any, timestep: Any) -> Iterator[Any]:
    def decode(stretch: Any) -> Any:
        if in_tiles(vae, stretch):
            return vae.tiled_decode(stretch, return_dict=True).sample
        return vae.decoder(vae.post_quant_conv(stretch))

    # The first frame of a stretch belongs to a latent that is no beginning: it is decoded for the others only.
    return _by_stretches(vae, latents, decode, lambda piece: piece[:, :, 1:])


def _ltx(vae: Any, latents: Any, timestep: Any) -> Iterator[Any]:
    def decode(stretch: Any) -> Any:
        if in_tiles(vae, stretch):
            return vae.tiled_decode(stretch, timestep, return_dict=True).sample
        return vae.decoder(stretch, timestep)

    if not vae.use_framewise_decoding:
        return _at_once(vae, latents, timestep)
    return _by_stretches(vae, latents, decode, lambda piece: piece[:, :, :-1])


def _by_stretches(vae: Any, latents: Any, decode: Callable[[Any], Any], trim: Callable[[Any], Any]) -> Iterator[Any]:
    """As `_temporal_tiled_decode` of both autoencoders: overlapping stretches, each blended into the one before."""
    ratio, count = vae.temporal_compression_ratio, latents.shape[2]
    length, stride = (each // ratio for each in (vae.tile_sample_min_num_frames, vae.tile_sample_stride_num_frames))
    if not vae.use_framewise_decoding or count <= length:
        yield decode(latents)
        return
    blended = vae.tile_sample_min_num_frames - vae.tile_sample_stride_num_frames
    left = (count - 1) * ratio + 1
    before = None
    for start in range(0, count, stride):
        piece = decode(latents[:, :, start : start + length + 1])
        if before is not None:
            piece = vae.blend_t(before, trim(piece), blended)
        shown = piece[:, :, : min(left, vae.tile_sample_stride_num_frames + (before is None))]
        left -= shown.shape[2]
        before = piece
        yield shown


def _images(vae: Any, latents: Any, timestep: Any) -> Iterator[Any]:
    for batch in latents[0].movedim(1, 0).split(IMAGES_TOGETHER):
        yield vae.decode(batch, return_dict=False)[0].movedim(0, 1)[None].float()


_DECODERS: dict[str, Decode] = {
    "AutoencoderKL": _images,
    "AutoencoderKLWan": _wan,
    "AutoencoderKLCogVideoX": _cogvideox,
    "AutoencoderKLHunyuanVideo": _hunyuan,
    "AutoencoderKLLTXVideo": _ltx,
}
"""Class of the autoencoder -> how it is decoded in pieces; others are decoded at once."""
