"""One request to a diffusion model, from words and pictures to image files.

One thread, the model's lane, runs the pipelines, a request after the other. The rest happens in the request's own
thread: checking and encoding what was made, while the next image is already being denoised.
"""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Executor, wait
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from models.catalog import Card
from models.diffusion_loras import Adapters
from models.diffusion_memory import MemoryLadder
from models.diffusion_pipelines import SINGLE, WHOLE, Mode, Pipelines, call_parameters
from models.diffusion_previews import LatentPainter, PreviewPace
from models.diffusion_prompts import PromptCache, Words
from models.errors import InvalidInput, OutOfMemory
from models.image_files import Picture, covering, encode_image, encode_preview
from models.image_rules import Size
from models.interfaces import ImagePreview, ImageRequest, ImageResult, OnStep
from models.torch_runtime import import_torch, without_warnings

logger = logging.getLogger("sonoreel.diffusion")

POLL = 0.05
"""Seconds within which a cancelled request notices while it waits for its turn."""
PIXELS_PER_TOKEN = 16 * 16
REFUSED = "content_policy_violation"

Checker: TypeAlias = Callable[[Picture], bool]
"""Whether an image must not be shown."""


@dataclass(frozen=True)
class ImageModel:
    """A loaded model, and what its requests share. At most `batch_tokens` tokens of latents run together."""

    card: Card
    pipelines: Pipelines
    adapters: Adapters
    prompts: PromptCache
    memory: MemoryLadder
    lane: Executor
    batch_tokens: int
    clock: Callable[[], float]
    call: dict[str, Any] = field(default_factory=dict)
    checker: Checker | None = None
    painter: LatentPainter = field(default_factory=LatentPainter)


@dataclass(frozen=True, slots=True)
class _Shown:
    """A preview before it is a file."""

    index: int
    step: int
    total: int
    pixels: npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class _Made:
    """An image before it is a file. `speed` is what was done, where that is not what was asked for."""

    index: int
    image: Picture
    speed: str


class Generation:
    """One request: the lane's thread makes pictures, the request's own makes files of them."""

    def __init__(
        self,
        model: ImageModel,
        request: ImageRequest,
        pictures: Sequence[Picture],
        mask: Picture | None,
        on_step: OnStep,
    ) -> None:
        self._model = model
        self._torch = import_torch()
        self._request = request
        self._size: Size = request.width, request.height
        self._mode: Mode = "inpaint" if mask else "edit" if pictures else "generate"
        self._references = list(pictures)
        self._pictures = [covering(picture, self._size) for picture in pictures]
        self._mask = covering(mask, self._size) if mask else None
        self._on_step = on_step
        self._mail: queue.SimpleQueue[_Shown | _Made | BaseException | None] = queue.SimpleQueue()
        self._pace = PreviewPace(request.previews, model.clock)
        self._begun = False
        self._over = False
        self._done = 0
        self._finished = 0
        self._before: Any = None

    def results(self) -> Iterator[ImagePreview | ImageResult]:
        """Yield what comes, to the end."""
        turn = self._model.lane.submit(self._work)
        try:
            while (message := self._next()) is not None:
                match message:
                    case _Shown():
                        data, size = encode_preview(message.pixels, self._size)
                        yield ImagePreview(
                            index=message.index,
                            step=message.step,
                            total=message.total,
                            data=data,
                            width=size[0],
                            height=size[1],
                        )
                    case _Made():
                        yield self._result(message)
                    case _:
                        raise message
        finally:
            self._over = True
            if not turn.cancel():
                wait([turn])

    def _next(self) -> _Shown | _Made | BaseException | None:
        while True:
            try:
                return self._mail.get(timeout=POLL)
            except queue.Empty:
                if not self._begun:  # from then on, every step looks
                    self._on_step(0, self._request.n * self._request.steps)

    def _result(self, made: _Made) -> ImageResult:
        request, image = self._request, made.image
        if request.safety and self._model.checker is not None and self._model.checker(image):
            raise InvalidInput("What was made of this prompt must not be shown.", field="prompt", code=REFUSED)
        if self._mask is not None:
            image = _kept(self._pictures[0], image, self._mask)
        seed = (request.seed or 0) + made.index
        facts = _facts(request, self._model.card, seed, image.size, made.speed)
        data = encode_image(image, request.format, request.compression, facts)
        return ImageResult(
            index=made.index, seed=seed, data=data, format=request.format, width=image.width, height=image.height
        )

    # ------------------------------------------------------------------ in the lane's thread

    def _work(self) -> None:
        self._begun = True
        outcome: BaseException | None = None
        try:
            with without_warnings():
                self._denoise()
        except BaseException as error:  # noqa: BLE001 - the request's own thread waits for it
            outcome = error
        self._before = None
        self._mail.put(outcome)

    def _denoise(self) -> None:
        weights = self._model.adapters.select(self._request.loras)
        tokens = max(1, self._size[0] * self._size[1] // PIXELS_PER_TOKEN)
        together = max(1, self._model.batch_tokens // tokens) if self._model.pipelines.batches else 1
        while self._finished < self._request.n:
            indices = range(self._finished, min(self._finished + together, self._request.n))
            self._batch(indices, weights)

    def _batch(self, indices: Sequence[int], weights: Hashable) -> None:
        """Make these images, with less and less memory if it runs out."""
        model = self._model
        one = self._size[0] * self._size[1]
        rung: str | None = model.memory.start(one * len(indices))
        while rung is not None:
            try:
                self._on_rung(rung, [index for index in indices if index >= self._finished], weights)
                return
            except (MemoryError, self._torch.OutOfMemoryError):
                logger.warning("out of memory: %s images of %sx%s, %s", len(indices), *self._size, rung, exc_info=True)
            together = len(indices) if rung == WHOLE else 1
            rung = model.memory.next(rung, one * together)
            if rung == SINGLE and together == 1:  # as it was
                rung = model.memory.next(rung, one)
            self._before = None
            model.pipelines.release()
        raise OutOfMemory("The model ran out of memory.")

    def _on_rung(self, rung: str, indices: Sequence[int], weights: Hashable) -> None:
        pipelines = self._model.pipelines
        for group in [indices] if rung == WHOLE else [[index] for index in indices]:
            pipe = pipelines.pipe(self._mode)
            pipelines.save_memory(pipe, rung)
            arguments = self._arguments(pipe, group, weights)
            self._before = None
            with pipelines.skipping(pipe, self._request.speed, self._request.steps) as skipped:
                images = pipe(**arguments).images
            self._finished += len(group)
            for index, image in zip(group, images, strict=True):
                self._mail.put(_Made(index, image, self._request.speed if skipped else "exact"))

    def _arguments(self, pipe: Any, group: Sequence[int], weights: Hashable) -> dict[str, Any]:
        request, call = self._request, self._model.call
        batch = len(group)
        known = call_parameters(pipe)
        by_true_guidance = "QwenImage" in type(pipe).__name__
        words = Words(
            request.prompt,
            request.negative_prompt if self._model.card.negative_prompts else "",
            (request.guidance or 0) > 1,
            call.get("max_sequence_length", 0),
        )
        arguments = {
            "width": self._size[0],
            "height": self._size[1],
            "max_area": self._size[0] * self._size[1],
            "num_inference_steps": request.steps,
            "true_cfg_scale" if by_true_guidance else "guidance_scale": request.guidance,
            "generator": [self._torch.Generator().manual_seed((request.seed or 0) + index) for index in group],
            "callback_on_step_end": lambda pipe, step, time, tensors: self._stepped(pipe, step, time, tensors, group),
            "strength": request.strength,
            **self._start(known, batch),
            **call,
        }
        with self._torch.no_grad():
            embeddings = self._model.prompts.embeddings(pipe, words, weights, batch)
        if embeddings is None:
            negative = words.negative or (" " if by_true_guidance and words.guided else None)
            embeddings = {"prompt": [words.prompt] * batch}
            if negative and words.guided:
                embeddings["negative_prompt"] = [negative] * batch
        return {name: value for name, value in (arguments | embeddings).items() if name in known and value is not None}

    def _start(self, known: frozenset[str], batch: int) -> dict[str, Any]:
        if self._mask:
            return {"image": self._pictures * batch, "mask_image": [self._mask] * batch}
        # A pipeline that has no strength does not begin with the image: it looks at it, whatever its size.
        pictures = self._pictures if "strength" in known else self._references
        return {"image": (pictures * batch if len(pictures) == 1 else pictures) or None}

    def _stepped(
        self, pipe: Any, step: int, timestep: Any, tensors: dict[str, Any], group: Sequence[int]
    ) -> dict[str, Any]:
        if self._over:
            raise _Abandoned
        total, done = pipe.num_timesteps, step + 1
        self._done = max(self._done, self._finished * total + done * len(group))  # it may be the second try
        self._on_step(self._done, self._request.n * total)
        index = self._pace.next(group, done, total)
        if index is not None:
            place = group.index(index)
            pixels = self._model.painter.paint(pipe, timestep, self._before, tensors["latents"], place, self._size)
            if pixels is not None:
                self._mail.put(_Shown(index, done, total, pixels))
        self._before = tensors["latents"]
        return tensors


class _Abandoned(Exception):
    """Nobody waits for the images any more."""


def _kept(original: Picture, painted: Picture, mask: Picture) -> Picture:
    """What was painted where the mask is white, and the original, not what the autoencoder made of it, elsewhere."""
    if painted.size != original.size:
        original, mask = covering(original, painted.size), covering(mask, painted.size)
    whole = original.copy()
    whole.paste(painted, mask=mask)
    return whole


def _facts(request: ImageRequest, card: Card, seed: int, size: Size, speed: str) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt,
        "seed": seed,
        "model": card.id,
        "steps": request.steps,
        "guidance": request.guidance,
        "size": f"{size[0]}x{size[1]}",
        "speed": speed,
        "sonoreel": version("sonoreel"),
    }
    if request.strength is not None:
        facts["strength"] = request.strength
    if request.loras:
        facts["loras"] = [{"name": Path(lora.path).stem, "scale": lora.scale} for lora in request.loras]
    return facts
