"""A scripted engine for tests of the worker and the pool: `engine="tests.fakes"`.

At load `card.options["load"]` says what happens: "" loads at once; "raise" fails; "memory" runs out of it;
"die" kills its own process; a path waits until that FIFO has been opened for writing and closed again.

A request's text (or a listening request's prompt) is a verb and its argument:

    say N          yields N chunks that begin with the samples 0..N-1, with a "*" each in the file options["trace"]
    wait PATH      yields one chunk, waits for a writer of the FIFO PATH to come and go, yields one more
    step           yields one chunk, then calls on_step for ever
    brush          yields one chunk, then calls on_step for a tenth of a second, and yields one more
    stubborn       yields one chunk, then waits for ever and never calls on_step
    raise          yields one chunk, then raises ValueError
    cuda           yields one chunk, then raises an OutOfMemoryError that is not Python's own
    memory         raises MemoryError
    invalid        raises InvalidInput for the field "voice"
    kill           yields one chunk, then kills its own process with SIGKILL
    exit           yields one chunk, then exits its own process with status 3
    garbage        yields one chunk, then writes bytes that are no message to the server, and waits for ever
    wrong          yields a chunk that is not float32
    echo           (listening) says how many samples each block had, then one settled segment with their sum
    deaf           (listening) never takes audio

An image's prompt is such a verb too, or "paint" (see `ScriptedPainter`), a clip's, or "film" (see `ScriptedFilmer`).

A recording is a text file: every line is a second of speech, and is heard when it has arrived. "bad" cannot be decoded.
A prompt comes back as the first segment, with everything else that was asked for. Speakers take turns, a second each.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from models.catalog import Card
from models.errors import InvalidInput
from models.interfaces import (
    DiarizationRequest,
    DiarizationResult,
    HypothesisUpdate,
    ImagePreview,
    ImageRequest,
    ImageResult,
    ListenRequest,
    MediaInfo,
    OnStep,
    Samples,
    SegmentResult,
    SpeechChunk,
    SpeechRequest,
    TranscriptionRequest,
    Voice,
)
from models.spool import SpoolReader, SpoolWriter
from models.video_interfaces import VideoFrames, VideoRequest
from streaming.transcript import Hypothesis, Segment, SpeakerTurn, Word

PCM_SECOND = bytes(2 * 16_000)


class OutOfMemoryError(RuntimeError):
    """Named as torch names its own."""


class ScriptedEngine:
    """Does what each request's text tells it to."""

    def __init__(self, card: Card) -> None:
        self._trace = card.options.get("trace")

    def voices(self) -> list[Voice]:
        return [Voice("one", "One", ("en",)), Voice("two", "Two")]

    def synthesize(self, request: SpeechRequest, on_step: OnStep) -> Iterator[SpeechChunk]:
        verb, *arguments = request.text.split()
        if verb == "say":
            for number in range(int(arguments[0])):
                self._leave_trace("*")
                on_step(number, int(arguments[0]))
                yield chunk(number)
            return
        if verb == "memory":
            raise MemoryError
        if verb == "invalid":
            raise InvalidInput("no such voice", field="voice")
        if verb == "wrong":
            yield SpeechChunk(np.zeros(1), 16_000)
            return
        try:
            yield chunk(0)
            misbehave(verb, arguments, on_step)
            yield chunk(1)
        finally:
            self._leave_trace("closed")

    def listen(
        self, request: ListenRequest, audio: Iterator[Samples], on_step: OnStep
    ) -> Iterator[HypothesisUpdate | SegmentResult]:
        if request.prompt == "deaf":
            while True:
                threading.Event().wait(0.01)
                on_step(0, None)
        heard = 0
        for block in audio:
            heard += len(block)
            yield HypothesisUpdate(Hypothesis((Word(str(len(block)), 0.0, 0.0),)))
        yield SegmentResult(Segment(str(heard), 0.0, 0.0))

    def _leave_trace(self, mark: str) -> None:
        if self._trace:
            with Path(self._trace).open("a") as trace:
                trace.write(mark)


class ScriptedScribe(ScriptedEngine):
    """Writes recordings down, and tells who speaks in them."""

    def transcribe(self, request: TranscriptionRequest, on_step: OnStep) -> Iterator[MediaInfo | SegmentResult]:
        yield MediaInfo(0.0, "en")
        with ExitStack() as stack:
            pcm = stack.enter_context(SpoolWriter(Path(request.pcm_path))) if request.pcm_path else None
            if request.prompt:
                channels = "split" if request.split_channels else "mix"
                yield SegmentResult(Segment(f"{request.task} {request.language} {channels} {request.prompt}", 0, 0))
            second = 0
            spool = stack.enter_context(SpoolReader(Path(request.path), lambda: on_step(second, 60)))
            for line in io.BufferedReader(spool):
                if line == b"bad\n":
                    raise InvalidInput("That is no recording.", field="file")
                words = [Word(text, second, second + 1) for text in line.decode().split()]
                yield SegmentResult(Segment(line.decode(), second, second + 1, tuple(words)))
                second += 1
                on_step(second, 60)
                if pcm:
                    pcm.write(PCM_SECOND)
        yield MediaInfo(float(second), "en")

    def diarize(self, request: DiarizationRequest, on_step: OnStep) -> Iterator[DiarizationResult]:
        with SpoolReader(Path(request.pcm_path), lambda: on_step(0, None)) as spool:
            seconds = len(spool.read()) // len(PCM_SECOND)
        number = request.num_speakers or request.max_speakers or 2
        names = [each.name for each in request.known_speakers]
        names += [f"SPEAKER_{index:02}" for index in range(number - len(names))]
        turns = tuple(SpeakerTurn(names[second % len(names)], second, second + 1) for second in range(seconds))
        yield DiarizationResult(turns, turns)


class ScriptedPainter(ScriptedEngine):
    """Paints squares. The prompt is a verb: "paint" does so, taking `steps` steps; the others are those of speech.

    Every attempt adds a line to the file options["trace"].
    """

    def generate(self, request: ImageRequest, on_step: OnStep) -> Iterator[ImagePreview | ImageResult]:
        self._leave_trace(f"{request.prompt}\n")
        verb, *arguments = request.prompt.split()
        if verb == "invalid":
            raise InvalidInput("no such thing can be painted", field="prompt")
        if verb == "memory":
            raise MemoryError
        width, height = request.width or 8, request.height or 8
        for index in range(request.n):
            for step in range(request.steps):
                on_step(index * request.steps + step, request.n * request.steps)
                if step == 0:
                    yield ImagePreview(
                        index=index, step=1, total=request.steps, data=square("jpeg", 8, 8), width=8, height=8
                    )
            if verb != "paint":
                misbehave(verb, arguments, on_step)
            data = square(request.format, width, height)
            yield ImageResult(
                index=index,
                seed=(request.seed or 0) + index,
                data=data,
                format=request.format,
                width=width,
                height=height,
            )


class ScriptedFilmer(ScriptedEngine):
    """Films a grey that brightens frame by frame; a picture of the first frame is that frame.

    The prompt is a verb: "film" does so; others happen between two steps, or half way through the frames when they
    come after "decode". Every attempt adds a line to the file options["trace"].
    """

    def generate(self, request: VideoRequest, on_step: OnStep) -> Iterator[ImagePreview | VideoFrames]:
        self._leave_trace(f"{request.prompt}\n")
        verb, *arguments = request.prompt.split()
        if verb == "invalid":
            raise InvalidInput("no such thing can be filmed", field="prompt")
        if verb == "memory":
            raise MemoryError
        late = verb == "decode"
        total = request.steps + request.frames
        for step in range(request.steps):
            on_step(step + 1, total)
            if step == 0 and request.previews:
                yield ImagePreview(index=0, step=1, total=request.steps, data=square("jpeg", 8, 8), width=8, height=8)
            if step == 0 and not late and verb != "film":
                misbehave(verb, arguments, partial(_stay, on_step, step + 1, total))
        for frame in range(request.frames):
            if late and frame == request.frames // 2:
                misbehave(arguments[0], arguments[1:], partial(_stay, on_step, request.steps + frame, total))
            yield VideoFrames(self._frame(request, frame))
            on_step(request.steps + frame + 1, total)

    def _frame(self, request: VideoRequest, frame: int) -> npt.NDArray[np.uint8]:
        size = request.width, request.height
        if frame == 0 and request.frame_images:
            with Image.open(request.frame_images[0].path) as picture:
                return np.asarray(picture.convert("RGB").resize(size))[np.newaxis]
        grey = (request.seed or 0) % 64 + 128 * frame // request.frames
        return np.full((1, size[1], size[0], 3), grey, np.uint8)


def _stay(on_step: OnStep, at: float, total: float, done: float, of: float | None) -> None:
    """An `on_step` for misbehaviour in the middle of a work."""
    on_step(at, total)


def square(format: str, width: int, height: int) -> bytes:
    """A red square, encoded."""
    file = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(file, format)
    return file.getvalue()


def misbehave(verb: str, arguments: list[str], on_step: OnStep) -> None:
    match verb:
        case "wait":
            wait_for_writer(arguments[0])
        case "step":
            while True:
                on_step(0, None)
                threading.Event().wait(0.001)
        case "brush":
            for step in range(20):
                on_step(step, 20)
                threading.Event().wait(0.005)
        case "stubborn":
            threading.Event().wait()
        case "raise":
            raise ValueError("something secret about the text")
        case "cuda":
            raise OutOfMemoryError("CUDA out of memory")
        case "garbage":
            server = int(sys.argv[sys.argv.index("--fd") + 1])
            os.write(server, b"\xff" * 8)
            threading.Event().wait()
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            os._exit(3)


def chunk(number: int) -> SpeechChunk:
    """A sample that tells the number, and a moment of sound: of silence a session cannot know that it will be heard."""
    samples = np.full(320, 0.5, np.float32)
    samples[0] = number
    return SpeechChunk(samples, 16_000)


def wait_for_writer(fifo: str) -> None:
    with open(fifo, "rb") as gate:  # opening blocks until there is a writer, reading until it has gone
        gate.read()


def load(card: Card) -> ScriptedEngine:
    """The entry point of an engine module."""
    match card.options.get("load", ""):
        case "":
            pass
        case "raise":
            raise RuntimeError("a secret about this machine")
        case "memory":
            raise OutOfMemoryError("CUDA out of memory")
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case fifo:
            wait_for_writer(fifo)
    engines = {"speech": ScriptedEngine, "image": ScriptedPainter, "video": ScriptedFilmer}
    return engines.get(card.task, ScriptedScribe)(card)
