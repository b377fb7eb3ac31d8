"""Train `shapes-64`, the small text-to-image model that this repository ships, on drawn and captioned shapes.

    python -m deploy.train_shapes OUT [--minutes 60] [--threads 1]

OUT becomes a directory that diffusers loads with `StableDiffusionPipeline`. The stages: a text encoder that learns to
parse captions, an autoencoder, the latents of a set of pictures, and the denoiser, for `--minutes`. What OUT has
already is taken up: the first two as they are, the denoiser to train on. Needs the extra `diffusion`.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from deploy.score_shapes import score
from deploy.shapes import SIDE, Scene, any_scene, caption, omit
from deploy.shapes_autoencoder import autoencoder, encode, standardise, start_as_average, train_autoencoder
from deploy.shapes_text import WIDTH, say, text_encoder, tokenizer, tokens_of, train_text_encoder
from models.torch_runtime import import_torch

torch = import_torch()
BATCH = 32


def denoiser() -> Any:
    """Text reaches every layer through the time embedding, and the coarsest level through cross attention as well."""
    import diffusers

    return diffusers.UNet2DConditionModel(
        sample_size=SIDE // 4, in_channels=4, out_channels=4, block_out_channels=(64, 96, 128), layers_per_block=1,
        down_block_types=("DownBlock2D",) * 3, mid_block_type="UNetMidBlock2DCrossAttn",
        up_block_types=("UpBlock2D",) * 3, cross_attention_dim=WIDTH, attention_head_dim=4, norm_num_groups=1,
        resnet_time_scale_shift="scale_shift", addition_embed_type="text", addition_embed_type_num_heads=4,
    )  # fmt: skip


def scheduler() -> Any:
    """Ends in pure noise and starts from it, so that a flat background can have any colour."""
    import diffusers

    return diffusers.DDIMScheduler(
        beta_schedule="linear", beta_start=1e-4, beta_end=0.02, prediction_type="v_prediction",
        rescale_betas_zero_snr=True, timestep_spacing="trailing", clip_sample=False,
    )  # fmt: skip


def train_denoiser(pipe: Any, scenes: list[Scene], latents: Any, *, minutes: float, out: Path) -> None:
    """Velocity prediction, the time spent mostly on what decides the picture. Scores and saves as it goes."""
    model, noising, chance = pipe.unet.to(memory_format=torch.channels_last), pipe.scheduler, Random(3)  # noqa: S311
    kept = copy.deepcopy(model).requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01, betas=(0.9, 0.99), fused=True)
    began, scored, losses, step, done = time.monotonic(), 0.0, [], 0, 0.0
    while done < 1:
        optimizer.param_groups[0]["lr"] = 1e-3 * min(1, (step + 1) / 100) * (0.03 + 0.97 * math.cos(done * math.pi / 2))
        chosen = [chance.randrange(len(scenes)) for _ in range(BATCH)]
        texts = [caption(omit(scenes[i], chance), chance) if chance.random() < 0.9 else "" for i in chosen]
        clean, noise = latents[chosen], torch.randn(BATCH, 4, SIDE // 4, SIDE // 4)
        times = torch.randint(0, 1000, (BATCH,))
        given, wanted = noising.add_noise(clean, noise, times), noising.get_velocity(clean, noise, times)
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                states = pipe.text_encoder(tokens_of(texts, pipe.tokenizer)).last_hidden_state
            found = model(given.contiguous(memory_format=torch.channels_last), times, states).sample
        noisy = 1 - noising.alphas_cumprod[times]
        weight = (1 / noisy).clamp(max=6) * noisy  # late steps only polish: at most six times the error of the picture
        loss = (weight * (found.float() - wanted).pow(2).mean((1, 2, 3))).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        decay = min(0.998, step / (step + 9))
        torch._foreach_lerp_([*kept.parameters()], [*model.parameters()], 1 - decay)
        losses.append(float(loss.detach()))
        seconds = time.monotonic() - began
        done = seconds / (60 * minutes)
        if step % 50 == 0:
            say(f"step {step:6} {seconds:6.0f} s loss {np.mean(losses[-50:]):.4f}")
        if seconds > scored + 240 or done >= 1:
            pipe.unet = kept
            say(f"step {step:6} {seconds:6.0f} s " + json.dumps(score(pipe)))
            save(pipe, out)
            scored, pipe.unet = time.monotonic() - began, model
    pipe.unet = kept


def save(pipe: Any, out: Path) -> None:
    """In half precision, whatever the model is trained in, and without the name of the directory it was loaded from."""
    copy.deepcopy(pipe).to(dtype=torch.float16).save_pretrained(out)
    for file in out.glob("*/config.json"):
        config = json.loads(file.read_text())
        config.pop("_name_or_path", None)
        file.write_text(json.dumps(config, indent=2) + "\n")


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=60, help="for the denoiser")
    parser.add_argument("--text-steps", type=int, default=1500)
    parser.add_argument("--picture-steps", type=int, default=7000)
    parser.add_argument("--pictures", type=int, default=24_000)
    parser.add_argument("--threads", type=int, default=1)
    options: Any = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)

    import diffusers
    import transformers

    out = options.out
    if (out / "text_encoder").exists():  # with its tokenizer: another one may number some words differently
        tokens = transformers.CLIPTokenizer.from_pretrained(out / "tokenizer")
        texts = transformers.CLIPTextModel.from_pretrained(out / "text_encoder", dtype=torch.float32)
    else:
        tokens = tokenizer()
        texts = text_encoder(tokens)
        train_text_encoder(texts, tokens, options.text_steps)
        tokens.save_pretrained(out / "tokenizer")
        texts.save_pretrained(out / "text_encoder")
    chance = Random(4)  # noqa: S311 - data, not secrets
    scenes = [any_scene(chance) for _ in range(options.pictures)]
    if (out / "vae").exists():
        pictures = diffusers.AutoencoderKL.from_pretrained(out / "vae", torch_dtype=torch.float32)
        latents, _ = encode(pictures, scenes, chance)
    else:
        pictures = autoencoder().to(memory_format=torch.channels_last)
        start_as_average(pictures)
        train_autoencoder(pictures, options.picture_steps)
        latents = standardise(pictures, *encode(pictures, scenes, chance))
        pictures.save_pretrained(out / "vae")
    say(f"{len(latents)} latents, mean {latents.mean():.3f}, deviation {latents.std():.3f}")
    model = denoiser()
    if (out / "unet").exists():
        model = diffusers.UNet2DConditionModel.from_pretrained(out / "unet", torch_dtype=torch.float32)
    pipe = diffusers.StableDiffusionPipeline(
        vae=pictures.eval(), text_encoder=texts.eval(), tokenizer=tokens, unet=model, scheduler=scheduler(),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    train_denoiser(pipe, scenes, latents, minutes=options.minutes, out=out)
    for guidance in (1.5, 2.0, 3.0, 5.0, 7.5):
        say(f"guidance {guidance} {json.dumps(score(pipe, guidance=guidance))}")


if __name__ == "__main__":
    main()
