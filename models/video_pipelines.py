"""The pipelines of one video model: one set of weights behind a pipeline for each thing that it can do.

What all of them share (device, data type, memory savings, skipped work) is set here, too.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from models.diffusion_pipelines import import_diffusers, release_memory, skipping
from models.errors import InvalidInput
from models.image_files import Picture
from models.torch_runtime import import_torch

WITH_PICTURE = {"WanPipeline": "WanImageToVideoPipeline", "LTXPipeline": "LTXImageToVideoPipeline"}
"""Class of the weights' own pipeline -> the one that takes a first frame, where that is another."""
WITH_PICTURES = {"WanPipeline": "WanImageToVideoPipeline", "LTXPipeline": "LTXConditionPipeline"}
"""The same for other frames than the first alone."""

WHOLE, TILED, GROUPED, SEQUENTIAL = "whole", "tiled", "grouped", "sequential"
"""What a request may be run as, from fast to frugal: as it is; with the autoencoder working on tiles and stretches of
time; with layers on the device only while they work, and the next ones on their way; and without that last."""

ADAPTERS_NOISE = {
    "beta_schedule": "linear",
    "clip_sample": False,
    "timestep_spacing": "linspace",
    "steps_offset": 1,
}
"""How AnimateDiff's motion adapters want noise to be added, whatever the image model beside them does."""
HOOKS = ("group_offloading", "layer_execution_tracker", "lazy_prefetch_group_offloading")
"""Names under which diffusers hooks what `GROUPED` does into modules."""


class VideoPipelines:
    """One model, ready to run."""

    def __init__(
        self,
        directory: Path,
        *,
        device: str,
        dtype: Any,
        variant: str = "",
        attention: str = "",
        pipeline: str = "",
        motion_adapter: Path | None = None,
    ) -> None:
        """`pipeline` is a class of diffusers that is to be the weights' own. Raises: ValueError, OSError for weights
        that are none of it."""
        self._diffusers = import_diffusers()
        self.device = device
        usual = "AnimateDiffPipeline" if motion_adapter else "DiffusionPipeline"
        self.base = getattr(self._diffusers, pipeline or usual).from_pretrained(
            directory,
            local_files_only=True,
            dtype=_precision(directory, dtype),
            use_safetensors=True,
            variant=variant or None,
            **self._motion(motion_adapter, dtype),
        )
        if motion_adapter:  # the noise that adapters were trained with is not that of the images
            scheduler = self.base.scheduler.config
            self.base.scheduler = self._diffusers.DDIMScheduler.from_config(scheduler, **ADAPTERS_NOISE)
        self.base.set_progress_bar_config(disable=True)
        for denoiser in self.denoisers if attention else ():
            denoiser.set_attention_backend(attention)
        self.rungs = (WHOLE, TILED, GROUPED, SEQUENTIAL) if device.startswith("cuda") else (WHOLE, TILED)
        self._scheduler = self.base.scheduler
        self._pipes: dict[str, Any] = {type(self.base).__name__: self.base}
        self._taken_off = WHOLE
        self._place()

    @property
    def denoisers(self) -> list[Any]:
        """The networks of which one runs in each step."""
        found = [getattr(self.base, name, None) for name in ("unet", "transformer", "transformer_2")]
        return [network for network in found if network is not None]

    def pipe(self, pictures: Mapping[int, Picture]) -> Any:
        """The pipeline for a clip of which these frames are given, with a scheduler that no request has touched."""
        own = type(self.base).__name__
        others = {} if not pictures else WITH_PICTURE if set(pictures) == {0} else WITH_PICTURES
        name = others.get(own, own)
        if name not in self._pipes:
            self._pipes[name] = self._sibling(name)
        pipe = self._pipes[name]
        pipe.set_progress_bar_config(disable=True)
        pipe.scheduler = copy.deepcopy(self._scheduler)
        if name == "LTXConditionPipeline":  # it brings timesteps of its own, which are not to be shifted
            pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, use_dynamic_shifting=False)
        return pipe

    def save_memory(self, rung: str) -> None:
        """Set the model up for a rung. What has been taken off the device stays off: getting it back costs more."""
        vae = self.base.vae
        if rung != WHOLE and hasattr(vae, "enable_tiling"):
            vae.enable_tiling()
        elif getattr(vae, "use_tiling", False):
            vae.disable_tiling()
        if type(vae).__name__ == "AutoencoderKLLTXVideo":  # HunyuanVideo's always goes by stretches
            vae.use_framewise_decoding = rung != WHOLE
        if rung in (GROUPED, SEQUENTIAL) and self._taken_off not in (rung, SEQUENTIAL):
            self._take_off(rung)

    def release(self) -> None:
        """Give back what a request that ran out of memory has left behind."""
        release_memory(self.device)

    def skipping(self, pipe: Any, speed: str, steps: int) -> AbstractContextManager[bool]:
        """See `skipping` of `models.diffusion_pipelines`."""
        return skipping(pipe, self.denoisers, speed, steps)

    def compile(self) -> bool:
        """Have the repeated blocks of the denoisers compiled when they run next; False where that makes no sense:
        for networks without any, and for layers that are moved in and out."""
        blocks = all(getattr(denoiser, "_repeated_blocks", None) for denoiser in self.denoisers)
        if not blocks or self._taken_off != WHOLE:
            return False
        for denoiser in self.denoisers:
            denoiser.compile_repeated_blocks()
        return True

    def forget_compiled(self) -> None:
        """Run everything as it was before `compile`."""
        for denoiser in self.denoisers:
            for module in denoiser.modules():
                module._compiled_call_impl = None

    def _place(self) -> None:
        try:
            self.base.to(self.device)
        except import_torch().OutOfMemoryError:
            self._take_off(GROUPED)

    def _take_off(self, rung: str) -> None:
        """Keep the model off the device but for what is at work, and for the autoencoder, which is small."""
        torch = import_torch()
        modules = [part for part in self.base.components.values() if isinstance(part, torch.nn.Module)]
        if self._taken_off == GROUPED:
            registry = importlib.import_module("diffusers.hooks").HookRegistry
            for module in modules:
                for hook in HOOKS:
                    registry.check_if_exists_or_initialize(module).remove_hook(hook, recurse=True)
        for module in modules:
            module.to("cpu")
        self.release()
        self._taken_off = rung
        if rung == SEQUENTIAL:
            self.base._exclude_from_cpu_offload = ["vae"]
            self.base.enable_sequential_cpu_offload(device=self.device)
            return
        streams = self.device.startswith("cuda")
        self.base.enable_group_offload(
            onload_device=torch.device(self.device),
            offload_type="leaf_level",
            use_stream=streams,
            record_stream=streams,
            exclude_modules="vae",
        )

    def _sibling(self, name: str) -> Any:
        """Another pipeline of the same parts. diffusers' own `from_pipe` would make them all float32."""
        kind = getattr(self._diffusers, name)
        parts = {**self.base.config, **self.base.components}
        return kind(**{part: parts[part] for part in inspect.signature(kind.__init__).parameters if part in parts})

    def _motion(self, directory: Path | None, dtype: Any) -> dict[str, Any]:
        if directory is None:
            return {}
        adapter = self._diffusers.MotionAdapter.from_pretrained(directory, local_files_only=True, dtype=dtype)
        return {"motion_adapter": adapter}


def _precision(directory: Path, dtype: Any) -> dict[str, Any]:
    """Wan's autoencoder and image encoder lose too much in half precision; they are small."""
    precise = import_torch().float32
    vae = json.loads((directory / "model_index.json").read_text())["vae"][1]
    return {"default": dtype} | ({"vae": precise, "image_encoder": precise} if vae == "AutoencoderKLWan" else {})


def picture_arguments(pipe: Any, pictures: Mapping[int, Picture], frames: int) -> dict[str, Any]:
    """Arguments of a pipeline's call for frames that are given, in the clip's size, by their number.

    Raises: InvalidInput for a first frame alone where the network looks at two.
    """
    if not pictures:
        return {}
    if type(pipe).__name__ == "LTXConditionPipeline":
        condition = importlib.import_module(type(pipe).__module__).LTXVideoCondition
        return {"conditions": [condition(image=pictures[place], frame_index=place) for place in sorted(pictures)]}
    if len(pictures) == 1 and getattr(pipe.transformer.config, "pos_embed_seq_len", None):
        raise InvalidInput("This model needs a picture of its last frame, too.", field="frame_images")
    return {"image": pictures[0], "last_image": pictures.get(frames - 1) if frames > 1 else None}
