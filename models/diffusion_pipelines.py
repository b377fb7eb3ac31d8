"""The pipelines of one diffusion model: one set of weights behind a pipeline for each thing that it can do.

Which pipeline that is, diffusers knows for most families; the exceptions stand here. What all of them share (device,
data type, memory savings, skipped work) is set here, too.
"""

from __future__ import annotations

import copy
import gc
import importlib
import inspect
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal, TypeAlias

from models.torch_runtime import import_torch, without_warnings

logger = logging.getLogger("sonoreel.diffusion")

Mode: TypeAlias = Literal["generate", "edit", "inpaint"]

AUTO: dict[Mode, str] = {
    "generate": "AutoPipelineForText2Image",
    "edit": "AutoPipelineForImage2Image",
    "inpaint": "AutoPipelineForInpainting",
}
SPECIAL: dict[tuple[str, Mode], str] = {
    ("FluxFillPipeline", "inpaint"): "FluxFillPipeline",
    ("FluxKontextPipeline", "inpaint"): "FluxKontextInpaintPipeline",
}
"""(class of the weights' own pipeline, mode) -> the class that diffusers' own tables do not have for it."""

WHOLE, SINGLE, TILED, OFFLOADED = "whole", "single", "tiled", "offloaded"
"""What a request may be run as, from fast to frugal: in batches; one image at a time; with the autoencoder working on
tiles; and with each part of the model on the device only while it works."""

THRESHOLDS = {"balanced": 0.08, "fast": 0.12}
"""Speed -> how little the first block may have changed since the step before for all others to be skipped."""
FEWEST_STEPS = 20
"""Of fewer steps each makes a difference."""
OWN_CONTEXTS = ("FluxPipeline", "QwenImage", "Wan", "LTX", "HunyuanVideoPipeline", "CogVideoX", "Mochi")
"""Pipelines that keep what is cached with and without the prompt apart by themselves; the others run one of the two."""
ONE_AT_A_TIME = ("QwenImageEdit", "QwenImageLayered", "Flux2")
"""Pipelines that make one image a call, or take several images as several references to one."""


class Pipelines:
    """One model, ready to run."""

    def __init__(self, directory: Path, *, device: str, dtype: Any, variant: str = "", attention: str = "") -> None:
        self._diffusers = import_diffusers()
        self.device = device
        self.base = self._diffusers.DiffusionPipeline.from_pretrained(
            directory,
            local_files_only=True,
            dtype=dtype,
            use_safetensors=True,
            variant=variant or None,
            **_without_safety_checker(directory),
        )
        self.base.set_progress_bar_config(disable=True)
        self.base.to(device)
        if attention:
            self.denoiser.set_attention_backend(attention)
        if device.startswith("cuda") and type(self.base.vae).__name__ == "AutoencoderKL":
            self.base.vae.to(memory_format=import_torch().channels_last)
        self.rungs = (WHOLE, SINGLE, TILED, OFFLOADED) if device.startswith("cuda") else (WHOLE, SINGLE, TILED)
        self._scheduler = self.base.scheduler
        self._pipes: dict[str, Any] = {type(self.base).__name__: self.base}
        self._offloaded: Any = None

    @property
    def denoiser(self) -> Any:
        """The network that runs once a step."""
        return getattr(self.base, "unet", None) or self.base.transformer

    def pipe(self, mode: Mode) -> Any:
        """The pipeline for a mode, with a scheduler that no request has touched. Raises: ValueError for none."""
        special = SPECIAL.get((type(self.base).__name__, mode))
        if special is not None and special not in self._pipes:
            self._pipes[special] = getattr(self._diffusers, special)(**self.base.components)
        name = special or mode
        if name not in self._pipes:
            self._pipes[name] = getattr(self._diffusers, AUTO[mode]).from_pipe(self.base)
        pipe = self._pipes[name]
        pipe.set_progress_bar_config(disable=True)
        pipe.scheduler = copy.deepcopy(self._scheduler)
        return pipe

    @property
    def batches(self) -> bool:
        """Whether a call may make several images."""
        return not type(self.base).__name__.startswith(ONE_AT_A_TIME)

    def save_memory(self, pipe: Any, rung: str) -> None:
        """Set a pipeline up for a rung. What has been taken off the device stays off: getting it back costs more."""
        vae = pipe.vae
        if rung in (TILED, OFFLOADED):
            vae.enable_tiling()
        elif getattr(vae, "use_tiling", False):
            vae.disable_tiling()
        if (rung == OFFLOADED or self._offloaded is not None) and self._offloaded is not pipe:
            pipe.enable_model_cpu_offload(device=self.device)
            self._offloaded = pipe

    def release(self) -> None:
        """Give back what a request that ran out of memory has left behind."""
        release_memory(self.device)

    def skipping(self, pipe: Any, speed: str, steps: int) -> AbstractContextManager[bool]:
        """See `skipping`."""
        return skipping(pipe, [self.denoiser], speed, steps)

    def compile(self) -> bool:
        """Have the repeated blocks of the denoiser compiled when they run next; False for one without any."""
        if not getattr(self.denoiser, "_repeated_blocks", None):
            return False
        self.denoiser.compile_repeated_blocks()
        return True

    def forget_compiled(self) -> None:
        """Run everything as it was before `compile`."""
        for module in self.denoiser.modules():
            module._compiled_call_impl = None


@contextmanager
def skipping(pipe: Any, denoisers: Sequence[Any], speed: str, steps: int) -> Iterator[bool]:
    """Inside, steps that would change little are skipped; yields whether any can be.

    Never "exact", with few steps, or in networks that are no transformers.
    """
    threshold = THRESHOLDS.get(speed, 0.0)
    if not threshold or steps < FEWEST_STEPS or not all(hasattr(each, "enable_cache") for each in denoisers):
        yield False
        return
    config = import_diffusers().FirstBlockCacheConfig(threshold=threshold)
    with ExitStack() as contexts:
        for denoiser in denoisers:
            denoiser.enable_cache(config)
            contexts.callback(denoiser.disable_cache)
            if not type(pipe).__name__.startswith(OWN_CONTEXTS):
                contexts.enter_context(denoiser.cache_context("all"))
        yield True


def release_memory(device: str) -> None:
    """Give back what nothing refers to any more."""
    gc.collect()
    if device.startswith("cuda"):
        import_torch().cuda.empty_cache()


def import_diffusers() -> Any:
    """The diffusers module, quiet."""
    import_torch()
    with without_warnings():
        diffusers: Any = importlib.import_module("diffusers")
    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    return diffusers


def call_parameters(pipe: Any) -> frozenset[str]:
    """Names of what a pipeline's call takes."""
    return frozenset(inspect.signature(type(pipe).__call__).parameters)


def _without_safety_checker(directory: Path) -> dict[str, Any]:
    """A checker that weights bring along is not loaded: cards name their own."""
    index = json.loads((directory / "model_index.json").read_text())
    return {"safety_checker": None, "requires_safety_checker": False} if "safety_checker" in index else {}
