"""The autoencoder of `shapes-64`: diffusers' AutoencoderKL, in small, from 64 x 64 pixels to 4 channels of 16 x 16.

It starts as an average over blocks of pixels, from where flat shapes take minutes on one core.
"""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np

from deploy.shapes import SHAPES, SIDE, Pixels, Scene, any_scene, coverage, draw
from deploy.shapes_text import say
from models.torch_runtime import import_torch

torch = import_torch()


def autoencoder() -> Any:
    import diffusers

    return diffusers.AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(16, 32, 64), layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=1, sample_size=SIDE, scaling_factor=1.0, mid_block_add_attention=False,
    )  # fmt: skip


@torch.no_grad()
def start_as_average(model: Any) -> None:
    """Make the untrained autoencoder average colours over 4 x 4 pixels, and paint such blocks: a place to start from.

    Its residual blocks add nothing at first. Beside them, channels 0 to 2 carry the colours and 3 to 5 their negatives,
    since silu(x) - silu(-x) = x; 6 and 7 are constant, so that the norms depend less on the picture.
    """
    steady = 2.0
    for half in (model.encoder, model.decoder):
        for name, module in half.named_modules():
            if name.endswith("conv2"):
                module.weight.zero_()
                module.bias.zero_()
            elif name.endswith("conv_shortcut"):
                _carry(module, taps=(0,))
            elif name.endswith("samplers.0.conv"):
                _carry(module, taps=(0, 1) if "down" in name else (1,))
        first, last = half.conv_in, half.conv_out
        gain = (2 * steady**2 / last.in_channels + 0.3) ** 0.5  # about what the norm before it divides by
        first.weight[:8], last.weight[:3] = 0, 0
        first.bias[:8], last.bias[:3] = torch.tensor([0, 0, 0, 0, 0, 0, steady, -steady]), 0
        for colour in range(3):
            first.weight[colour, colour, 1, 1], first.weight[3 + colour, colour, 1, 1] = 1, -1
            last.weight[colour, colour, 1, 1], last.weight[colour, 3 + colour, 1, 1] = gain, -gain
    for module in (model.quant_conv, model.post_quant_conv):
        torch.nn.init.dirac_(module.weight)
        module.bias.zero_()
    model.quant_conv.bias[4:] = -9  # the logarithm of the latents' variance


def _carry(convolution: Any, taps: tuple[int, ...]) -> None:
    """The first eight channels go through, averaged over `taps` in both directions; the others do not look at them."""
    weight = convolution.weight
    weight[:8], weight[8:, :8], convolution.bias[:8] = 0, 0, 0
    for channel in range(8):
        for down in taps:
            weight[channel, channel, down, list(taps)] = 1 / len(taps) ** 2


def stack(pictures: list[Pixels]) -> Any:
    """(n, 3, SIDE, SIDE), -1 to 1."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


def odd_picture(chance: Random) -> Pixels:
    """Two shapes in any colours on a gradient: the autoencoder is to carry more than what the captions name."""
    any_colour = np.array([[chance.uniform(0, 255) for _ in range(3)] for _ in range(4)], np.float32)
    slope = np.linspace(0, 1, SIDE, dtype=np.float32)[:, None, None] * np.ones((1, SIDE, 1), np.float32)
    picture = any_colour[0] * slope + any_colour[1] * (1 - slope)
    for colour in any_colour[2:]:
        x, y, radius = chance.uniform(8, 56), chance.uniform(8, 56), chance.uniform(5, 24)
        covered = coverage(chance.choice(tuple(SHAPES)), x, y, radius)[..., None]
        picture = picture + (colour - picture) * covered
    turned: Pixels = np.rint(picture if chance.random() < 0.5 else picture.transpose(1, 0, 2)).astype(np.uint8)
    return turned


def train_autoencoder(model: Any, steps: int, rate: float = 6e-4) -> None:
    """Absolute error, and a little pull towards latents of unit variance, which denoise well.

    The decoder sees latents that are off by up to 15 %, and learns to paint flat areas flat all the same.
    """
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.0, betas=(0.9, 0.99))
    chance, errors = Random(2), []  # noqa: S311 - data, not secrets
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * min(1, (step + 1) / 50) * (1 - step / steps)
        pictures = [draw(any_scene(chance), chance) if chance.random() < 0.8 else odd_picture(chance) for _ in range(8)]
        target = stack(pictures).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            code = model.encode(target).latent_dist
            off = 0.15 * torch.rand(len(pictures), 1, 1, 1) * code.mean.std((0, 2, 3), keepdim=True).detach()
            drawn = model.decode(code.sample() + off * torch.randn_like(code.mean)).sample
        error = (drawn.float() - target).abs().mean()
        pull = 0.5 * (code.mean.float() ** 2 + code.logvar.float().exp() - 1 - code.logvar.float()).mean()
        optimizer.zero_grad()
        (error + 5e-4 * pull).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        errors.append(float(error.detach()))
        if step % 100 == 99:
            say(f"vae {step + 1:5} error {np.mean(errors[-100:]):.4f} pull {float(pull):.2f}")


def encode(model: Any, scenes: list[Scene], chance: Random) -> tuple[Any, Any]:
    """The latents of one picture for each scene, (n, 4, 16, 16), and how unsure the model is: variances, (4,)."""
    latents, variances = [], []
    for begin in range(0, len(scenes), 100):
        pictures = stack([draw(scene, chance) for scene in scenes[begin : begin + 100]])
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            code = model.encode(pictures.contiguous(memory_format=torch.channels_last)).latent_dist
        latents.append(code.mode().float())
        variances.append(code.var.float().mean((0, 2, 3)))
    return torch.cat(latents), torch.stack(variances).mean(0)


def standardise(model: Any, latents: Any, variances: Any) -> Any:
    """Each latent channel gets mean 0 and variance 1: the two convolutions of size 1 beside the latents take it up.

    Pipelines only know a scale. A channel in which the model is unsure counts with its variance: one that it leaves
    unused stays near 0. Returns the latents as the changed model encodes them.
    """
    mean, deviation = latents.mean((0, 2, 3)), (latents.var((0, 2, 3)) + variances).sqrt()
    into, out, channels = model.quant_conv, model.post_quant_conv, len(mean)
    with torch.no_grad():
        out.bias += out.weight[:, :, 0, 0] @ mean
        out.weight *= deviation[None, :, None, None]
        into.bias[:channels] = (into.bias[:channels] - mean) / deviation
        into.weight[:channels] /= deviation[:, None, None, None]
        into.weight[channels:], into.bias[channels:] = 0, -30  # what pipelines sample is the mean from now on
    return (latents - mean[:, None, None]) / deviation[:, None, None]
