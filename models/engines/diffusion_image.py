"""Images by diffusers: Stable Diffusion, SDXL, SD3, FLUX.1, Qwen-Image and what else its automatic pipelines know.

Image i of a request has a generator of its own, seeded with `seed + i`: it is what a request for that seed alone gives,
but for the rounding of a batch's arithmetic, which may change the last bits of colours on a GPU.
"""

from __future__ import annotations

import importlib
import logging
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from models.catalog import Card
from models.diffusion_generation import Checker, Generation, ImageModel
from models.diffusion_loras import Adapters
from models.diffusion_memory import MemoryLadder
from models.diffusion_pipelines import Pipelines
from models.diffusion_prompts import PromptCache
from models.image_files import open_mask, open_picture
from models.image_rules import fitted, settled
from models.interfaces import ImagePreview, ImageRequest, ImageResult, OnStep
from models.torch_runtime import import_torch, pick_device, pick_dtype, weights_directory, without_warnings

torch = import_torch()
logger = logging.getLogger("sonoreel.diffusion")

CPU_BATCH, DEVICE_BATCH = 256, 4096
"""Tokens of latents that run together. More than a thousand of one image keep a GPU busy; nearly any keep a CPU."""


class DiffusionOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`options` of a card. Zeros and "auto" are chosen here: bfloat16 on a GPU, float32 on a CPU.

    `variant` is the one of the weights' files, such as "fp16"; `attention` a backend of diffusers, "" PyTorch's own
    choice. `call` are fixed arguments of the pipeline's call, such as `max_sequence_length`. `safety_checker` is a
    dotted path "module:callable" that tells of a PIL image whether it must not be shown.
    """

    device: str = "auto"
    dtype: str = "auto"
    threads: int = 0
    variant: str = ""
    attention: str = ""
    compile: bool = True
    batch_tokens: int = 0
    prompt_cache_mb: int = 256
    lora_cache: int = 8
    call: dict[str, Any] = {}
    safety_checker: str = ""


class DiffusionImageGenerator:
    """Implements ImageGenerator; any number of requests at once, each from a thread of its own, run one by one."""

    def __init__(
        self, directory: Path, card: Card, options: DiffusionOptions, clock: Callable[[], float] = time.monotonic
    ) -> None:
        device = pick_device(options.device)
        on_cpu = device == "cpu"
        dtype = pick_dtype(device, "float32" if on_cpu and options.dtype == "auto" else options.dtype)
        pipelines = Pipelines(
            directory, device=device, dtype=dtype, variant=options.variant, attention=options.attention
        )
        self._lane = ThreadPoolExecutor(max_workers=1, thread_name_prefix="denoise")
        self.model = ImageModel(
            card=card,
            pipelines=pipelines,
            adapters=Adapters(pipelines.base, options.lora_cache),
            prompts=PromptCache(options.prompt_cache_mb * 2**20),
            memory=MemoryLadder(pipelines.rungs),
            lane=self._lane,
            batch_tokens=options.batch_tokens or (CPU_BATCH if on_cpu else DEVICE_BATCH),
            clock=clock,
            call=options.call,
            checker=_checker(options.safety_checker),
        )
        if options.compile and device.startswith("cuda"):
            self.compile()

    def generate(self, request: ImageRequest, on_step: OnStep) -> Generator[ImagePreview | ImageResult, None, None]:
        """See `ImageGenerator`. Raises: InvalidInput; OutOfMemory; Cancelled from `on_step`, called in any thread."""
        pictures = [open_picture(path) for path in request.image_paths]
        request = settled(request, self.model.card, pictures[0].size if pictures else None)
        mask = open_mask(request.mask_path, pictures[0].size) if request.mask_path else None
        yield from Generation(self.model, request, pictures, mask, on_step).results()

    def compile(self) -> None:
        """Compile now, so that no request has to wait for it; without a working compiler all goes on without.

        Two sizes, for the second makes the compiler leave the size open. What fits neither, such as a LoRA, later runs
        as it would have without.
        """
        card, pipelines = self.model.card, self.model.pipelines
        width, height = card.default_size
        if not card.generates or not pipelines.compile():
            return
        try:
            for size in (card.default_size, fitted((width * 3 // 4, height), card)):
                warm_up = ImageRequest(prompt="", seed=0, steps=min(2, card.max_steps), width=size[0], height=size[1])
                list(self.generate(warm_up, lambda done, total: None))
            torch.compiler.set_stance("eager_on_recompile")
        except RuntimeError:  # what compilers raise is one
            logger.exception("the model runs without being compiled")
            pipelines.forget_compiled()

    def close(self) -> None:
        """Stop the thread."""
        self._lane.shutdown()


def _checker(path: str) -> Checker | None:
    """Raises: ImportError, AttributeError when there is no such thing."""
    if not path:
        return None
    module, _, name = path.partition(":")
    checker: Checker = getattr(importlib.import_module(module), name)
    return checker


def load(card: Card) -> DiffusionImageGenerator:
    """Load the pipeline in the directory, or of the hub id, that the card names; never from the network.

    Raises: WeightsMissing; msgspec.ValidationError for options that do not exist.
    """
    options = msgspec.convert(card.options, DiffusionOptions)
    directory = weights_directory(card, "model_index.json")
    import_torch(options.threads)
    with without_warnings():
        return DiffusionImageGenerator(directory, card, options)
