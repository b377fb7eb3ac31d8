"""What a pipeline's text encoders make of prompts, kept for the next request with the same words.

Prompts are encoded by the pipeline's own `encode_prompt`, one at a time. Families whose encoders also look at images,
and those not known here, are given the words instead.
"""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple, TypeAlias

Embeddings: TypeAlias = dict[str, Any]
"""Arguments of a pipeline's call -> tensors with a batch dimension of one."""


class Words(NamedTuple):
    """What is asked for and what is not; `guided` tells that the latter matters. `longest` is in tokens, 0: usual."""

    prompt: str
    negative: str
    guided: bool
    longest: int = 0


class PromptCache:
    """The embeddings that were used last, in the computer's own memory, up to so many bytes."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._kept: OrderedDict[Hashable, Embeddings] = OrderedDict()
        self.size = 0
        self.hits = 0

    def embeddings(self, pipe: Any, words: Words, weights: Hashable, batch: int) -> Embeddings | None:
        """Arguments that replace the words, `batch` times each; None when this pipeline wants the words.

        `weights` stands for everything else that decides what the encoders say, such as the LoRAs in use.
        """
        encode = encoder_of(pipe)
        if encode is None:
            return None
        words = words._replace(longest=words.longest or _usual_length(pipe))
        key = (encode, words, weights)
        found = self._kept.get(key)
        if found is None:
            encoded = encode(pipe, words)
            found = {name: tensor.cpu() for name, tensor in encoded.items() if tensor is not None}
            self._keep(key, found)
        else:
            self.hits += 1
            self._kept.move_to_end(key)
        device = pipe._execution_device
        return {name: tensor.to(device).repeat_interleave(batch, dim=0) for name, tensor in found.items()}

    def _keep(self, key: Hashable, embeddings: Embeddings) -> None:
        size = _bytes(embeddings)
        if size > self._most_bytes:
            return
        self._kept[key] = embeddings
        self.size += size
        while self.size > self._most_bytes:
            _, dropped = self._kept.popitem(last=False)
            self.size -= _bytes(dropped)


Encode: TypeAlias = Callable[[Any, Words], Embeddings]


def encoder_of(pipe: Any) -> Encode | None:
    """How a pipeline's prompts are encoded; None where that is left to its call."""
    name = type(pipe).__name__
    return next((encode for prefix, encode in _ENCODERS.items() if name.startswith(prefix)), None)


def _usual_length(pipe: Any) -> int:
    """The limit that a pipeline's call has, which that of its `encode_prompt` may differ from; 0 for none."""
    limit = inspect.signature(type(pipe).__call__).parameters.get("max_sequence_length")
    return 0 if limit is None else int(limit.default)


def _bytes(embeddings: Mapping[str, Any]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in embeddings.values())


def _stable_diffusion(pipe: Any, words: Words) -> Embeddings:
    names = ("prompt_embeds", "negative_prompt_embeds")
    encoded = pipe.encode_prompt(
        words.prompt, pipe._execution_device, 1, words.guided, negative_prompt=words.negative or None
    )
    return dict(zip(names, encoded, strict=True)) if words.guided else {names[0]: encoded[0]}


def _stable_diffusion_xl(pipe: Any, words: Words) -> Embeddings:
    return _pooled(pipe, words, prompt_2=None)


def _stable_diffusion_3(pipe: Any, words: Words) -> Embeddings:
    more = {"max_sequence_length": words.longest} if words.longest else {}
    return _pooled(pipe, words, prompt_2=None, prompt_3=None, **more)


def _pooled(pipe: Any, words: Words, **more: Any) -> Embeddings:
    names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
    encoded = pipe.encode_prompt(
        prompt=words.prompt,
        device=pipe._execution_device,
        num_images_per_prompt=1,
        do_classifier_free_guidance=words.guided,
        negative_prompt=words.negative or None,  # SDXL takes no negative prompt for another thing than an empty one
        **more,
    )
    pairs = zip(names, encoded, strict=True)
    return {name: tensor for name, tensor in pairs if words.guided or not name.startswith("negative")}


def _flux(pipe: Any, words: Words) -> Embeddings:
    more = {"max_sequence_length": words.longest} if words.longest else {}
    prompt_embeds, pooled, _ = pipe.encode_prompt(words.prompt, None, device=pipe._execution_device, **more)
    return {"prompt_embeds": prompt_embeds, "pooled_prompt_embeds": pooled}


def _qwen_image(pipe: Any, words: Words) -> Embeddings:
    embeddings: Embeddings = {}
    asked = {"": words.prompt} | ({"negative_": words.negative or " "} if words.guided else {})
    for prefix, text in asked.items():
        embeds, mask = pipe.encode_prompt(text, pipe._execution_device)
        embeddings |= {f"{prefix}prompt_embeds": embeds, f"{prefix}prompt_embeds_mask": mask}
    return embeddings


def _wan(pipe: Any, words: Words) -> Embeddings:
    return dict(zip(("prompt_embeds", "negative_prompt_embeds"), _video(pipe, words), strict=True))


def _ltx(pipe: Any, words: Words) -> Embeddings:
    names = ("prompt_embeds", "prompt_attention_mask", "negative_prompt_embeds", "negative_prompt_attention_mask")
    return dict(zip(names, _video(pipe, words), strict=True))


def _video(pipe: Any, words: Words) -> Any:
    return pipe.encode_prompt(
        prompt=words.prompt,
        negative_prompt=words.negative or None,
        do_classifier_free_guidance=words.guided,
        device=pipe._execution_device,
        max_sequence_length=words.longest,
    )


def _hunyuan_video(pipe: Any, words: Words) -> Embeddings:
    embeddings: Embeddings = {}
    asked = {"": words.prompt} | ({"negative_": words.negative} if words.guided else {})
    for prefix, text in asked.items():
        encoded = pipe.encode_prompt(text, device=pipe._execution_device, max_sequence_length=words.longest)
        names = ("prompt_embeds", "pooled_prompt_embeds", "prompt_attention_mask")
        embeddings |= {prefix + name: tensor for name, tensor in zip(names, encoded, strict=True)}
    return embeddings


_ENCODERS: dict[str, Encode] = {
    "StableDiffusion3": _stable_diffusion_3,
    "StableDiffusionXL": _stable_diffusion_xl,
    **{f"StableDiffusion{task}Pipeline": _stable_diffusion for task in ("", "Img2Img", "Inpaint")},
    **{f"Flux{task}Pipeline": _flux for task in ("", "Img2Img", "Inpaint", "Fill", "Kontext", "KontextInpaint")},
    **{f"QwenImage{task}Pipeline": _qwen_image for task in ("", "Img2Img", "Inpaint")},
    **{f"{family}{task}Pipeline": _wan for family in ("Wan", "CogVideoX") for task in ("", "ImageToVideo")},
    **{f"LTX{task}Pipeline": _ltx for task in ("", "ImageToVideo", "Condition")},
    "MochiPipeline": _ltx,
    "HunyuanVideoPipeline": _hunyuan_video,
    "AnimateDiffPipeline": _stable_diffusion,
}
"""Prefix of a pipeline's class -> how its prompts are encoded; the first that fits counts."""
