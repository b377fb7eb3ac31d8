"""What an engine is: one-method protocols, and the requests and results they exchange.

Engines are plain synchronous generators that live in a worker process. An engine module `models/engines/<family>.py`
exposes `load(card: Card) -> object`, and the object implements the protocols of its task. Requests and results cross
a process line as msgpack, so they are frozen and hold only plain values, numpy float32 arrays and dataclasses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal, Protocol, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from models.lora_weights import LoraWeights
from models.video_interfaces import VideoRequest, VideoResult
from streaming.transcript import Hypothesis, Segment, SpeakerTurn

Samples: TypeAlias = npt.NDArray[np.float32]
"""Mono float32 samples in -1..1, shape (n,)."""

OnStep: TypeAlias = Callable[[float, float | None], None]
"""`on_step(done, total)`: progress and cancellation in one. Raises `Cancelled` when the work must stop."""


class Voice(msgspec.Struct, frozen=True):
    """A voice a speech engine offers. `languages` are BCP 47 tags, best first."""

    id: str
    name: str
    languages: tuple[str, ...] = ()


class WordTiming(msgspec.Struct, frozen=True, array_like=True):
    """When `request.text[start_char:end_char]` is heard, in seconds from the first sample of the request."""

    start_char: int
    end_char: int
    start: float
    end: float


class SpeechRequest(msgspec.Struct, frozen=True, tag="speech"):
    """Text to speak. `voice` is one of the engine's own voice ids; `speed` 1.0 is the voice's normal rate.

    `instructions` on how to speak, and the `extra_params` its card names, are only for engines that take them.
    """

    text: str
    voice: str
    language: str = ""
    speed: float = 1.0
    instructions: str = ""
    extra_params: dict[str, Any] = {}


class SpeechChunk(msgspec.Struct, frozen=True, tag="speech_chunk"):
    """The next samples of an utterance, with the words that became known with them (in order, each once)."""

    samples: np.ndarray
    sample_rate: int
    words: tuple[WordTiming, ...] = ()


class TranscriptionRequest(msgspec.Struct, frozen=True, kw_only=True, tag="transcription"):
    """A whole recording to transcribe, in any container libav reads.

    `path` is a file on this machine, or a spool that is still growing (`models.spool`). `task` "translate" means into
    English. An empty `language` asks for detection. `temperature` 0 falls back to higher ones when the text looks bad.
    Without `segment_timestamps` segments may be as long as 30 s and a little faster to have.
    `split_channels` transcribes every channel by itself. `pcm_path` asks for a copy of the decoded audio there, as a
    spool of 16 kHz mono s16le, for a diarizer that runs beside.
    """

    path: str
    task: Literal["transcribe", "translate"] = "transcribe"
    language: str = ""
    prompt: str = ""
    temperature: float = 0.0
    word_timestamps: bool = False
    segment_timestamps: bool = True
    split_channels: bool = False
    pcm_path: str = ""


class KnownSpeaker(msgspec.Struct, frozen=True):
    """A name and a clip (a media file) of that person's voice alone."""

    name: str
    path: str


class DiarizationRequest(msgspec.Struct, frozen=True, kw_only=True, tag="diarization"):
    """Who speaks when, in a spool of 16 kHz mono s16le (`TranscriptionRequest.pcm_path`).

    Counts of 0 mean unknown. A speaker who sounds like a known one gets that name; others are called SPEAKER_00,
    SPEAKER_01, ... in order of appearance.
    """

    pcm_path: str
    num_speakers: int = 0
    min_speakers: int = 0
    max_speakers: int = 0
    known_speakers: tuple[KnownSpeaker, ...] = ()


class DiarizationResult(msgspec.Struct, frozen=True, tag="diarization_result"):
    """`turns` may overlap; `exclusive` never do, and are the ones to assign words by. Both are in order of start."""

    turns: tuple[SpeakerTurn, ...]
    exclusive: tuple[SpeakerTurn, ...]


class VoicesRequest(msgspec.Struct, frozen=True, kw_only=True, tag="voices"):
    """What do the voices sound like? In `samples`, a stretch of speech (16 kHz mono), window by window; or in the media
    file at `path`, a clip of one person, as a whole.
    """

    samples: np.ndarray = np.zeros(0, np.float32)
    path: str = ""


class VoicesResult(msgspec.Struct, frozen=True, tag="voices_result"):
    """Windows that follow one another: window i is from `edges[i]` to `edges[i + 1]` seconds and has the unit vector
    `vectors[i]` of shape (d,), laid out in one row. `clear`: it is long enough to find voices by.
    """

    edges: tuple[float, ...]
    vectors: np.ndarray
    clear: tuple[bool, ...]


class ListenRequest(msgspec.Struct, frozen=True, tag="listen"):
    """One turn of live speech; its audio (16 kHz mono) is fed while it is being spoken.

    `adaptation` is what the engine had learnt about the session's voice and line by the turn before, in its own form.
    """

    language: str = ""
    prompt: str = ""
    adaptation: bytes = b""


class HypothesisUpdate(msgspec.Struct, frozen=True, tag="hypothesis"):
    """A newer belief about the turn being heard; word times are seconds from the turn's first sample.

    `lag` tells how far a busy engine is behind: seconds of the turn that it had not listened to for this when it told,
    and those by which it looks at the turn less often than it would if it could.
    """

    hypothesis: Hypothesis
    lag: float = 0.0


class SegmentResult(msgspec.Struct, frozen=True, tag="segment"):
    """A settled stretch of text. For a live turn: exactly one, last, covering the turn.

    `adaptation` is for the session's next `ListenRequest`.
    """

    segment: Segment
    adaptation: bytes = b""


class MediaInfo(msgspec.Struct, frozen=True, tag="media_info"):
    """First item of a transcription: what the recording is. `duration` in seconds may be refined at the end."""

    duration: float
    language: str


class ImageRequest(msgspec.Struct, frozen=True, kw_only=True, tag="image"):
    """Pictures to make of a prompt, or of a prompt and pictures.

    Zeros, and None for `guidance` and `strength`, mean the model's own choice; a `seed` of None is drawn. Image i of
    `n` has the seed `seed + i`, and is what a request for that seed alone would give. `image_paths` are files to start
    from, to edit or to refer to, as the model does. `mask_path` names what to paint anew in the first of them: where
    its alpha is 0, or, in a file without alpha, where it is white; it has the size of that image. `strength` 0..1 is
    how far the result may go from it. `compression` is the quality, 1 to 100, of JPEG and WebP.

    `speed` "exact" changes nothing about the result; the others allow a model to skip work, for a little of its
    quality. `previews` is the most an image may have on its way; fewer come of fast ones. Without `safety` no checker
    looks at the results.
    """

    prompt: str
    negative_prompt: str = ""
    n: int = 1
    width: int = 0
    height: int = 0
    steps: int = 0
    guidance: float | None = None
    seed: int | None = None
    format: Literal["png", "jpeg", "webp"] = "png"
    compression: int = 0
    image_paths: tuple[str, ...] = ()
    mask_path: str = ""
    strength: float | None = None
    loras: tuple[LoraWeights, ...] = ()
    speed: Literal["exact", "balanced", "fast"] = "exact"
    previews: int = 0
    safety: bool = True


class ImagePreview(msgspec.Struct, frozen=True, kw_only=True, tag="image_preview"):
    """What image `index` looks like after `step` of `total` steps: a small JPEG, coarse in colour and detail."""

    index: int
    step: int
    total: int
    data: bytes
    width: int
    height: int


class ImageResult(msgspec.Struct, frozen=True, kw_only=True, tag="image_result"):
    """Image `index`, whole: an encoded file, which also says how it was made."""

    index: int
    seed: int
    data: bytes
    format: str
    width: int
    height: int


EngineRequest: TypeAlias = (
    SpeechRequest
    | TranscriptionRequest
    | ListenRequest
    | DiarizationRequest
    | VoicesRequest
    | ImageRequest
    | VideoRequest
)
EngineResult: TypeAlias = (
    SpeechChunk
    | HypothesisUpdate
    | SegmentResult
    | MediaInfo
    | DiarizationResult
    | VoicesResult
    | ImagePreview
    | ImageResult
    | VideoResult
)


class SpeechSynthesizer(Protocol):
    """Speaks text."""

    def synthesize(self, request: SpeechRequest, on_step: OnStep) -> Iterator[SpeechChunk]:
        """Yield audio as it is made. Closing the generator stops the work.

        Raises: InvalidInput for a voice, language or speed it does not have; Cancelled from `on_step`.
        """
        ...

    def voices(self) -> list[Voice]:
        """Every voice this engine can speak with."""
        ...


class Transcriber(Protocol):
    """Writes down a recording."""

    def transcribe(self, request: TranscriptionRequest, on_step: OnStep) -> Iterator[MediaInfo | SegmentResult]:
        """Yield one MediaInfo, then segments in order; `on_step(seconds done, seconds total)`.

        Raises: InvalidInput when the file cannot be decoded or holds no audio; Cancelled from `on_step`.
        """
        ...


class LiveAudio(Iterator[Samples], Protocol):
    """Blocks of a turn while it is being spoken: waits for the next, and ends with the turn."""

    @property
    def pausing(self) -> bool:
        """Whether the speaker was silent in the block taken last, so long that the turn may be over.

        If nothing more is said, the turn will have ended with the speech before: what can be made of that may be made
        now. Speech in a later block makes it false again.
        """
        ...


class LiveTranscriber(Protocol):
    """Writes down a turn while it is being spoken."""

    def listen(
        self, request: ListenRequest, audio: LiveAudio, on_step: OnStep
    ) -> Iterator[HypothesisUpdate | SegmentResult]:
        """Read 16 kHz blocks until `audio` ends; yield hypotheses meanwhile and one SegmentResult at the end."""
        ...


class Diarizer(Protocol):
    """Tells who speaks when."""

    def diarize(self, request: DiarizationRequest, on_step: OnStep) -> Iterator[DiarizationResult]:
        """Yield exactly one result; `on_step(seconds done, seconds total)`.

        Raises: InvalidInput for impossible counts or a reference clip without speech; Cancelled from `on_step`.
        """
        ...


class VoiceEncoder(Protocol):
    """Tells what voices sound like, so that they can be compared."""

    def encode_voices(self, request: VoicesRequest, on_step: OnStep) -> Iterator[VoicesResult]:
        """Yield exactly one result.

        Raises: InvalidInput for a clip that cannot be decoded or holds no speech; Cancelled from `on_step`.
        """
        ...


class ImageGenerator(Protocol):
    """Makes pictures."""

    def generate(self, request: ImageRequest, on_step: OnStep) -> Iterator[ImagePreview | ImageResult]:
        """Yield previews as they come and every image once it is ready, in order of their index.

        `on_step(steps done, steps total)` counts over all images of the request.

        Raises: InvalidInput, whose `field` is the request's, and whose `code` is `content_policy_violation` when a
        checker refused what was made; Cancelled from `on_step`.
        """
        ...
