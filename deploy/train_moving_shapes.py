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
from contextlib import contextmanager
from dataclasses import astuple
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from deploy.moving_shapes import FIELDS, FRAMES, MovingScene, any_scene, caption, draw, omit, words
from deploy.shapes import SIDE
from deploy.shapes_autoencoder import stack
from deploy.shapes_text import WIDTH, say, text_encoder, tokenizer, tokens_of, train_text_encoder
from deploy.train_shapes import save, scheduler
from models.diffusion_pipelines import import_diffusers
from models.torch_runtime import import_torch

torch = import_torch()
HEADS = 4


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


# Denoisers


def picture_denoiser(start: Any) -> Any:
    """A denoiser of frames, text by cross attention at 8 x 8 and below; `start` is that of `shapes-64`.

    There the text reaches every layer through the time embedding, which no UNet with motion modules knows; its
    convolutions have learnt what shapes look like all the same.
    """
    diffusers = import_diffusers()
    model = diffusers.UNet2DConditionModel(
        sample_size=SIDE // 4, in_channels=4, out_channels=4, block_out_channels=(64, 96, 128), layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        mid_block_type="UNetMidBlock2DCrossAttn", up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=WIDTH, attention_head_dim=HEADS, norm_num_groups=1,
    )  # fmt: skip
    own, taken = model.state_dict(), {}
    for name, value in start.state_dict().items():
        half = value.chunk(2)[1] if "time_emb_proj" in name else value  # it scales and shifts; here it only shifts
        if name in own and own[name].shape == half.shape:
            taken[name] = half
    model.load_state_dict(taken, strict=False)
    say(f"{len(taken)} of {len(own)} tensors start from pictures")
    return model


def with_motion(pictures: Any) -> Any:
    """The denoiser of frames with motion modules that change nothing as yet."""
    diffusers = import_diffusers()

    adapter = diffusers.MotionAdapter(
        block_out_channels=pictures.config.block_out_channels, motion_layers_per_block=1,
        motion_num_attention_heads=HEADS, motion_norm_num_groups=1, motion_max_seq_length=32,
    )  # fmt: skip
    model = diffusers.UNetMotionModel.from_unet2d(pictures, adapter)
    for module in motion_modules(model):
        torch.nn.init.zeros_(module.proj_out.weight)
        torch.nn.init.zeros_(module.proj_out.bias)
    return model


def motion_modules(model: Any) -> list[Any]:
    return [module for module in model.modules() if type(module).__name__ == "AnimateDiffTransformer3D"]


class ShortAttention:
    """Attention as it is written: over sixteen frames, PyTorch's flash attention takes five times as long back."""

    def __call__(self, attn: Any, hidden_states: Any, encoder_hidden_states: Any = None, **_: Any) -> Any:
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = (
            projected.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for projected in (attn.to_q(hidden_states), attn.to_k(source), attn.to_v(source))
        )
        weights = (query @ key.transpose(-1, -2) * attn.scale).softmax(-1).to(value.dtype)
        return attn.to_out[0]((weights @ value).transpose(1, 2).flatten(2))


@contextmanager
def at_frames(model: Any, chosen: list[int]) -> Iterator[None]:
    """The frames that the model is given are those of these numbers: any few of a clip stand for all of it."""
    tables = [module for name, module in model.named_modules() if name.endswith("pos_embed")]
    whole = [table.pe for table in tables]
    for table in tables:
        table.pe = table.pe[:, chosen]
    try:
        yield
    finally:
        for table, pe in zip(tables, whole, strict=True):
            table.pe = pe


# Training


class Trainer:
    """Velocity prediction in bfloat16, shapes counting more than ground; keeps an average of the weights."""

    def __init__(self, model: Any, pipe: Any, rate: float) -> None:
        model.set_attn_processor(ShortAttention())
        self.model, self.pipe, self.rate, self.steps = model.train(), pipe, rate, 0
        self.kept = copy.deepcopy(model).requires_grad_(False)
        self.optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01, betas=(0.9, 0.99), fused=True)
        self.losses: list[float] = []
        self.moving = bool(motion_modules(model))

    def run(self, minutes: float, batch: Callable[[float], tuple[Any, list[str], list[int]]]) -> Iterator[float]:
        """Train on what `batch(done)` gives: latents (n, 4, frames, 16, 16), captions, frame numbers. Yields `done`."""
        began, done = time.monotonic(), 0.0
        while done < 1:
            rate = self.rate * min(1, (self.steps + 1) / 100) * (0.03 + 0.97 * math.cos(done * math.pi / 2))
            self.optimizer.param_groups[0]["lr"] = rate
            self._step(*batch(done))
            done = (time.monotonic() - began) / (60 * minutes)
            if self.steps % 50 == 0:
                say(f"step {self.steps:6} {time.monotonic() - began:6.0f} s loss {np.mean(self.losses[-50:]):.4f}")
            yield done

    def _step(self, clean: Any, texts: list[str], chosen: list[int]) -> None:
        noising = self.pipe.scheduler
        times, noise = torch.randint(0, 1000, (len(clean),)), torch.randn_like(clean)
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


def batches(
    scenes: list[MovingScene], latents: Any, still: bool
) -> Callable[[float], tuple[Any, list[str], list[int]]]:
    """Single frames; or few frames of many clips first, and whole clips in the end."""
    chance = Random(3)  # noqa: S311 - data, not secrets

    def batch(done: float) -> tuple[Any, list[str], list[int]]:
        count, frames = (32, 1) if still else (8, 4) if done < 0.25 else (4, 8) if done < 0.65 else (3, FRAMES)
        rows = [chance.randrange(len(scenes)) for _ in range(count)]
        texts = [caption(omit(scenes[row], chance), chance) if chance.random() < 0.9 else "" for row in rows]
        if still:
            clips = torch.stack([latents[row, :, chance.randrange(FRAMES)] for row in rows])[:, :, None]
            return clips.float(), texts, [0]
        chosen = sorted(chance.sample(range(FRAMES), frames))
        return latents[rows][:, :, chosen].float(), texts, chosen

    return batch


def train(pipe: Any, model: Any, out: Path, minutes: float, rate: float, batch: Any) -> Any:
    """Save now and then, where the pipeline takes what is trained; returns the average."""
    trainer, saved = Trainer(model, pipe, rate), time.monotonic()
    for done in trainer.run(minutes, batch):
        if trainer.moving and (time.monotonic() > saved + 240 or done >= 1):
            pipe.register_modules(unet=trainer.kept)
            save(pipe, out)
            saved = time.monotonic()
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
    parser.add_argument("--rate", type=float, default=8e-4, help="of learning, at most")
    parser.add_argument("--text-steps", type=int, default=1500)
    parser.add_argument("--clips", type=int, default=3000)
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
    latents = encode(pictures, scenes, chance)
    say(f"{len(latents)} clips, mean {latents.float().mean():.3f}, deviation {latents.float().std():.3f}")
    pipe = diffusers.AnimateDiffPipeline(
        vae=pictures, text_encoder=texts.eval(), tokenizer=tokens, unet=None, motion_adapter=None,
        scheduler=scheduler(),
    )  # fmt: skip
    if (out / "unet").exists():
        model = diffusers.UNetMotionModel.from_pretrained(out / "unet", **load)
    else:
        known = diffusers.UNet2DConditionModel.from_pretrained(options.shapes / "unet", **load)
        frames = picture_denoiser(known).to(memory_format=torch.channels_last)
        kept = train(pipe, frames, out, options.picture_minutes, 1e-3, batches(scenes, latents, still=True))
        model = with_motion(kept.requires_grad_(True))
        pipe.register_modules(unet=model)
        save(pipe, out)
    model = model.float().requires_grad_(True).to(memory_format=torch.channels_last)
    train(pipe, model, out, options.minutes, options.rate, batches(scenes, latents, still=False))


if __name__ == "__main__":
    main()
