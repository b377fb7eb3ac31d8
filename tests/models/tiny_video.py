"""Video pipelines small enough to make on the spot: diffusers' real classes, random weights, trained tokenizers.

All are made for clips of 64 x 64 pixels. What they show means nothing; how they are run is what tests look at.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from models.torch_runtime import without_warnings
from tests.models.tiny_diffusion import (
    WIDTH,
    _autoencoder,
    _byte_pairs,
    _clip_config,
    _clip_tokenizer,
    _t5_config,
    _t5_tokenizer,
    _unet,
    diffusion_modules,
)

LLAMA_TOKENS = 500
LLAMA_SPECIAL = ("<pad>", "<image>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
PATCHES = 576
"""Patches of a picture that HunyuanVideo's pipeline expects its vision tower to make."""


def build_video(family: str, directory: Path) -> Path:
    """Make the pipeline of a family in `directory`, as diffusers saves it, and return that."""
    torch, diffusers, transformers = diffusion_modules()
    with without_warnings():
        torch.manual_seed(0)
        pipeline = FAMILIES[family](diffusers, transformers)
        for name in ("transformer", "transformer_2"):  # a wider spread than at the start of a training
            with torch.no_grad():
                for parameter in network.parameters() if (network := getattr(pipeline, name, None)) else ():
                    if parameter.ndim > 1:
                        parameter.mul_(2.0)
        pipeline.save_pretrained(directory)
    return directory


# ---------------------------------------------------------------------- Wan


def _wan(diffusers: Any, transformers: Any) -> Any:
    return diffusers.WanPipeline(**_wan_components(diffusers, transformers))


def _wan_two_networks(diffusers: Any, transformers: Any) -> Any:
    second = _wan_transformer(diffusers)
    return diffusers.WanPipeline(**_wan_components(diffusers, transformers), transformer_2=second, boundary_ratio=0.875)


def _wan_any_frame(diffusers: Any, transformers: Any) -> Any:
    """Wan 2.2 5B, whose timesteps are those of each latent: 0 where the first frame is given."""
    components = _wan_components(diffusers, transformers) | {
        "vae": diffusers.AutoencoderKLWan(
            base_dim=8,
            decoder_base_dim=8,
            z_dim=16,
            dim_mult=[1, 1, 1, 1],
            num_res_blocks=1,
            temperal_downsample=[False, True, True],
            is_residual=True,
            in_channels=12,
            out_channels=12,
            patch_size=2,
            scale_factor_spatial=16,
        )
    }
    return diffusers.WanPipeline(**components, expand_timesteps=True)


def _wan_pictures(diffusers: Any, transformers: Any) -> Any:
    return _wan_with_vision(diffusers, transformers, pictures=1)


def _wan_first_last(diffusers: Any, transformers: Any) -> Any:
    return _wan_with_vision(diffusers, transformers, pictures=2)


def _wan_with_vision(diffusers: Any, transformers: Any, pictures: int) -> Any:
    vision = transformers.CLIPVisionConfig(
        hidden_size=8, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=4
    )
    transformer = _wan_transformer(
        diffusers,
        in_channels=36,  # noise, the pictures' latents, and four channels that tell where those are
        image_dim=8,
        added_kv_proj_dim=24,
        pos_embed_seq_len=17 * pictures if pictures > 1 else None,
    )
    components = _wan_components(diffusers, transformers) | {"transformer": transformer}
    return diffusers.WanImageToVideoPipeline(
        **components,
        image_encoder=transformers.CLIPVisionModel(vision),
        image_processor=_image_processor(transformers, 16),
    )


def _wan_components(diffusers: Any, transformers: Any) -> dict[str, Any]:
    config = _t5_config(transformers, WIDTH)
    return {
        "vae": diffusers.AutoencoderKLWan(
            base_dim=4, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
        ),
        "scheduler": diffusers.UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
        "text_encoder": transformers.UMT5EncoderModel(transformers.UMT5Config(**_only(config, T5_FIELDS))),
        "tokenizer": _t5_tokenizer(transformers),
        "transformer": _wan_transformer(diffusers),
    }


T5_FIELDS = ("d_model", "d_ff", "d_kv", "num_heads", "num_layers", "vocab_size")


def _only(config: Any, fields: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(config, name) for name in fields}


def _wan_transformer(diffusers: Any, **fields: Any) -> Any:
    usual = {
        "num_attention_heads": 2,
        "attention_head_dim": 12,
        "in_channels": 16,
        "out_channels": 16,
        "text_dim": WIDTH,
        "freq_dim": WIDTH,
        "ffn_dim": WIDTH,
        "num_layers": 2,
        "rope_max_seq_len": 32,
    }
    return diffusers.WanTransformer3DModel(**usual | fields)


# ---------------------------------------------------------------------- LTX-Video


def _ltx(diffusers: Any, transformers: Any) -> Any:
    return diffusers.LTXPipeline(**_ltx_components(diffusers, transformers))


def _ltx_newer(diffusers: Any, transformers: Any) -> Any:
    """From 0.9.1 on the autoencoder does the last step of denoising."""
    return diffusers.LTXPipeline(**_ltx_components(diffusers, transformers, timestep_conditioning=True))


def _ltx_condition(diffusers: Any, transformers: Any) -> Any:
    """An encoder that is sure of itself, and a decoder that does not look ahead: the first frame is what was given."""
    components = _ltx_components(diffusers, transformers, decoder_causal=True)
    last = components["vae"].encoder.conv_out.conv
    last.weight.data[-1], last.bias.data[-1] = 0.0, -20.0  # the logarithm of the latents' variance
    return diffusers.LTXConditionPipeline(**components | {"scheduler": diffusers.FlowMatchEulerDiscreteScheduler()})


def _ltx_components(diffusers: Any, transformers: Any, **fields: Any) -> dict[str, Any]:
    return {
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        "vae": diffusers.AutoencoderKLLTXVideo(
            latent_channels=8,
            block_out_channels=(8, 8, 8, 8),
            decoder_block_out_channels=(8, 8, 8, 8),
            layers_per_block=(1, 1, 1, 1, 1),
            decoder_layers_per_block=(1, 1, 1, 1, 1),
            **fields,
        ),
        "text_encoder": transformers.T5EncoderModel(_t5_config(transformers, WIDTH)),
        "tokenizer": _t5_tokenizer(transformers),
        "transformer": diffusers.LTXVideoTransformer3DModel(
            in_channels=8,
            out_channels=8,
            num_attention_heads=2,
            attention_head_dim=16,
            cross_attention_dim=WIDTH,
            num_layers=2,
            caption_channels=WIDTH,
        ),
    }


# ---------------------------------------------------------------------- HunyuanVideo


def _hunyuan(diffusers: Any, transformers: Any) -> Any:
    tokenizer = _llama_tokenizer(transformers)
    return diffusers.HunyuanVideoPipeline(
        text_encoder=transformers.LlamaModel(_llama_config(transformers, tokenizer)),
        tokenizer=tokenizer,
        **_hunyuan_components(diffusers, transformers),
    )


def _hunyuan_pictures(diffusers: Any, transformers: Any) -> Any:
    return _hunyuan_with_vision(diffusers, transformers, "token_replace", channels=4)


def _hunyuan_older_pictures(diffusers: Any, transformers: Any) -> Any:
    return _hunyuan_with_vision(diffusers, transformers, "latent_concat", channels=9)


def _hunyuan_with_vision(diffusers: Any, transformers: Any, kind: str, channels: int) -> Any:
    tokenizer = _llama_tokenizer(transformers)
    side = int(PATCHES**0.5) * 2
    vision = transformers.CLIPVisionConfig(
        hidden_size=8, intermediate_size=16, num_hidden_layers=3, num_attention_heads=2, image_size=side, patch_size=2
    )
    config = transformers.LlavaConfig(
        vision_config=vision,
        text_config=_llama_config(transformers, tokenizer),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        pad_token_id=tokenizer.pad_token_id,
    )
    return diffusers.HunyuanVideoImageToVideoPipeline(
        text_encoder=transformers.LlavaForConditionalGeneration(config),
        tokenizer=tokenizer,
        image_processor=_image_processor(transformers, side),
        **_hunyuan_components(diffusers, transformers, in_channels=channels, image_condition_type=kind),
    )


def _hunyuan_components(diffusers: Any, transformers: Any, **fields: Any) -> dict[str, Any]:
    usual: dict[str, Any] = {"in_channels": 4}
    return {
        "text_encoder_2": transformers.CLIPTextModel(_clip_config(transformers)),
        "tokenizer_2": _clip_tokenizer(transformers),
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0),
        "vae": diffusers.AutoencoderKLHunyuanVideo(
            latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4
        ),
        "transformer": diffusers.HunyuanVideoTransformer3DModel(
            out_channels=4,
            num_attention_heads=2,
            attention_head_dim=10,
            num_layers=1,
            num_single_layers=2,
            num_refiner_layers=1,
            text_embed_dim=16,
            pooled_projection_dim=WIDTH,
            rope_axes_dim=(2, 4, 4),
            **usual | fields,
        ),
    }


def _llama_config(transformers: Any, tokenizer: Any) -> Any:
    return transformers.LlamaConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        vocab_size=LLAMA_TOKENS,
        max_position_embeddings=2048,
        pad_token_id=tokenizer.pad_token_id,
    )


def _llama_tokenizer(transformers: Any) -> Any:
    vocabulary, merges = _byte_pairs(LLAMA_TOKENS - len(LLAMA_SPECIAL) - 1, [])
    tokenizer = transformers.Qwen2Tokenizer(vocab=vocabulary, merges=merges)
    tokenizer.add_special_tokens({"pad_token": LLAMA_SPECIAL[0], "additional_special_tokens": list(LLAMA_SPECIAL[1:])})
    return tokenizer


# ---------------------------------------------------------------------- CogVideoX, Mochi, AnimateDiff


def _cogvideox(diffusers: Any, transformers: Any) -> Any:
    return diffusers.CogVideoXPipeline(**_cogvideox_components(diffusers, transformers))


def _cogvideox_pictures(diffusers: Any, transformers: Any) -> Any:
    components = _cogvideox_components(diffusers, transformers, in_channels=8, use_rotary_positional_embeddings=True)
    return diffusers.CogVideoXImageToVideoPipeline(**components)


def _cogvideox_newer(diffusers: Any, transformers: Any) -> Any:
    """Version 1.5, whose patches are two latents long."""
    fields = {"patch_size_t": 2, "use_rotary_positional_embeddings": True, "patch_bias": False}
    return diffusers.CogVideoXPipeline(**_cogvideox_components(diffusers, transformers, **fields))


def _cogvideox_components(diffusers: Any, transformers: Any, **fields: Any) -> dict[str, Any]:
    usual: dict[str, Any] = {"in_channels": 4}
    return {
        "tokenizer": _t5_tokenizer(transformers),
        "text_encoder": transformers.T5EncoderModel(_t5_config(transformers, WIDTH)),
        "vae": diffusers.AutoencoderKLCogVideoX(
            block_out_channels=(8, 8, 8, 8), latent_channels=4, layers_per_block=1, norm_num_groups=2
        ),
        "transformer": diffusers.CogVideoXTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=16,
            out_channels=4,
            time_embed_dim=8,
            text_embed_dim=WIDTH,
            num_layers=2,
            sample_width=8,
            sample_height=8,
            sample_frames=9,
            **usual | fields,
        ),
        "scheduler": diffusers.CogVideoXDDIMScheduler(
            prediction_type="v_prediction",
            rescale_betas_zero_snr=True,
            timestep_spacing="trailing",
            snr_shift_scale=1.0,
        ),
    }


def _mochi(diffusers: Any, transformers: Any) -> Any:
    return diffusers.MochiPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(invert_sigmas=True),
        vae=diffusers.AutoencoderKLMochi(
            encoder_block_out_channels=(32, 32, 32, 32),
            decoder_block_out_channels=(32, 32, 32, 32),
            layers_per_block=(1, 1, 1, 1, 1),
        ),
        text_encoder=transformers.T5EncoderModel(_t5_config(transformers, WIDTH)),
        tokenizer=_t5_tokenizer(transformers),
        transformer=diffusers.MochiTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=8,
            num_layers=2,
            pooled_projection_dim=16,
            text_embed_dim=WIDTH,
            time_embed_dim=8,
        ),
    )


def _animatediff(diffusers: Any, transformers: Any) -> Any:
    return diffusers.AnimateDiffPipeline(
        vae=_autoencoder(diffusers),
        text_encoder=transformers.CLIPTextModel(_clip_config(transformers)),
        tokenizer=_clip_tokenizer(transformers),
        unet=_unet(diffusers, cross_attention_dim=WIDTH),
        motion_adapter=motion_adapter(diffusers),
        scheduler=diffusers.DDIMScheduler(beta_schedule="linear", clip_sample=False),
    )


def motion_adapter(diffusers: Any) -> Any:
    """What sets the networks of `tiny_diffusion` in motion."""
    return diffusers.MotionAdapter(
        block_out_channels=(16, 32), motion_layers_per_block=1, motion_norm_num_groups=4, motion_num_attention_heads=2
    )


def _image_processor(transformers: Any, side: int) -> Any:
    return transformers.CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side})


FAMILIES: dict[str, Callable[[Any, Any], Any]] = {
    "wan": _wan,
    "wan-14b-2.2": _wan_two_networks,
    "wan-5b": _wan_any_frame,
    "wan-i2v": _wan_pictures,
    "wan-flf2v": _wan_first_last,
    "ltx": _ltx,
    "ltx-newer": _ltx_newer,
    "ltx-condition": _ltx_condition,
    "hunyuan": _hunyuan,
    "hunyuan-i2v": _hunyuan_pictures,
    "hunyuan-i2v-33ch": _hunyuan_older_pictures,
    "cogvideox": _cogvideox,
    "cogvideox-1.5": _cogvideox_newer,
    "cogvideox-i2v": _cogvideox_pictures,
    "mochi": _mochi,
    "animatediff": _animatediff,
}
