"""Score `moving-shapes-64`: forty prompts of combinations that it was never shown, read back from its clips.

    python -m deploy.score_moving_shapes models/weights/moving-shapes-64 [--guidance 2] [--steps 10] [--frames 16]
        [--count 40] [--animation deploy/moving-shapes-64.gif] [--sheet deploy/moving-shapes-64.png]

Prints JSON: the share of prompts whose background, colour, shape and direction `deploy.moving_shapes.read_clip` finds
in the clip, and of those of which all are right; the share of frames that agree with their clip; the share of clips
whose shape goes straight, at one speed, within `STRAIGHT` pixels. Needs the extra `diffusion`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from deploy.moving_shapes import FPS, FRAMES, Clip, held_out_prompts, read_clip
from models.diffusion_pipelines import import_diffusers
from models.torch_runtime import import_torch

torch = import_torch()
FIELDS = ("background", "colour", "shape", "direction")
GUIDANCE, STEPS = 2.0, 10
STRAIGHT = 3.0
TOGETHER = 8
"""Clips made at once."""


def load(directory: Path) -> Any:
    """The pipeline, on the CPU, in full precision."""
    pipe: Any = import_diffusers().AnimateDiffPipeline.from_pretrained(
        directory, dtype=torch.float32, local_files_only=True
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def film(
    pipe: Any,
    prompts: list[str],
    *,
    guidance: float = GUIDANCE,
    steps: int = STEPS,
    frames: int = FRAMES,
    seed: int = 0,
) -> list[Clip]:
    """One clip (frames, height, width, 3) for each prompt."""
    generator, clips = torch.Generator().manual_seed(seed), []
    for begin in range(0, len(prompts), TOGETHER):
        made = pipe(
            prompts[begin : begin + TOGETHER], num_frames=frames, num_inference_steps=steps, guidance_scale=guidance,
            generator=generator, output_type="np",
        ).frames  # fmt: skip
        clips += [np.rint(clip * 255).astype(np.uint8) for clip in made]
    return clips


def score(clips: list[Clip], *, count: int, details: bool = False) -> dict[str, float]:
    """What of the held-out prompts is right in their clips, as shares."""
    prompts = held_out_prompts(count)
    readings = [read_clip(clip) for clip in clips]
    rights = [
        [getattr(seen, field) == getattr(scene, field) for field in FIELDS]
        for seen, (_, scene) in zip(readings, prompts, strict=True)
    ]
    for right, seen, (prompt, _) in zip(rights, readings, prompts, strict=True):
        if details and not all(right):
            sys.stderr.write(f"{prompt!r}: {seen}\n")
    shares = {field: float(np.mean([right[i] for right in rights])) for i, field in enumerate(FIELDS)}
    shares["all"] = float(np.mean([all(right) for right in rights]))
    shares["agreed"] = float(np.mean([seen.agreed for seen in readings]))
    shares["straight"] = float(np.mean([seen.bend <= STRAIGHT for seen in readings]))
    return {name: round(share, 3) for name, share in shares.items()}


def animation(clips: list[Clip], file: Path, columns: int = 6) -> None:
    """The clips side by side, as an animated GIF that goes on forever."""
    whole = [_side_by_side([clip[frame] for clip in clips], columns) for frame in range(len(clips[0]))]
    coded = [_few_colours(frame) for frame in whole]
    coded[0].save(file, save_all=True, append_images=coded[1:], duration=1000 // FPS, loop=0, optimize=True)


def sheet(clips: list[Clip], file: Path, every: int = 3) -> None:
    """One row for each clip, of every third frame."""
    _few_colours(_side_by_side([frame for clip in clips for frame in clip[::every]], len(clips[0][::every]))).save(
        file, optimize=True
    )


def _few_colours(picture: Image.Image) -> Image.Image:
    """Flat areas stay flat, which compresses well; a median cut would give up the colours of small shapes."""
    return picture.quantize(64, method=Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE)


def _side_by_side(pictures: list[Clip], columns: int) -> Image.Image:
    height, width = pictures[0].shape[:2]
    rows = -(-len(pictures) // columns)
    whole = Image.new("RGB", (columns * (width + 2) + 2, rows * (height + 2) + 2), "grey")
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        whole.paste(Image.fromarray(picture), (2 + column * (width + 2), 2 + row * (height + 2)))
    return whole


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--guidance", type=float, default=GUIDANCE)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--frames", type=int, default=FRAMES)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0, help="0: as many as PyTorch takes")
    parser.add_argument("--animation", type=Path, help="twelve of the clips, as a GIF")
    parser.add_argument("--sheet", type=Path, help="ten of the clips, as rows of frames")
    options: Any = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    pipe, began = load(options.directory), time.monotonic()
    prompts = [prompt for prompt, _ in held_out_prompts(options.count)]
    clips = film(
        pipe, prompts, guidance=options.guidance, steps=options.steps, frames=options.frames, seed=options.seed
    )
    sys.stderr.write(f"{(time.monotonic() - began) / len(clips):.2f} s for each clip\n")
    if options.animation:
        animation(clips[:12], options.animation)
    if options.sheet:
        sheet(clips[:10], options.sheet)
    found = score(clips, count=options.count, details=True)
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
