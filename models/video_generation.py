"""One request to a video model, from words and pictures to frames.

One thread, the model's lane, runs the pipelines and the autoencoder, a request after the other. It is a few pieces of
frames ahead of whoever reads them, and no further: a clip is never in memory as a whole.
"""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable, Hashable, Iterator, Mapping
from concurrent.futures import Executor, wait
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from models.catalog import Card
from models.diffusion_loras import Adapters
from models.diffusion_memory import MemoryLadder
from models.diffusion_pipelines import OWN_CONTEXTS, call_parameters
from models.diffusion_previews import LatentPainter, PreviewPace
from models.diffusion_prompts import PromptCache, Words
from models.errors import OutOfMemory
from models.image_files import Picture, covering, encode_preview
from models.image_rules import Size
from models.interfaces import ImagePreview, OnStep
from models.torch_runtime import import_torch, without_warnings
from models.video_decoding import decoded, pixels
from models.video_interfaces import VideoFrames, VideoRequest
from models.video_latents import Grid, for_decoder, grid_of, leading_frames, unpacked
from models.video_pipelines import VideoPipelines, picture_arguments

logger = logging.getLogger("sonoreel.diffusion")

POLL = 0.05
"""Seconds within which a cancelled request notices while it waits for its turn, or for somebody to take its frames."""
PIECES_AHEAD = 4

Speed: TypeAlias = Literal["exact", "balanced", "fast"]


@dataclass(frozen=True)
class VideoModel:
    """A loaded model, and what its requests share. `negative` is what requests that say nothing do not want to see."""

    card: Card
    pipelines: VideoPipelines
    adapters: Adapters
    prompts: PromptCache
    memory: MemoryLadder
    lane: Executor
    clock: Callable[[], float]
    call: dict[str, Any] = field(default_factory=dict)
    negative: str = ""
    painter: LatentPainter = field(default_factory=LatentPainter)


@dataclass(frozen=True, slots=True)
class _Shown:
    """A preview before it is a file."""

    step: int
    total: int
    pixels: npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class _Latents:
    """A clip that is denoised, ready for the autoencoder; `leading` frames of it were not asked for."""

    tensor: Any
    timestep: Any
    leading: int
    speed: Speed


class VideoGeneration:
    """One request: the lane's thread makes frames, the request's own takes them."""

    def __init__(
        self, model: VideoModel, request: VideoRequest, pictures: Mapping[int, Picture], on_step: OnStep
    ) -> None:
        self._model = model
        self._torch = import_torch()
        self._request = request
        self._size: Size = request.width, request.height
        self._pictures = {place: covering(picture, self._size) for place, picture in pictures.items()}
        self._on_step = on_step
        self._mail: queue.Queue[_Shown | VideoFrames | BaseException | None] = queue.Queue(PIECES_AHEAD)
        self._pace = PreviewPace(request.steps if request.previews else 0, model.clock)
        self._begun = False
        self._over = False
        self._done = 0
        self._frames = 0
        self._before: Any = None
        self._last: Any = None
        self._latents: _Latents | None = None

    def results(self) -> Iterator[ImagePreview | VideoFrames]:
        """Yield what comes, to the end."""
        turn = self._model.lane.submit(self._work)
        try:
            while (message := self._next()) is not None:
                match message:
                    case _Shown():
                        yield self._preview(message)
                    case VideoFrames():
                        yield message
                    case _:
                        raise message
        finally:
            self._over = True
            if not turn.cancel():
                wait([turn])

    def _next(self) -> _Shown | VideoFrames | BaseException | None:
        while True:
            try:
                return self._mail.get(timeout=POLL)
            except queue.Empty:
                if not self._begun:  # from then on, every step looks
                    self._tell(0)

    def _preview(self, shown: _Shown) -> ImagePreview:
        data, size = encode_preview(shown.pixels, self._size)
        return ImagePreview(index=0, step=shown.step, total=shown.total, data=data, width=size[0], height=size[1])

    def _tell(self, done: int) -> None:
        if self._over:
            raise _Abandoned
        self._done = max(self._done, done)  # it may be the second try
        self._on_step(self._done, self._request.steps + self._request.frames)

    # ------------------------------------------------------------------ in the lane's thread

    def _work(self) -> None:
        self._begun = True
        outcome: BaseException | None = None
        try:
            with without_warnings(), self._torch.no_grad():
                self._make(self._model.adapters.select(self._request.loras))
        except BaseException as error:  # noqa: BLE001 - the request's own thread waits for it
            outcome = error
        self._before = self._last = self._latents = None
        self._post(outcome)

    def _post(self, message: _Shown | VideoFrames | BaseException | None) -> None:
        while not self._over:
            try:
                self._mail.put(message, timeout=POLL)
                return
            except queue.Full:
                continue

    def _make(self, weights: Hashable) -> None:
        """Make the clip, with less and less memory if it runs out. What has been made so far is not made again."""
        model, request = self._model, self._request
        cost = request.width * request.height * request.frames
        rung: str | None = model.memory.start(cost)
        while rung is not None:
            try:
                model.pipelines.save_memory(rung)
                if self._latents is None:
                    self._latents = self._denoise(weights)
                self._decode(self._latents)
                return
            except (MemoryError, self._torch.OutOfMemoryError):
                logger.warning(
                    "out of memory: %s frames of %sx%s, %s", request.frames, *self._size, rung, exc_info=True
                )
            rung = model.memory.next(rung, cost)
            self._before = self._last = None
            model.pipelines.release()
        raise OutOfMemory("The model ran out of memory.")

    def _denoise(self, weights: Hashable) -> _Latents:
        request, model = self._request, self._model
        pipe = model.pipelines.pipe(self._pictures)
        leading = leading_frames(pipe)
        grid = grid_of(pipe, request.frames + leading, self._size)
        generator = self._torch.Generator().manual_seed(request.seed or 0)
        arguments = self._arguments(pipe, grid, generator, weights)
        self._before = None
        with model.pipelines.skipping(pipe, self._speed(pipe, arguments), request.steps) as skipped:
            latents = pipe(**arguments).frames
        if leading:  # the pipeline leaves latents out that the autoencoder needs
            latents = self._last
        latents = unpacked(pipe, latents, grid)
        tensor, timestep = for_decoder(pipe, latents, generator, model.call)
        return _Latents(tensor, timestep, leading, request.speed if skipped else "exact")

    def _speed(self, pipe: Any, arguments: Mapping[str, Any]) -> Speed:
        """What is cached with the prompt must not be taken for what is without it, and not every pipeline tells."""
        both = "true_cfg_scale" in arguments and "negative_prompt" in arguments
        return "exact" if both and not type(pipe).__name__.startswith(OWN_CONTEXTS) else self._request.speed

    def _arguments(self, pipe: Any, grid: Grid, generator: Any, weights: Hashable) -> dict[str, Any]:
        request, call = self._request, self._model.call
        known = call_parameters(pipe)
        by_true_guidance = "true_cfg_scale" in known
        negative = request.negative_prompt or self._model.negative if self._model.card.negative_prompts else ""
        guidance = call.get("true_cfg_scale", 1.0) if by_true_guidance else request.guidance or 0.0
        guided = guidance > 1 and bool(negative or not by_true_guidance)
        words = Words(request.prompt, negative, guided, call.get("max_sequence_length", 0))
        arguments = {
            "width": self._size[0],
            "height": self._size[1],
            "num_frames": request.frames + leading_frames(pipe),
            "frame_rate": request.fps,
            "num_inference_steps": request.steps,
            "guidance_scale": request.guidance,
            "generator": generator,
            "output_type": "latent",
            "callback_on_step_end": lambda pipe, step, time, tensors: self._stepped(pipe, step, time, tensors, grid),
            **picture_arguments(pipe, self._pictures, request.frames),
            **call,
        }
        embeddings = None
        if "prompt_template" not in call:  # what words are set in; only the pipeline's call knows how
            embeddings = self._model.prompts.embeddings(pipe, words, weights, 1)
        if embeddings is None:
            embeddings = {"prompt": words.prompt} | ({"negative_prompt": negative} if guided else {})
        return {name: value for name, value in (arguments | embeddings).items() if name in known and value is not None}

    def _stepped(self, pipe: Any, step: int, timestep: Any, tensors: dict[str, Any], grid: Grid) -> dict[str, Any]:
        total, done = pipe.num_timesteps, step + 1
        self._tell(done * self._request.steps // total)  # fixed timesteps may be fewer or more than steps
        latents = tensors["latents"]
        if self._pace.next((0,), done, total) is not None:
            before = None if self._before is None else _middle(pipe, self._before, grid)
            after = _middle(pipe, latents, grid)
            shown = self._model.painter.paint(pipe, timestep, before, after, 0, self._size)
            if shown is not None:
                self._post(_Shown(done, total, shown))
        self._before = self._last = latents
        return tensors

    def _decode(self, latents: _Latents) -> None:
        """Post the frames that have not been posted before."""
        request, vae = self._request, self._model.pipelines.base.vae

        def look(*_: Any) -> None:
            self._tell(request.steps + self._frames)

        # Some of the work goes on for long without a frame.
        hooks = [part.register_forward_pre_hook(look) for part in (vae.decoder, *vae.decoder.up_blocks)]
        try:
            seen = -latents.leading
            with closing(decoded(vae, latents.tensor, latents.timestep)) as pieces:
                for piece in pieces:
                    new = piece[:, :, max(self._frames - seen, 0) : request.frames - seen]
                    seen += piece.shape[2]
                    if new.shape[2]:
                        self._frame(VideoFrames(pixels(new), latents.speed))
        finally:
            for hook in hooks:
                hook.remove()

    def _frame(self, frames: VideoFrames) -> None:
        for _ in frames.pixels:
            self._frames += 1
            self._tell(self._request.steps + self._frames)
        self._post(frames)


class _Abandoned(Exception):
    """Nobody waits for the frames any more."""


def _middle(pipe: Any, latents: Any, grid: Grid) -> Any:
    """The middle frame of latents on their way, shape (1, channels, height, width)."""
    return unpacked(pipe, latents, grid)[:1, :, grid.frames // 2]
