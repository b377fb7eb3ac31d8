"""Score `shapes-64`: sixty prompts of combinations that it was never shown, read back from its pictures.

    python -m deploy.score_shapes models/weights/shapes-64 [--guidance 3] [--steps 8] [--grid deploy/shapes-64.png]

Prints JSON: the share of prompts whose background, colour and shape `deploy.shapes.read` finds in the picture.
Needs the extra `diffusion`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from deploy.shapes import SIDE, held_out_prompts, read
from models.torch_runtime import import_torch

torch = import_torch()
FIELDS = ("background", "colour", "shape")


def load(directory: Path) -> Any:
    """The pipeline, on the CPU, in full precision."""
    import diffusers

    pipe: Any = diffusers.AutoPipelineForText2Image.from_pretrained(directory, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def paint(pipe: Any, prompts: list[str], guidance: float, steps: int, seed: int = 0) -> list[Any]:
    """One picture (height, width, 3) for each prompt, uint8, all in one batch."""
    pictures = pipe(
        prompts, num_inference_steps=steps, guidance_scale=guidance,
        generator=torch.Generator().manual_seed(seed), output_type="np",
    ).images  # fmt: skip
    return [np.rint(picture * 255).astype(np.uint8) for picture in pictures]


def score(pipe: Any, *, guidance: float = 3.0, steps: int = 8, seed: int = 0) -> dict[str, float]:
    """The share of held-out prompts of which each field is right."""
    prompts = held_out_prompts()
    readings = [read(picture) for picture in paint(pipe, [prompt for prompt, _ in prompts], guidance, steps, seed)]
    pairs = list(zip(readings, (scene for _, scene in prompts), strict=True))
    right = {field: sum(getattr(seen, field) == getattr(scene, field) for seen, scene in pairs) for field in FIELDS}
    return {field: round(count / len(prompts), 3) for field, count in right.items()}


def grid(pipe: Any, file: Path, guidance: float, steps: int) -> list[str]:
    """Sixteen held-out prompts as four rows of four pictures; returns the prompts."""
    prompts = [prompt for prompt, _ in held_out_prompts()][1::4][:15] + ["a yellow star on a blue background"]
    sheet = Image.new("RGB", (4 * SIDE + 10, 4 * SIDE + 10), "grey")
    for index, picture in enumerate(paint(pipe, prompts, guidance, steps)):
        row, column = divmod(index, 4)
        sheet.paste(Image.fromarray(picture), (2 + column * (SIDE + 2), 2 + row * (SIDE + 2)))
    doubled = sheet.resize((2 * sheet.width, 2 * sheet.height), Image.Resampling.NEAREST)
    doubled.quantize(128, dither=Image.Dither.NONE).save(file, optimize=True)
    return prompts


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--grid", type=Path, help="also paint sixteen prompts into this file")
    options: Any = parser.parse_args()
    pipe = load(options.directory)
    if options.grid:
        sys.stderr.write("\n".join(grid(pipe, options.grid, options.guidance, options.steps)) + "\n")
    found = score(pipe, guidance=options.guidance, steps=options.steps, seed=options.seed)
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
