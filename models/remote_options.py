"""`options` of a card whose model runs on another server, and what servers of each make call a request's fields.

After OpenAI's API reference, vLLM-Omni's `docs/serving/{videos,image_edit,image_generation}_api.md` as of its 0.26, and
SGLang's `multimodal_gen/runtime/entrypoints/openai/`. Those two pass over fields they do not know; OpenAI refuses them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, TypeAlias
from urllib.parse import urlsplit

import msgspec

Names: TypeAlias = Mapping[str, tuple[str, ...]]
"""A field of a request -> the names that it goes under."""
StyleName: TypeAlias = Literal["any", "openai", "vllm-omni", "sglang", "sonoreel"]


class Style(NamedTuple):
    """What servers of one make take: the names of `videos` and of `images`, and how videos are asked for.

    `json_videos`: in JSON if no file goes along. `media`: pictures of any frame, and to refer to, in Together's object.
    """

    videos: Names
    images: Names
    json_videos: bool = False
    media: bool = False


OPENAI_VIDEOS: Names = {
    "model": ("model",),
    "prompt": ("prompt",),
    "seconds": ("seconds",),
    "size": ("size",),
    "picture": ("input_reference",),
}
OPENAI_IMAGES: Names = {
    "model": ("model",),
    "prompt": ("prompt",),
    "size": ("size",),
    "format": ("output_format",),
    "compression": ("output_compression",),
    "image": ("image",),
    "mask": ("mask",),
}
SAMPLING: Names = {"seed": ("seed",), "guidance": ("guidance_scale",), "negative_prompt": ("negative_prompt",)}
ENCODED: Names = {"encoding": ("response_format",)}
DIFFUSERS_STEPS, STEPS, ANY_STEPS = (
    {"steps": names} for names in (("num_inference_steps",), ("steps",), ("num_inference_steps", "steps"))
)
FRAMES: Names = {"frames": ("num_frames",), "fps": ("fps",)}
ONLY_FRAMES: Names = {**FRAMES, "seconds": ()}
"""For a server that refuses to be told the same twice."""
SPEED: Names = {"speed": ("speed",)}
SONOREEL_FILES: Names = {"format": ("output_format",), "codec": ("output_codec",), "quality": ("output_quality",)}
STRENGTH: Names = {"strength": ("strength",)}
TWO_MASKS: Names = {"mask": ("mask", "mask_image")}

STYLES: dict[StyleName, Style] = {
    "openai": Style(OPENAI_VIDEOS, OPENAI_IMAGES),
    "vllm-omni": Style(
        {**OPENAI_VIDEOS, **FRAMES, **SAMPLING, **DIFFUSERS_STEPS},
        {**OPENAI_IMAGES, **ENCODED, **SAMPLING, **DIFFUSERS_STEPS, **TWO_MASKS},
    ),
    # Its older versions take a form only together with a picture.
    "sglang": Style(
        {**OPENAI_VIDEOS, **FRAMES, **SAMPLING, **DIFFUSERS_STEPS},
        {**OPENAI_IMAGES, **ENCODED, **SAMPLING, **DIFFUSERS_STEPS},
        json_videos=True,
    ),
    "sonoreel": Style(
        {**OPENAI_VIDEOS, **ONLY_FRAMES, **SAMPLING, **STEPS, **SPEED, **SONOREEL_FILES},
        {**OPENAI_IMAGES, **ENCODED, **SAMPLING, **STEPS, **STRENGTH, **SPEED},
        media=True,
    ),
    # What the three above take together, for those that may be any of them; OpenAI itself refuses it.
    "any": Style(
        {**OPENAI_VIDEOS, **ONLY_FRAMES, **SAMPLING, **ANY_STEPS, **SPEED},
        {**OPENAI_IMAGES, **ENCODED, **SAMPLING, **ANY_STEPS, **STRENGTH, **TWO_MASKS, **SPEED},
    ),
}


class RemoteOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`options` of a card.

    `base_url` is the server's address as OpenAI's clients are told it, ending in /v1, which is added where there is no
    path. `model` is its name there; empty, it is the card's id. `api_key_env` names the environment variable, of this
    server, that holds the key. `fields` changes names of the style: a field of the request -> its name there, "" not to
    send it. `body` is added to every request. `media` overrides the style's.

    `timeout`, in seconds, is for a whole request; `patience` for how long the server may not be reached, or answer
    without sense, before an attempt fails. `poll_seconds` lie between two looks at a video if the server does not say.
    `max_mb` is the most that a video may have.
    """

    base_url: str
    model: str = ""
    api_key_env: str = ""
    style: StyleName = "any"
    fields: dict[str, str] = {}
    body: dict[str, Any] = {}
    media: bool | None = None
    timeout: float = 3600.0
    patience: float = 30.0
    poll_seconds: float = 1.0
    max_mb: int = 2048

    def __post_init__(self) -> None:
        parts = urlsplit(self.base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("base_url must be an http or https URL")
        if parts.username is not None or parts.query or parts.fragment:
            raise ValueError("base_url must have no user, password, query or fragment; keys go into api_key_env")
        if min(self.timeout, self.poll_seconds, self.max_mb) <= 0 or self.patience < 0:
            raise ValueError("timeout, poll_seconds and max_mb must be above 0, and patience not below")
        known = {field for style in STYLES.values() for field in (*style.videos, *style.images)}
        if unknown := self.fields.keys() - known:
            raise ValueError(f"fields has {', '.join(sorted(unknown))}; known are {', '.join(sorted(known))}")

    @property
    def url(self) -> str:
        """`base_url` with its path, without a slash at the end."""
        url = self.base_url.rstrip("/")
        return url if urlsplit(url).path else f"{url}/v1"

    @property
    def named(self) -> Style:
        """The style, with what the card changes about it."""
        style = STYLES[self.style]
        changes = {field: (name,) if name else () for field, name in self.fields.items()}
        return Style(
            {**style.videos, **changes},
            {**style.images, **changes},
            style.json_videos,
            style.media if self.media is None else self.media,
        )
