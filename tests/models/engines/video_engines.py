"""Engines of the tiny video models: what their cards say, and how they are loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from models.catalog import Card
from tests.models.tiny_video import PATCHES

FAMILIES = ("wan", "ltx", "hunyuan", "cogvideox", "mochi", "animatediff")
SIDES = {"mochi": 32}
"""Pixels of a side of a small clip, where that is not 64."""
RULES = {"wan": (4, 1, 9), "ltx": (8, 1, 9), "hunyuan": (4, 1, 9), "cogvideox": (8, 1, 9), "mochi": (6, 1, 7)}
"""Family -> what its numbers of frames are a multiple of, what is left, and a small one; others make any number."""
SHORT_TEMPLATE = {
    "template": "<|start_header_id|>a<|end_header_id|><image>b<|eot_id|><|start_header_id|>c<|end_header_id|>{}"
    "<|eot_id|><|start_header_id|>d<|end_header_id|>",
    "crop_start": 5,
    "image_emb_start": 3,
    "image_emb_end": 3 + PATCHES,
    "image_emb_len": PATCHES,
}
"""For HunyuanVideo's pipeline for pictures; its own is longer than all that the tiny tokenizer has tokens for."""
CALLS: dict[str, dict[str, Any]] = {
    "ltx-newer": {"decode_timestep": 0.05, "decode_noise_scale": 0.025},
    "ltx-condition": {"image_cond_noise_scale": 0.0},
    "hunyuan-i2v": {"prompt_template": SHORT_TEMPLATE},
    "hunyuan-i2v-33ch": {"prompt_template": SHORT_TEMPLATE},
    "wan-14b-2.2": {"guidance_scale_2": 2.0},
}


def card_of(weights: Path, options: dict[str, Any] | None = None, **fields: Any) -> Card:
    family = weights.name.split("-")[0]
    multiple, remainder, frames = RULES.get(family, (1, 0, 6))
    usual = {
        "id": "tiny",
        "task": "video",
        "engine": "diffusion_video",
        "name": "tiny",
        "weights": str(weights),
        "options": {"threads": 1, "call": CALLS.get(weights.name, {})} | (options or {}),
        "default_size": (SIDES.get(family, 64),) * 2,
        "size_multiple": 32,
        "default_steps": 4,
        "default_guidance": 4.0,
        "negative_prompts": True,
        "max_loras": 2,
        "frame_multiple": multiple,
        "frame_remainder": remainder,
        "max_frames": 100,
        "default_frames": frames,
        "default_fps": 8,
        "frame_images": ("first", "last", "any"),
        "max_frame_images": 3,
    }
    return msgspec.convert(usual | fields, Card)


def engine_of(card: Card, **arguments: Any) -> Any:
    from models.engines import diffusion_video

    if not arguments:
        return diffusion_video.load(card)
    options = msgspec.convert(card.options, diffusion_video.DiffusionOptions)
    return diffusion_video.DiffusionVideoGenerator(Path(card.weights), card, options, **arguments)
