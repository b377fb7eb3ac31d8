"""Videos by diffusers: Wan, LTX-Video, HunyuanVideo, CogVideoX, Mochi and AnimateDiff.

The same seed gives the same clip. Frames come as the autoencoder decodes them; see `models.video_decoding`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from models.catalog import Card
from models.diffusion_loras import Adapters
from models.diffusion_memory import MemoryLadder
from models.diffusion_prompts import PromptCache
from models.image_files import open_picture
from models.image_rules import fitted
from models.interfaces import ImagePreview, OnStep
from models.torch_runtime import import_torch, pick_device, pick_dtype, weights_directory, without_warnings
from models.video_generation import VideoGeneration, VideoModel
from models.video_interfaces import VideoFrames, VideoRequest
from models.video_pipelines import VideoPipelines
from models.video_rules import settled

torch = import_torch()
logger = logging.getLogger("sonoreel.diffusion")

WARM_UP_STEPS = 4
"""So many that the second of Wan 2.2's networks, which has the last part of the noise, has a step, too."""


class DiffusionOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`options` of a card. Zeros and "auto" are chosen here: bfloat16 on a GPU, float32 on a CPU.

    `variant` is the one of the weights' files, such as "fp16"; `attention` a backend of diffusers, "" PyTorch's own
    choice. `pipeline` is a class of diffusers, where it is not to be the one that the weights name. With a
    `motion_adapter`, a directory or a hub id, the weights are those of an image model, which AnimateDiff sets in
    motion. `call` are fixed arguments of the pipeline's call, such as `guidance_scale_2` or `decode_timestep`;
    `negative_prompt` is what a request has that brings none.
    """

    device: str = "auto"
    dtype: str = "auto"
    threads: int = 0
    variant: str = ""
    attention: str = ""
    compile: bool = True
    prompt_cache_mb: int = 256
    lora_cache: int = 8
    pipeline: str = ""
    motion_adapter: str = ""
    call: dict[str, Any] = {}
    negative_prompt: str = ""


class DiffusionVideoGenerator:
    """Implements VideoGenerator; any number of requests at once, each from a thread of its own, run one by one."""

    def __init__(
        self,
        directory: Path,
        card: Card,
        options: DiffusionOptions,
        motion_adapter: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        device = pick_device(options.device)
        pipelines = VideoPipelines(
            directory,
            device=device,
            dtype=pick_dtype(device, "float32" if device == "cpu" and options.dtype == "auto" else options.dtype),
            variant=options.variant,
            attention=options.attention,
            pipeline=options.pipeline,
            motion_adapter=motion_adapter,
        )
        self._lane = ThreadPoolExecutor(max_workers=1, thread_name_prefix="denoise")
        self.model = VideoModel(
            card=card,
            pipelines=pipelines,
            adapters=Adapters(pipelines.base, options.lora_cache),
            prompts=PromptCache(options.prompt_cache_mb * 2**20),
            memory=MemoryLadder(pipelines.rungs),
            lane=self._lane,
            clock=clock,
            call=options.call,
            negative=options.negative_prompt,
        )
        if options.compile and device.startswith("cuda"):
            self.compile()

    def generate(self, request: VideoRequest, on_step: OnStep) -> Generator[ImagePreview | VideoFrames, None, None]:
        """See `VideoGenerator`. Raises: InvalidInput; OutOfMemory; Cancelled from `on_step`, called in any thread."""
        pictures = {each.frame: open_picture(each.path, "frame_images") for each in request.frame_images}
        first = request.frame_images[0].frame if request.frame_images else None
        request = settled(request, self.model.card, None if first is None else pictures[first].size)
        yield from VideoGeneration(self.model, request, pictures, on_step).results()

    def compile(self) -> None:
        """Compile now, so that no request has to wait for it; without a working compiler all goes on without.

        Two short clips, for the second makes the compiler leave the size open. What fits neither, such as a LoRA, later
        runs as it would have without.
        """
        card, pipelines = self.model.card, self.model.pipelines
        width, height = card.default_size
        if not card.generates or not pipelines.compile():
            return
        try:
            for size in (card.default_size, fitted((width * 3 // 4, height), card)):
                warm_up = VideoRequest(
                    prompt="",
                    seed=0,
                    steps=min(WARM_UP_STEPS, card.max_steps),
                    width=size[0],
                    height=size[1],
                    frames=card.min_frames,
                    previews=False,
                )
                list(self.generate(warm_up, lambda done, total: None))
            torch.compiler.set_stance("eager_on_recompile")
        except RuntimeError:  # what compilers raise is one
            logger.exception("the model runs without being compiled")
            pipelines.forget_compiled()

    def close(self) -> None:
        """Stop the thread."""
        self._lane.shutdown()


def load(card: Card) -> DiffusionVideoGenerator:
    """Load the pipeline in the directory, or of the hub id, that the card names; never from the network.

    Raises: WeightsMissing; msgspec.ValidationError for options that do not exist.
    """
    options = msgspec.convert(card.options, DiffusionOptions)
    directory = weights_directory(card, "model_index.json")
    adapter = None
    if named := options.motion_adapter:
        adapter = weights_directory(msgspec.structs.replace(card, id=named, weights=named, files=()), "config.json")
    import_torch(options.threads)
    with without_warnings():
        return DiffusionVideoGenerator(directory, card, options, adapter)
