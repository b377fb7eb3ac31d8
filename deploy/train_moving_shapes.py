"""Train `moving-shapes-64`, the small text-to-video model that this repository ships, on drawn and captioned clips.

    python -m deploy.train_moving_shapes SHAPES OUT [--picture-minutes 7] [--minutes 32] [--threads 1]

SHAPES is the directory of `shapes-64`, of which the autoencoder is used as it is, and the denoiser as a start. OUT
becomes a directory that diffusers loads with `AnimateDiffPipeline`. The stages: a text encoder that learns to parse
captions, the latents of a bank of clips, a denoiser of single frames for `--picture-minutes`, and that denoiser with
motion modules, on clips, for `--minutes`. What OUT has already is taken up: the text encoder as it is, the denoiser to
train on. Needs the extra `diffusion`.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import astuple
from pathlib import Path
from random import Random
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from deploy.moving_shapes import FIELDS, FRAMES, MovingScene, any_scene, caption, draw, omit, words
from deploy.moving_shapes_denoiser import (
    ShortAttention,
    at_frames,
    leave_out_finest,
    motion_modules,
    picture_denoiser,
    with_motion,
)
from deploy.shapes_autoencoder import stack
from deploy.shapes_text import say, text_encoder, tokenizer, tokens_of, train_text_encoder
from deploy.train_shapes import save, scheduler
from models.diffusion_pipelines import import_diffusers
from models.torch_runtime import import_torch

torch = import_torch()


class Phase(NamedTuple):
    """What clips are trained on until a share of the time, `until`, is over."""

    until: float
    clips: int
    frames: int
    least: int
    """The first of the thousand steps of noise: of the last few hundred, nothing but text and number tell the place."""
    known: float
    """How fast what has learnt to draw frames goes on learning, beside the motion modules."""
    finest: bool
    """Whether the motion modules at 16 x 16, which cost the most, work, too."""


PHASES = (
    Phase(0.15, 16, 2, 800, 0.05, finest=False), Phase(0.4, 8, 4, 400, 0.3, finest=False),
    Phase(0.8, 3, FRAMES, 0, 0.3, finest=False), Phase(1.0, 2, FRAMES, 0, 0.3, finest=True),
)  # fmt: skip
PICTURES = Phase(1.0, 32, 1, 0, 1.0, finest=False)
"""Single frames, of the second half of each clip. So every direction comes to mean a place, and motion modules, which
begin with no idea of time, only have to tell how much of it. Were there and back both to be learnt at once, from all
frames, they would make up for each other, and nothing would be learnt of either for a long while."""
Batch: TypeAlias = Callable[[Phase], tuple[Any, list[str], list[int]]]
"""Draws latents, captions and the numbers of the frames."""


def any_caption(chance: Random) -> tuple[str, tuple[str, ...]]:
    """A caption of a clip, empty now and then, and what the scene holds."""
    scene = omit(any_scene(chance), chance) if chance.random() < 0.97 else MovingScene()
    return caption(scene, chance) if scene != MovingScene() else "", astuple(scene)


def encode(model: Any, scenes: list[MovingScene], chance: Random) -> Any:
    """The latents of one clip for each scene, (n, 4, FRAMES, 16, 16), half precision."""
    latents = []
    for scene in scenes:
        frames = stack(list(draw(scene, chance))).contiguous(memory_format=torch.channels_last)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            latents.append(model.encode(frames).latent_dist.mode().half().transpose(0, 1))
    return torch.stack(latents)


class Trainer:
    """Velocity prediction in bfloat16, shapes counting more than ground; keeps an average of the weights."""

    def __init__(self, model: Any, pipe: Any, rate: float) -> None:
        model.set_attn_processor(ShortAttention())
        self.model, self.pipe, self.rate, self.steps = model.train(), pipe, rate, 0
        self.kept = copy.deepcopy(model).requires_grad_(False)
        new = {id(weight) for module in motion_modules(model) for weight in module.parameters()}
        known = [weight for weight in model.parameters() if id(weight) not in new]
        groups = [{"params": known}, {"params": [weight for weight in model.parameters() if id(weight) in new]}]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=0.01, betas=(0.9, 0.99), fused=True)
        self.losses: list[float] = []
        self.moving = bool(new)

    def run(self, minutes: float, batch: Batch, begin: float = 0.0) -> Iterator[float]:
        """Train on what `batch` gives: latents (n, 4, frames, 16, 16), captions, frame numbers. Yields what is done.

        `minutes` are of the process's work, for a whole schedule, which is the same on a processor that others use;
        what is trained on has been on it until `begin`, 0 to 1.
        """
        began, done = time.process_time(), begin
        while done < 1:
            rate = self.rate * min(1, (self.steps + 1) / 100) * (0.03 + 0.97 * math.cos(done * math.pi / 2))
            phase = next(phase for phase in PHASES if done < phase.until) if self.moving else PICTURES
            known, new = self.optimizer.param_groups
            known["lr"], new["lr"] = rate * phase.known, rate
            if self.moving:
                leave_out_finest(self.model, not phase.finest)
            self._step(*batch(phase), least=phase.least)
            seconds = time.process_time() - began
            done = begin + seconds / (60 * minutes)
            if self.steps % 50 == 0:
                say(f"step {self.steps:6} {seconds:6.0f} s loss {np.mean(self.losses[-50:]):.4f}")
            yield done

    def _step(self, clean: Any, texts: list[str], chosen: list[int], *, least: int) -> None:
        noising = self.pipe.scheduler
        times, noise = torch.randint(least, 1000, (len(clean),)), torch.randn_like(clean)
        given, wanted = noising.add_noise(clean, noise, times), noising.get_velocity(clean, noise, times)
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                states = self.pipe.text_encoder(tokens_of(texts, self.pipe.tokenizer)).last_hidden_state
            if not self.moving:
                found = self.model(given[:, :, 0].contiguous(memory_format=torch.channels_last), times, states).sample
                found = found[:, :, None]
            else:
                with at_frames(self.model, chosen):
                    found = self.model(given, times, states.repeat_interleave(len(chosen), 0)).sample
        noisy = 1 - noising.alphas_cumprod[times]
        late = (1 / noisy).clamp(max=6) * noisy  # late steps only polish: at most six times the error of the picture
        ground = clean.flatten(3).median(-1).values[..., None, None]
        places = 1 + 3 * ((clean - ground).abs().amax(1, keepdim=True) > 0.5)
        error = (places * (found.float() - wanted).pow(2)).mean((1, 2, 3, 4)) / places.float().mean()
        loss = (late * error).mean()
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.steps += 1
        decay = min(0.998, self.steps / (self.steps + 9))
        torch._foreach_lerp_([*self.kept.parameters()], [*self.model.parameters()], 1 - decay)
        self.losses.append(float(loss.detach()))


def batches(scenes: list[MovingScene], latents: Any) -> Batch:
    """Clips by chance; a frame of its own of each, where they are to be pictures."""
    chance = Random(3)  # noqa: S311 - data, not secrets

    def batch(phase: Phase) -> tuple[Any, list[str], list[int]]:
        rows = chance.sample(range(len(scenes)), phase.clips)
        texts = [caption(omit(scenes[row], chance), chance) if chance.random() < 0.9 else "" for row in rows]
        if phase is PICTURES:
            pictures = [latents[row, :, chance.randrange(FRAMES // 2, FRAMES)] for row in rows]
            return torch.stack(pictures)[:, :, None].float(), texts, [0]
        chosen = sorted(chance.sample(range(FRAMES), phase.frames))
        return latents[rows][:, :, chosen].float(), texts, chosen

    return batch


def train(pipe: Any, model: Any, out: Path, *, minutes: float, rate: float, batch: Batch, begin: float = 0.0) -> Any:
    """Save now and then, where the pipeline takes what is trained; returns the average."""
    trainer, saved = Trainer(model, pipe, rate), time.process_time()
    for done in trainer.run(minutes, batch, begin):
        if trainer.moving and (time.process_time() > saved + 240 or done >= 1):
            pipe.register_modules(unet=trainer.kept)
            save(pipe, out)
            saved = time.process_time()
            say(f"saved after {trainer.steps} steps")
    return trainer.kept


def prepared(out: Path, steps: int) -> tuple[Any, Any]:
    """Tokenizer and text encoder of OUT, trained where it has none."""
    import transformers

    if (out / "text_encoder").exists():
        tokens = transformers.CLIPTokenizer.from_pretrained(out / "tokenizer")
        return tokens, transformers.CLIPTextModel.from_pretrained(out / "text_encoder", dtype=torch.float32)
    tokens = tokenizer(words())
    texts = text_encoder(tokens)
    train_text_encoder(texts, tokens, steps, any_caption, FIELDS)
    tokens.save_pretrained(out / "tokenizer")
    texts.save_pretrained(out / "text_encoder")
    return tokens, texts


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shapes", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--picture-minutes", type=float, default=7)
    parser.add_argument("--minutes", type=float, default=32, help="for clips")
    parser.add_argument("--begin", type=float, default=0, help="share of them that OUT has been trained for before")
    parser.add_argument("--rate", type=float, default=1e-3, help="of learning, at most")
    parser.add_argument("--text-steps", type=int, default=1500)
    parser.add_argument("--clips", type=int, default=3000)
    parser.add_argument("--bank", type=Path, help="file in which the latents of the clips are kept for another run")
    parser.add_argument("--threads", type=int, default=1)
    options: Any = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)

    diffusers = import_diffusers()

    out, load = options.out, {"dtype": torch.float32}
    tokens, texts = prepared(out, options.text_steps)
    pictures = diffusers.AutoencoderKL.from_pretrained(options.shapes / "vae", **load).eval()
    chance = Random(4)  # noqa: S311 - data, not secrets
    scenes = [any_scene(chance) for _ in range(options.clips)]
    bank = options.bank
    latents = torch.load(bank) if bank and bank.exists() else encode(pictures, scenes, chance)
    if bank:
        torch.save(latents, bank)
    say(f"{len(latents)} clips, mean {latents.float().mean():.3f}, deviation {latents.float().std():.3f}")
    batch = batches(scenes, latents)
    pipe = diffusers.AnimateDiffPipeline(
        vae=pictures, text_encoder=texts.eval(), tokenizer=tokens, unet=None, motion_adapter=None,
        scheduler=scheduler(),
    )  # fmt: skip
    if (out / "unet").exists():
        model = diffusers.UNetMotionModel.from_pretrained(out / "unet", **load)
    else:
        known = diffusers.UNet2DConditionModel.from_pretrained(options.shapes / "unet", **load)
        frames = picture_denoiser(known).to(memory_format=torch.channels_last)
        kept = train(pipe, frames, out, minutes=options.picture_minutes, rate=1e-3, batch=batch)
        model = with_motion(kept.requires_grad_(True))
        pipe.register_modules(unet=model)
        save(pipe, out)
    model = model.float().requires_grad_(True).to(memory_format=torch.channels_last)
    train(pipe, model, out, minutes=options.minutes, rate=options.rate, batch=batch, begin=options.begin)


if __name__ == "__main__":
    main()
