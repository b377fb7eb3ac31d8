"""Image pipelines small enough to make on the spot: diffusers' real classes, random weights, trained tokenizers.

All make 64 x 64 pixels by default, of latents an eighth of that (Qwen-Image's are a quarter). What they paint means
nothing; how they are run is what tests look at.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from models.torch_runtime import import_torch, without_warnings
from tests.models.engines.sentences import SENTENCES

WIDTH = 32
CLIP_TOKENS, T5_TOKENS, QWEN_TOKENS = 500, 300, 500
LONGEST_PROMPT = 77


def diffusion_modules() -> tuple[Any, Any, Any]:
    """(torch, diffusers, transformers), imported in the order that works."""
    torch = import_torch()
    with without_warnings():
        transformers: Any = importlib.import_module("transformers")
        diffusers: Any = importlib.import_module("diffusers")
    return torch, diffusers, transformers


def build_diffusion(family: str, directory: Path) -> Path:
    """Make the pipeline of a family in `directory`, as diffusers saves it, and return that."""
    torch, diffusers, transformers = diffusion_modules()
    with without_warnings():
        torch.manual_seed(0)
        pipeline = FAMILIES[family](diffusers, transformers)
        with torch.no_grad():  # a wider spread than at the start of a training: what is asked for makes a difference
            for parameter in (getattr(pipeline, "unet", None) or pipeline.transformer).parameters():
                if parameter.ndim > 1:
                    parameter.mul_(2.0)
        pipeline.save_pretrained(directory)
    return directory


def build_lora(pipeline_directory: Path, file: Path, *, seed: int = 1) -> Path:
    """Random weights for every query projection of a pipeline's denoiser, in the file that trainers write."""
    torch, diffusers, _ = diffusion_modules()
    from safetensors.torch import save_file

    with without_warnings():
        pipeline = diffusers.DiffusionPipeline.from_pretrained(pipeline_directory, local_files_only=True)
    name = "unet" if hasattr(pipeline, "unet") else "transformer"
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for layer, module in getattr(pipeline, name).named_modules():
        if layer.endswith("to_q"):
            rows, columns = module.weight.shape
            weights[f"{name}.{layer}.lora_A.weight"] = torch.randn(4, columns, generator=generator)
            weights[f"{name}.{layer}.lora_B.weight"] = torch.randn(rows, 4, generator=generator)
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, file)
    return file


def _stable_diffusion(diffusers: Any, transformers: Any) -> Any:
    return diffusers.StableDiffusionPipeline(
        vae=_autoencoder(diffusers),
        text_encoder=transformers.CLIPTextModel(_clip_config(transformers)),
        tokenizer=_clip_tokenizer(transformers),
        unet=_unet(diffusers, cross_attention_dim=WIDTH),
        scheduler=diffusers.DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _stable_diffusion_xl(diffusers: Any, transformers: Any) -> Any:
    return diffusers.StableDiffusionXLPipeline(
        vae=_autoencoder(diffusers),
        text_encoder=transformers.CLIPTextModel(_clip_config(transformers)),
        text_encoder_2=transformers.CLIPTextModelWithProjection(_clip_config(transformers)),
        tokenizer=_clip_tokenizer(transformers),
        tokenizer_2=_clip_tokenizer(transformers),
        unet=_unet(
            diffusers,
            cross_attention_dim=2 * WIDTH,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + WIDTH,
        ),
        scheduler=diffusers.EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="leading"
        ),
    )


def _stable_diffusion_3(diffusers: Any, transformers: Any) -> Any:
    return diffusers.StableDiffusion3Pipeline(
        transformer=diffusers.SD3Transformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=16,
            out_channels=16,
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            caption_projection_dim=WIDTH,
            joint_attention_dim=2 * WIDTH,
            pooled_projection_dim=2 * WIDTH,
        ),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=_autoencoder(diffusers, latent_channels=16, shift_factor=0.06, quant=False),
        text_encoder=transformers.CLIPTextModelWithProjection(_clip_config(transformers)),
        tokenizer=_clip_tokenizer(transformers),
        text_encoder_2=transformers.CLIPTextModelWithProjection(_clip_config(transformers)),
        tokenizer_2=_clip_tokenizer(transformers),
        text_encoder_3=transformers.T5EncoderModel(_t5_config(transformers, width=2 * WIDTH)),
        tokenizer_3=_t5_tokenizer(transformers),
    )


def _flux_components(diffusers: Any, transformers: Any, *, in_channels: int, guided: bool = True) -> dict[str, Any]:
    return {
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        "vae": _autoencoder(diffusers, latent_channels=4, shift_factor=0.1, quant=False),
        "text_encoder": transformers.CLIPTextModel(_clip_config(transformers)),
        "tokenizer": _clip_tokenizer(transformers),
        "text_encoder_2": transformers.T5EncoderModel(_t5_config(transformers, width=WIDTH)),
        "tokenizer_2": _t5_tokenizer(transformers),
        "transformer": diffusers.FluxTransformer2DModel(
            patch_size=1,
            in_channels=in_channels,
            out_channels=16,
            num_layers=2,
            num_single_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=WIDTH,
            pooled_projection_dim=WIDTH,
            axes_dims_rope=(4, 4, 8),
            guidance_embeds=guided,
        ),
    }


def _flux(diffusers: Any, transformers: Any) -> Any:
    return diffusers.FluxPipeline(**_flux_components(diffusers, transformers, in_channels=16))


def _flux_kontext(diffusers: Any, transformers: Any) -> Any:
    return diffusers.FluxKontextPipeline(**_flux_components(diffusers, transformers, in_channels=16))


def _flux_fill(diffusers: Any, transformers: Any) -> Any:
    # Beside the latents it sees those of the masked image, and the mask: 64 pixels a latent, in packs of four.
    return diffusers.FluxFillPipeline(**_flux_components(diffusers, transformers, in_channels=2 * 16 + 4 * 64))


def _qwen_components(diffusers: Any, transformers: Any) -> dict[str, Any]:
    text = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "vocab_size": QWEN_TOKENS,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [1, 1, 2]},
    }
    vision = {"depth": 2, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16}
    tokenizer = _qwen_tokenizer(transformers)
    special = {name: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in QWEN_SPECIAL}
    config = transformers.Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision | {"patch_size": 14, "spatial_merge_size": 2, "fullatt_block_indexes": [1]},
        image_token_id=special["image_pad"],
        video_token_id=special["video_pad"],
        vision_start_token_id=special["vision_start"],
        vision_end_token_id=special["vision_end"],
    )
    return {
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        "vae": diffusers.AutoencoderKLQwenImage(
            base_dim=8,
            z_dim=4,
            dim_mult=[1, 2, 4],
            num_res_blocks=1,
            temperal_downsample=[False, True],
            latents_mean=[0.0] * 4,
            latents_std=[1.0] * 4,
        ),
        "text_encoder": transformers.Qwen2_5_VLForConditionalGeneration(config),
        "tokenizer": tokenizer,
        "transformer": diffusers.QwenImageTransformer2DModel(
            patch_size=2,
            in_channels=16,
            out_channels=4,
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=16,
            axes_dims_rope=(8, 4, 4),
        ),
    }


def _qwen_image(diffusers: Any, transformers: Any) -> Any:
    return diffusers.QwenImagePipeline(**_qwen_components(diffusers, transformers))


FAMILIES: dict[str, Callable[[Any, Any], Any]] = {
    "sd": _stable_diffusion,
    "sdxl": _stable_diffusion_xl,
    "sd3": _stable_diffusion_3,
    "flux": _flux,
    "flux-kontext": _flux_kontext,
    "flux-fill": _flux_fill,
    "qwen-image": _qwen_image,
}


def _autoencoder(
    diffusers: Any, *, latent_channels: int = 4, shift_factor: float | None = None, quant: bool = True
) -> Any:
    return diffusers.AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=latent_channels,
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=64,
        shift_factor=shift_factor,
        use_quant_conv=quant,
        use_post_quant_conv=quant,
    )


def _unet(diffusers: Any, **fields: Any) -> Any:
    return diffusers.UNet2DConditionModel(
        block_out_channels=(16, 32),
        layers_per_block=1,
        sample_size=8,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=8,
        norm_num_groups=4,
        use_linear_projection=True,
        **fields,
    )


def _clip_config(transformers: Any) -> Any:
    return transformers.CLIPTextConfig(
        hidden_size=WIDTH,
        projection_dim=WIDTH,
        intermediate_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        vocab_size=CLIP_TOKENS,
        max_position_embeddings=LONGEST_PROMPT,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )


def _t5_config(transformers: Any, width: int) -> Any:
    return transformers.T5Config(d_model=width, d_ff=WIDTH, d_kv=8, num_heads=2, num_layers=2, vocab_size=T5_TOKENS)


def _clip_tokenizer(transformers: Any) -> Any:
    vocabulary, merges = _byte_pairs(CLIP_TOKENS, ["<|startoftext|>", "<|endoftext|>"], suffix="</w>")
    return transformers.CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=LONGEST_PROMPT)


QWEN_SPECIAL = ("endoftext", "im_start", "im_end", "vision_start", "vision_end", "image_pad", "video_pad")


def _qwen_tokenizer(transformers: Any) -> Any:
    vocabulary, merges = _byte_pairs(QWEN_TOKENS - len(QWEN_SPECIAL), [])
    tokenizer = transformers.Qwen2Tokenizer(vocab=vocabulary, merges=merges)
    tokenizer.add_special_tokens({"additional_special_tokens": [f"<|{name}|>" for name in QWEN_SPECIAL]})
    return tokenizer


def _byte_pairs(size: int, special: list[str], suffix: str = "") -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A byte-level vocabulary of `size` with its merges; a `suffix` marks the ends of words."""
    import tokenizers
    from tokenizers import models, pre_tokenizers, trainers

    trained = tokenizers.Tokenizer(models.BPE(end_of_word_suffix=suffix))
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    initial = alphabet + [letter + suffix for letter in alphabet] if suffix else alphabet
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[*special, *(token for token in initial if len(token) > 1)],
        initial_alphabet=alphabet,
        end_of_word_suffix=suffix,
        show_progress=False,
    )
    trained.train_from_iterator([line.lower() for line in SENTENCES], trainer)
    model = json.loads(trained.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


def _t5_tokenizer(transformers: Any) -> Any:
    import tokenizers
    from tokenizers import models, pre_tokenizers, trainers

    trained = tokenizers.Tokenizer(models.Unigram())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=T5_TOKENS - 10, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    trained.train_from_iterator(SENTENCES, trainer)
    vocabulary = json.loads(trained.to_str())["model"]["vocab"]
    return transformers.T5TokenizerFast(vocab=[tuple(piece) for piece in vocabulary], extra_ids=0)
