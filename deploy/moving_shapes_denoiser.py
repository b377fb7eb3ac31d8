"""The denoisers of `moving-shapes-64`: of frames, made of that of `shapes-64`; of clips, made of that of frames.

Beside them is what makes a UNet with motion modules learn on one core within an hour: attention that suits few frames,
clips of which only some frames are drawn, and motion modules that are left out while they have nothing to say.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from deploy.shapes import SIDE
from deploy.shapes_text import WIDTH, say
from models.diffusion_pipelines import import_diffusers
from models.torch_runtime import import_torch

torch = import_torch()
HEADS = 4


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
    """The denoiser of frames with motion modules that change nothing as yet.

    A frame's number only gets into the first attention, and out of it only where frames look at themselves, so they do
    at first: with keys like queries, and far apart. Left to chance they look at all alike, and the number is lost.
    """
    diffusers = import_diffusers()

    adapter = diffusers.MotionAdapter(
        block_out_channels=pictures.config.block_out_channels, motion_layers_per_block=1,
        motion_num_attention_heads=HEADS, motion_norm_num_groups=1, motion_max_seq_length=32,
    )  # fmt: skip
    model = diffusers.UNetMotionModel.from_unet2d(pictures, adapter)
    for module in motion_modules(model):
        torch.nn.init.zeros_(module.proj_out.weight)
        torch.nn.init.zeros_(module.proj_out.bias)
        first = module.transformer_blocks[0].attn1
        with torch.no_grad():
            first.to_q.weight *= 2
            first.to_k.weight.copy_(first.to_q.weight)
    return model


def motion_modules(model: Any) -> list[Any]:
    return [module for module in model.modules() if type(module).__name__ == "AnimateDiffTransformer3D"]


def leave_out_finest(model: Any, left_out: bool) -> None:
    """Have the motion modules at 16 x 16 do nothing, as they do at first, but in no time."""
    for module in motion_modules(model.down_blocks[0]) + motion_modules(model.up_blocks[-1]):
        if left_out:
            module.forward = lambda states, num_frames: states
        else:
            vars(module).pop("forward", None)


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
